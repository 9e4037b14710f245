//! What arrived at the destination: counted after each run, and in the first run looked at entry by entry.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{Bench, Job, TOPIC, measure};
use crate::copies;
use crate::ledger::Ledger;
use crate::mqtt::{self, Subscriber};
use crate::process::wait_until;
use crate::redis::{Redis, Reply};
use crate::rows;

impl Bench<'_> {
    /// One run without a clock: everything arrived, in order, as it was.
    pub(super) fn verify(&self) -> Result<()> {
        let mut redis = self.filled()?;
        let wrong = match self.job {
            Job::Mqtt => self.wrong_messages(&mut redis)?,
            Job::Redis => self.wrong_copies(&mut redis)?,
            Job::Pg => self.wrong_rows(&mut redis)?,
            Job::Kafka => self.wrong_records(&mut redis)?,
        };
        ensure!(wrong.is_empty(), "{} of {} streams: {}", wrong.len(), self.load.streams, wrong.join("; "));
        Ok(())
    }

    /// A subscriber keeps the books; the broker may still be handing out what it has confirmed.
    fn wrong_messages(&self, redis: &mut Redis) -> Result<Vec<String>> {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        self.load.each(|stream, id| ledger.lock().expect("nobody panics").wrote(stream, id));
        let books = Arc::clone(&ledger);
        let _subscriber = Subscriber::start(self.broker()?, "redis/#", move |_, payload| {
            let (stream, id) = mqtt::parse(payload).map_or_else(
                |error| ("unreadable".to_owned(), error.to_string()),
                |message| (message.stream, message.id),
            );
            books.lock().expect("nobody panics").arrived(&stream, id);
        })?;
        let mut bridge = self.bridge()?;
        measure::run(redis, &self.load, &mut bridge, &self.interrupt)?;
        wait_until(Duration::from_secs(60), || {
            self.interrupt.came() || ledger.lock().expect("nobody panics").arrivals() >= self.load.entries
        });
        bridge.stop()?;
        self.interrupt.ensure_not()?;
        let ledger = ledger.lock().expect("nobody panics");
        let wrong = ledger.verdicts().filter(|(_, verdict)| !verdict.is_ok());
        Ok(wrong.map(|(stream, verdict)| format!("{stream}: {verdict}")).collect())
    }

    fn wrong_copies(&self, redis: &mut Redis) -> Result<Vec<String>> {
        let mut bridge = self.bridge()?;
        measure::run(redis, &self.load, &mut bridge, &self.interrupt)?;
        bridge.stop()?;
        let mut target = self.target()?;
        let mut wrong = Vec::new();
        for (stream, _) in self.load.spread() {
            let difference = copies::difference((redis, &stream), (&mut target, &stream))?;
            wrong.extend(difference.map(|difference| format!("{stream}: {difference}")));
        }
        Ok(wrong)
    }

    fn wrong_rows(&self, redis: &mut Redis) -> Result<Vec<String>> {
        let mut bridge = self.bridge()?;
        measure::run(redis, &self.load, &mut bridge, &self.interrupt)?;
        bridge.stop()?;
        let mut wrong = Vec::new();
        for (stream, _) in self.load.spread() {
            let difference = rows::difference(redis, &stream, self.postgres()?, &stream)?;
            wrong.extend(difference.map(|difference| format!("{stream}: {difference}")));
        }
        let rows = self.received_by_postgres()?;
        if rows != self.load.entries as u64 {
            wrong.push(format!("{rows} rows of all streams are not as many as there are entries"));
        }
        Ok(wrong)
    }

    /// What the topic holds; before this run, nothing.
    fn wrong_records(&self, redis: &mut Redis) -> Result<Vec<String>> {
        let before = self.received()?;
        let mut bridge = self.bridge()?;
        measure::run(redis, &self.load, &mut bridge, &self.interrupt)?;
        self.ensure_received(before)?;
        bridge.stop()?;
        let mut ledger = Ledger::default();
        self.load.each(|stream, id| ledger.wrote(stream, id));
        self.kafka()?.each(TOPIC, |record| match mqtt::parse(record.value) {
            Ok(message) => ledger.arrived(&message.stream, message.id),
            Err(error) => ledger.arrived("unreadable", error.to_string()),
        })?;
        let wrong = ledger.verdicts().filter(|(_, verdict)| !verdict.is_ok());
        Ok(wrong.map(|(stream, verdict)| format!("{stream}: {verdict}")).collect())
    }

    /// How many entries the destination has got, ever. Asked before a run, when nothing is on its way.
    pub(super) fn received(&self) -> Result<u64> {
        match self.job {
            Job::Mqtt => self.received_by_the_broker(),
            Job::Redis => self.received_by_the_target(),
            Job::Pg => self.received_by_postgres(),
            Job::Kafka => self.received_by_kafka(),
        }
    }

    /// And after it: everything is acknowledged, so it must be there, as soon as the broker has counted it.
    pub(super) fn ensure_received(&self, before: u64) -> Result<()> {
        let (entries, mut received) = (self.load.entries as u64, 0);
        let all = wait_until(Duration::from_secs(10), || {
            let after = match self.job {
                Job::Mqtt => self.broker().and_then(mqtt::messages_received),
                Job::Redis => self.received_by_the_target(),
                Job::Pg => self.received_by_postgres(),
                Job::Kafka => self.received_by_kafka(),
            };
            received = after.unwrap_or(before).saturating_sub(before);
            received >= entries
        });
        ensure!(all, "{entries} entries are acknowledged, and the destination received {received}");
        Ok(())
    }

    /// The broker's count, once it has stopped moving.
    fn received_by_the_broker(&self) -> Result<u64> {
        loop {
            let count = mqtt::messages_received(self.broker()?)?;
            std::thread::sleep(Duration::from_millis(1500));
            self.interrupt.ensure_not()?;
            if mqtt::messages_received(self.broker()?)? == count {
                return Ok(count);
            }
        }
    }

    /// Before its first run the bridge has not made its table.
    fn received_by_postgres(&self) -> Result<u64> {
        let postgres = self.postgres()?;
        if !postgres.has(rows::STREAMS)? {
            return Ok(0);
        }
        postgres.number(&format!("SELECT count(*) FROM {}", rows::STREAMS))
    }

    fn received_by_kafka(&self) -> Result<u64> {
        self.kafka()?.written(TOPIC, self.args.partitions)
    }

    fn received_by_the_target(&self) -> Result<u64> {
        let lengths: Vec<[String; 2]> =
            self.load.spread().into_iter().map(|(stream, _)| ["XLEN".to_owned(), stream]).collect();
        let length = |reply: &Reply| match reply {
            Reply::Integer(length) => Ok(u64::try_from(*length)?),
            other => bail!("XLEN is a number, not {other:?}"),
        };
        self.target()?.pipeline(&lengths)?.iter().map(length).sum()
    }
}
