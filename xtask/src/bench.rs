//! `cargo xtask bench`: how fast a bridge moves entries, on real servers, in a way that can be compared.
//!
//! Each run fills Redis first, then starts the release binary. The clock runs from the first entry that the
//! consumer group was given to the last one acknowledged, seen by asking Redis every few milliseconds: connecting
//! and discovery are not in it, reading, delivering and acknowledging are. Processor time is the bridge's own over
//! the same span. The first run is not counted: it checks that every entry arrived in order, for which a broker needs
//! a subscriber, which would slow it down. Counted runs check that nothing is pending, nothing was put aside, and that
//! the destination received as many messages, or holds as many entries or rows, as there are entries.
//! `drain` is the job of the bridge that reads no streams, and has its own ways.

mod arrivals;
mod backlog;
mod drain;
mod fill;
mod measure;
mod stats;

use std::process;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use crate::bridge::{self, Bridge, Interrupt, Kind, Profile};
use crate::kafka::Kafka;
use crate::paths;
use crate::postgres::{self, Postgres};
use crate::redis::{Redis, Reply};
use crate::services::{Fleet, Private, Service, free_ports};
use fill::Load;
use measure::Run;
use stats::Summary;

/// As the bench's own settings name it.
const GROUP: &str = "bench";
/// Where the bridge writes to on Kafka.
const TOPIC: &str = "bench";
/// And where the other command does.
const OTHER_TOPIC: &str = "bare-loop";

#[derive(clap::Args)]
#[command(after_long_help = "\
Output: one tab-separated line, its header on stderr:
  job streams entries seconds rate min max cpu_us_per_entry peak_mib
seconds, rate, CPU and peak memory are medians over the runs; min and max are rates.

A run is timed from the first entry that the consumer group is given to the last one acknowledged. Every entry is
checked to have arrived in order in the first run, which is not timed, because a subscriber slows a broker down (on
another Redis, every stream is compared with its copy; in PostgreSQL, with its rows); timed runs check that nothing is left pending, nothing is
dead-lettered, and that the destination got every entry.

The bridge runs with these settings, each to be replaced with --env:
  REDIS_RATE_LIMIT=0  STREAM_BATCH_SIZE=1000  STREAM_DISCOVERY_PATTERNS=bench*  STREAM_CONSUMER_GROUP=bench
  REDIS_DBS_TO_SEARCH=0  MQTT_BASE_TOPIC=redis (mqtt)  STREAM_AUTO_DISCOVERY=true KAFKA_TOPIC=bench (kafka)
and addresses; all else is default.
PostgreSQL is empty before each run, has max_wal_size=8GB and shared_buffers=256MB, and is as durable as it comes.
Kafka is one broker; its topics are `bench` and, for the other command, `bare-loop`. With --buffered, an entry is
acknowledged once the buffer has it; when Kafka has everything is told on stderr.

--against runs another command in turn with the bridge and prints its line, with job `against`, and then
`ratio` and the quotient of the two median rates. The command prints a line of its own, tab-separated, at its end:
sink entries seconds rate cpu_us_per_entry. In it {redis} (or {source}), {target}, {mqtt}, {pg}, {kafka}, {entries} and
{payload} are replaced:
  --against 'bare-loop mqtt --source {redis} --mqtt {mqtt} --entries {entries} --payload {payload}'
  --against 'bare-loop redis --source {redis} --target {target} --entries {entries} --payload {payload}'
  --against 'bare-loop pg --source {redis} --pg {pg} --entries {entries} --payload {payload}'
  --against 'bare-loop kafka --source {source} --kafka {kafka} --entries {entries} --payload {payload}'")]
pub(crate) struct Args {
    #[command(subcommand)]
    job: Command,
}

/// What to measure.
#[derive(Subcommand)]
enum Command {
    /// redis2mqtt at QoS 1
    Mqtt(Options),
    /// redis2redis
    Redis(Options),
    /// redis2pg
    Pg(Options),
    /// redis2kafka
    Kafka(Options),
    /// mqtt2kafka: what the broker kept while the bridge was away
    Drain(drain::Args),
}

/// Of a bridge that reads streams.
#[derive(clap::Args)]
struct Options {
    /// Entries in all
    #[arg(long, default_value_t = 300_000)]
    entries: usize,
    /// Streams that they are spread over
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Bytes of the payload field, beside four short fields
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Timed runs
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Partitions of each topic (kafka)
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// Through the durable buffer, on a Redis of its own (kafka)
    #[arg(long)]
    buffered: bool,
    /// A command to run in turn with the bridge
    #[arg(long, value_name = "COMMAND")]
    against: Option<String>,
    /// A setting of the bridge; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
}

/// A bridge that reads streams, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Mqtt,
    Redis,
    Pg,
    Kafka,
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Redis => "redis",
            Self::Pg => "pg",
            Self::Kafka => "kafka",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Mqtt => Kind::Redis2mqtt,
            Self::Redis => Kind::Redis2redis,
            Self::Pg => Kind::Redis2pg,
            Self::Kafka => Kind::Redis2kafka,
        }
    }
}

/// What all runs share.
struct Bench<'a> {
    job: Job,
    args: &'a Options,
    load: Load,
    program: std::path::PathBuf,
    servers: Private,
    /// Where the bridge answers.
    admin: u16,
    interrupt: Interrupt,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.job {
        Command::Mqtt(options) => run_job(Job::Mqtt, options),
        Command::Redis(options) => run_job(Job::Redis, options),
        Command::Pg(options) => run_job(Job::Pg, options),
        Command::Kafka(options) => run_job(Job::Kafka, options),
        Command::Drain(args) => drain::run(args),
    }
}

fn run_job(job: Job, args: &Options) -> Result<()> {
    ensure!(
        args.streams > 0 && args.entries >= args.streams,
        "every stream needs an entry, and there must be one"
    );
    ensure!(args.runs > 0, "a median needs a run");
    ensure!(args.partitions > 0, "a topic has at least one partition");
    ensure!(
        job == Job::Kafka || (args.partitions == 1 && !args.buffered),
        "--partitions and --buffered are for kafka"
    );
    let interrupt = Interrupt::watch()?;
    let program = bridge::build(Profile::Release)?.join(job.kind().name());
    let mut servers = vec![Service::Redis, job.kind().destination()];
    servers.extend(args.buffered.then_some(Service::Target));
    let servers = Fleet::private(&paths::data("bench"), &servers)?;
    let load = Load { entries: args.entries, streams: args.streams, payload: args.payload };
    let admin = free_ports(1)?[0];
    let bench = Bench { job, args, load, program, servers, admin, interrupt };

    if job == Job::Kafka {
        for topic in [TOPIC, OTHER_TOPIC] {
            bench.kafka()?.create(topic, args.partitions)?;
        }
    }
    bench.verify().context("the run that checks every entry")?;
    eprintln!("every entry arrived, in order; now {} timed runs", args.runs);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 1..=args.runs {
        let run = bench.timed().with_context(|| format!("run {number}"))?;
        eprintln!("run {number}: {:.0} entries/s", run.rate(args.entries));
        ours.push(run);
        if let Some(command) = &args.against {
            let run = bench.other(command).with_context(|| format!("run {number} of the other command"))?;
            eprintln!("run {number}: {:.0} entries/s, the other", run.rate(args.entries));
            theirs.push(run);
        }
    }
    report(job.name(), args.streams, args.entries, &ours, &theirs);
    Ok(())
}

fn report(job: &str, streams: usize, entries: usize, ours: &[Run], theirs: &[Run]) {
    eprintln!("job\tstreams\tentries\tseconds\trate\tmin\tmax\tcpu_us_per_entry\tpeak_mib");
    let ours = Summary::of(ours, entries);
    println!("{job}\t{streams}\t{entries}\t{ours}");
    if !theirs.is_empty() {
        let theirs = Summary::of(theirs, entries);
        println!("against\t1\t{entries}\t{theirs}");
        println!("ratio\t{:.2}", ours.rate / theirs.rate);
    }
}

/// The other command, and what it is to move.
struct Other<'a> {
    command: &'a str,
    entries: usize,
}

impl Other<'_> {
    fn run(&self, interrupt: &Interrupt) -> Result<Run> {
        let Self { command, entries } = self;
        let output = process::Command::new("sh")
            .args(["-c", command])
            .current_dir(paths::root())
            .stdin(process::Stdio::null())
            .stderr(process::Stdio::inherit())
            .output()
            .context("start sh")?;
        interrupt.ensure_not()?;
        ensure!(output.status.success(), "`{command}` ended with {}", output.status);
        let (moved, run) = stats::parse_line(&String::from_utf8_lossy(&output.stdout))?;
        ensure!(moved == *entries, "`{command}` moved {moved} entries, not {entries}");
        Ok(run)
    }
}

impl Bench<'_> {
    fn timed(&self) -> Result<Run> {
        let mut redis = self.filled()?;
        let before = self.received()?;
        let mut bridge = self.bridge()?;
        let run = measure::run(&mut redis, &self.load, &mut bridge, &self.interrupt)?;
        if self.args.buffered {
            // It ends with what it has sent: the rest would go out at the next start.
            let acknowledged = Instant::now();
            self.ensure_received(before)?;
            eprintln!("Kafka had everything {:.2} s later", acknowledged.elapsed().as_secs_f64());
        }
        bridge.stop()?;
        self.ensure_received(before)?;
        Ok(run)
    }

    /// The other command, on the same servers.
    fn other(&self, command: &str) -> Result<Run> {
        self.emptied()?;
        let command = self.filled_in(command)?;
        Other { command: &command, entries: self.load.entries }.run(&self.interrupt)
    }

    fn filled_in(&self, command: &str) -> Result<String> {
        let address =
            |service| -> Result<String> { Ok(format!("127.0.0.1:{}", self.servers.port(service, "plain")?)) };
        let destination = address(self.job.kind().destination())?;
        Ok(command
            .replace("{redis}", &format!("redis://{}/0", address(Service::Redis)?))
            .replace("{source}", &format!("redis://{}/0", address(Service::Redis)?))
            .replace("{target}", &format!("redis://{destination}/0"))
            .replace("{mqtt}", &destination)
            .replace("{kafka}", &destination)
            .replace("{pg}", &postgres::url(&destination))
            .replace("{entries}", &self.load.entries.to_string())
            .replace("{payload}", &self.load.payload.to_string()))
    }

    /// A source and a destination that hold nothing, where the destination is one that keeps things.
    fn emptied(&self) -> Result<Redis> {
        self.interrupt.ensure_not()?;
        match self.job {
            Job::Kafka if self.args.buffered => drop(self.target()?.call(&["FLUSHALL"])?),
            Job::Mqtt | Job::Kafka => {}
            Job::Redis => drop(self.target()?.call(&["FLUSHALL"])?),
            Job::Pg => {
                // Whatever table the last run filled, whosever it was: no vacuum, checkpoint or index of it is left.
                self.postgres()?.ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public")?;
                self.postgres()?.ask("CHECKPOINT")?;
            }
        }
        let mut redis = Redis::connect(self.servers.port(Service::Redis, "plain")?)?;
        redis.call(&["FLUSHALL"])?;
        Ok(redis)
    }

    /// A source that holds the load and nothing else.
    fn filled(&self) -> Result<Redis> {
        let mut redis = self.emptied()?;
        self.load.fill(&mut redis)?;
        match redis.call(&["DBSIZE"])? {
            Reply::Integer(keys) if keys == self.load.streams as i64 => Ok(redis),
            other => bail!("{} streams were filled and Redis holds {other:?}", self.load.streams),
        }
    }

    fn bridge(&self) -> Result<Bridge> {
        let mut settings = self.job.kind().addresses(&self.servers, self.admin)?;
        settings.extend(
            [
                ("REDIS_DBS_TO_SEARCH", "0"),
                ("REDIS_RATE_LIMIT", "0"),
                ("STREAM_DISCOVERY_PATTERNS", "bench*"),
                ("STREAM_CONSUMER_GROUP", GROUP),
                ("STREAM_BATCH_SIZE", "1000"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        if self.job == Job::Mqtt {
            settings.push(("MQTT_BASE_TOPIC".to_owned(), "redis".to_owned()));
        }
        if self.job == Job::Kafka {
            settings.push(("STREAM_AUTO_DISCOVERY".to_owned(), "true".to_owned()));
            settings.push(("KAFKA_TOPIC".to_owned(), TOPIC.to_owned()));
        }
        if self.args.buffered {
            settings.extend(bridge::at("TARGET_REDIS", self.servers.port(Service::Target, "plain")?));
        }
        // The last of two wins.
        settings.extend(self.args.settings.iter().cloned());
        Bridge::start(&self.program, &["run"], &settings, &paths::data("bench"))
    }

    fn broker(&self) -> Result<u16> {
        self.servers.port(Service::Mosquitto, "plain")
    }

    fn target(&self) -> Result<Redis> {
        Redis::connect(self.servers.port(Service::Target, "plain")?)
    }

    fn kafka(&self) -> Result<Kafka> {
        Ok(Kafka::at(self.servers.port(Service::Kafka, "plain")?))
    }

    fn postgres(&self) -> Result<Postgres> {
        Ok(Postgres::at(self.servers.port(Service::Postgres, "plain")?))
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.to_owned(), value.to_owned()))
}
