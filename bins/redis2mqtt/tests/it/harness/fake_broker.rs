//! A broker that does as it is told: for what Mosquitto cannot be brought to do, and as a destination that has kept
//! every message before it confirms it, whatever is killed.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::oracle::{Arrival, Ledger, Tally, arrival};
use super::packets::{Packet, Publish, variable, write};
use super::{LONG, free_port, wait_for};

/// What becomes of a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Kept, and confirmed.
    Take,
    /// Kept, and confirmed after a while.
    TakeAfter(Duration),
    /// Kept, and never confirmed.
    Silence,
    /// PUBACK with this reason code (MQTT 5).
    Code(u8),
    /// The connection is closed without a word.
    HangUp,
    /// DISCONNECT with this reason code (MQTT 5), then closed.
    Disconnect(u8),
}

/// What it tells a client, and whether it takes version 5.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) only_four: bool,
    pub(crate) receive_max: Option<u16>,
    pub(crate) max_packet: Option<u32>,
}

/// One PUBLISH as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) level: u8,
    pub(crate) publish: Publish,
    pub(crate) arrival: Arrival,
    pub(crate) answer: Answer,
}

type Script = Box<dyn Fn(&Publish, &Arrival) -> Answer + Send + Sync>;

/// It ends with the value.
pub(crate) struct FakeBroker {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    manners: Manners,
    script: Mutex<Script>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    down: bool,
    connections: usize,
    sockets: HashMap<usize, TcpStream>,
    seen: Vec<Seen>,
    outstanding: usize,
    most_outstanding: usize,
    refused_versions: usize,
}

impl FakeBroker {
    /// Takes everything.
    pub(crate) fn start() -> Self {
        Self::with(Manners::default(), |_, _| Answer::Take)
    }

    pub(crate) fn with(
        manners: Manners,
        script: impl Fn(&Publish, &Arrival) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let script = Mutex::new(Box::new(script) as Script);
        let shared = Arc::new(Shared { manners, script, state: Mutex::default() });
        let mut broker = Self { port: free_port(), shared, accepting: None };
        broker.up();
        broker
    }

    /// From now on it does as this says.
    pub(crate) fn script(&self, script: impl Fn(&Publish, &Arrival) -> Answer + Send + Sync + 'static) {
        *self.shared.script.lock().expect("no panic") = Box::new(script);
    }

    /// Takes connections (again).
    pub(crate) fn up(&mut self) {
        // Another test's child has whatever was open here when it was forked, for the moment until it is the bridge.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok();
        let listener = wait_for("the port is ours", LONG, || self.port, bind);
        listener.set_nonblocking(true).expect("a listener");
        self.shared.state.lock().expect("no panic").down = false;
        let shared = self.shared.clone();
        self.accepting = Some(std::thread::spawn(move || {
            while !shared.state.lock().expect("no panic").down {
                match listener.accept() {
                    Ok((socket, _)) => {
                        socket.set_nonblocking(false).expect("a socket");
                        let shared = shared.clone();
                        std::thread::spawn(move || serve(socket, &shared));
                    }
                    Err(_) => sleep(Duration::from_millis(3)),
                }
            }
        }));
    }

    /// Gone, as after `kill -9`: connections are cut, new ones refused. What it kept it has.
    pub(crate) fn down(&mut self) {
        self.shared.state.lock().expect("no panic").down = true;
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        for (_, socket) in self.shared.state.lock().expect("no panic").sockets.drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Every PUBLISH so far, taken or not.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().expect("no panic").seen.clone()
    }

    /// What it kept, in the order of arrival.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        let kept =
            |seen: &&Seen| matches!(seen.answer, Answer::Take | Answer::TakeAfter(_) | Answer::Silence);
        self.shared
            .state
            .lock()
            .expect("no panic")
            .seen
            .iter()
            .filter(kept)
            .map(|s| s.arrival.clone())
            .collect()
    }

    /// Connections that were accepted with a CONNACK of success, and those of version 5 that were not.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let state = self.shared.state.lock().expect("no panic");
        (state.connections, state.refused_versions)
    }

    /// The most publishes that waited for their confirmation at once.
    pub(crate) fn most_outstanding(&self) -> usize {
        self.shared.state.lock().expect("no panic").most_outstanding
    }

    /// Waits until all that was written is kept.
    pub(crate) fn wait_complete(&self, ledger: &Ledger) -> Tally {
        let tally = || ledger.tally(&self.arrivals());
        wait_for("everything written has arrived", LONG * 3, tally, || Some(tally()).filter(Tally::complete))
    }

    /// Waits until so many have been seen.
    pub(crate) fn wait_seen(&self, count: usize) -> Vec<Seen> {
        let ids = || self.seen().into_iter().map(|seen| (seen.arrival, seen.answer)).collect::<Vec<_>>();
        wait_for(&format!("{count} publishes"), LONG, ids, || {
            Some(self.seen()).filter(|seen| seen.len() >= count)
        })
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.down();
    }
}

fn serve(socket: TcpStream, shared: &Shared) {
    let Ok((number, level, mut incoming)) = greet(socket, shared) else { return };
    let mut waiting = 0;
    let _ = converse(&mut incoming, shared, level, &mut waiting);
    let mut state = shared.state.lock().expect("no panic");
    state.outstanding -= waiting;
    if let Some(socket) = state.sockets.remove(&number) {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// CONNECT and CONNACK.
fn greet(socket: TcpStream, shared: &Shared) -> io::Result<(usize, u8, BufReader<TcpStream>)> {
    socket.set_nodelay(true)?;
    let mut out = socket.try_clone()?;
    let mut incoming = BufReader::new(socket);
    let connect = Packet::read(&mut incoming)?;
    let level = connect.body[6];
    if level == 5 && shared.manners.only_four {
        shared.state.lock().expect("no panic").refused_versions += 1;
        // Unacceptable protocol version, in the words of 3.1.1.
        write(&mut out, 0x20, &[0, 1])?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let number = {
        let mut state = shared.state.lock().expect("no panic");
        if state.down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.connections += 1;
        let number = state.connections;
        state.sockets.insert(number, out.try_clone()?);
        number
    };
    let mut granted = vec![0, 0];
    if level == 5 {
        let mut properties = Vec::new();
        if let Some(max) = shared.manners.receive_max {
            properties.push(0x21);
            properties.extend(max.to_be_bytes());
        }
        if let Some(max) = shared.manners.max_packet {
            properties.push(0x27);
            properties.extend(max.to_be_bytes());
        }
        granted.extend(variable(properties.len()));
        granted.extend(properties);
    }
    write(&mut out, 0x20, &granted)?;
    Ok((number, level, incoming))
}

fn converse(
    incoming: &mut BufReader<TcpStream>,
    shared: &Shared,
    level: u8,
    waiting: &mut usize,
) -> io::Result<()> {
    let mut out = incoming.get_ref().try_clone()?;
    loop {
        let packet = Packet::read(incoming)?;
        match packet.kind() {
            3 => {}
            // PUBREL, PINGREQ, DISCONNECT.
            6 => {
                settle(shared, waiting);
                write(&mut out, 0x70, &packet.identifier().to_be_bytes())?;
                continue;
            }
            12 => {
                write(&mut out, 0xD0, &[])?;
                continue;
            }
            14 => return Ok(()),
            _ => continue,
        }
        let publish = Publish::parse(&packet, level);
        let arrival = arrival(&publish.payload);
        let answer = (shared.script.lock().expect("no panic"))(&publish, &arrival);
        {
            let mut state = shared.state.lock().expect("no panic");
            if state.down {
                return Ok(());
            }
            state.outstanding += 1;
            state.most_outstanding = state.most_outstanding.max(state.outstanding);
            let (publish, answer) = (publish.clone(), answer.clone());
            state.seen.push(Seen { level, publish, arrival, answer });
        }
        *waiting += 1;
        let id = publish.identifier.to_be_bytes();
        let first = if publish.qos == 2 { 0x50 } else { 0x40 };
        if let Answer::TakeAfter(delay) = answer {
            sleep(delay);
        }
        match answer {
            Answer::Take | Answer::TakeAfter(_) => {
                if publish.qos > 0 {
                    write(&mut out, first, &id)?;
                }
                if publish.qos < 2 {
                    settle(shared, waiting);
                }
            }
            Answer::Code(code) => {
                settle(shared, waiting);
                write(&mut out, first, &[id[0], id[1], code])?;
            }
            Answer::Silence => {}
            Answer::HangUp => return Ok(()),
            Answer::Disconnect(code) => {
                write(&mut out, 0xE0, &[code])?;
                return Ok(());
            }
        }
    }
}

fn settle(shared: &Shared, waiting: &mut usize) {
    shared.state.lock().expect("no panic").outstanding -= 1;
    *waiting -= 1;
}
