//! The operator's commands, with Kafka for a sink.

use std::io::{self, Write as _};

use sync_core::commands::check::{self, CheckArguments};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments};
use sync_core::commands::{CommandError, Ended};
use sync_core::redis::connection::Connector;
use sync_core::settings::Loaded;

use crate::buffer::{self, BufferCommand};
use crate::kafka::Kafka;
use crate::settings::Settings;
use crate::sink::KafkaSink;

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
    writeln!(out)?;
    let sink = sink(&loaded.settings);
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
    loaded: Loaded<Settings>,
    command: DeadLettersCommand,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let sink = sink(&loaded.settings);
    let Settings { redis, streams, .. } = loaded.settings;
    dead_letters::run(command, redis, streams, &sink, &mut io::stdout().lock()).await
}

pub(crate) async fn buffer(
    loaded: Loaded<Settings>,
    command: BufferCommand,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match &loaded.settings.buffer {
        Some(buffer) => buffer::operate(command, buffer, &mut io::stdout().lock()).await,
        None => Err(CommandError::Usage(
            "there is no buffer: neither TARGET_REDIS_HOST nor TARGET_REDIS_URL is set".into(),
        )),
    }
}

/// Straight to Kafka, whether there is a buffer or not: who replays wants to see what Kafka says.
fn sink(settings: &Settings) -> KafkaSink {
    KafkaSink::new(settings, Kafka::new(&settings.kafka, None))
}
