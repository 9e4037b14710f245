//! `cargo xtask bench drain`: how fast mqtt2kafka moves what a broker has kept for it, on real servers.
//!
//! Its session is made once, and filled while nobody uses it; then the release binary is started. The clock runs from when
//! it was last seen, on its ADMIN_ADDR, to have received nothing, to when Kafka confirmed the last to it: the way to Kafka is
//! made in that time, too. That everything is acknowledged is seen when it has stopped, in its session. The first run is not
//! counted: it looks at every record.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::backlog::{Backlog, PayloadKind, record};
use super::measure::{Run, STALLED};
use super::{Other, report};
use crate::admin::{self, Messages};
use crate::bridge::{self, Bridge, Interrupt, Kind, Profile, uns};
use crate::kafka::Kafka;
use crate::process::{tail, wait_until};
use crate::services::{Fleet, Private, Service, free_ports};
use crate::{mqtt, paths};

/// Where the bridge writes to on Kafka.
const TOPIC: &str = "bench";
/// And where the other command does.
const OTHER_TOPIC: &str = "bare-drain";
/// Names the bridge's session.
const CLIENT_ID: &str = "bench";
/// Until it begins.
const BETWEEN_FIRST_LOOKS: Duration = Duration::from_millis(5);
/// And then: looks every 10 ms halve what this machine has left for the bridge, and the end is told by the bridge.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// From the bridge's start.
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
#[command(after_long_help = "\
Output: as of the other jobs, one tab-separated line, its header on stderr:
  job topics entries seconds rate min max cpu_us_per_entry peak_mib
job is drain-KIND-wWINDOW.

The broker, a Mosquitto, has so many messages for a session at QoS 1 when the bridge is started. A run is timed from when the
bridge was last seen to have received nothing to when, as it says, Kafka confirmed the last. In the first run, which is not
timed, each record's value and time is compared with what was published, and the order for each topic; timed runs check that Kafka has every
message and that the broker has none any more.

--window changes little: a client of MQTT 5, as the bridge is, says itself how many messages it takes at a time, and
Mosquitto 2.0.11 lets the window of one of 3.1.1 grow with each acknowledgement when several come at once. Sparkplug payloads
become JSON that is several times as long.

The bridge runs with these settings, each to be replaced with --env:
  UNS_mqtt__topics='@json [\"bench/#\", \"spBv1.0/bench/#\"]'  UNS_mqtt__client_id=bench  UNS_kafka__topic=bench
  UNS_mqtt__ignored_attributes='@json {\"bench/#\": \"device\"}' (ignored)
and addresses; all else is default.

--against runs another command in turn with the bridge, which must make a session and a backlog of its own and print a
line as `cargo xtask bench --help` says; in it {mqtt}, {kafka}, {entries} and {payload} are replaced. Kafka's topic
for it is `bare-drain`:
  --against 'bare-drain --mqtt {mqtt} --kafka {kafka} --entries {entries} --payload {payload}'")]
pub(crate) struct Args {
    /// Messages in all
    #[arg(long, default_value_t = 200_000)]
    pub(super) entries: usize,
    /// MQTT topics that they are spread over
    #[arg(long, default_value_t = 100)]
    pub(super) topics: usize,
    /// Bytes of each payload, about
    #[arg(long, default_value_t = 200)]
    pub(super) payload: usize,
    /// What the payloads are
    #[arg(long, default_value = "json")]
    pub(super) payload_kind: PayloadKind,
    /// Mosquitto's max_inflight_messages; 0: no limit
    #[arg(long, default_value_t = 20)]
    window: u32,
    /// Timed runs
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A command to run in turn with the bridge
    #[arg(long, value_name = "COMMAND")]
    against: Option<String>,
    /// A setting of the bridge; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = super::key_value)]
    settings: Vec<(String, String)>,
}

/// What all runs share.
struct Drain<'a> {
    args: &'a Args,
    backlog: Backlog,
    program: std::path::PathBuf,
    servers: Private,
    broker: u16,
    kafka: Kafka,
    /// Where the bridge answers.
    admin: u16,
    interrupt: Interrupt,
}

pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(
        args.topics > 0 && args.entries > args.topics,
        "every topic needs a message, and there must be one"
    );
    ensure!(args.runs > 0, "a median needs a run");
    let interrupt = Interrupt::watch()?;
    let kind = Kind::Mqtt2kafka;
    let program = bridge::build(Profile::Release)?.join(kind.name());
    let services = [kind.source(), kind.destination()];
    let servers = Fleet::private_with_window(&paths::data("bench"), &services, args.window)?;
    let broker = servers.port(Service::Mosquitto, "plain")?;
    let kafka = Kafka::at(servers.port(Service::Kafka, "plain")?);
    let (backlog, admin) = (Backlog::of(args), free_ports(1)?[0]);
    let drain = Drain { args, backlog, program, servers, broker, kafka, admin, interrupt };
    for topic in [TOPIC, OTHER_TOPIC] {
        kafka.create(topic, 1)?;
    }
    drain.make_session().context("make the bridge's session")?;
    drain.verify().context("the run that checks every message")?;
    eprintln!("every message arrived, in order; now {} timed runs", args.runs);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 1..=args.runs {
        let run = drain.drain().with_context(|| format!("run {number}"))?;
        eprintln!("run {number}: {:.0} messages/s", run.rate(args.entries));
        ours.push(run);
        if let Some(command) = &args.against {
            let run = drain.other(command).with_context(|| format!("run {number} of the other command"))?;
            eprintln!("run {number}: {:.0} messages/s, the other", run.rate(args.entries));
            theirs.push(run);
        }
    }
    let job = format!("drain-{}-w{}", args.payload_kind.name(), args.window);
    report(&job, args.topics, args.entries, &ours, &theirs);
    Ok(())
}

impl Drain<'_> {
    /// Nothing is kept for a session that is not there.
    fn make_session(&self) -> Result<()> {
        let mut bridge = self.bridge()?;
        let ready = wait_until(READY_WITHIN, || {
            self.interrupt.came()
                || bridge.ensure_running().is_err()
                || admin::get(self.admin, "/readyz").is_ok()
        });
        self.interrupt.ensure_not()?;
        bridge.ensure_running()?;
        ensure!(ready, "the bridge does not get ready; {}", tail(bridge.log()));
        bridge.stop()?;
        self.ensure_nothing_kept()
    }

    /// One run without a clock: everything arrived, in order, as it was.
    fn verify(&self) -> Result<()> {
        self.drain()?;
        let mut ledger = self.backlog.expected()?;
        self.kafka.each(TOPIC, |arrived| ledger.arrived(arrived.key, record(arrived.time, arrived.value)))?;
        let wrong: Vec<String> = ledger
            .verdicts()
            .filter(|(_, verdict)| !verdict.is_ok())
            .map(|(topic, verdict)| format!("{topic}: {verdict}"))
            .collect();
        ensure!(wrong.is_empty(), "{} topics: {}", wrong.len(), wrong.join("; "));
        Ok(())
    }

    /// One run: a backlog, and a bridge that moves it.
    fn drain(&self) -> Result<Run> {
        let before = self.kafka.written(TOPIC, 1)?;
        self.backlog.publish(self.broker).context("publish the backlog")?;
        let mut bridge = self.bridge()?;
        let run = self.measure(&mut bridge)?;
        bridge.stop()?;
        self.ensure_nothing_kept()?;
        let (entries, written) = (self.args.entries as u64, self.kafka.written(TOPIC, 1)? - before);
        ensure!(written >= entries, "{entries} messages are confirmed, and Kafka has {written}");
        Ok(run)
    }

    fn measure(&self, bridge: &mut Bridge) -> Result<Run> {
        let entries = self.args.entries as u64;
        let (mut begun, mut cpu) = (SystemTime::now(), bridge.process().cpu()?);
        let (mut seen, mut moved) = (Messages::default(), Instant::now());
        while seen.delivered < entries {
            let (now, spent) = (SystemTime::now(), bridge.process().cpu()?);
            match Messages::of(self.admin) {
                Ok(messages) if messages != seen => (seen, moved) = (messages, Instant::now()),
                Ok(_) => {}
                // A bridge that has just started does not answer yet.
                Err(_) if seen == Messages::default() => {}
                Err(error) => return Err(error.context("ask the bridge for its numbers")),
            }
            if seen.received == 0 {
                (begun, cpu) = (now, spent);
            }
            ensure!(seen.refused == 0, "{} messages are dead letters; {}", seen.refused, tail(bridge.log()));
            if moved.elapsed() > STALLED {
                bail!("nothing moved for {} s; {}", STALLED.as_secs(), tail(bridge.log()));
            }
            self.interrupt.ensure_not()?;
            bridge.ensure_running()?;
            if seen.delivered < entries {
                sleep(if seen.received == 0 { BETWEEN_FIRST_LOOKS } else { BETWEEN_LOOKS });
            }
        }
        let begun = begun.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs_f64();
        let seconds = seen.last_delivery - begun;
        ensure!(seconds > 0.0, "the run was over before it was seen to begin: use more entries");
        let cpu = bridge.process().cpu()?.saturating_sub(cpu);
        Ok(Run {
            seconds,
            cpu_us: cpu.as_secs_f64() * 1e6 / entries as f64,
            peak_mib: Some(bridge.process().peak_kib()? as f64 / 1024.0),
        })
    }

    fn ensure_nothing_kept(&self) -> Result<()> {
        let kept = mqtt::kept(self.broker, &self.servers.broker_log(), CLIENT_ID)?
            .context("the broker has no session of the bridge")?;
        ensure!(kept.is_empty(), "the broker still has {} messages or more for the bridge", kept.len());
        Ok(())
    }

    fn other(&self, command: &str) -> Result<Run> {
        let address =
            |service| -> Result<String> { Ok(format!("127.0.0.1:{}", self.servers.port(service, "plain")?)) };
        let command = command
            .replace("{mqtt}", &address(Service::Mosquitto)?)
            .replace("{kafka}", &address(Service::Kafka)?)
            .replace("{entries}", &self.args.entries.to_string())
            .replace("{payload}", &self.args.payload.to_string());
        Other { command: &command, entries: self.args.entries }.run(&self.interrupt)
    }

    fn bridge(&self) -> Result<Bridge> {
        let mut settings = Kind::Mqtt2kafka.addresses(&self.servers, self.admin)?;
        settings.extend(self.backlog.settings());
        settings.push(uns("mqtt__client_id", CLIENT_ID));
        settings.push(uns("kafka__topic", TOPIC));
        // The last of two wins.
        settings.extend(self.args.settings.iter().cloned());
        Bridge::start(&self.program, &["run"], &settings, &paths::data("bench"))
    }
}
