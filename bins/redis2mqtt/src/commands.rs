//! The operator's commands, with MQTT for a sink.

use std::io::{self, Write as _};

use sync_core::commands::check::{self, CheckArguments};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments};
use sync_core::commands::{CommandError, Ended};
use sync_core::payload::Encoder;
use sync_core::redis::connection::Connector;
use sync_core::settings::{Loaded, Ownership};

use crate::settings::Settings;
use crate::sink::MqttSink;

pub(crate) async fn check(
    loaded: Loaded<Settings>,
    arguments: &CheckArguments,
) -> Result<Ended, CommandError> {
    let mut out = io::stdout().lock();
    check::print_settings(&loaded.effective, &loaded.warnings, &mut out)?;
    // Both read the TLS files that the settings name.
    Connector::new(loaded.settings.redis.clone())?;
    let sink = sink(&loaded.settings)?;
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
    loaded: Loaded<Settings>,
    command: DeadLettersCommand,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let sink = sink(&loaded.settings)?;
    let Settings { redis, streams, .. } = loaded.settings;
    dead_letters::run(command, redis, streams, &sink, &mut io::stdout().lock()).await
}

/// A client of its own, whatever STREAM_OWNERSHIP says: under the bridge's own identifier it would throw the running
/// bridge out (MQTT 5, 3.1.4-3).
fn sink(settings: &Settings) -> Result<MqttSink, CommandError> {
    let encoder = Encoder::new(settings.text.value_format, settings.text.encoding);
    MqttSink::new(&settings.mqtt, Ownership::Shared, encoder)
        .map_err(|error| CommandError::Destination(error.to_string()))
}
