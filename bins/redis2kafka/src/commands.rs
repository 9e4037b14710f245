//! The operator's commands, with Kafka for a sink.

use std::io::{self, Read as _, Write as _};

use kafka_producer::Kafka;
use sync_core::commands::check::{self, CheckArguments};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments};
use sync_core::commands::{CommandError, Ended};
use sync_core::redis::connection::Connector;
use sync_core::settings::Loaded;

use crate::buffer::{self, BufferCommand};
use crate::cli::{ProcessArguments, SendArguments};
use crate::client::{Error, Redis2Kafka};
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
    let Settings { redis, streams, topics, kafka, .. } = loaded.settings;
    let ended = check::connect(redis, streams, &sink, arguments.all, &mut out).await?;
    match Kafka::new(&kafka.client, None).absent(&topics.all()).await {
        Ok(absent) => {
            for topic in absent {
                writeln!(
                    out,
                    "topic {topic} does not exist: its streams wait until it does, unless the brokers make it"
                )?;
            }
        }
        Err(unreachable) => writeln!(out, "the topics could not be looked at: {unreachable}")?,
    }
    Ok(ended)
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

pub(crate) async fn buffer(loaded: Loaded<Settings>, command: BufferCommand) -> Result<Ended, CommandError> {
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

pub(crate) async fn process(
    loaded: Loaded<Settings>,
    arguments: ProcessArguments,
) -> Result<Ended, CommandError> {
    let bridge = Redis2Kafka::with(loaded.settings).await.map_err(failed)?;
    let ProcessArguments { pattern, db, batch_size, topics } = arguments;
    let topics: Vec<_> = topics.iter().map(|(pattern, topic)| (pattern.as_str(), topic.as_str())).collect();
    let count = bridge.process_source_streams(&topics, &pattern, db, batch_size).await.map_err(failed)?;
    say(&format!("{count} entries"))
}

pub(crate) async fn send(loaded: Loaded<Settings>, arguments: SendArguments) -> Result<Ended, CommandError> {
    let bridge = Redis2Kafka::with(loaded.settings).await.map_err(failed)?;
    let SendArguments { topic, message, device } = arguments;
    let message = match message.filter(|message| message != "-") {
        Some(message) => message.into_bytes(),
        None => {
            let mut message = Vec::new();
            io::stdin().lock().read_to_end(&mut message)?;
            message
        }
    };
    say(&bridge.send_message(&topic, message, &device).await.map_err(failed)?)
}

pub(crate) async fn sync(loaded: Loaded<Settings>, topic: Option<String>) -> Result<Ended, CommandError> {
    let bridge = Redis2Kafka::with(loaded.settings).await.map_err(failed)?;
    let count = bridge.sync_unsynced_keys(topic.as_deref()).await.map_err(failed)?;
    say(&format!("{count} messages"))
}

fn say(line: &str) -> Result<Ended, CommandError> {
    writeln!(io::stdout().lock(), "{line}")?;
    Ok(Ended::Well)
}

fn failed(error: Error) -> CommandError {
    match error {
        Error::NoBuffer | Error::Topic { .. } => CommandError::Usage(error.to_string()),
        error => CommandError::Destination(error.to_string()),
    }
}

/// Straight to Kafka, whether there is a buffer or not: who replays wants to see what Kafka says.
fn sink(settings: &Settings) -> KafkaSink {
    KafkaSink::new(settings, Kafka::new(&settings.kafka.client, None))
}
