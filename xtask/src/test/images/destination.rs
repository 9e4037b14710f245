//! What has arrived, judged by other code than the bridges': every entry, in order, and nothing else.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::traffic::Written;
use super::trial::Kind;
use crate::copies;
use crate::kafka::Kafka;
use crate::ledger::Ledger;
use crate::mqtt::{self, Subscriber};
use crate::postgres::Postgres;
use crate::process::{wait_patiently, wait_until};
use crate::redis::Redis;
use crate::rows;

/// A stream is found within 10 s, and one that somebody died with is read by another within 10 s more.
const ARRIVED_WITHIN: Duration = Duration::from_secs(90);

/// Looks at a destination from before the first entry on.
pub(super) enum Destination {
    Topics {
        _subscriber: Subscriber,
        arrived: Receiver<(String, String)>,
        ledger: Ledger,
    },
    Copies(u16),
    Rows(u16),
    /// And the streams that it has records of from before.
    Records(Kafka, BTreeSet<String>),
}

/// Where the example settings of every bridge to Kafka send `device:*:stream`.
const TOPIC: &str = "device-data-topic";

impl Destination {
    /// The port is published before anybody listens behind it, so it is asked until there is an answer.
    pub(super) fn watch(kind: Kind, port: u16) -> Result<Self> {
        let mut last = String::new();
        let answers = wait_patiently(Duration::from_secs(60), || {
            let asked = match kind {
                Kind::Topics => mqtt::answers(port),
                Kind::Copies => Redis::connect(port).and_then(|mut redis| redis.call(&["PING"]).map(drop)),
                Kind::Rows => Postgres::at(port).ask("SELECT 1").map(drop),
                Kind::Records => Kafka::at(port).topics().map(drop),
            };
            last = asked.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            asked.is_ok()
        });
        ensure!(answers, "{kind:?}: the server on port {port} does not answer: {last}");
        Ok(match kind {
            Kind::Topics => {
                let (tell, arrived) = channel();
                let subscriber = Subscriber::start(port, "redis/#", move |_, payload| {
                    // What is no message of a bridge shows as missing.
                    if let Ok(message) = mqtt::parse(payload) {
                        let _ = tell.send((message.stream, message.id));
                    }
                })?;
                Self::Topics { _subscriber: subscriber, arrived, ledger: Ledger::default() }
            }
            Kind::Copies => Self::Copies(port),
            Kind::Rows => Self::Rows(port),
            Kind::Records => {
                let mut before = BTreeSet::new();
                records(Kafka::at(port), |stream, _| {
                    before.insert(stream);
                })?;
                Self::Records(Kafka::at(port), before)
            }
        })
    }

    /// Waits until the group has acknowledged all that was written, and judges what arrived. Returns the words for it.
    pub(super) fn judge(&mut self, source: &mut Redis, group: &str, written: &Written) -> Result<String> {
        let streams: Vec<&str> = written.streams().collect();
        let mut last = String::new();
        let done = wait_until(ARRIVED_WITHIN, || match source.progress(group, &streams) {
            Ok(progress) => {
                let acknowledged: u64 = progress.iter().map(|progress| progress.acknowledged()).sum();
                last = format!("{acknowledged} of {} acknowledged", written.count());
                acknowledged >= written.count() as u64
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        if !done {
            bail!("{group}: not all has arrived {} s later: {last}", ARRIVED_WITHIN.as_secs());
        }
        match self {
            Self::Topics { arrived, ledger, .. } => judge_ledger(ledger, arrived, written),
            Self::Copies(port) => {
                let mut target = Redis::connect(*port)?;
                let mut look = |stream: &str| copies::difference((source, stream), (&mut target, stream));
                same(written, |stream| look(stream))
            }
            Self::Rows(port) => {
                let postgres = Postgres::at(*port);
                same(written, |stream| rows::difference(source, stream, postgres, stream))
            }
            Self::Records(kafka, before) => judge_records(*kafka, before, written),
        }
    }
}

fn same(written: &Written, mut look: impl FnMut(&str) -> Result<Option<String>>) -> Result<String> {
    for stream in written.streams() {
        if let Some(difference) = look(stream)? {
            bail!("{stream}: {difference}");
        }
    }
    Ok(format!("{} entries, the same one by one", written.count()))
}

/// The broker has confirmed all of it; the subscriber may be a moment behind.
fn judge_ledger(
    ledger: &mut Ledger,
    arrived: &Receiver<(String, String)>,
    written: &Written,
) -> Result<String> {
    expect(ledger, written);
    while !ledger.is_complete() {
        let (stream, id) = arrived
            .recv_timeout(Duration::from_secs(10))
            .context("acknowledged, and yet something has not arrived for 10 s")?;
        ledger.arrived(&stream, id);
        while let Ok((stream, id)) = arrived.try_recv() {
            ledger.arrived(&stream, id);
        }
    }
    verdict(ledger, written)
}

/// What is acknowledged may still stand in the buffer, on its way to Kafka.
fn judge_records(kafka: Kafka, before: &BTreeSet<String>, written: &Written) -> Result<String> {
    let mut ledger = Ledger::default();
    let mut last = Ok(());
    let complete = wait_patiently(ARRIVED_WITHIN, || {
        ledger = Ledger::default();
        expect(&mut ledger, written);
        last = records(kafka, |stream, id| {
            if !before.contains(&stream) {
                ledger.arrived(&stream, id);
            }
        });
        ledger.is_complete()
    });
    last?;
    let words = verdict(&ledger, written);
    if complete { words } else { words.with_context(|| format!("{} s later", ARRIVED_WITHIN.as_secs())) }
}

/// Stream and entry ID of each record, in the order of its partition. A topic is there once something was sent to it.
fn records(kafka: Kafka, mut record: impl FnMut(String, String)) -> Result<()> {
    if !kafka.topics()?.iter().any(|topic| topic == TOPIC) {
        return Ok(());
    }
    // What is no message of a bridge shows as missing.
    kafka.each(TOPIC, |found| {
        if let Ok(message) = mqtt::parse(found.value) {
            record(message.stream, message.id);
        }
    })
}

fn expect(ledger: &mut Ledger, written: &Written) {
    for (stream, id) in written.entries() {
        ledger.wrote(stream, id.clone());
    }
}

fn verdict(ledger: &Ledger, written: &Written) -> Result<String> {
    let mut duplicates = 0;
    for (stream, verdict) in ledger.verdicts() {
        if !verdict.is_ok() {
            bail!("{stream}: {verdict}");
        }
        duplicates += verdict.duplicates;
    }
    Ok(format!("{} entries, in order, {duplicates} duplicates", written.count()))
}
