//! A subscriber that misses nothing: MQTT 3.1.1, QoS 2, a persistent session, connected again whenever the broker
//! is there. What it acknowledges it has kept.

use std::collections::HashSet;
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::oracle::{Arrival, Ledger, Tally, arrival};
use super::packets::{Packet, Publish, text, write};
use super::{LONG, unique, wait_for, wait_until};

/// It ends with the value.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: Vec<Publish>,
    subscribed: bool,
    stopping: bool,
    socket: Option<TcpStream>,
}

impl Subscriber {
    /// Returns once the subscription stands.
    pub(crate) fn start(port: u16, filter: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, filter, name) = (shared.clone(), filter.to_owned(), unique("subscriber"));
        let thread = std::thread::spawn(move || {
            let mut released = HashSet::new();
            while !theirs.state.lock().expect("no panic").stopping {
                let _ = session(port, &filter, &name, &theirs, &mut released);
                sleep(Duration::from_millis(10));
            }
        });
        let subscriber = Self { shared, thread: Some(thread) };
        wait_until("subscribed", || (), || subscriber.shared.state.lock().expect("no panic").subscribed);
        subscriber
    }

    /// All there is so far, in the order of arrival.
    pub(crate) fn messages(&self) -> Vec<Publish> {
        self.shared.state.lock().expect("no panic").messages.clone()
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.state.lock().expect("no panic").messages.iter().map(|m| arrival(&m.payload)).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.state.lock().expect("no panic").messages.len()
    }

    fn topics(&self) -> Vec<String> {
        self.messages().into_iter().map(|message| message.topic).collect()
    }

    /// Waits for so many messages.
    pub(crate) fn wait_count(&self, count: usize) -> Vec<Publish> {
        let look = || Some(self.messages()).filter(|messages| messages.len() >= count);
        wait_for(&format!("{count} messages"), LONG, || self.topics(), look)
    }

    /// Waits until all that was written has arrived.
    pub(crate) fn wait_complete(&self, ledger: &Ledger) -> Tally {
        let tally = || ledger.tally(&self.arrivals());
        let enough = ledger.written();
        wait_for("everything written has arrived", LONG * 3, tally, || {
            // Cheap first: comparing all costs more than looking.
            (self.count() >= enough).then(tally).filter(Tally::complete)
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let socket = {
            let mut state = self.shared.state.lock().expect("no panic");
            state.stopping = true;
            state.socket.take()
        };
        if let Some(socket) = socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn session(port: u16, filter: &str, name: &str, shared: &Shared, taken: &mut HashSet<u16>) -> io::Result<()> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    {
        let mut state = shared.state.lock().expect("no panic");
        if state.stopping {
            return Ok(());
        }
        state.socket = Some(socket.try_clone()?);
    }
    let mut out = socket.try_clone()?;
    let mut incoming = BufReader::with_capacity(64 << 10, socket);
    // Level 4, clean session false, keep-alive off.
    let connect = [text("MQTT"), vec![4, 0, 0, 0], text(name)].concat();
    write(&mut out, 0x10, &connect)?;
    let granted = Packet::read(&mut incoming)?;
    if granted.body.get(1) != Some(&0) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    write(&mut out, 0x82, &[vec![0, 1], text(filter), vec![2]].concat())?;
    loop {
        let packet = Packet::read(&mut incoming)?;
        match packet.kind() {
            3 => {
                let publish = Publish::parse(&packet, 4);
                let id = publish.identifier.to_be_bytes();
                let first = if publish.qos == 2 { taken.insert(publish.identifier) } else { true };
                let qos = publish.qos;
                if first {
                    shared.state.lock().expect("no panic").messages.push(publish);
                }
                match qos {
                    1 => write(&mut out, 0x40, &id)?,
                    2 => write(&mut out, 0x50, &id)?,
                    _ => {}
                }
            }
            6 => {
                taken.remove(&packet.identifier());
                write(&mut out, 0x70, &packet.identifier().to_be_bytes())?;
            }
            9 => shared.state.lock().expect("no panic").subscribed = true,
            _ => {}
        }
    }
}
