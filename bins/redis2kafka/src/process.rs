//! What stands in streams now, and not what comes later: a bridge that runs until that is delivered, and then stops.

use std::collections::BTreeMap;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::StreamsInterface as _;
use fred::types::Value;
use sync_core::bridge::Sink;
use sync_core::commands::CommandError;
use sync_core::commands::source::Source;
use sync_core::pattern::Pattern;
use sync_core::rate_limit::RateLimiter;
use sync_core::record::{EntryId, StreamName};
use sync_core::redis::{Fault, entries, groups};
use sync_core::run::{Bridge, Live, Parts, StartError, run};
use sync_core::settings::{Discovery, RedisSettings, RetrySettings, StreamSettings};
use sync_core::shutdown::Shutdown;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use sync_core::telemetry::status::Status;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two looks at how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is in flight when all has come through is next to nothing.
const LAST: Duration = Duration::from_secs(8);

/// What is to be processed.
pub(crate) struct Portion {
    /// Streams whose key matches,
    pub(crate) pattern: Pattern,
    /// in this database.
    pub(crate) db: u16,
    /// At most so many entries per stream per read.
    pub(crate) batch_size: u32,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unprocessed {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Source(#[from] CommandError),
    #[error("the source Redis: {0}")]
    Fault(#[from] Fault),
}

/// Delivers what stands in the portion's streams when it begins, and says how many entries it delivered. What cannot be
/// delivered yet (a topic that does not exist) keeps it; what is refused goes to the dead letters and does not count.
pub(crate) async fn process<S: Sink>(
    portion: Portion,
    sink: S,
    sink_retry: RetrySettings,
    redis: RedisSettings,
    streams: StreamSettings,
) -> Result<u64, Unprocessed> {
    let exclude = streams.discovery.as_ref().map(|discovery| discovery.exclude.clone()).unwrap_or_default();
    let discovery = Discovery { dbs: vec![portion.db], patterns: vec![portion.pattern], exclude };
    let streams = StreamSettings {
        enabled: true,
        named: Vec::new(),
        dbs: vec![portion.db],
        discovery: Some(discovery),
        batch_size: portion.batch_size,
        ..streams
    };
    let mut source = Source::connect(redis.clone(), streams.clone()).await?;
    let goals = goals(&mut source).await?;
    if goals.is_empty() {
        return Ok(0);
    }
    let (trigger, stop) = Shutdown::manual();
    let metrics = Metrics::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 0);
    let live = Live {
        discovery: streams.discovery.clone(),
        dbs: streams.dbs.clone(),
        interval: streams.discovery_interval,
    };
    let (_tell, live) = watch::channel(live);
    let group = streams.group.clone();
    let bridge = Bridge {
        name: env!("CARGO_PKG_NAME"),
        sink,
        sink_retry,
        redis,
        limiter: RateLimiter::new(streams.rate_limit),
        streams,
        live,
        health: Health::default(),
        metrics: metrics.clone(),
        status: Status::default(),
        stop,
        shutdown_timeout: LAST,
        beside: None,
        parts: Parts::default(),
    };
    let running = run(bridge);
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => ended?,
        reached = reach(&mut source, &group, goals) => {
            // A bridge that is dropped leaves its streams to the others later than one that stops.
            trigger.request();
            running.await?;
            reached?;
        }
    }
    Ok(metrics.totals().delivered)
}

/// The newest entry of each stream.
async fn goals(source: &mut Source) -> Result<BTreeMap<StreamName, EntryId>, Fault> {
    let mut goals = BTreeMap::new();
    for stream in source.streams().await? {
        let key = stream.key.clone();
        let facts =
            source.in_database(stream.db, async move |client| entries::facts(&client, &key).await).await?;
        if let Some(facts) = facts.filter(|facts| facts.length > 0) {
            goals.insert(stream, facts.newest);
        }
    }
    Ok(goals)
}

/// Returns once the group has come to each stream's goal, and acknowledged all up to it.
async fn reach(
    source: &mut Source,
    group: &str,
    mut goals: BTreeMap<StreamName, EntryId>,
) -> Result<(), Fault> {
    while let Some((stream, goal)) = goals.first_key_value() {
        let (key, group, goal) = (stream.key.clone(), group.to_owned(), *goal);
        let look = async move |client: Client| {
            let Some(standing) = groups::standing(&client, &key, &group).await? else {
                // The stream may be gone, and then there is nothing to wait for.
                return Ok(entries::facts(&client, &key).await?.is_none());
            };
            if standing.delivered < goal {
                // What was deleted meanwhile, or is none of the entries that the newest ID speaks of, will not come.
                let after = format!("({}", standing.delivered);
                let left: Value =
                    client.xrange(&key[..], after.as_str(), goal.to_string().as_str(), Some(1)).await?;
                if matches!(left, Value::Array(left) if !left.is_empty()) {
                    return Ok(false);
                }
            }
            if standing.pending == 0 {
                return Ok(true);
            }
            let up_to = goal.to_string();
            let pending: Value = client.xpending(&key[..], &group, ("-", up_to.as_str(), 1u64)).await?;
            Ok(!matches!(pending, Value::Array(pending) if !pending.is_empty()))
        };
        if source.in_database(stream.db, look).await? {
            goals.pop_first();
        } else {
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}
