//! Redis streams to MQTT topics: one sink, wired to the loop that all bridges share.

mod cli;
mod commands;
mod message;
mod messages;
mod mqtt;
mod settings;
mod sink;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use sync_core::commands::{CommandError, Ended};
use sync_core::payload::Encoder;
use sync_core::rate_limit::RateLimiter;
use sync_core::run::{Bridge, Live, run};
use sync_core::settings::{Inputs, Loaded, Mistakes};
use sync_core::shutdown::{self, Hangups, Shutdown};
use sync_core::telemetry::admin::Admin;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::log::{self, LogFormat, LogHandle, LogSetup};
use sync_core::telemetry::metrics::Metrics;
use sync_core::tls;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use self::cli::{Cli, Command};
use self::settings::Settings;
use self::sink::MqttSink;

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// EX_CONFIG of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let inputs = cli.inputs();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run_bridge(inputs),
        Command::Check(arguments) => operate(&inputs, |loaded| commands::check(loaded, &arguments)),
        Command::DeadLetters(command) => operate(&inputs, |loaded| commands::dead_letters(loaded, command)),
        Command::Completions { shell } => {
            cli::print_completions(shell);
            ExitCode::SUCCESS
        }
    }
}

fn run_bridge(inputs: Inputs) -> ExitCode {
    // Before anything that takes time: a stop that comes early must not be lost.
    let signals = shutdown::signals();
    tls::install_provider();
    let loaded = match Settings::load(&inputs) {
        Ok(loaded) => loaded,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    let result = signals.and_then(|(stop, hangups)| {
        let log = log::install(LogSetup::new(&loaded.settings.general.log, NAME))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        runtime()?.block_on(bridge(loaded, inputs, log, stop, hangups))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{NAME} ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A command of an operator: a signal ends it as it ends any program. Its answer is its output, so only what went
/// wrong is logged, and to no file.
fn operate(
    inputs: &Inputs,
    command: impl AsyncFnOnce(Loaded<Settings>) -> Result<Ended, CommandError>,
) -> ExitCode {
    tls::install_provider();
    let loaded = match Settings::load(inputs) {
        Ok(loaded) => loaded,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    let setup = LogSetup {
        level: commands::log_level(&loaded.settings.general.log),
        format: Some(LogFormat::Human { colour: false }),
        dir: None,
        ..LogSetup::new(&loaded.settings.general.log, NAME)
    };
    let result = log::install(setup)
        .map_err(anyhow::Error::from)
        .and_then(|_| runtime())
        .map(|runtime| runtime.block_on(command(loaded)));
    match result {
        Ok(Ok(ended)) => ended.into(),
        Ok(Err(error)) => failed(&error),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command answers to a person")]
fn failed(error: &CommandError) -> ExitCode {
    if !error.is_silent() {
        eprintln!("{NAME}: {error}");
    }
    error.exit_code()
}

/// One thread: the work is moving bytes, and a second core is better left to Redis and the broker.
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

async fn bridge(
    loaded: Loaded<Settings>,
    inputs: Inputs,
    log: LogHandle,
    stop: Shutdown,
    hangups: Hangups,
) -> anyhow::Result<()> {
    let Settings { redis, streams, text, general, mqtt } = loaded.settings;
    tracing::info!(version = VERSION, group = streams.group, consumer = streams.consumer, "{NAME} starts");
    let health = Health::default();
    let metrics = Metrics::new(NAME, VERSION, general.metrics_per_stream);
    let limiter = RateLimiter::new(streams.rate_limit);
    if let Some(address) = general.admin_addr {
        let admin = Admin::bind(&address.to_string()).await?;
        let (health, metrics, stop) = (health.clone(), metrics.clone(), stop.clone());
        tokio::spawn(async move { admin.serve(health, metrics, stop.requested()).await });
    }
    let (tell, live) = watch::channel(live_of(&streams));
    tokio::spawn(reload(inputs, hangups, tell, log, limiter.clone()));

    let sink = MqttSink::new(&mqtt, streams.ownership, Encoder::new(text.value_format, text.encoding))?;
    let bridge = Bridge {
        name: NAME,
        sink,
        sink_retry: mqtt.retry,
        redis,
        streams,
        live,
        limiter,
        health,
        metrics,
        stop,
        shutdown_timeout: general.shutdown_timeout,
    };
    run(bridge).await?;
    tracing::info!("{NAME} has stopped");
    Ok(())
}

/// SIGHUP: what may change while running is applied; a bad file changes nothing.
async fn reload(
    inputs: Inputs,
    mut hangups: Hangups,
    tell: watch::Sender<Live>,
    log: LogHandle,
    limiter: RateLimiter,
) {
    loop {
        hangups.next().await;
        match Settings::load(&inputs) {
            Ok(Loaded { settings, warnings, .. }) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                log.set_level(settings.general.log.level.into());
                limiter.set_rate(settings.streams.rate_limit);
                tell.send_replace(live_of(&settings.streams));
                tracing::info!(
                    "settings read again: discovery range, patterns, interval, log level and rate limit apply"
                );
            }
            Err(mistakes) => tracing::error!("settings not read again, the old ones stay: {mistakes}"),
        }
    }
}

fn live_of(streams: &sync_core::settings::StreamSettings) -> Live {
    Live { discovery: streams.discovery.clone(), interval: streams.discovery_interval }
}
