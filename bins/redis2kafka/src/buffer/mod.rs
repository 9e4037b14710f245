//! The durable buffer: another Redis, in which every message stands from the moment it is taken from its source until
//! Kafka has it, and for a while after.
//!
//! ```text
//! lanes → sink.rs ── store.lua ──▶ buffer ── heads.lua ──▶ drain.rs, batch.rs → kafka/ → Kafka
//!            └─ acknowledged at the source      ▲                   │ delivery report
//!                                               └──── settle.lua ◀──┘
//! ```
//!
//! `keys.rs` has the keys, `stored.rs` what a message looks like there, `books.rs` asks the buffer, `rebuild.rs` finds
//! what is in no queue, `server.rs` says whether a Redis is one to keep messages in. Two connections carry everything: one
//! stores, one sends; a third hears what other processes store (`news.rs`).

mod answer;
mod batch;
mod books;
pub(crate) mod direct;
mod drain;
mod keys;
mod news;
mod operator;
mod rebuild;
mod script;
mod server;
mod sink;
mod stored;
mod wake;

use std::future::pending;
use std::time::Duration;

use kafka_producer::Kafka;
use sync_core::bridge::Unreachable;
use sync_core::redis::connection::{Connector, ConnectorError};
use sync_core::run::{Databases, Keeper};
use sync_core::settings::RetrySettings;
use sync_core::shutdown::Shutdown;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::keys::SHARDS;
pub(crate) use self::operator::{BufferCommand, operate};
pub(crate) use self::sink::BufferSink;
pub(crate) use self::wake::Wake;

use self::books::Books;
use self::drain::{Drain, Numbers};
use crate::settings::BufferSettings;

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
    let (sent, ended) = drain.run_dry(topic).await;
    let _ = losing.await;
    ended.map(|()| sent).map_err(|reason| RunDryError::Left { sent, reason })
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

/// What is under way of a shard that another replica is to send may take so long; after that it may arrive twice.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Sends what the buffer holds, beside the lanes.
pub(crate) struct Sender {
    kafka: Kafka,
    drain: Drain,
    books: Books,
    wake: Wake,
    connector: Connector,
    settings: BufferSettings,
    /// Tells whether Kafka is connected.
    up: watch::Sender<bool>,
    retry: RetrySettings,
    health: Health,
}

impl Sender {
    /// Connects to nothing yet.
    pub(crate) fn new(
        settings: &BufferSettings,
        retry: RetrySettings,
        kafka: Kafka,
        wake: Wake,
        health: &Health,
        metrics: &Metrics,
    ) -> Result<Self, ConnectorError> {
        let connector = Connector::to_target(settings.redis.clone())?;
        let books = Books::new(connector.clone(), settings, Some(health.clone()));
        let (up, is_up) = watch::channel(false);
        let drain = Drain::new(
            books.clone(),
            kafka.clone(),
            is_up,
            wake.clone(),
            (settings.sync_interval, retry),
            health.clone(),
            Numbers::new(metrics),
        );
        health.awaited(&kafka.destination());
        let settings = settings.clone();
        Ok(Self { kafka, drain, books, wake, connector, settings, up, retry, health: health.clone() })
    }

    /// Until a stop is requested, and what is under way then has landed.
    pub(crate) async fn run(self, mut shards: Databases) {
        let _vital = Vital;
        let Self { kafka, mut drain, books, wake, connector, settings, up, retry, health } = self;
        let stop = shards.stop.clone();
        let keeping = tokio::spawn(keep(kafka, up, retry, health, stop.clone()));
        let listening = tokio::spawn(news::listen(connector, settings, wake));
        let mut rebuilding = Rebuilding::NotYet;
        let mut letting_go: Option<Instant> = None;
        loop {
            let owned = shards.owned();
            if owned.contains(&0) && matches!(rebuilding, Rebuilding::NotYet) {
                let books = books.clone();
                rebuilding =
                    Rebuilding::UnderWay(tokio::spawn(async move { rebuild::rebuild(&books).await }));
            }
            drain.set_shards(owned);
            letting_go.get_or_insert_with(|| Instant::now() + LETTING_GO);
            loop {
                if let Some(deadline) = letting_go
                    && (drain.is_settled() || deadline <= Instant::now())
                {
                    letting_go = None;
                    shards.settled();
                }
                tokio::select! {
                    () = drain.turn() => {}
                    restored = rebuilding.ended() => {
                        match restored {
                            Ok(0) => {}
                            Ok(messages) => {
                                tracing::warn!(messages, "the buffer had messages in no queue: they are sent now");
                                drain.look_at_once();
                            }
                            Err(reason) => tracing::warn!("cannot look through the buffer for lost messages: {reason}"),
                        }
                    }
                    () = async { sleep_until(letting_go.expect("asked only then")).await }, if letting_go.is_some() => {}
                    () = shards.changed() => break,
                    () = stop.requested() => {
                        if let Rebuilding::UnderWay(task) = rebuilding {
                            task.abort();
                        }
                        listening.abort();
                        drain.end().await;
                        let _ = keeping.await;
                        return;
                    }
                }
            }
        }
    }
}

/// Looking through the buffer, once in a process's life.
enum Rebuilding {
    NotYet,
    UnderWay(tokio::task::JoinHandle<Result<usize, sync_core::redis::Fault>>),
    Done,
}

impl Rebuilding {
    /// May be dropped at any time.
    async fn ended(&mut self) -> Result<usize, String> {
        let Self::UnderWay(task) = self else { return pending().await };
        let ended = task.await;
        *self = Self::Done;
        match ended {
            Ok(restored) => restored.map_err(|fault| fault.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whoever fails with this in hand ends the process: what is stored and never sent would look well from outside. It is sent
/// after the next start.
struct Vital;

impl Drop for Vital {
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing here is lost by it, and nobody is left to return to"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "what sends the buffer's messages has failed, so the process ends; nothing that is stored is lost"
            );
            std::process::exit(1);
        }
    }
}

/// Keeps Kafka connected: the buffer is the sink of the lanes, so nobody else does.
async fn keep(kafka: Kafka, up: watch::Sender<bool>, retry: RetrySettings, health: Health, stop: Shutdown) {
    let _vital = Vital;
    let keeper = Keeper { destination: kafka.destination(), retry, health, stop };
    keeper.connect_and_keep(|| kafka.connect(), up).await;
}
