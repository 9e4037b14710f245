//! The operator's commands, with another Redis for a sink.

use std::io::{self, Write as _};

use sync_core::commands::check::{self, CheckArguments};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments};
use sync_core::commands::{CommandError, Ended};
use sync_core::redis::connection::Connector;
use sync_core::settings::Loaded;

use crate::settings::{IdConflict, Settings};
use crate::sink::RedisSink;

pub(crate) async fn check(
    loaded: Loaded<Settings>,
    arguments: &CheckArguments,
) -> Result<Ended, CommandError> {
    let mut out = io::stdout().lock();
    check::print_settings(&loaded.effective, &loaded.warnings, &mut out)?;
    // Both read the TLS files that the settings name.
    Connector::new(loaded.settings.redis.clone())?;
    let sink = RedisSink::new(&loaded.settings)?;
    if !arguments.connect {
        return Ok(Ended::Well);
    }
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

pub(crate) async fn dead_letters(
    mut loaded: Loaded<Settings>,
    command: DeadLettersCommand,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // What stands in the dead letters could not keep its ID: a replay gives it a new one.
    loaded.settings.target.conflict = IdConflict::AutoId;
    let sink = RedisSink::new(&loaded.settings)?;
    let Settings { redis, streams, .. } = loaded.settings;
    dead_letters::run(command, redis, streams, &sink, &mut io::stdout().lock()).await
}
