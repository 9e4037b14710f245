//! `cargo xtask demo`: simulated devices write to Redis, a bridge moves it to MQTT, and a person watches.
//!
//! The servers are the demo's own and end with it. The bridge runs with the example settings that we ship; only
//! addresses come from the environment. Three threads send what happens to one loop, which keeps the ledger.

mod devices;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bridge::{self, Bridge, Interrupt, Profile};
use crate::ledger::Ledger;
use crate::mqtt::{self, Subscriber};
use crate::paths;
use crate::redis::{GroupProgress, Redis};
use crate::services::{Fleet, Service, free_port};
use devices::Devices;

/// The settings that the demo shows at work.
const SETTINGS: &str = "deploy/examples/redis2mqtt.env.conf";
/// As those settings name it.
const GROUP: &str = "mqtt-group";
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// A stream made just before the end is found within the discovery interval of 10 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop by itself after so many seconds (otherwise with Ctrl-C)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// What the threads report.
enum Event {
    Wrote { stream: String, id: String },
    Arrived { topic: String, payload: String },
    Failed(anyhow::Error),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let program = bridge::build("redis2mqtt", Profile::Dev)?;
    let dir = paths::data("demo");
    let servers = Fleet::private(&dir, &Service::ALL)?;
    let (redis, broker) =
        (servers.port(Service::Redis, "plain")?, servers.port(Service::Mosquitto, "plain")?);

    let (events, happened) = channel();
    let arrivals = events.clone();
    let subscriber = Subscriber::start(broker, "redis/#", move |topic, payload| {
        let _ = arrivals.send(Event::Arrived { topic: topic.to_owned(), payload: payload.to_owned() });
    })?;
    let mut bridge = start_bridge(&program, redis, broker, &dir)?;
    println!("Redis on port {redis}, Mosquitto on port {broker}, settings from {SETTINGS}");
    println!("the bridge's log: {}", bridge.log().display());
    let devices = Devices::start(redis, events)?;

    let mut show =
        Show { redis: Redis::connect(redis)?, ledger: Ledger::default(), happened, counted: Instant::now() };
    let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !interrupt.came() && until.is_none_or(|until| Instant::now() < until) {
        show.next()?;
        bridge.ensure_running()?;
    }
    println!("-- the devices fall silent; waiting for what is still on its way");
    devices.stop();
    let drained = show.drain(&mut bridge)?;
    let stopped = bridge.stop();
    drop(subscriber);
    show.tally(drained, stopped)
}

fn start_bridge(program: &Path, redis: u16, broker: u16, dir: &Path) -> Result<Bridge> {
    let settings = paths::root().join(SETTINGS);
    let variables = [
        ("REDIS_HOST", "127.0.0.1".to_owned()),
        ("REDIS_PORT", redis.to_string()),
        ("MQTT_BROKER_HOST", "127.0.0.1".to_owned()),
        ("MQTT_BROKER_PORT", broker.to_string()),
        ("ADMIN_ADDR", format!("127.0.0.1:{}", free_port()?)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    Bridge::start(program, &["run", "--config-file", &settings.display().to_string()], &variables, dir)
}

/// What the person sees, and the books behind it.
struct Show {
    redis: Redis,
    ledger: Ledger,
    happened: Receiver<Event>,
    counted: Instant,
}

impl Show {
    /// Takes one event if one comes soon, and prints the counts when they are due.
    fn next(&mut self) -> Result<()> {
        match self.happened.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Wrote { stream, id }) => self.ledger.wrote(&stream, id),
            Ok(Event::Arrived { topic, payload }) => {
                let message = mqtt::parse(&payload)?;
                println!("{topic:38} {:17} {}", message.id, message.data);
                self.ledger.arrived(&message.stream, message.id);
            }
            Ok(Event::Failed(error)) => return Err(error.context("the simulated devices")),
            // The devices' end of the channel closes when they stop, and the subscriber's soon after.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if self.counted.elapsed() >= COUNT_EVERY {
            self.counted = Instant::now();
            let (acknowledged, pending) = self.totals()?;
            let (written, arrived) = (self.ledger.written(), self.ledger.arrivals());
            println!(
                "-- written {written}  arrived {arrived}  acknowledged {acknowledged}  pending {pending}"
            );
        }
        Ok(())
    }

    /// Until everything written has arrived and is acknowledged; false when that takes too long.
    fn drain(&mut self, bridge: &mut Bridge) -> Result<bool> {
        let until = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < until {
            self.next()?;
            bridge.ensure_running()?;
            let settled = self.ledger.is_complete() && self.totals()? == (self.ledger.written() as u64, 0);
            if settled {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn totals(&mut self) -> Result<(u64, u64)> {
        let mut totals = (0, 0);
        for (_, progress) in self.progress()? {
            totals.0 += progress.acknowledged();
            totals.1 += progress.pending;
        }
        Ok(totals)
    }

    /// The group's progress by stream name.
    fn progress(&mut self) -> Result<Vec<(&'static str, GroupProgress)>> {
        let mut all = Vec::new();
        for (name, (db, key)) in devices::streams() {
            self.redis.select(db)?;
            all.extend(self.redis.progress(GROUP, &[key])?.pop().map(|progress| (name, progress)));
        }
        Ok(all)
    }

    fn tally(mut self, drained: bool, stopped: Result<()>) -> Result<()> {
        let progress = self.progress()?;
        println!();
        println!(
            "{:32} {:>8} {:>9} {:>12} {:>7}  order",
            "stream", "written", "delivered", "acknowledged", "pending"
        );
        let mut good = drained;
        let mut sums = (0, 0, 0, 0);
        for (stream, verdict) in self.ledger.verdicts() {
            let group = progress.iter().find(|(name, _)| *name == stream).map(|(_, group)| group.clone());
            let group = group.unwrap_or_default();
            let (written, delivered, acknowledged) =
                (verdict.written, verdict.delivered, group.acknowledged());
            println!(
                "{stream:32} {written:8} {delivered:9} {acknowledged:12} {:7}  {verdict}",
                group.pending
            );
            good &= verdict.is_ok() && group.pending == 0 && acknowledged == written as u64;
            sums = (sums.0 + written, sums.1 + delivered, sums.2 + acknowledged, sums.3 + group.pending);
        }
        println!("{:32} {:8} {:9} {:12} {:7}", "all", sums.0, sums.1, sums.2, sums.3);
        if let Err(error) = stopped {
            println!("{error:#}");
            good = false;
        }
        if !good || sums.0 == 0 {
            bail!("NOT OK");
        }
        println!(
            "OK: every entry arrived, in order, and is acknowledged; the bridge stopped with exit code 0"
        );
        Ok(())
    }
}
