//! Writes entries while servers come and go, and keeps the ledger; and asks whether all of it is settled at the
//! source.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::oracle::Ledger;
use crate::redis::{Client, Redis, Reply};
use crate::wait_until;

/// A stream as the test names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub db: u16,
    pub key: String,
}

impl Target {
    pub fn new(db: u16, key: &str) -> Self {
        Self { db, key: key.to_owned() }
    }

    /// As the bridge spells it.
    pub fn spelled(&self) -> String {
        if self.db == 0 { self.key.clone() } else { format!("db{}:{}", self.db, self.key) }
    }
}

/// So many streams, dealt out to DBs 0 and 1.
pub fn targets(count: usize) -> Vec<Target> {
    (0..count).map(|i| Target::new(u16::from(i % 2 == 1), &format!("device:{i}"))).collect()
}

/// Writes to each of the streams in turn.
pub fn write(redis: &Redis, targets: &[Target], entries: usize) -> Ledger {
    Writer::start(redis.port, targets, entries, Duration::ZERO).finish()
}

/// Writes in the background.
pub struct Writer {
    written: Arc<AtomicUsize>,
    thread: JoinHandle<Ledger>,
}

/// Sent before the replies are read.
const BATCH: usize = 50;

impl Writer {
    /// `entries` in all, with a pause after each batch of 50. Whatever is not confirmed is written again.
    pub fn start(port: u16, targets: &[Target], entries: usize, pause: Duration) -> Self {
        let (written, targets) = (Arc::new(AtomicUsize::new(0)), targets.to_vec());
        let counter = written.clone();
        let thread = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            let mut round = 0;
            while ledger.written() < entries {
                let target = &targets[round % targets.len()];
                let left = entries - ledger.written();
                let share = left.min(BATCH).min(entries.div_ceil(targets.len()));
                round += 1;
                if batch(port, target, share, &mut ledger).is_none() {
                    sleep(Duration::from_millis(20));
                }
                counter.store(ledger.written(), Ordering::Relaxed);
                sleep(pause);
            }
            ledger
        });
        Self { written, thread }
    }

    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    pub fn wait_written(&self, count: usize) {
        wait_until("entries are written", || self.written(), || self.written() >= count);
    }

    pub fn finish(self) -> Ledger {
        self.thread.join().expect("the writer has finished")
    }
}

/// `None` when the connection broke: what was confirmed is in the ledger.
fn batch(port: u16, target: &Target, entries: usize, ledger: &mut Ledger) -> Option<()> {
    let mut client = Client::open(port).ok()?;
    let db = target.db.to_string();
    client.send(&[b"SELECT", db.as_bytes()]).ok()?;
    for number in 0..entries {
        let value = format!("{{\"n\":{number}}}");
        let words: [&[u8]; 7] =
            [b"XADD", target.key.as_bytes(), b"*", b"reading", value.as_bytes(), b"unit", b"C"];
        client.send(&words).ok()?;
    }
    client.reply().ok()?;
    for _ in 0..entries {
        match client.reply().ok()? {
            Reply::Error(_) => return None,
            id => ledger.wrote(&target.spelled(), &id.text()),
        }
    }
    Some(())
}

/// Waits until nothing is pending in the group on any of these.
pub fn wait_settled(redis: &Redis, group: &str, targets: &[Target]) {
    let pending = || {
        let count = |target: &Target| redis.pending(target.db, &target.key, group);
        targets
            .iter()
            .map(|target| (target.spelled(), count(target)))
            .filter(|(_, n)| *n > 0)
            .collect::<Vec<_>>()
    };
    wait_until("nothing is pending", pending, || pending().is_empty());
}
