//! Sending what the buffer holds now, and then ending: for a program that asks for it, and for `sync`.

use sync_core::bridge::Unreachable;
use sync_core::redis::connection::{Connector, ConnectorError};
use sync_core::settings::RetrySettings;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use tokio::sync::watch;

use super::queue::State;
use super::{Drain, until};
use crate::buffer::books::Books;
use crate::buffer::intake::Intake;
use crate::buffer::keys::SHARDS;
use crate::buffer::numbers::Numbers;
use crate::buffer::wake::Wake;
use crate::settings::BufferSettings;
use kafka_producer::Kafka;

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
    let connector = Connector::to_target(settings.redis.clone())?;
    let intake = Intake::new(&connector.address(), settings, None);
    let books = Books::new(connector, settings, None);
    let lost = kafka.connect().await.map_err(RunDryError::Kafka)?;
    let (up, is_up) = watch::channel(true);
    let losing = tokio::spawn(async move {
        let reason = lost.await.reason;
        let _ = up.send(false);
        reason
    });
    let numbers = Numbers::new(&Metrics::default());
    let mut drain = Drain::new(
        books,
        kafka,
        is_up,
        (Wake::default(), intake),
        (settings.sync_interval, retry),
        Health::default(),
        numbers,
    );
    drain.only(topic);
    drain.set_shards((0..SHARDS).collect());
    let ended = empties(&mut drain).await;
    drain.end().await;
    let sent = drain.synced();
    let lost = losing.await.unwrap_or_default();
    ended.map(|()| sent).map_err(|stays| {
        let reason = match stays {
            Stays::Reason(reason) => reason,
            Stays::Away => format!("Kafka is away: {lost}"),
        };
        RunDryError::Left { sent, reason }
    })
}

/// Why something stays there.
enum Stays {
    Reason(String),
    /// Kafka is away; whoever waits for that knows why.
    Away,
}

/// Until there is nothing left, or why some of it stays: Kafka goes away, or takes nothing of what is left, or the buffer
/// cannot be looked at.
async fn empties(drain: &mut Drain) -> Result<(), Stays> {
    let (mut idle, mut settled) = (0, 0);
    loop {
        drain.turn().await;
        if !drain.is_up() {
            // What Kafka said of a topic before says more.
            return Err(drain.last_reason().map_or(Stays::Away, Stays::Reason));
        }
        let looked = match drain.looked() {
            Some(Err(reason)) => return Err(Stays::Reason(reason.clone())),
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
            return Err(Stays::Reason(reason));
        }
        // What was refused among others is sent again alone, when its queue has waited.
        let now = drain.settled();
        idle = if now > settled { 0 } else { idle + 1 };
        settled = now;
        if idle > PATIENCE {
            return Err(Stays::Reason("Kafka did not confirm what was sent".to_owned()));
        }
        until(drain.wakes_at()).await;
    }
}

impl Drain {
    /// Nothing but this topic, where it is one.
    fn only(&mut self, topic: Option<String>) {
        self.mine.topic = topic;
    }

    fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// How the last look for queues ended.
    fn looked(&self) -> Option<&Result<(), String>> {
        self.looked.as_ref()
    }

    /// Whether nothing is under way, and nothing can be read now.
    fn rests(&self) -> bool {
        let busy = !self.under_way.is_empty() || !self.settling.is_empty() || self.reading.is_some();
        let rests = |state: &State| state.under_way == 0 && (!state.more || state.not_before.is_some());
        !busy && self.queues.values().all(rests)
    }

    /// Whether there is something that it has to send.
    fn has_more(&self) -> bool {
        self.queues.values().any(|state| state.more)
    }

    /// Why something came back last. It is told once.
    fn last_reason(&mut self) -> Option<String> {
        self.held.last_reason.take()
    }

    /// How many messages Kafka got.
    fn synced(&self) -> u64 {
        self.numbers.synced.get()
    }

    /// The same, with those that it refused.
    fn settled(&self) -> u64 {
        self.numbers.synced.get() + self.numbers.refused.get()
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
