//! The demo's simulated plant, which speaks MQTT: machines that publish JSON, and an edge node of Sparkplug B with a
//! device, each about five messages a second. What is to arrive on Kafka goes into the ledger, word for word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{Event, devices};
use crate::mqtt::Publisher;
use crate::services::Service;
use crate::sparkplug::{Metric, Payload, Value};

/// Topic, and what is measured.
const MACHINES: [(&str, &str); 3] = [
    ("plant/line1/oven", "temperature"),
    ("plant/line1/press", "pressure"),
    ("plant/line2/conveyor", "speed"),
];
const NODE_BIRTH: &str = "spBv1.0/plant/NBIRTH/line1";
const DEVICE_BIRTH: &str = "spBv1.0/plant/DBIRTH/line1/robot";
const NODE_DATA: &str = "spBv1.0/plant/NDATA/line1";
const DEVICE_DATA: &str = "spBv1.0/plant/DDATA/line1/robot";
const BETWEEN_MESSAGES: Duration = Duration::from_millis(100);

/// What the bridge subscribes to.
pub(super) const FILTERS: &str = r#"@json ["spBv1.0/#", "plant/#"]"#;
/// The attribute that each machine publishes and that no record has.
pub(super) const IGNORED: &str = r#"@json {"plant/#": "firmware"}"#;

/// Every MQTT topic.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    let of_machines = MACHINES.into_iter().map(|(topic, _)| topic);
    of_machines.chain([NODE_BIRTH, DEVICE_BIRTH, NODE_DATA, DEVICE_DATA])
}

/// An entry's ID in the ledger: all that there is to know of a record.
pub(super) fn id(time: &str, value: &str) -> String {
    format!("{time:17} {value}")
}

/// A thread that publishes until it is stopped.
pub(super) struct Plant {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<()>,
}

impl Plant {
    /// The bridge must have subscribed: nothing is kept for a session that is not there.
    pub(super) fn start(port: u16, events: Sender<Event>) -> Result<Self> {
        let run = Run { publisher: Publisher::connect(port, "plant")?, events, seq: 0 };
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let publisher = std::thread::spawn(move || {
            let events = run.events.clone();
            if let Err(error) = run.publish(&stopping) {
                let _ = events.send(Event::Failed(error.context("the simulated plant")));
            }
        });
        Ok(Self { stop, publisher })
    }

    /// Returns once the broker has the last message.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.publisher.join();
    }
}

struct Run {
    publisher: Publisher,
    events: Sender<Event>,
    /// Of the edge node's next message: 0 to 255, over and over.
    seq: u8,
}

impl Run {
    fn publish(mut self, stop: &AtomicBool) -> Result<()> {
        let mut births = node(0);
        births.insert(0, Metric { name: "bdSeq", alias: None, value: Value::Int64(0) });
        births.push(Metric { name: "Node Control/Rebirth", alias: None, value: Value::Boolean(false) });
        self.sparkplug(NODE_BIRTH, births, true)?;
        self.sparkplug(DEVICE_BIRTH, device(0), true)?;
        for turn in 0usize.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match turn % 6 {
                0 => self.sparkplug(NODE_DATA, node(turn), false)?,
                2 | 4 => self.sparkplug(DEVICE_DATA, device(turn), false)?,
                odd => self.json(odd / 2, turn)?,
            }
            sleep(BETWEEN_MESSAGES);
        }
        Ok(())
    }

    /// Names stand in the births; what follows has aliases.
    fn sparkplug(&mut self, topic: &str, metrics: Vec<Metric<'_>>, birth: bool) -> Result<()> {
        let payload = Payload { timestamp: now()?, seq: self.seq, metrics, birth };
        self.seq = self.seq.wrapping_add(1);
        self.send(topic, &payload.encode(), id(&payload.timestamp.to_string(), &payload.json()))
    }

    fn json(&mut self, machine: usize, turn: usize) -> Result<()> {
        let ((topic, quantity), time) = (MACHINES[machine], now()?);
        let value = devices::reading(machine, turn);
        let payload =
            format!(r#"{{"timestamp":{time},"{quantity}":{value},"firmware":"2.4.1","seq":{turn}}}"#);
        let record = format!(r#"{{"timestamp":{time},"{quantity}":{value},"seq":{turn}}}"#);
        self.send(topic, payload.as_bytes(), id(&time.to_string(), &record))
    }

    fn send(&mut self, topic: &str, payload: &[u8], id: String) -> Result<()> {
        self.publisher.publish(topic, payload)?;
        self.publisher.confirm()?;
        // Nobody listens any more when the demo is over, which is when this stops.
        let _ = self.events.send(Event::Wrote { source: Service::Mosquitto, stream: topic.to_owned(), id });
        Ok(())
    }
}

fn node(turn: usize) -> Vec<Metric<'static>> {
    vec![Metric { name: "Uptime", alias: Some(1), value: Value::Int64(turn as i64) }]
}

fn device(turn: usize) -> Vec<Metric<'static>> {
    vec![
        Metric { name: "Arm/Angle", alias: Some(2), value: Value::Double(45.0 + (turn % 90) as f64 / 2.0) },
        Metric { name: "Arm/Moves", alias: Some(3), value: Value::Boolean(turn.is_multiple_of(4)) },
    ]
}

/// Milliseconds since 1970.
fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_millis().try_into()?)
}
