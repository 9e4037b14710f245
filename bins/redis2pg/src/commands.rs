//! The operator's commands, with PostgreSQL for a sink.

use std::io::{self, Write as _};

use sync_core::commands::check::{self, CheckArguments};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments};
use sync_core::commands::{CommandError, Ended};
use sync_core::redis::connection::Connector;
use sync_core::settings::Loaded;
use sync_core::telemetry::metrics::Metrics;

use crate::schema::Wanted;
use crate::settings::Settings;
use crate::sink::PgSink;

pub(crate) async fn check(
    loaded: Loaded<Settings>,
    arguments: &CheckArguments,
) -> Result<Ended, CommandError> {
    let mut out = io::stdout().lock();
    check::print_settings(&loaded.effective, &loaded.warnings, &mut out)?;
    // It reads the TLS files that the settings name.
    Connector::new(loaded.settings.redis.clone())?;
    if !arguments.connect {
        return Ok(Ended::Well);
    }
    let sink = PgSink::untouched(&loaded.settings);
    writeln!(out)?;
    let Settings { redis, streams, .. } = loaded.settings;
    check::connect(redis, streams, &sink, arguments.all, &mut out).await
}

pub(crate) async fn monitor(
    loaded: Loaded<Settings>,
    arguments: &MonitorArguments,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let Settings { general, redis, streams, .. } = loaded.settings;
    monitor::run(redis, streams, general.monitor_interval, arguments, &mut io::stdout().lock()).await
}

/// Connects to nothing: what it prints is for whoever may do what the bridge may not.
pub(crate) fn schema(loaded: &Loaded<Settings>) -> Result<Ended, CommandError> {
    let wanted = Wanted::by(&loaded.settings);
    let postgres = &loaded.settings.postgres;
    let mut out = io::stdout().lock();
    writeln!(out, "-- The tables of redis2pg. Run as the owner of the schema.\n{}", wanted.sql())?;
    writeln!(
        out,
        "-- All that the role of the bridge needs.\n{}",
        wanted.grants(&postgres.database).trim_end()
    )?;
    Ok(Ended::Well)
}

pub(crate) async fn dead_letters(
    loaded: Loaded<Settings>,
    command: DeadLettersCommand,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let sink = PgSink::new(&loaded.settings, &Metrics::default());
    let Settings { redis, streams, .. } = loaded.settings;
    dead_letters::run(command, redis, streams, &sink, &mut io::stdout().lock()).await
}
