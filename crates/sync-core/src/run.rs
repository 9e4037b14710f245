//! A bridge as a whole: it connects both sides, keeps the sink connected, looks for streams and deals them out to
//! lanes, and stops them. It never touches a record.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ServerInterface;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::bridge::{Lost, Sink, Unreachable};
use crate::budget::{Budget, READ_BUDGET};
use crate::lane::{Lane, Shared};
use crate::rate_limit::RateLimiter;
use crate::record::StreamName;
use crate::redis::connection::{Connection, Connector, ConnectorError};
use crate::redis::dead_letters::DeadLetters;
use crate::redis::statistics::Statistics;
use crate::redis::{Fault, discovery, groups};
use crate::retry::Backoff;
use crate::settings::{Discovery, RedisSettings, RetrySettings, StartId, StreamSettings};
use crate::shutdown::Shutdown;
use crate::telemetry::health::{Health, Severity};
use crate::telemetry::metrics::Metrics;

/// A lane that has so many streams gets no more while another may be opened: a blocked read of so many costs the
/// server some 0.7 ms each time it wakes.
const STREAMS_PER_LANE: usize = 1000;
/// Streams, gone ones among them, whose lanes are remembered.
const REMEMBERED: usize = 200_000;
/// How long new streams are looked at before they are read, at most.
const LOOK_AHEAD: Duration = Duration::from_secs(5);

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
    /// When to stop.
    pub stop: Shutdown,
    /// How long what is in flight may take to finish then.
    pub shutdown_timeout: Duration,
}

/// The settings that apply without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Ranges and patterns.
    pub discovery: Option<Discovery>,
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
pub async fn run<S: Sink>(bridge: Bridge<S>) -> Result<(), StartError> {
    let connector = Connector::new(bridge.redis.clone())?;
    let stop = bridge.stop.clone();
    let searcher = at_start(bridge.redis.retry, &stop, || connector.connection(bridge.redis.db)).await;
    let searcher = match searcher {
        Started::Yes(connection) => connection,
        Started::Stopped => return Ok(()),
        Started::No(fault, attempts) => {
            return Err(StartError::Source { address: connector.address(), attempts, fault });
        }
    };
    tracing::info!(address = connector.address(), "connected to the source Redis");
    let sink = Arc::new(bridge.sink);
    let lost = match at_start(bridge.sink_retry, &stop, || sink.connect()).await {
        Started::Yes(lost) => lost,
        Started::Stopped => return Ok(()),
        Started::No(reason, attempts) => {
            return Err(StartError::Sink { destination: sink.destination(), attempts, reason });
        }
    };
    tracing::info!("connected to the {}", sink.destination());
    bridge.health.started();

    let (sink_is_up, sink_up) = watch::channel(true);
    let keeper = Keeper {
        sink: sink.clone(),
        retry: bridge.sink_retry,
        health: bridge.health.clone(),
        stop: stop.clone(),
    };
    let keeping = tokio::spawn(keeper.keep_connected(lost, sink_is_up));

    let statistics = Statistics::new(&bridge.streams, bridge.limiter.clone());
    let counting = tokio::spawn(statistics.clone().run(stop.clone()));
    let budget = Budget::new(READ_BUDGET);
    bridge.metrics.watch_budget(budget.clone());
    let shared = Shared {
        sink: sink.clone(),
        sink_up,
        connector,
        default_db: bridge.redis.db,
        dead_letters: DeadLetters {
            bridge: bridge.name,
            group: bridge.streams.group.clone(),
            suffix: bridge.streams.dead_letter_suffix.clone(),
            maxlen: bridge.streams.dead_letter_maxlen,
        },
        redis_retry: bridge.redis.retry,
        sink_retry: bridge.sink_retry,
        budget,
        limiter: bridge.limiter,
        health: bridge.health,
        metrics: bridge.metrics,
        statistics,
        stop: stop.clone(),
        lanes: bridge.redis.pool_size,
        latest: Mutex::default(),
        settings: bridge.streams,
    };
    let lanes = deal_out(shared, searcher, bridge.live).await;
    let deadline = Instant::now() + bridge.shutdown_timeout;
    for lane in lanes {
        if timeout_at(deadline, lane.task).await.is_err() {
            tracing::warn!(
                "not all that was in flight was confirmed in time: it stays pending, and is delivered again"
            );
            break;
        }
    }
    // It only reads, and was told to stop with the lanes.
    let _ = timeout_at(deadline, counting).await;
    sink.disconnect().await;
    // Ends by itself once the sink's connection is closed.
    let _ = timeout_at(deadline, keeping).await;
    Ok(())
}

enum Started<T, E> {
    Yes(T),
    No(E, u32),
    Stopped,
}

/// Attempts at start are bounded by the settings; a stop ends them.
async fn at_start<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    retry: RetrySettings,
    stop: &Shutdown,
    attempt: impl Fn() -> F,
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
                tracing::warn!(
                    attempt = attempts,
                    of = retry.max_retries,
                    ?delay,
                    "not connected yet: {error}"
                );
                tokio::select! {
                    () = sleep(delay) => {}
                    () = stop.requested() => return Started::Stopped,
                }
            }
        }
    }
}

/// Keeps the sink connected: the only place that makes connections to it again.
struct Keeper<S> {
    sink: Arc<S>,
    retry: RetrySettings,
    health: Health,
    stop: Shutdown,
}

impl<S: Sink> Keeper<S> {
    async fn keep_connected(self, mut lost: BoxFuture<'static, Lost>, up: watch::Sender<bool>) {
        let destination = self.sink.destination();
        let mut backoff = Backoff::new(self.retry);
        loop {
            let since = Instant::now();
            let Lost { reason, by_conflict } = lost.await;
            let _ = up.send(false);
            if self.stop.is_requested() {
                return;
            }
            let severity = if by_conflict { Severity::Error } else { Severity::Warn };
            self.health.down(&destination, &reason, severity);
            // A connection that lasted is followed by an attempt at once; one that did not is no reason to hurry.
            let delay = if by_conflict {
                self.retry.cap
            } else if since.elapsed() >= self.retry.cap {
                backoff.reset();
                Duration::ZERO
            } else {
                backoff.next_delay()
            };
            // Nothing is handed over once a stop is requested: a new connection would only be waited for.
            lost = tokio::select! {
                lost = self.connect_again(&destination, delay, &mut backoff) => lost,
                () = self.stop.requested() => return,
            };
            self.health.up(&destination);
            let _ = up.send(true);
        }
    }
}

impl<S: Sink> Keeper<S> {
    async fn connect_again(
        &self,
        destination: &str,
        mut delay: Duration,
        backoff: &mut Backoff,
    ) -> BoxFuture<'static, Lost> {
        loop {
            sleep(delay).await;
            match self.sink.connect().await {
                Ok(lost) => return lost,
                Err(unreachable) => {
                    let severity = if unreachable.needs_human { Severity::Error } else { Severity::Warn };
                    self.health.down(destination, &unreachable.reason, severity);
                    delay = backoff.next_delay();
                }
            }
        }
    }
}

/// A lane, and what it was told to read.
struct LaneHandle {
    db: u16,
    streams: BTreeSet<Bytes>,
    wanted: watch::Sender<Arc<BTreeSet<Bytes>>>,
    task: JoinHandle<()>,
}

/// Looks for streams until a stop is requested, and deals them out to lanes.
async fn deal_out<S: Sink>(
    mut shared: Shared<S>,
    searcher: Connection,
    mut live: watch::Receiver<Live>,
) -> Vec<LaneHandle> {
    let stop = shared.stop.clone();
    let mut search = Search {
        connection: Some(searcher),
        databases: None,
        reported: HashSet::new(),
        searching: None,
        reported_down: false,
    };
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
        let interval = live.borrow().interval;
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

/// Looks for streams with one connection of its own.
struct Search {
    connection: Option<Connection>,
    /// How many databases the server has, where known.
    databases: Option<Option<u32>>,
    /// Named streams, and databases, of which something was said already.
    reported: HashSet<String>,
    searching: Option<Vec<u16>>,
    /// The source was reported down from here.
    reported_down: bool,
}

impl Search {
    /// The streams to be read, by database. A database that cannot be searched now is absent: what was found there
    /// before goes on being read.
    async fn pass<S>(&mut self, shared: &Shared<S>, live: &Live) -> BTreeMap<u16, BTreeSet<Bytes>> {
        let mut named: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        for stream in &shared.settings.named {
            named.entry(stream.db).or_default().push(stream.key.clone());
        }
        let range = live.discovery.as_ref().map(|discovery| discovery.dbs.clone()).unwrap_or_default();
        let range = self.existing(shared, range).await;
        if self.searching.as_ref() != Some(&range) {
            if !range.is_empty() {
                let list: Vec<_> = range.iter().map(u16::to_string).collect();
                tracing::info!("Searching Redis databases {}", list.join(", "));
            }
            self.searching = Some(range.clone());
        }
        let mut found = BTreeMap::new();
        let mut answered = true;
        for db in range.iter().copied().chain(named.keys().copied()).collect::<BTreeSet<u16>>() {
            let discovery = live.discovery.as_ref().filter(|_| range.contains(&db));
            match self.database(shared, db, discovery, named.get(&db).map_or(&[], Vec::as_slice)).await {
                Ok(streams) => {
                    found.insert(db, streams);
                }
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => {
                    answered = false;
                    self.failed(shared, &fault);
                }
                Err(fault) => {
                    if self.reported.insert(format!("database {db}")) {
                        tracing::error!(database = db, "cannot look for streams: {fault}");
                    }
                }
            }
        }
        if answered && std::mem::take(&mut self.reported_down) {
            shared.health.up("source Redis");
        }
        // Databases that left the range are given up.
        let searched = |db| live.discovery.as_ref().is_some_and(|discovery| discovery.dbs.contains(&db));
        for db in (0..=u8::MAX).map(u16::from).filter(|db| !searched(*db) && !named.contains_key(db)) {
            found.insert(db, BTreeSet::new());
        }
        found
    }

    fn failed<S>(&mut self, shared: &Shared<S>, fault: &Fault) {
        self.reported_down = true;
        shared.health.down("source Redis", &fault.to_string(), Severity::Warn);
    }

    /// Does something in one database, on the connection or, where it broke, on a new one.
    async fn in_database<S, T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        shared: &Shared<S>,
        db: u16,
        work: impl FnOnce(Client) -> F,
    ) -> Result<T, Fault> {
        let number = u8::try_from(db).map_err(|_| Fault::Other(format!("database {db} is above 255")))?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => shared.connector.connection(shared.default_db).await?,
        };
        let result = connection
            .run(async |client| {
                client.select(i64::from(number)).await?;
                work(client).await
            })
            .await;
        if !matches!(result, Err(Fault::Lost(_) | Fault::Busy(_))) {
            self.connection = Some(connection);
        }
        result
    }

    async fn database<S>(
        &mut self,
        shared: &Shared<S>,
        db: u16,
        search: Option<&Discovery>,
        named: &[Bytes],
    ) -> Result<BTreeSet<Bytes>, Fault> {
        let mut streams = BTreeSet::new();
        if let Some(search) = search {
            let suffix = &shared.settings.dead_letter_suffix;
            let scan = async |client: Client| discovery::scan(&client, search, suffix, &shared.limiter).await;
            match self.in_database(shared, db, scan).await {
                Ok(found) => streams = found,
                // Named streams are read all the same.
                Err(fault) if fault.needs_human() && !named.is_empty() => {
                    if self.reported.insert(format!("search {db}")) {
                        tracing::error!(
                            database = db,
                            "cannot look for streams, only named ones are read: {fault}"
                        );
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
        let ask = async |client: Client| discovery::types(&client, named, &shared.limiter).await;
        let types = match self.in_database(shared, db, ask).await {
            Ok(types) => types,
            // Reading them shows what they are.
            Err(fault) if fault.needs_human() => vec!["stream".to_owned(); named.len()],
            Err(fault) => return Err(fault),
        };
        let excluded = |key: &[u8]| search.is_some_and(|search| search.excludes(key));
        for (key, kind) in named.iter().zip(types).filter(|(key, _)| !excluded(key)) {
            let spelled = StreamName::new(db, key.clone()).spell(shared.default_db);
            match kind.as_str() {
                "stream" => {
                    streams.insert(key.clone());
                }
                "none" if self.reported.insert(format!("absent {spelled}")) => {
                    tracing::info!(
                        stream = spelled,
                        "named in REDIS_STREAMS and not there yet: read once it exists"
                    );
                }
                "none" => {}
                kind => {
                    if self.reported.insert(format!("type {spelled}")) {
                        tracing::warn!(
                            stream = spelled,
                            "named in REDIS_STREAMS and not read: the key holds a {kind}"
                        );
                    }
                }
            }
        }
        Ok(streams)
    }

    /// Without the databases that the server does not have: they are named in one warning.
    async fn existing<S>(&mut self, shared: &Shared<S>, range: Vec<u16>) -> Vec<u16> {
        if self.databases.is_none() {
            let ask = async |client: Client| Ok(discovery::databases(&client).await);
            self.databases = self.in_database(shared, shared.default_db, ask).await.ok();
        }
        let Some(Some(count)) = self.databases else { return range };
        let (there, beyond): (Vec<u16>, Vec<u16>) = range.into_iter().partition(|db| u32::from(*db) < count);
        if !beyond.is_empty() && self.reported.insert(format!("beyond {beyond:?}")) {
            tracing::warn!(
                "the server has {count} databases: {beyond:?} of SOURCE_REDIS_DB_SEARCH_RANGE are not there"
            );
        }
        there
    }

    /// All that was found, if the group exists on none of it: then this is the first start.
    async fn present_at_first_start<S>(
        &mut self,
        shared: &Shared<S>,
        found: &BTreeMap<u16, BTreeSet<Bytes>>,
    ) -> HashSet<StreamName> {
        let mut present = HashSet::new();
        for (db, streams) in found.iter().filter(|(_, streams)| !streams.is_empty()) {
            let keys: Vec<Bytes> = streams.iter().cloned().collect();
            let group = &shared.settings.group;
            let ask = async |client: Client| groups::having_group(&client, &keys, group).await;
            let having = self.in_database(shared, *db, ask).await;
            match having {
                Ok(having) if !having.contains(&true) => {
                    present.extend(keys.into_iter().map(|key| StreamName::new(*db, key)));
                }
                Ok(_) => return HashSet::new(),
                Err(fault) => {
                    // Reading too much is the safe side.
                    tracing::warn!(
                        "STREAM_START_ID=$ is not applied: cannot see which groups exist: {fault}"
                    );
                    return HashSet::new();
                }
            }
        }
        present
    }
}
