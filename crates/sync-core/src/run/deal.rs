//! Which lane reads which stream. A stream stays with its lane, and returns to it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Live;
use super::search::Search;
use crate::bridge::Sink;
use crate::lane::{Lane, Shared};
use crate::rate_limit::RateLimiter;
use crate::record::StreamName;
use crate::redis::Fault;
use crate::redis::connection::Connection;
use crate::settings::StartId;
use crate::shutdown::Shutdown;

/// A lane that has so many streams gets no more while another may be opened: a blocked read of so many costs the
/// server some 0.7 ms each time it wakes.
const STREAMS_PER_LANE: usize = 1000;
/// Streams, gone ones among them, whose lanes are remembered.
const REMEMBERED: usize = 200_000;
/// How long new streams are looked at before they are read, at most.
const LOOK_AHEAD: Duration = Duration::from_secs(5);

/// A lane, and what it was told to read.
pub(super) struct LaneHandle {
    db: u16,
    streams: BTreeSet<Bytes>,
    wanted: watch::Sender<Arc<BTreeSet<Bytes>>>,
    pub(super) task: JoinHandle<()>,
}

/// Looks for streams until a stop is requested, and deals them out to lanes.
pub(super) async fn deal_out<S: Sink>(
    mut shared: Shared<S>,
    searcher: Connection,
    mut live: watch::Receiver<Live>,
) -> Vec<LaneHandle> {
    let stop = shared.stop.clone();
    let mut search = Search::new(searcher);
    let mut lanes: Vec<LaneHandle> = Vec::new();
    let mut homes = HashMap::new();
    let mut commands: HashMap<u16, Client> = HashMap::new();
    if !shared.settings.enabled {
        tracing::warn!("REDIS_STREAMS_ENABLED is false: nothing is read");
        stop.requested().await;
        return lanes;
    }
    let settings = live.borrow_and_update().clone();
    let first = search.pass(&shared, &settings).await;
    if shared.settings.start_id == StartId::Latest {
        shared.latest = Mutex::new(search.present_at_first_start(&shared, &first).await);
    }
    let shared = Arc::new(shared);
    let mut found = first;
    loop {
        for (db, streams) in found {
            if let Err(fault) =
                deal_database(&shared, &mut lanes, &mut homes, &mut commands, db, streams).await
            {
                // The next pass finds these streams again.
                search.failed(&shared, &fault);
            }
        }
        if homes.len() > REMEMBERED {
            homes.retain(|name: &StreamName, at: &mut usize| lanes[*at].streams.contains(&name.key));
        }
        let mut interval = live.borrow().interval;
        if search.has_failed() {
            interval = interval.min(shared.redis_retry.base);
        }
        tokio::select! {
            () = stop.requested() => return lanes,
            () = sleep(interval) => {}
            Ok(()) = live.changed() => {}
        }
        let settings = live.borrow_and_update().clone();
        found = tokio::select! {
            () = stop.requested() => return lanes,
            found = search.pass(&shared, &settings) => found,
        };
    }
}

/// Tells the lanes of one database what is to be read there; a stream stays with its lane.
async fn deal_database<S: Sink>(
    shared: &Arc<Shared<S>>,
    lanes: &mut Vec<LaneHandle>,
    homes: &mut HashMap<StreamName, usize>,
    commands: &mut HashMap<u16, Client>,
    db: u16,
    mut streams: BTreeSet<Bytes>,
) -> Result<(), Fault> {
    let mut changed = BTreeSet::new();
    for (at, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.db == db) {
        let before = lane.streams.len();
        lane.streams.retain(|key| streams.remove(key));
        if lane.streams.len() != before {
            changed.insert(at);
        }
    }
    // What is left has no lane yet.
    let mut result = Ok(());
    let new: Vec<_> = streams.iter().map(|key| StreamName::new(db, key.clone())).collect();
    for key in streams {
        let roomiest =
            (0..lanes.len()).filter(|at| lanes[*at].db == db).min_by_key(|at| lanes[*at].streams.len());
        // One that left and returns goes back to its lane: some of it may still be on its way there.
        let home = homes.get(&StreamName::new(db, key.clone())).copied();
        let at = match home.or(roomiest) {
            Some(at)
                if home.is_some()
                    || lanes[at].streams.len() < STREAMS_PER_LANE
                    || lanes.len() >= shared.lanes =>
            {
                at
            }
            _ => match open_lane(shared, lanes, commands, db).await {
                Ok(lane) => {
                    lanes.push(lane);
                    lanes.len() - 1
                }
                Err(fault) => {
                    result = Err(fault);
                    break;
                }
            },
        };
        homes.insert(StreamName::new(db, key.clone()), at);
        lanes[at].streams.insert(key);
        changed.insert(at);
    }
    if let Some(client) = commands.get(&db) {
        // Not worth holding anything up: without it a loss of before may go unseen.
        let looking = timeout(LOOK_AHEAD, shared.statistics.look_ahead(client, &new));
        tokio::select! {
            result = looking => {
                if !matches!(result, Ok(Ok(()))) {
                    tracing::debug!(database = db, "what was lost before the start is not known");
                }
            }
            () = shared.stop.requested() => {}
        }
    }
    for at in changed {
        let lane = &lanes[at];
        tracing::info!(database = db, streams = lane.streams.len(), "streams read by lane {at}");
        let _ = lane.wanted.send(Arc::new(lane.streams.clone()));
    }
    result
}

async fn open_lane<S: Sink>(
    shared: &Arc<Shared<S>>,
    lanes: &[LaneHandle],
    commands: &mut HashMap<u16, Client>,
    db: u16,
) -> Result<LaneHandle, Fault> {
    let client = match commands.get(&db) {
        Some(client) => client.clone(),
        None => {
            let client = shared.connector.commands(db).await?;
            commands.insert(db, client.clone());
            tokio::spawn(ping(
                client.clone(),
                shared.health_check,
                shared.limiter.clone(),
                shared.stop.clone(),
            ));
            client
        }
    };
    if lanes.len() == shared.lanes {
        tracing::warn!(
            pool_size = shared.lanes,
            "more databases hold streams than SOURCE_REDIS_POOL_SIZE allows lanes: each gets one all the same"
        );
    }
    let (wanted, receiver) = watch::channel(Arc::default());
    let lane = Lane::new(shared.clone(), db, client);
    Ok(LaneHandle { db, streams: BTreeSet::new(), wanted, task: tokio::spawn(lane.run(receiver)) })
}

/// What comes of it does not matter: a connection that does not answer is replaced by the client itself.
async fn ping(client: Client, every: Duration, limiter: RateLimiter, stop: Shutdown) {
    loop {
        tokio::select! {
            () = sleep(every) => {}
            () = stop.requested() => return,
        }
        limiter.spend(1);
        if let Err(error) = client.ping::<Value>(None).await {
            tracing::debug!("health check: {error}");
        }
    }
}
