//! What every binary does around its bridge, and around the commands of its operator: settings, log, signals, admin
//! pages, exit codes. It names no destination and moves nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::bridge::Sink;
use crate::commands::{CommandError, Ended, healthcheck};
use crate::rate_limit::RateLimiter;
use crate::run::{Bridge, Live, Parts};
use crate::settings::{
    GeneralSettings, Inputs, Loaded, LogSettings, Mistakes, RedisSettings, RetrySettings, StreamSettings,
};
use crate::shutdown::{self, Hangups, Shutdown};
use crate::telemetry::admin::Admin;
use crate::telemetry::health::Health;
use crate::telemetry::log::{self, LogFormat, LogHandle, LogSetup};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;
use crate::tls;

/// EX_CONFIG of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;

/// A binary, as it names itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// As in the log, the metrics and the dead letters.
    pub name: &'static str,
    /// Of its package.
    pub version: &'static str,
    /// Crates that it shares with other bridges beside this one, as modules are spelled: they speak in its name.
    pub own_crates: &'static [&'static str],
}

/// The settings of one bridge.
pub trait BridgeSettings: Sized {
    /// Loads them; on SIGHUP again, with the same inputs.
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes>;

    /// What every bridge has.
    fn general(&self) -> &GeneralSettings;
}

/// The settings of a bridge that reads streams.
pub trait StreamBridgeSettings: BridgeSettings {
    /// What it reads.
    fn streams(&self) -> &StreamSettings;
}

/// Where settings come from, as every command line has it.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsArguments {
    /// Settings file (KEY=VALUE lines); else CONFIG_FILE, else ./env.conf if it is there.
    #[arg(long, global = true, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// DEBUG, INFO, WARNING, ERROR, CRITICAL or TRACE.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl SettingsArguments {
    /// With what the process was started with beside them.
    pub fn inputs(&self) -> Inputs {
        let inputs = Inputs::from_process().config_file(self.config_file.as_deref());
        match &self.log_level {
            Some(level) => inputs.set("LOG_LEVEL", level),
            None => inputs,
        }
    }
}

/// What is made before the bridge and outside of it, whatever the bridge reads.
pub struct Process {
    /// As the program names itself.
    pub name: &'static str,
    /// How the process is.
    pub health: Health,
    /// What it counts.
    pub metrics: Metrics,
    /// What its page says.
    pub status: Status,
    /// When to stop.
    pub stop: Shutdown,
    /// How long a stop waits for what is in flight.
    pub shutdown_timeout: Duration,
}

/// What is made before a bridge that reads streams.
pub struct Surroundings {
    name: &'static str,
    live: watch::Receiver<Live>,
    limiter: RateLimiter,
    health: Health,
    metrics: Metrics,
    status: Status,
    /// When to stop.
    pub stop: Shutdown,
    shutdown_timeout: Duration,
}

impl Surroundings {
    /// For what a sink counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How the process is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// A bridge in them.
    pub fn bridge<S: Sink>(
        self,
        sink: S,
        sink_retry: RetrySettings,
        redis: RedisSettings,
        streams: StreamSettings,
    ) -> Bridge<S> {
        let Self { name, live, limiter, health, metrics, status, stop, shutdown_timeout } = self;
        Bridge {
            name,
            sink,
            sink_retry,
            redis,
            streams,
            live,
            limiter,
            health,
            metrics,
            status,
            stop,
            shutdown_timeout,
            beside: None,
            parts: Parts::default(),
        }
    }
}

/// Runs a bridge that reads streams until it is asked to stop.
pub fn run_bridge<T: StreamBridgeSettings + 'static>(
    program: Program,
    inputs: Inputs,
    bridge: impl AsyncFnOnce(T, Surroundings) -> anyhow::Result<()>,
) -> ExitCode {
    run(program, inputs, async |settings: T, start: Start| {
        let streams = settings.streams();
        let Program { name, version, .. } = program;
        tracing::info!(version, group = streams.group, consumer = streams.consumer, "{name} starts");
        let (process, reload) = start.process(settings.general()).await?;
        let limiter = RateLimiter::new(streams.rate_limit);
        process.metrics.watch_limiter(limiter.clone());
        let (tell, live) = watch::channel(live_of(streams));
        let of_streams = limiter.clone();
        reload.on_hangup(
            "discovery range, patterns and interval of streams, log level and rate limit apply; others do at the next start",
            move |settings: &T| {
                of_streams.set_rate(settings.streams().rate_limit);
                tell.send_replace(live_of(settings.streams()));
            },
        );
        let Process { name, health, metrics, status, stop, shutdown_timeout } = process;
        let around = Surroundings { name, live, limiter, health, metrics, status, stop, shutdown_timeout };
        bridge(settings, around).await
    })
}

/// Runs a bridge that reads something else until it is asked to stop.
pub fn run_process<T: BridgeSettings + 'static>(
    program: Program,
    inputs: Inputs,
    bridge: impl AsyncFnOnce(T, Process) -> anyhow::Result<()>,
) -> ExitCode {
    run(program, inputs, async |settings: T, start: Start| {
        let Program { name, version, .. } = program;
        tracing::info!(version, "{name} starts");
        let (process, reload) = start.process(settings.general()).await?;
        process.metrics.without_streams();
        reload.on_hangup("the log level applies; all else does at the next start", |_: &T| {});
        bridge(settings, process).await
    })
}

fn run<T: BridgeSettings>(
    program: Program,
    inputs: Inputs,
    body: impl AsyncFnOnce(T, Start) -> anyhow::Result<()>,
) -> ExitCode {
    // Before anything that takes time: a stop that comes early must not be lost.
    let signals = shutdown::signals();
    tls::install_provider();
    let loaded = match T::load(&inputs) {
        Ok(loaded) => loaded,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    let result = signals.and_then(|(stop, hangups)| {
        let log = log::install(LogSetup {
            own_crates: program.own_crates,
            ..LogSetup::new(&loaded.settings.general().log, program.name)
        })?;
        warn(&loaded.warnings);
        runtime()?.block_on(body(loaded.settings, Start { program, inputs, log, stop, hangups }))
    });
    match result {
        Ok(()) => {
            tracing::info!("{} has stopped", program.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{} ends: {error:#}", program.name);
            ExitCode::FAILURE
        }
    }
}

/// A process that has read its settings and logs.
struct Start {
    program: Program,
    inputs: Inputs,
    log: LogHandle,
    stop: Shutdown,
    hangups: Hangups,
}

impl Start {
    /// With its pages, if there are to be any.
    async fn process(self, general: &GeneralSettings) -> anyhow::Result<(Process, Reload)> {
        let Self { program: Program { name, version, .. }, inputs, log, stop, hangups } = self;
        let health = Health::default();
        let metrics = Metrics::new(name, version, general.metrics_per_stream);
        let status = Status::default();
        if let Some(address) = general.admin_addr {
            let admin = Admin::bind(&address.to_string()).await?;
            let (health, metrics, status) = (health.clone(), metrics.clone(), status.clone());
            tokio::spawn(admin.serve(health, metrics, status, stop.requested()));
        }
        let shutdown_timeout = general.shutdown_timeout;
        let process = Process { name, health, metrics, status, stop, shutdown_timeout };
        Ok((process, Reload { inputs, log, hangups }))
    }
}

/// What reads settings again.
struct Reload {
    inputs: Inputs,
    log: LogHandle,
    hangups: Hangups,
}

impl Reload {
    /// SIGHUP: what may change while running is applied; a bad file changes nothing.
    fn on_hangup<T: BridgeSettings + 'static>(
        self,
        what_applies: &'static str,
        apply: impl Fn(&T) + Send + 'static,
    ) {
        let Self { inputs, log, mut hangups } = self;
        tokio::spawn(async move {
            loop {
                hangups.next().await;
                match T::load(&inputs) {
                    Ok(Loaded { settings, warnings, .. }) => {
                        warn(&warnings);
                        log.set_level(settings.general().log.level.into());
                        apply(&settings);
                        tracing::info!("settings read again: {what_applies}");
                    }
                    Err(mistakes) => {
                        tracing::error!("settings not read again, the old ones stay: {mistakes}")
                    }
                }
            }
        });
    }
}

fn live_of(streams: &StreamSettings) -> Live {
    Live {
        discovery: streams.discovery.clone(),
        dbs: streams.dbs.clone(),
        interval: streams.discovery_interval,
    }
}

/// A command of an operator: a signal ends it as it ends any program. Its answer is its output, so only what went
/// wrong is logged, and to no file.
pub fn operate<T: BridgeSettings>(
    program: Program,
    inputs: &Inputs,
    command: impl AsyncFnOnce(Loaded<T>) -> Result<Ended, CommandError>,
) -> ExitCode {
    tls::install_provider();
    let loaded = match T::load(inputs) {
        Ok(loaded) => loaded,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    let log = &loaded.settings.general().log;
    let setup = LogSetup {
        level: level_of_commands(log),
        format: Some(LogFormat::Human { colour: false }),
        dir: None,
        own_crates: program.own_crates,
        ..LogSetup::new(log, program.name)
    };
    let result = log::install(setup)
        .map_err(anyhow::Error::from)
        .and_then(|_| runtime())
        .map(|runtime| runtime.block_on(command(loaded)));
    match result {
        Ok(result) => answer(program, result),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a command that needs no settings came to.
pub fn answer(program: Program, result: Result<Ended, CommandError>) -> ExitCode {
    match result {
        Ok(ended) => ended.into(),
        Err(error) => failed(program, &error),
    }
}

/// Whether the bridge that runs beside this command, in the same container, lives.
pub fn healthcheck<T: BridgeSettings>(program: Program, inputs: &Inputs) -> ExitCode {
    match healthcheck::run::<T>(inputs, &mut std::io::stdout()) {
        Ok(ended) => ended.into(),
        Err(error) => {
            failed(program, &error);
            // Docker knows 0 and 1, and reserves 2.
            ExitCode::FAILURE
        }
    }
}

/// What a bridge tells of its life is of no interest to a command, unless somebody asks for more than that.
fn level_of_commands(settings: &LogSettings) -> LevelFilter {
    match settings.level {
        Level::INFO => LevelFilter::WARN,
        level => level.into(),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

#[expect(clippy::print_stderr, reason = "a command answers to a person")]
fn failed(program: Program, error: &CommandError) -> ExitCode {
    if !error.is_silent() {
        eprintln!("{}: {error}", program.name);
    }
    error.exit_code()
}

/// One thread: the work is moving bytes, and a second core is better left to the servers.
fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")
}

#[expect(clippy::print_stderr, reason = "there is no log without settings")]
fn bad_configuration(mistakes: &Mistakes) -> ExitCode {
    for warning in &mistakes.warnings {
        eprintln!("warning: {warning}");
    }
    eprintln!("{mistakes}");
    ExitCode::from(BAD_CONFIGURATION)
}
