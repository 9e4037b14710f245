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
mod held;
mod intake;
mod keys;
mod news;
mod numbers;
mod operator;
mod rebuild;
mod script;
mod server;
mod sink;
mod stored;
mod turns;
mod vigil;
mod wake;

use std::time::Duration;

use kafka_producer::Kafka;
use sync_core::redis::connection::{Connector, ConnectorError};
use sync_core::run::{Databases, Keeper};
use sync_core::settings::RetrySettings;
use sync_core::shutdown::Shutdown;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::drain::dry::run_dry;
pub(crate) use self::keys::SHARDS;
pub(crate) use self::operator::{BufferCommand, operate};
pub(crate) use self::sink::BufferSink;
pub(crate) use self::wake::Wake;

use self::books::Books;
use self::drain::Drain;
use self::intake::Intake;
use self::numbers::Numbers;
use self::rebuild::Rebuilding;
use crate::settings::BufferSettings;

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
        (wake, intake): (Wake, Intake),
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
            (wake.clone(), intake),
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
        let mut rebuilding = Rebuilding::default();
        let mut letting_go: Option<Instant> = None;
        loop {
            let owned = shards.owned();
            if !owned.contains(&0) {
                rebuilding.is_anothers();
            } else if rebuilding.is_wanted() {
                rebuilding.begin(&books, retry);
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
                if drain.disagrees() {
                    rebuilding.begin(&books, retry);
                }
                tokio::select! {
                    () = drain.turn() => {}
                    restored = rebuilding.ended() => {
                        if restored > 0 {
                            tracing::warn!(
                                messages = restored,
                                "the buffer had messages in no queue: they are sent now"
                            );
                            drain.look_at_once();
                        }
                    }
                    () = async { sleep_until(letting_go.expect("asked only then")).await }, if letting_go.is_some() => {}
                    () = shards.changed() => break,
                    () = stop.requested() => {
                        rebuilding.is_anothers();
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Vital;

    const CHILD: &str = "TEST_VITAL_CHILD";

    /// The test runs once more in a process of its own, which must not outlive the task that fails.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a process of the test's own is told by it which part it plays"
    )]
    fn who_sends_and_fails_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let failing = tokio::spawn(async {
                    let _vital = Vital;
                    tokio::task::yield_now().await;
                    panic!("on purpose");
                });
                let _ = failing.await;
            });
            return;
        }
        let this = std::env::current_exe().unwrap();
        let name = "buffer::tests::who_sends_and_fails_ends_the_process";
        let ended =
            Command::new(this).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        // A test that fails ends with another code, and one that goes on with 0.
        assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
