//! The demo's simulated devices: a handful of named streams in two databases, about 20 entries a second in all, and
//! one device that is switched on while everything runs. Two keys that are no streams say what is so at the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Event;
use crate::redis::{Redis, Reply};
use crate::services::Service;

/// Database, key, and what is measured.
const DEVICES: [(u16, &str, &str); 6] = [
    (0, "device:thermostat-1:stream", "temperature"),
    (0, "device:thermostat-2:stream", "temperature"),
    (0, "device:door-3:stream", "opened"),
    (1, "device:pump-7:stream", "pressure"),
    (1, "device:meter-9:stream", "power"),
    LATECOMER,
];
/// Not there at the start: the bridge has to find it.
const LATECOMER: (u16, &str, &str) = (1, "device:pump-8:stream", "pressure");
const LATE_BY: Duration = Duration::from_secs(5);
const BETWEEN_ENTRIES: Duration = Duration::from_millis(50);

/// Every stream's name as the bridges spell it, and where it lies.
pub(super) fn streams() -> impl Iterator<Item = (&'static str, (u16, &'static str))> {
    const NAMES: [&str; 6] = [
        "device:thermostat-1:stream",
        "device:thermostat-2:stream",
        "device:door-3:stream",
        "db1:device:pump-7:stream",
        "db1:device:meter-9:stream",
        "db1:device:pump-8:stream",
    ];
    NAMES.into_iter().zip(DEVICES.map(|(db, key, _)| (db, key)))
}

/// A hash: what the first thermostat reads, and is set to.
const STATE: (u16, &str) = (0, "device:thermostat-1:state");
/// A string: whether the door is open.
const DOOR: (u16, &str) = (1, "device:door-3:position");
/// Turns from one change to the next.
const BETWEEN_CHANGES: usize = 60;

/// The keys that are no streams.
pub(super) const KEY_VALUES: [(u16, &str); 2] = [STATE, DOOR];

/// A thread that writes until it is stopped.
pub(super) struct Devices {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Devices {
    pub(super) fn start(port: u16, events: Sender<Event>) -> Result<Self> {
        let redis = Redis::connect(port)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            if let Err(error) = write(redis, &events, &stopping) {
                let _ = events.send(Event::Failed(error.context("the simulated devices")));
            }
        });
        Ok(Self { stop, writer })
    }

    /// Returns once the last entry is written and reported.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.writer.join();
    }
}

fn write(mut redis: Redis, events: &Sender<Event>, stop: &AtomicBool) -> Result<()> {
    let started = Instant::now();
    let names: Vec<&str> = streams().map(|(name, _)| name).collect();
    for turn in 0usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let device = turn % DEVICES.len();
        let (db, key, quantity) = DEVICES[device];
        if DEVICES[device] == LATECOMER && started.elapsed() < LATE_BY {
            continue;
        }
        redis.select(db)?;
        let (value, seq) = (reading(device, turn), turn.to_string());
        let Reply::Text(id) = redis.call(&["XADD", key, "*", quantity, &value, "seq", &seq])? else {
            bail!("XADD answers with an ID")
        };
        // Nobody listens any more: the demo is over.
        if events.send(Event::Wrote { source: Service::Redis, stream: names[device].to_owned(), id }).is_err()
        {
            break;
        }
        if turn % BETWEEN_CHANGES == 0 {
            change(&mut redis, turn)?;
        }
        sleep(BETWEEN_ENTRIES);
    }
    Ok(())
}

fn change(redis: &mut Redis, turn: usize) -> Result<()> {
    let changes = turn / BETWEEN_CHANGES;
    let position = if changes.is_multiple_of(2) { "closed" } else { "open" };
    redis.select(STATE.0)?;
    redis.call(&["HSET", STATE.1, "temperature", &reading(0, turn), "target", "21.5", "mode", "auto"])?;
    redis.select(DOOR.0)?;
    redis.call(&["SET", DOOR.1, position]).map(drop)
}

/// Something that looks measured: a slow wave around each device's own level.
pub(super) fn reading(device: usize, turn: usize) -> String {
    let level = 20.0 + device as f64 * 3.0;
    format!("{:.1}", level + 2.0 * (turn as f64 / 40.0).sin())
}
