//! Which lane reads which stream. A stream stays with its lane, and returns to it. Of all streams that there are, the
//! lanes get those that this process owns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ownership::{GivenUp, Portion, Weights};
use crate::bridge::Sink;
use crate::lane::{Lane, LetGo, Shared, Wanted};
use crate::rate_limit::RateLimiter;
use crate::record::StreamName;
use crate::redis::Fault;
use crate::redis::ownership::bucket_of;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::STREAMS_DISCOVERED;
use crate::telemetry::status::Status;

/// A lane that has so many streams gets no more while another may be opened: a blocked read of so many costs the
/// server some 0.7 ms each time it wakes.
const STREAMS_PER_LANE: usize = 1000;
/// Streams, gone ones among them, whose lanes are remembered.
const REMEMBERED: usize = 200_000;
/// Streams that a line of the log names.
const NAMED: usize = 5;
/// How long new streams are looked at before they are read, at most.
const LOOK_AHEAD: Duration = Duration::from_secs(5);

/// What a search found: streams by database. A database that is absent could not be searched now.
pub(super) type Found = BTreeMap<u16, BTreeSet<Bytes>>;

/// A lane, and what it was told to read.
pub(super) struct LaneHandle {
    db: u16,
    streams: Arc<BTreeSet<Bytes>>,
    wanted: watch::Sender<Arc<Wanted>>,
    let_go: Arc<LetGo>,
    pub(super) task: JoinHandle<()>,
}

/// What the dealer hears, and whom it tells.
pub(super) struct Around {
    pub(super) found: mpsc::Receiver<Found>,
    /// A stream could not be dealt out: the next search should not wait for its time.
    pub(super) failed: mpsc::Sender<Fault>,
    pub(super) portion: watch::Receiver<Arc<Portion>>,
    pub(super) weights: watch::Sender<Weights>,
    pub(super) given_up: watch::Sender<GivenUp>,
    pub(super) status: Status,
}

/// Deals streams out to lanes as they are found, and as they come to belong to this process or no longer do.
pub(super) struct Dealer<S> {
    shared: Arc<Shared<S>>,
    around: Around,
    /// All streams that there are.
    all: Found,
    lanes: Vec<LaneHandle>,
    homes: HashMap<StreamName, usize>,
    commands: HashMap<u16, Client>,
}

impl<S: Sink> Dealer<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, around: Around) -> Self {
        Self {
            shared,
            around,
            all: BTreeMap::new(),
            lanes: Vec::new(),
            homes: HashMap::new(),
            commands: HashMap::new(),
        }
    }

    /// Until a stop is requested; the lanes go on to finish what is in flight.
    pub(super) async fn deal_out(mut self) -> Vec<LaneHandle> {
        let stop = self.shared.stop.clone();
        loop {
            tokio::select! {
                () = stop.requested() => return self.lanes,
                Some(found) = self.around.found.recv() => {
                    self.all.extend(found);
                    self.tell_what_there_is();
                    self.deal().await;
                }
                Ok(()) = self.around.portion.changed() => self.deal().await,
                () = self.shared.let_go.notified() => self.tell_what_is_let_go(),
            }
        }
    }

    /// Whoever shares the streams must know how many there are.
    fn tell_what_there_is(&self) {
        let mut weights = Weights::new();
        let mut spelled = BTreeMap::new();
        for (db, keys) in &self.all {
            for key in keys {
                let name = StreamName::new(*db, key.clone());
                let bucket = bucket_of(&name);
                *weights.entry(bucket).or_default() += 1;
                spelled.insert(self.shared.spell(&name), bucket);
            }
        }
        self.shared
            .metrics
            .gauge("streams_discovered", STREAMS_DISCOVERED)
            .set(i64::try_from(spelled.len()).unwrap_or(i64::MAX));
        self.around.status.streams(spelled);
        self.around.weights.send_if_modified(|before| {
            let changed = *before != weights;
            *before = weights;
            changed
        });
    }

    fn tell_what_is_let_go(&self) {
        let least = |number: fn(&LetGo) -> u64| self.lanes.iter().map(|lane| number(&lane.let_go)).min();
        let (Some(unread), Some(settled)) =
            (least(|lane| lane.unread.load(Relaxed)), least(|lane| lane.settled.load(Relaxed)))
        else {
            return;
        };
        let now = GivenUp { unread, settled };
        self.around.given_up.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    async fn deal(&mut self) {
        let portion = self.around.portion.borrow_and_update().clone();
        for db in self.all.keys().copied().collect::<Vec<_>>() {
            let owned = |key: &&Bytes| portion.holds(&StreamName::new(db, (*key).clone()));
            let streams = self.all[&db].iter().filter(owned).cloned().collect();
            if let Err(fault) = self.deal_database(db, streams).await {
                // The next search finds these streams again.
                let _ = self.around.failed.try_send(fault);
            }
        }
        self.all.retain(|_, streams| !streams.is_empty());
        if self.homes.len() > REMEMBERED {
            let lanes = &self.lanes;
            self.homes.retain(|name, at| lanes[*at].streams.contains(&name.key));
        }
        for lane in &self.lanes {
            let wanted = Wanted {
                revision: portion.revision,
                member: portion.member.clone(),
                streams: lane.streams.clone(),
            };
            lane.wanted.send_if_modified(|before| {
                let changed =
                    before.revision != wanted.revision || !Arc::ptr_eq(&before.streams, &wanted.streams);
                *before = Arc::new(wanted);
                changed
            });
        }
        if self.lanes.is_empty() {
            // Nothing is read, so nothing has to be let go of.
            let revision = portion.revision;
            self.around.given_up.send_replace(GivenUp { unread: revision, settled: revision });
        }
    }

    /// Decides which lane reads each of these; a stream stays with its lane.
    async fn deal_database(&mut self, db: u16, mut streams: BTreeSet<Bytes>) -> Result<(), Fault> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.db == db) {
            let (stay, go): (BTreeSet<Bytes>, BTreeSet<Bytes>) =
                lane.streams.iter().cloned().partition(|key| streams.remove(key));
            if !go.is_empty() {
                say("no longer read", db, &self.shared, &go);
                lane.streams = Arc::new(stay);
            }
        }
        // What is left has no lane yet.
        let mut result = Ok(());
        let mut taken_up = BTreeSet::new();
        let new: Vec<_> = streams.iter().map(|key| StreamName::new(db, key.clone())).collect();
        for key in streams {
            let roomiest = (0..self.lanes.len())
                .filter(|at| self.lanes[*at].db == db)
                .min_by_key(|at| self.lanes[*at].streams.len());
            // One that left and returns goes back to its lane: some of it may still be on its way there.
            let home = self.homes.get(&StreamName::new(db, key.clone())).copied();
            let at = match home.or(roomiest) {
                Some(at)
                    if home.is_some()
                        || self.lanes[at].streams.len() < STREAMS_PER_LANE
                        || self.lanes.len() >= self.shared.pool_size =>
                {
                    at
                }
                _ => match self.open_lane(db).await {
                    Ok(lane) => {
                        self.lanes.push(lane);
                        // Else so many parts of the budget would be set aside by lanes that wait that none is left.
                        self.shared.lanes.fetch_max(self.lanes.len(), Relaxed);
                        self.lanes.len() - 1
                    }
                    Err(fault) => {
                        result = Err(fault);
                        break;
                    }
                },
            };
            self.homes.insert(StreamName::new(db, key.clone()), at);
            taken_up.insert(key.clone());
            Arc::make_mut(&mut self.lanes[at].streams).insert(key);
        }
        if !taken_up.is_empty() {
            say("read from now on", db, &self.shared, &taken_up);
        }
        self.look_ahead(db, &new).await;
        result
    }

    /// Not worth holding anything up: without it a loss of before may go unseen.
    async fn look_ahead(&self, db: u16, new: &[StreamName]) {
        let Some(client) = self.commands.get(&db).filter(|_| !new.is_empty()) else { return };
        tokio::select! {
            result = timeout(LOOK_AHEAD, self.shared.statistics.look_ahead(client, new)) => {
                if !matches!(result, Ok(Ok(()))) {
                    tracing::debug!(database = db, "what was lost before the start is not known");
                }
            }
            () = self.shared.stop.requested() => {}
        }
    }

    async fn open_lane(&mut self, db: u16) -> Result<LaneHandle, Fault> {
        let shared = &self.shared;
        let client = match self.commands.get(&db) {
            Some(client) => client.clone(),
            None => {
                let client = shared.connector.commands(db).await?;
                self.commands.insert(db, client.clone());
                tokio::spawn(ping(
                    client.clone(),
                    shared.health_check,
                    shared.limiter.clone(),
                    shared.stop.clone(),
                ));
                client
            }
        };
        if self.lanes.len() == shared.pool_size {
            tracing::warn!(
                pool_size = shared.pool_size,
                "more databases hold streams than SOURCE_REDIS_POOL_SIZE allows lanes: each gets one all the same"
            );
        }
        let (wanted, receiver) = watch::channel(Arc::default());
        let let_go = Arc::new(LetGo::default());
        let lane = Lane::new(shared.clone(), db, client, let_go.clone());
        Ok(LaneHandle { db, streams: Arc::default(), wanted, let_go, task: tokio::spawn(lane.run(receiver)) })
    }
}

/// One line for each change, however many streams it is about.
fn say<S>(what: &str, db: u16, shared: &Shared<S>, keys: &BTreeSet<Bytes>) {
    let names: Vec<String> =
        keys.iter().take(NAMED).map(|key| shared.spell(&StreamName::new(db, key.clone()))).collect();
    let more = keys.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    tracing::info!(database = db, streams = keys.len(), "{what}: {}{more}", names.join(", "));
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
