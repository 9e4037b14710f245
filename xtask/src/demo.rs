//! `cargo xtask demo`: simulated devices write to Redis, bridges move it to MQTT, to another Redis, to PostgreSQL
//! and to Kafka; a simulated plant publishes by MQTT, and a bridge moves that to Kafka, too; and a person watches.
//!
//! The servers are the demo's own and end with it. The bridges run with the example settings that we ship; only
//! addresses come from the environment. Threads send what happens to one loop, which keeps a ledger for each bridge.

mod act;
mod copied;
mod devices;
mod exhibit;
mod plant;
mod source;
mod tables;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum as _;

use crate::bridge::{self, Interrupt, Kind, Profile};
use crate::paths;
use crate::services::{Fleet, Private, Service, free_ports};
use act::Act;
use devices::Devices;
use exhibit::Exhibit;
use plant::Plant;

const COUNT_EVERY: Duration = Duration::from_secs(2);
/// A stream made just before the end is found within the discovery interval of 10 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this bridge (otherwise all)
    bridge: Option<Kind>,
    /// Stop by itself after so many seconds (otherwise with Ctrl-C)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Show redis2kafka through its buffer, too
    #[arg(long)]
    buffered: bool,
}

/// What the threads report.
enum Event {
    Wrote {
        /// Where it was written to.
        source: Service,
        stream: String,
        id: String,
    },
    Arrived {
        from: Act,
        place: String,
        stream: String,
        id: String,
        data: String,
    },
    /// A key has another value: no entry of any stream, and in no ledger.
    Changed {
        from: Act,
        place: String,
        time: String,
        data: String,
    },
    Failed(anyhow::Error),
}

/// Where the bridges are shown.
struct Stage {
    /// The directory of their programs.
    programs: PathBuf,
    servers: Private,
    /// What they write.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let programs = bridge::build(Profile::Dev)?;
    let kinds = args.bridge.as_ref().map_or(Kind::value_variants(), std::slice::from_ref);
    let mut acts: Vec<Act> = kinds.iter().copied().map(Act::from).collect();
    if args.buffered && kinds.contains(&Kind::Redis2kafka) {
        acts.push(Act { kind: Kind::Redis2kafka, buffered: true });
    }
    let dir = paths::data("demo");
    let services: Vec<Service> = acts.iter().flat_map(|act| act.services()).collect();
    let servers = Fleet::private(&dir, &services)?;
    let stage = Stage { programs, servers, dir };
    let port_of = |source| {
        let is_read = acts.iter().any(|act| act.kind.source() == source);
        is_read.then(|| stage.servers.port(source, "plain")).transpose()
    };

    let (events, happened) = channel();
    let devices = port_of(Service::Redis)?.map(|port| Devices::start(port, events.clone())).transpose()?;
    // All at once: what is free now need not be in use by the time that the next one is looked for.
    let mut admins = free_ports(acts.iter().map(|act| act.replicas()).sum())?;
    let open = |act: &Act| {
        let own = admins.split_off(admins.len() - act.replicas());
        Exhibit::open(*act, &stage, &own, &events)
    };
    let exhibits = acts.iter().map(open).collect::<Result<_>>()?;
    let plant = port_of(Service::Mosquitto)?.map(|port| Plant::start(port, events.clone())).transpose()?;
    let mut show = Show { exhibits, happened, counted: Instant::now() };
    let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !interrupt.came() && until.is_none_or(|until| Instant::now() < until) {
        show.next()?;
    }
    println!("-- the devices fall silent; waiting for what is still on its way");
    devices.into_iter().for_each(Devices::stop);
    plant.into_iter().for_each(Plant::stop);
    show.drain()?;
    show.close()
}

/// What the person sees.
struct Show {
    exhibits: Vec<Exhibit>,
    happened: Receiver<Event>,
    counted: Instant,
}

impl Show {
    /// Takes one event if one comes soon, and prints the counts when they are due.
    fn next(&mut self) -> Result<()> {
        match self.happened.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Wrote { source, stream, id }) => {
                let readers = self.exhibits.iter_mut().filter(|exhibit| exhibit.act.kind.source() == source);
                readers.for_each(|exhibit| exhibit.ledger.wrote(&stream, id.clone()));
            }
            Ok(Event::Arrived { from, place, stream, id, data }) => {
                println!("{}", format!("{:12} {place:38} {id:17} {data}", from.name()).trim_end());
                let exhibit = self.exhibits.iter_mut().find(|exhibit| exhibit.act == from);
                exhibit.expect("only what is shown is watched").ledger.arrived(&stream, id);
            }
            Ok(Event::Changed { from, place, time, data }) => {
                println!("{:12} {place:38} {time:17} {data}", from.name());
            }
            Ok(Event::Failed(error)) => return Err(error),
            // The devices' end of the channel closes when they stop, and the watchers' soon after.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if self.counted.elapsed() >= COUNT_EVERY {
            self.counted = Instant::now();
            self.exhibits.iter_mut().try_for_each(Exhibit::print_counts)?;
        }
        self.exhibits.iter_mut().try_for_each(Exhibit::ensure_running)
    }

    /// Until everything written has arrived and is acknowledged, or that takes too long: the tally will tell.
    fn drain(&mut self) -> Result<()> {
        let until = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < until {
            self.next()?;
            let mut complete = true;
            for exhibit in &mut self.exhibits {
                complete &= exhibit.is_complete()?;
            }
            if complete {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        let mut good = true;
        for exhibit in self.exhibits {
            good &= exhibit.close()?;
        }
        if !good {
            bail!("NOT OK");
        }
        println!(
            "OK: every entry and every message arrived, in order, and is acknowledged; every copy, stream or table, is the same \
             entry by entry; the bridges stopped with exit code 0"
        );
        Ok(())
    }
}
