//! Sending what the buffer holds now, and then ending: for a program that asks for it, and for `sync`.

use sync_core::bridge::Unreachable;
use sync_core::redis::connection::{Connector, ConnectorError};
use sync_core::settings::RetrySettings;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use tokio::sync::watch;

use super::books::Books;
use super::drain::{Drain, until};
use super::keys::SHARDS;
use super::numbers::Numbers;
use super::wake::Wake;
use crate::kafka::Kafka;
use crate::settings::BufferSettings;

/// So often what Kafka does not confirm is sent again.
const PATIENCE: u32 = 5;

/// Sends what the buffer holds now of a topic, or of all, with a connection to Kafka of its own; how many messages Kafka
/// got. Where a bridge runs as well, both send: what arrives twice arrives in order.
pub(crate) async fn run_dry(
    settings: &BufferSettings,
    retry: RetrySettings,
    kafka: Kafka,
    topic: Option<String>,
) -> Result<u64, RunDryError> {
    let books = Books::new(Connector::to_target(settings.redis.clone())?, settings, None);
    let lost = kafka.connect().await.map_err(RunDryError::Kafka)?;
    let (up, is_up) = watch::channel(true);
    let losing = tokio::spawn(async move {
        lost.await;
        let _ = up.send(false);
    });
    let numbers = Numbers::new(&Metrics::default());
    let mut drain = Drain::new(
        books,
        kafka,
        is_up,
        Wake::default(),
        (settings.sync_interval, retry),
        Health::default(),
        numbers,
    );
    drain.only(topic);
    drain.set_shards((0..SHARDS).collect());
    let ended = empties(&mut drain).await;
    drain.end().await;
    let sent = drain.synced();
    let _ = losing.await;
    ended.map(|()| sent).map_err(|reason| RunDryError::Left { sent, reason })
}

/// Until there is nothing left, or why some of it stays: Kafka goes away, or takes nothing of what is left, or the buffer
/// cannot be looked at.
async fn empties(drain: &mut Drain) -> Result<(), String> {
    let (mut idle, mut settled) = (0, 0);
    loop {
        drain.turn().await;
        if !drain.is_up() {
            return Err("Kafka is away".to_owned());
        }
        let looked = match drain.looked() {
            Some(Err(reason)) => return Err(reason.clone()),
            Some(Ok(())) => true,
            None => false,
        };
        if !looked || !drain.rests() {
            continue;
        }
        if !drain.has_more() {
            return Ok(());
        }
        if let Some(reason) = drain.last_reason() {
            return Err(reason);
        }
        // What was refused among others is sent again alone, when its queue has waited.
        let now = drain.settled();
        idle = if now > settled { 0 } else { idle + 1 };
        settled = now;
        if idle > PATIENCE {
            return Err("Kafka did not confirm what was sent".to_owned());
        }
        until(drain.wakes_at()).await;
    }
}

/// Why the buffer did not run dry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDryError {
    /// The Redis settings cannot be used.
    #[error(transparent)]
    Settings(#[from] ConnectorError),
    /// Kafka does not answer.
    #[error("cannot reach Kafka: {0}")]
    Kafka(Unreachable),
    /// Some messages stay there.
    #[error("{sent} messages were sent, others stay in the buffer: {reason}")]
    Left {
        /// How many Kafka got.
        sent: u64,
        /// What the others met.
        reason: String,
    },
}
