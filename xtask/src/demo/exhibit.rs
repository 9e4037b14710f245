//! One bridge on show: its processes, what arrived where it moves entries to, and what that comes to.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::act::Act;
use super::source::{Progress, Source};
use super::{Event, Stage, copied, devices, plant, tables};
use crate::admin;
use crate::bridge::{Bridge, Kind};
use crate::kafka::{Consumer, Kafka};
use crate::ledger::{Ledger, Verdict};
use crate::mqtt::{self, Subscriber};
use crate::postgres::Postgres;
use crate::process::{tail, wait_until};
use crate::redis::Redis;
use crate::{copies, rows};

/// From its start to the session at the broker.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Exhibit {
    pub(super) act: Act,
    pub(super) ledger: Ledger,
    replicas: Vec<Bridge>,
    /// Where the first of them answers.
    admin: u16,
    /// Who owns how many streams, as last printed.
    shares: String,
    source: Source,
    destination: Destination,
}

/// Where it moves entries to, as far as that can be asked what it holds.
enum Destination {
    /// It ends with the exhibit.
    Broker {
        _subscriber: Subscriber,
    },
    Redis(Redis),
    Postgres(Postgres),
    /// It ends with the exhibit, too.
    Kafka {
        _consumer: Consumer,
    },
}

impl Exhibit {
    /// Watches where entries are to arrive, then starts the bridge. One that reads from a broker has its session there.
    pub(super) fn open(act: Act, stage: &Stage, admins: &[u16], events: &Sender<Event>) -> Result<Self> {
        let Stage { programs, servers, dir } = stage;
        let port = servers.port(act.kind.destination(), "plain")?;
        let arrivals = events.clone();
        let destination = match act.kind {
            Kind::Redis2mqtt => {
                let _subscriber = Subscriber::start(port, "redis/#", move |topic, payload| {
                    let _ = arrivals.send(published(act, topic, payload).unwrap_or_else(Event::Failed));
                })?;
                Destination::Broker { _subscriber }
            }
            Kind::Redis2redis => {
                copied::watch(Redis::connect(port)?, arrivals);
                Destination::Redis(Redis::connect(port)?)
            }
            Kind::Redis2pg => {
                tables::watch(Postgres::at(port), arrivals);
                Destination::Postgres(Postgres::at(port))
            }
            Kind::Redis2kafka => {
                let kafka = Kafka::at(port);
                let _consumer = kafka.watch(&act.topics(kafka)?, move |record| {
                    let event = published(act, record.place, record.value);
                    let _ = arrivals.send(event.unwrap_or_else(Event::Failed));
                })?;
                Destination::Kafka { _consumer }
            }
            Kind::Mqtt2kafka => {
                let kafka = Kafka::at(port);
                let _consumer = kafka.watch(&act.topics(kafka)?, move |record| {
                    let (place, stream) = (record.place.to_owned(), record.key.to_owned());
                    let id = plant::id(record.time, record.value);
                    let _ =
                        arrivals.send(Event::Arrived { from: act, place, stream, id, data: String::new() });
                })?;
                Destination::Kafka { _consumer }
            }
        };
        let arguments = act.arguments();
        let arguments = arguments.each_ref().map(String::as_str);
        let start = |(number, admin): (usize, &u16)| {
            let dir = dir.join(format!("{}-{}", act.name(), number + 1));
            let addresses = act.variables(servers, *admin)?;
            let program = programs.join(act.kind.name());
            let bridge = Bridge::start(&program, &arguments, &addresses, &dir)?;
            println!("  http://127.0.0.1:{admin}/api/status  log: {}", bridge.log().display());
            Ok(bridge)
        };
        let from = servers.port(act.kind.source(), "plain")?;
        println!("{} moves from port {from} to port {port}, settings from {}", act.name(), act.settings());
        let replicas = admins.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        let source = Source::of(act, servers, admins[0])?;
        if let Source::Broker { admin, .. } = source {
            let ready = wait_until(READY_WITHIN, || admin::get(admin, "/readyz").is_ok());
            ensure!(ready, "{} does not get ready; {}", act.name(), tail(replicas[0].log()));
        }
        Ok(Self {
            act,
            ledger: Ledger::default(),
            replicas,
            admin: admins[0],
            shares: String::new(),
            source,
            destination,
        })
    }

    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.replicas.iter_mut().try_for_each(Bridge::ensure_running)
    }

    pub(super) fn is_complete(&mut self) -> Result<bool> {
        let written = self.ledger.written() as u64;
        let moved = Progress { acknowledged: written, pending: 0 };
        Ok(self.ledger.is_complete()
            && self.source.totals(self.act, written)? == moved
            && self.wrong_values()?.is_empty())
    }

    pub(super) fn print_counts(&mut self) -> Result<()> {
        let written = self.ledger.written() as u64;
        let Progress { acknowledged, pending } = self.source.totals(self.act, written)?;
        let (name, arrived) = (self.act.name(), self.ledger.arrivals());
        println!(
            "-- {name:12} written {written}  arrived {arrived}  acknowledged {acknowledged}  pending {pending}"
        );
        // A bridge that has just started does not answer yet.
        let shares = self.shares().unwrap_or_default();
        if self.replicas.len() > 1 && shares != self.shares {
            println!("-- {name:12} {shares}");
            self.shares = shares;
        }
        Ok(())
    }

    /// How the replicas share the streams, as one of them sees it.
    fn shares(&self) -> Result<String> {
        let body = admin::get(self.admin, "/api/status")?;
        let status: serde_json::Value = serde_json::from_str(&body)?;
        let streams = status["streams"].as_array().context("the status lists streams")?;
        let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
        for stream in streams {
            *owners.entry(stream["owner"].as_str().unwrap_or("nobody yet")).or_default() += 1;
        }
        let shares: Vec<String> =
            owners.iter().map(|(owner, count)| format!("{owner} has {count}")).collect();
        Ok(format!("{} streams are shared: {}", streams.len(), shares.join(", ")))
    }

    /// Stops the bridge and prints a line for each stream; whether all is well.
    pub(super) fn close(mut self) -> Result<bool> {
        let shares = if self.replicas.len() > 1 { Some(self.shares()?) } else { None };
        let mut good = self.ledger.written() > 0;
        for replica in std::mem::take(&mut self.replicas) {
            if let Err(error) = replica.stop() {
                println!("{error:#}");
                good = false;
            }
        }
        let verdicts: Vec<(String, Verdict)> =
            self.ledger.verdicts().map(|(stream, verdict)| (stream.to_owned(), verdict)).collect();
        let written = verdicts.iter().map(|(stream, verdict)| (stream.clone(), verdict.written));
        let progress = self.source.at_the_end(self.act, written)?;
        println!();
        println!(
            "{:32} {:>8} {:>9} {:>12} {:>7}  order",
            self.act.name(),
            "written",
            "delivered",
            "acknowledged",
            "pending"
        );
        let mut sums = (0, 0, 0, 0);
        for (stream, verdict) in &verdicts {
            let group = progress.get(stream).copied().unwrap_or_default();
            let (written, delivered, acknowledged) = (verdict.written, verdict.delivered, group.acknowledged);
            let copy = self.difference(stream)?;
            let remark =
                copy.as_ref().map_or_else(String::new, |at| format!("; the copy is not the same: {at}"));
            println!(
                "{stream:32} {written:8} {delivered:9} {acknowledged:12} {:7}  {verdict}{remark}",
                group.pending
            );
            good &= verdict.is_ok() && copy.is_none() && group.pending == 0 && acknowledged == written as u64;
            sums = (sums.0 + written, sums.1 + delivered, sums.2 + acknowledged, sums.3 + group.pending);
        }
        println!("{:32} {:8} {:9} {:12} {:7}", "all", sums.0, sums.1, sums.2, sums.3);
        if let Destination::Postgres(_) = self.destination {
            let wrong = self.wrong_values()?;
            let verdict = if wrong.is_empty() { "the same".to_owned() } else { wrong.join("; ") };
            println!("{:32} {:8}  {verdict}", "key-values", devices::KEY_VALUES.len());
            good &= wrong.is_empty();
        }
        shares.into_iter().for_each(|shares| println!("{shares}"));
        Ok(good)
    }

    /// Where a stream's copy first differs: rows, or a stream that has the stream's name for a key.
    fn difference(&mut self, stream: &str) -> Result<Option<String>> {
        let Source::Redis(source) = &mut self.source else { return Ok(None) };
        let (_, (db, key)) =
            devices::streams().find(|(name, _)| *name == stream).context("a device's stream")?;
        source.select(db)?;
        match &mut self.destination {
            Destination::Broker { .. } | Destination::Kafka { .. } => Ok(None),
            Destination::Redis(target) => copies::difference((source, key), (target, stream)),
            Destination::Postgres(postgres) => rows::difference(source, key, *postgres, stream),
        }
    }

    /// The key-values that are not what they are a copy of.
    fn wrong_values(&mut self) -> Result<Vec<String>> {
        let (Source::Redis(source), Destination::Postgres(postgres)) = (&mut self.source, &self.destination)
        else {
            return Ok(Vec::new());
        };
        let mut wrong = Vec::new();
        for (db, key) in devices::KEY_VALUES {
            let difference = rows::value_difference(source, (db, key), *postgres)?;
            wrong.extend(difference.map(|difference| format!("{key}: {difference}")));
        }
        Ok(wrong)
    }
}

/// A message as a broker hands it out: those of Kafka hold the same.
fn published(from: Act, topic: &str, payload: &str) -> Result<Event> {
    let mqtt::Message { stream, id, data } = mqtt::parse(payload)?;
    let (place, data) = (topic.to_owned(), data.get().to_owned());
    Ok(Event::Arrived { from, place, stream, id, data })
}
