//! One bridge on show: its processes, what arrived where it moves entries to, and what that comes to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};

use super::act::Act;
use super::{Event, Stage, copied, devices, tables};
use crate::bridge::{Bridge, Kind};
use crate::kafka::{Consumer, Kafka};
use crate::ledger::Ledger;
use crate::mqtt::{self, Subscriber};
use crate::postgres::Postgres;
use crate::redis::{GroupProgress, Redis};
use crate::{copies, paths, rows};

/// See the module.
pub(super) struct Exhibit {
    pub(super) act: Act,
    pub(super) ledger: Ledger,
    replicas: Vec<Bridge>,
    /// Where the first of them answers.
    admin: u16,
    /// Who owns how many streams, as last printed.
    shares: String,
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
    /// Watches where entries are to arrive, then starts the bridge.
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
                let _consumer = kafka.watch(&act.topics(kafka)?, move |topic, value| {
                    let _ = arrivals.send(published(act, topic, value).unwrap_or_else(Event::Failed));
                })?;
                Destination::Kafka { _consumer }
            }
        };
        let settings = act.settings();
        let file = paths::root().join(settings).display().to_string();
        let start = |(number, admin): (usize, &u16)| {
            let dir = dir.join(format!("{}-{}", act.name(), number + 1));
            let addresses = act.variables(servers, *admin)?;
            let program = programs.join(act.kind.name());
            let bridge = Bridge::start(&program, &["run", "--config-file", &file], &addresses, &dir)?;
            println!("  http://127.0.0.1:{admin}/api/status  log: {}", bridge.log().display());
            Ok(bridge)
        };
        println!("{} moves it to port {port}, settings from {settings}", act.name());
        let replicas = admins.iter().enumerate().map(start).collect::<Result<_>>()?;
        Ok(Self {
            act,
            ledger: Ledger::default(),
            replicas,
            admin: admins[0],
            shares: String::new(),
            destination,
        })
    }

    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.replicas.iter_mut().try_for_each(Bridge::ensure_running)
    }

    /// Acknowledged and pending, over all streams.
    pub(super) fn totals(&self, source: &mut Redis) -> Result<(u64, u64)> {
        let progress = self.progress(source)?;
        let sum = |of: fn(&GroupProgress) -> u64| progress.values().map(of).sum();
        Ok((sum(GroupProgress::acknowledged), sum(|group| group.pending)))
    }

    pub(super) fn is_complete(&self, source: &mut Redis) -> Result<bool> {
        Ok(self.ledger.is_complete()
            && self.totals(source)? == (self.ledger.written() as u64, 0)
            && self.destination.wrong_values(source)?.is_empty())
    }

    pub(super) fn print_counts(&mut self, source: &mut Redis) -> Result<()> {
        let (acknowledged, pending) = self.totals(source)?;
        let (name, written, arrived) = (self.act.name(), self.ledger.written(), self.ledger.arrivals());
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
        let mut answer = String::new();
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin))?;
        connection.write_all(b"GET /api/status HTTP/1.0\r\n\r\n")?;
        connection.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
        let status: serde_json::Value = serde_json::from_str(body)?;
        let streams = status["streams"].as_array().context("the status lists streams")?;
        let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
        for stream in streams {
            *owners.entry(stream["owner"].as_str().unwrap_or("nobody yet")).or_default() += 1;
        }
        let shares: Vec<String> =
            owners.iter().map(|(owner, count)| format!("{owner} has {count}")).collect();
        Ok(format!("{} streams are shared: {}", streams.len(), shares.join(", ")))
    }

    /// The group's progress by stream name.
    fn progress(&self, source: &mut Redis) -> Result<BTreeMap<&'static str, GroupProgress>> {
        let mut all = BTreeMap::new();
        for (name, (db, key)) in devices::streams() {
            source.select(db)?;
            all.extend(source.progress(self.act.group(), &[key])?.pop().map(|progress| (name, progress)));
        }
        Ok(all)
    }

    /// Stops the bridge and prints a line for each stream; whether all is well.
    pub(super) fn close(mut self, source: &mut Redis) -> Result<bool> {
        let progress = self.progress(source)?;
        println!();
        println!(
            "{:32} {:>8} {:>9} {:>12} {:>7}  order",
            self.act.name(),
            "written",
            "delivered",
            "acknowledged",
            "pending"
        );
        let mut good = self.ledger.written() > 0;
        let mut sums = (0, 0, 0, 0);
        for (stream, verdict) in self.ledger.verdicts() {
            let group = progress.get(stream).cloned().unwrap_or_default();
            let (written, delivered, acknowledged) =
                (verdict.written, verdict.delivered, group.acknowledged());
            let copy = self.destination.difference(source, stream)?;
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
            let wrong = self.destination.wrong_values(source)?;
            let verdict = if wrong.is_empty() { "the same".to_owned() } else { wrong.join("; ") };
            println!("{:32} {:8}  {verdict}", "key-values", devices::KEY_VALUES.len());
            good &= wrong.is_empty();
        }
        if self.replicas.len() > 1 {
            println!("{}", self.shares()?);
        }
        for replica in self.replicas {
            if let Err(error) = replica.stop() {
                println!("{error:#}");
                good = false;
            }
        }
        Ok(good)
    }
}

/// A message as a broker hands it out: those of Kafka hold the same.
fn published(from: Act, topic: &str, payload: &str) -> Result<Event> {
    let mqtt::Message { stream, id, data } = mqtt::parse(payload)?;
    let (place, data) = (topic.to_owned(), data.get().to_owned());
    Ok(Event::Arrived { from, place, stream, id, data })
}

impl Destination {
    /// Where a stream's copy first differs: rows, or a stream that has the stream's name for a key.
    fn difference(&mut self, source: &mut Redis, stream: &str) -> Result<Option<String>> {
        let (_, (db, key)) =
            devices::streams().find(|(name, _)| *name == stream).context("a device's stream")?;
        source.select(db)?;
        match self {
            Self::Broker { .. } | Self::Kafka { .. } => Ok(None),
            Self::Redis(target) => copies::difference((source, key), (target, stream)),
            Self::Postgres(postgres) => rows::difference(source, key, *postgres, stream),
        }
    }

    /// The key-values that are not what they are a copy of.
    fn wrong_values(&self, source: &mut Redis) -> Result<Vec<String>> {
        let Self::Postgres(postgres) = self else { return Ok(Vec::new()) };
        let mut wrong = Vec::new();
        for (db, key) in devices::KEY_VALUES {
            let difference = rows::value_difference(source, (db, key), *postgres)?;
            wrong.extend(difference.map(|difference| format!("{key}: {difference}")));
        }
        Ok(wrong)
    }
}
