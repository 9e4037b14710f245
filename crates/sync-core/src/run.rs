//! A bridge as a whole: it connects both sides, starts what works, and stops it. It never touches a record.
//!
//! `keeper.rs` keeps the sink connected, `search.rs` looks for streams, `ownership.rs` says which of them are this
//! process's, `deal.rs` deals these out to lanes, `databases.rs` tells work beside the streams which whole databases,
//! or which shards of something else, are, `cleanup.rs` deletes what no consumer group needs any more.

mod cleanup;
mod databases;
mod deal;
mod keeper;
mod ownership;
mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use self::cleanup::Sweeper;
pub use self::databases::{Databases, Tenure};
use self::deal::{Around, Dealer};
pub use self::keeper::Keeper;
use self::ownership::{NotJoined, Ownership, Term};
use self::search::Search;
use crate::bridge::{Sink, Unreachable};
use crate::budget::{Budget, READ_BUDGET};
use crate::cleaning::Cleaning;
use crate::lane::Shared;
use crate::rate_limit::RateLimiter;
use crate::redis::connection::{Connector, ConnectorError};
use crate::redis::dead_letters::DeadLetters;
use crate::redis::statistics::Statistics;
use crate::redis::{Fault, cluster};
use crate::retry::Backoff;
use crate::settings::{Discovery, RedisSettings, RetrySettings, StreamSettings};
use crate::shutdown::Shutdown;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;

/// Leaving the other replicas may take so long, also where the time to stop was used up: it spares them a lease.
const LEAVING: Duration = Duration::from_secs(1);

/// Everything a bridge is made of.
pub struct Bridge<S> {
    /// The binary's name.
    pub name: &'static str,
    /// Where records go.
    pub sink: S,
    /// Connecting to the sink.
    pub sink_retry: RetrySettings,
    /// The source.
    pub redis: RedisSettings,
    /// What to read there.
    pub streams: StreamSettings,
    /// What may change while it runs.
    pub live: watch::Receiver<Live>,
    /// Shared with whoever changes the rate.
    pub limiter: RateLimiter,
    /// Shared with the admin pages.
    pub health: Health,
    /// Shared with the admin pages.
    pub metrics: Metrics,
    /// Shared with the admin pages.
    pub status: Status,
    /// When to stop.
    pub stop: Shutdown,
    /// How long what is in flight may take to finish then.
    pub shutdown_timeout: Duration,
    /// What it does with whole databases, or other shards, beside the streams, if anything.
    pub beside: Option<Beside>,
    /// What that work is divided into.
    pub parts: Parts,
}

/// What the work beside the streams is divided into among replicas. All of a bridge divide it alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// The databases of SOURCE_REDIS_DB_SEARCH_RANGE that the source has.
    #[default]
    Databases,
    /// So many shards, numbered from 0, of which the bridge knows what belongs to each; at most 256.
    Shards(u16),
}

/// Work on whole databases, or shards, beside the streams. It is begun once the bridge has started, and ends when its
/// [`Databases`] tell it to stop; it may then take as long as what is in flight.
pub type Beside = Box<dyn FnOnce(Databases) -> BoxFuture<'static, ()> + Send>;

impl<S> Bridge<S> {
    /// With this work beside the streams.
    #[must_use]
    pub fn beside<F: Future<Output = ()> + Send + 'static>(
        self,
        work: impl FnOnce(Databases) -> F + Send + 'static,
    ) -> Self {
        Self { beside: Some(Box::new(|databases| Box::pin(work(databases)))), ..self }
    }

    /// With this work beside the streams, on so many shards of something.
    #[must_use]
    pub fn beside_in_shards<F: Future<Output = ()> + Send + 'static>(
        self,
        shards: u16,
        work: impl FnOnce(Databases) -> F + Send + 'static,
    ) -> Self {
        Self { parts: Parts::Shards(shards), ..self.beside(work) }
    }
}

/// The settings that apply without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Ranges and patterns.
    pub discovery: Option<Discovery>,
    /// Databases to work on as a whole.
    pub dbs: Vec<u16>,
    /// Time between two looks.
    pub interval: Duration,
}

/// Why a bridge did not start: one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Redis settings cannot be used.
    #[error(transparent)]
    Settings(#[from] ConnectorError),
    /// The source does not answer.
    #[error("cannot reach the source Redis at {address} ({attempts} attempts): {fault}")]
    Source {
        /// Host and port.
        address: String,
        /// How many.
        attempts: u32,
        /// The last failure.
        fault: Fault,
    },
    /// The replicas' books cannot be written to.
    #[error("cannot write to the source Redis who reads which stream: {fault}{}", ownership::HINT)]
    Ownership {
        /// What it said.
        fault: Fault,
    },
    /// Another bridge has the consumer group.
    #[error("{0}")]
    Taken(String),
    /// The sink does not answer.
    #[error("cannot reach the {destination} ({attempts} attempts): {reason}")]
    Sink {
        /// What it is.
        destination: String,
        /// How many.
        attempts: u32,
        /// The last failure.
        reason: Unreachable,
    },
}

/// Runs until a stop is requested. What is in flight then is finished and acknowledged within the shutdown timeout;
/// the rest stays pending.
pub async fn run<S: Sink>(mut bridge: Bridge<S>) -> Result<(), StartError> {
    let connector = Connector::new(bridge.redis.clone())?;
    if connector.is_cluster() {
        cluster::use_its_database(&mut bridge.redis.db, &mut bridge.streams);
    }
    let stop = bridge.stop.clone();
    let statistics = Statistics::new(&bridge.streams, bridge.limiter.clone());
    let (mut sharing, ends) = Ownership::new(&bridge, &connector, &statistics);
    let source = format!("not connected yet to the source Redis at {}", connector.address());
    let searcher =
        at_start(&source, bridge.redis.retry, &stop, || connector.connection(bridge.redis.db)).await;
    let searcher = match searcher {
        Started::Yes(connection) => connection,
        Started::Stopped => return Ok(()),
        Started::No(fault, attempts) => {
            return Err(StartError::Source { address: connector.address(), attempts, fault });
        }
    };
    tracing::info!(address = connector.address(), "connected to the source Redis");
    let sink = Arc::new(bridge.sink);
    let destination = format!("not connected yet to the {}", sink.destination());
    let lost = match at_start(&destination, bridge.sink_retry, &stop, || sink.connect()).await {
        Started::Yes(lost) => lost,
        Started::Stopped => return Ok(()),
        Started::No(reason, attempts) => {
            return Err(StartError::Sink { destination: sink.destination(), attempts, reason });
        }
    };
    tracing::info!("connected to the {}", sink.destination());

    let (sink_is_up, sink_up) = watch::channel(true);
    let keeper = Keeper {
        destination: sink.destination(),
        retry: bridge.sink_retry,
        health: bridge.health.clone(),
        stop: stop.clone(),
    };
    let kept = sink.clone();
    let keeping = tokio::spawn(async move {
        keeper.keep_connected(|| kept.connect(), lost, sink_is_up).await;
    });
    let budget = Budget::new(READ_BUDGET);
    bridge.metrics.watch_budget(budget.clone());
    let shared = Arc::new(Shared {
        sink: sink.clone(),
        sink_up,
        books: ends.books,
        fences: AtomicU64::new(0),
        lease: ends.lease,
        let_go: Notify::new(),
        connector,
        default_db: bridge.redis.db,
        dead_letters: DeadLetters {
            bridge: bridge.name,
            group: bridge.streams.group.clone(),
            suffix: bridge.streams.dead_letter_suffix.clone(),
            maxlen: bridge.streams.dead_letter_maxlen,
        },
        redis_retry: bridge.redis.retry,
        health_check: bridge.redis.health_check_interval,
        sink_retry: bridge.sink_retry,
        cleaning: Cleaning::new(bridge.streams.cleanup, &bridge.metrics),
        budget,
        limiter: bridge.limiter,
        health: bridge.health,
        metrics: bridge.metrics,
        statistics,
        stop: stop.clone(),
        lanes: AtomicUsize::new(bridge.redis.pool_size),
        pool_size: bridge.redis.pool_size,
        settings: bridge.streams,
    });
    let mut search = Search::new(searcher);
    let term = match &mut sharing {
        Some(ownership) => match first_start(ownership, &shared, &mut search, &bridge.live).await? {
            Some(term) => Some(term),
            None => return Ok(()),
        },
        None => {
            search.begin_at_the_end(&shared, &bridge.live).await;
            None
        }
    };
    shared.health.started();
    let beside = bridge
        .beside
        .map(|work| begin_beside(work, ends.databases, &shared, bridge.parts, bridge.live.clone()));
    let sharing = sharing.zip(term).map(|(ownership, term)| tokio::spawn(ownership.keep(term)));
    let counting = tokio::spawn(shared.statistics.clone().run(stop.clone()));
    let cleaning = Sweeper::new(shared.clone()).map(|sweeper| tokio::spawn(sweeper.run(stop.clone())));
    let (tell_found, found) = mpsc::channel(1);
    let (failed, hear_failed) = mpsc::channel(1);
    if shared.settings.enabled {
        tokio::spawn(search.run(shared.clone(), bridge.live, tell_found, hear_failed));
    } else if beside.is_some() {
        tracing::info!("REDIS_STREAMS_ENABLED is false: no stream is read");
    } else {
        tracing::warn!("REDIS_STREAMS_ENABLED is false: nothing is read");
    }
    let around = Around {
        found,
        failed,
        portion: ends.portion,
        weights: ends.weights,
        given_up: ends.given_up,
        status: bridge.status,
    };
    let lanes = Dealer::new(shared, around).deal_out().await;
    let deadline = Instant::now() + bridge.shutdown_timeout;
    for lane in lanes {
        if timeout_at(deadline, lane.task).await.is_err() {
            tracing::warn!(
                "not all that was in flight was confirmed in time: it stays pending, and is delivered again"
            );
            break;
        }
    }
    if let Some(mut beside) = beside
        && timeout_at(deadline, &mut beside).await.is_err()
    {
        tracing::warn!("the work beside the streams did not finish in time: it is given up");
        beside.abort();
        // Nothing of it may go on once others may have what it works on.
        let _ = beside.await;
    }
    // They were told to stop with the lanes, and leave nothing half done.
    let _ = timeout_at(deadline, counting).await;
    if let Some(cleaning) = cleaning {
        let _ = timeout_at(deadline, cleaning).await;
    }
    if let Some(sharing) = sharing {
        // Nothing is read any more: the others may have it.
        ends.leave.request();
        let _ = timeout_at(deadline.max(Instant::now() + LEAVING), sharing).await;
    }
    sink.disconnect().await;
    // Ends by itself once the sink's connection is closed.
    let _ = timeout_at(deadline, keeping).await;
    Ok(())
}

/// Begins the work beside the streams, and the look at what there is to work on.
fn begin_beside<S: Sink>(
    work: Beside,
    ends: databases::Ends,
    shared: &Shared<S>,
    parts: Parts,
    live: watch::Receiver<Live>,
) -> JoinHandle<()> {
    let (databases, there_is) = Databases::new(ends, shared);
    match parts {
        Parts::Databases => drop(tokio::spawn(there_is.tell(live))),
        Parts::Shards(count) => there_is.are(count),
    }
    tokio::spawn(work(databases))
}

/// What a failed attempt at start is about, for the log.
const SHARING: &str = "cannot share the streams with other replicas yet";

/// Becomes one of the replicas; `None` when a stop came first. Whoever finds none that ever was there is the first one.
async fn first_start<S: Sink>(
    ownership: &mut Ownership,
    shared: &Shared<S>,
    search: &mut Search,
    live: &watch::Receiver<Live>,
) -> Result<Option<Term>, StartError> {
    let (retry, stop) = (shared.redis_retry, &shared.stop);
    let nobody = match at_start(SHARING, retry, stop, async || ownership.nobody_was_here().await).await {
        Started::Yes(nobody) => nobody,
        Started::Stopped => return Ok(None),
        Started::No(reason, attempts) => return Err(shared.cannot_share(reason, attempts)),
    };
    if nobody {
        search.begin_at_the_end(shared, live).await;
    }
    match at_start(SHARING, retry, stop, async || ownership.join(None).await).await {
        Started::Yes(term) => Ok(Some(term)),
        Started::Stopped => Ok(None),
        Started::No(reason, attempts) => Err(shared.cannot_share(reason, attempts)),
    }
}

impl<S> Shared<S> {
    fn cannot_share(&self, reason: NotJoined, attempts: u32) -> StartError {
        match reason {
            NotJoined::Taken(reason) => StartError::Taken(reason),
            NotJoined::Fault(fault) if fault.needs_human() => StartError::Ownership { fault },
            NotJoined::Fault(fault) => {
                StartError::Source { address: self.connector.address(), attempts, fault }
            }
        }
    }
}

enum Started<T, E> {
    Yes(T),
    No(E, u32),
    Stopped,
}

/// Attempts at start are bounded by the settings; a stop ends them.
async fn at_start<T, E: std::fmt::Display>(
    what: &str,
    retry: RetrySettings,
    stop: &Shutdown,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Started<T, E> {
    let mut backoff = Backoff::new(retry);
    let mut attempts = 0;
    loop {
        let result = tokio::select! {
            result = attempt() => result,
            () = stop.requested() => return Started::Stopped,
        };
        attempts += 1;
        match result {
            Ok(connected) => return Started::Yes(connected),
            Err(error) if attempts >= retry.max_retries.max(1) => return Started::No(error, attempts),
            Err(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(attempt = attempts, of = retry.max_retries, ?delay, "{what}: {error}");
                tokio::select! {
                    () = sleep(delay) => {}
                    () = stop.requested() => return Started::Stopped,
                }
            }
        }
    }
}
