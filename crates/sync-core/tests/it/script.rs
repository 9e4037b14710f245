//! A sink that does what it is told, and a bridge around it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::prelude::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Unreachable};
use sync_core::pattern::Pattern;
use sync_core::rate_limit::RateLimiter;
use sync_core::record::EntryId;
use sync_core::run::{self, Live};
use sync_core::settings::{
    Cleanup, Discovery, Ownership, RedisSettings, RetrySettings, Secret, StartId, StreamSettings,
};
use sync_core::shutdown::{Shutdown, Trigger};
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::Metrics;
use sync_core::telemetry::status::Status;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

/// Which record, by stream and entry number.
pub(crate) type Name = (String, u64);

/// Decides a record's fate; asked for each in order of delivery.
type Rule = Box<dyn FnMut(&Name) -> Fate + Send>;

/// What the sink was given and did; shared with the test.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<State>>);

struct State {
    name: &'static str,
    rule: Rule,
    /// What arrived, in order, repeats included.
    arrived: Vec<Name>,
    /// The records of each group.
    groups: Vec<Vec<Name>>,
    /// While set, fates are kept back.
    gate: watch::Receiver<bool>,
    refuse_connections: u32,
    connections: u32,
    hang_up: Option<oneshot::Sender<Lost>>,
    up: bool,
    /// Streams of which a record came back, until the lane is told.
    came_back: HashSet<String>,
    /// How long a group takes.
    takes: Duration,
    /// The first record of a stream that came back, once the lane was told so: it, or an earlier one, must be next.
    owed: HashMap<String, u64>,
    /// What was handed over instead.
    violations: Vec<(Name, u64)>,
}

impl Script {
    pub(crate) fn new(rule: impl FnMut(&Name) -> Fate + Send + 'static) -> Self {
        let (_, gate) = watch::channel(true);
        Self(Arc::new(Mutex::new(State {
            name: "scripted sink",
            rule: Box::new(rule),
            arrived: Vec::new(),
            groups: Vec::new(),
            gate,
            refuse_connections: 0,
            connections: 0,
            hang_up: None,
            up: false,
            came_back: HashSet::new(),
            takes: Duration::ZERO,
            owed: HashMap::new(),
            violations: Vec::new(),
        })))
    }

    /// Its name, where there are several.
    pub(crate) fn called(self, name: &'static str) -> Self {
        self.state().name = name;
        self
    }

    /// Groups take so long: more is read meanwhile.
    pub(crate) fn slow(self, takes: Duration) -> Self {
        self.state().takes = takes;
        self
    }

    /// From now on fates are told only while the sender says true.
    pub(crate) fn gate(&self) -> watch::Sender<bool> {
        let (sender, gate) = watch::channel(false);
        self.state().gate = gate;
        sender
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn arrived(&self) -> Vec<Name> {
        self.state().arrived.clone()
    }

    /// The numbers of one stream, in order of arrival.
    pub(crate) fn arrived_of(&self, stream: &str) -> Vec<u64> {
        self.arrived().into_iter().filter(|(name, _)| name == stream).map(|(_, number)| number).collect()
    }

    pub(crate) fn groups(&self) -> Vec<Vec<Name>> {
        self.state().groups.clone()
    }

    /// After the lane was told that a record came back, nothing later of its stream was handed over before it.
    pub(crate) fn assert_came_back_first(&self) {
        assert_eq!(self.state().violations, [], "handed over before the record that had come back");
    }

    pub(crate) fn connections(&self) -> u32 {
        self.state().connections
    }

    /// Ends the connection; the next so many attempts fail.
    pub(crate) fn hang_up(&self, then_refuse: u32) {
        let mut state = self.state();
        state.up = false;
        state.refuse_connections = then_refuse;
        if let Some(tell) = state.hang_up.take() {
            let _ = tell.send(Lost { reason: "told to".into(), by_conflict: false });
        }
    }
}

impl Sink for Script {
    fn destination(&self) -> String {
        self.state().name.into()
    }

    fn identity(&self) -> String {
        self.destination()
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let mut state = self.state();
        if state.refuse_connections > 0 {
            state.refuse_connections -= 1;
            return Err(Unreachable { reason: "told to".into(), needs_human: false });
        }
        let (tell, lost) = oneshot::channel();
        state.hang_up = Some(tell);
        state.up = true;
        state.connections += 1;
        Ok(lost.map(|lost| lost.unwrap_or(Lost { reason: "gone".into(), by_conflict: false })).boxed())
    }

    fn deliver(&self, group: Group) -> Delivery {
        let mut state = self.state();
        let mut fates = Vec::new();
        let mut names = Vec::new();
        for record in group.iter() {
            let name = (record.stream.spelled.clone(), record.entry.id.ms);
            if let Some(owed) = state.owed.remove(&name.0)
                && name.1 > owed
            {
                state.violations.push((name.clone(), owed));
            }
            // The sink's side of the contract: nothing later of a stream takes effect after one came back, in this
            // group or in one handed over before the lane knew.
            let barred = state.came_back.contains(&name.0);
            let fate = if !state.up || barred { Fate::Unknown } else { (state.rule)(&name) };
            match fate {
                Fate::Delivered => state.arrived.push(name.clone()),
                Fate::Held(_) | Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown => {
                    state.came_back.insert(name.0.clone());
                }
                _ => {}
            }
            names.push(name);
            fates.push(fate);
        }
        state.groups.push(names.clone());
        let (mut gate, takes) = (state.gate.clone(), state.takes);
        let script = self.clone();
        Box::pin(async move {
            sleep(takes).await;
            let _ = gate.wait_for(|open| *open).await;
            let State { owed, came_back, .. } = &mut *script.state();
            for ((stream, number), fate) in names.into_iter().zip(&fates) {
                if matches!(fate, Fate::Held(_) | Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown) {
                    came_back.remove(&stream);
                    let first = owed.entry(stream).or_insert(number);
                    *first = number.min(*first);
                }
            }
            fates
        })
    }

    async fn disconnect(&self) {
        self.hang_up(0);
    }
}

/// A bridge that runs, and the Redis that it reads.
pub(crate) struct Bridge {
    pub(crate) redis: Client,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) status: Status,
    pub(crate) group: String,
    prefix: String,
    script: Script,
    settings: StreamSettings,
    db: u16,
    url: String,
    beside: Option<Box<dyn Fn() -> run::Beside>>,
    /// To the one that runs.
    live: watch::Sender<Live>,
    running: Option<Running>,
}

fn live_of(settings: &StreamSettings) -> Live {
    Live {
        discovery: settings.discovery.clone(),
        dbs: settings.dbs.clone(),
        interval: settings.discovery_interval,
    }
}

/// A bridge on a thread and a runtime of its own, so that it can die as a process does: all of it at once.
struct Running {
    stop: Trigger,
    kill: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Option<Result<(), run::StartError>>>,
}

pub(crate) fn redis_url() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the servers are is told to tests by the environment"
    )]
    std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL is not set: run `cargo xtask test`")
}

pub(crate) async fn client(db: u16) -> Client {
    client_of(&redis_url(), db).await
}

async fn client_of(url: &str, db: u16) -> Client {
    let mut config = Config::from_url(url).unwrap();
    config.database = Some(u8::try_from(db).unwrap());
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 50));
    // On ASK the library takes another command's reply for its own: what is redirected fails, and is sent again.
    builder.with_connection_config(|connection| connection.max_redirections = 0);
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    client
}

const RETRY: RetrySettings =
    RetrySettings { max_retries: 3, base: Duration::from_millis(20), cap: Duration::from_millis(100) };

/// How one is reached.
pub(crate) fn redis_at(url: &str, db: u16) -> RedisSettings {
    RedisSettings {
        url: Some(Secret::new(url)),
        host: String::new(),
        port: 0,
        username: None,
        password: None,
        tls: None,
        db,
        pool_size: 10,
        retry: RETRY,
        health_check_interval: Duration::from_millis(50),
    }
}

/// Read alone from the beginning, and none looked for.
pub(crate) fn streams_of(group: &str, consumer: &str) -> StreamSettings {
    StreamSettings {
        enabled: true,
        named: Vec::new(),
        dbs: Vec::new(),
        discovery: None,
        discovery_interval: Duration::from_millis(50),
        auto_create_groups: true,
        start_id: StartId::After(EntryId::default()),
        group: group.into(),
        consumer: consumer.into(),
        consumer_base: consumer.into(),
        batch_size: 100,
        poll_interval: Duration::from_millis(100),
        filter: None,
        dead_letter_suffix: ":dead-letter".into(),
        dead_letter_maxlen: 0,
        ownership: Ownership::Exclusive,
        source_name: None,
        max_deliveries: 0,
        rate_limit: 0,
        cleanup: Cleanup::Ack,
        cleanup_interval: Duration::from_millis(50),
    }
}

impl Bridge {
    /// Not started yet. Its streams are those whose keys begin with `name:`.
    pub(crate) async fn new(name: &str, script: &Script) -> Self {
        Self::in_db(0, name, script).await
    }

    /// In a database of its own.
    pub(crate) async fn in_db(db: u16, name: &str, script: &Script) -> Self {
        Self::of(&redis_url(), db, name, script).await
    }

    /// Of another Redis than the tests' common one.
    pub(crate) async fn at(url: &str, name: &str, script: &Script) -> Self {
        Self::of(url, 0, name, script).await
    }

    async fn of(url: &str, db: u16, name: &str, script: &Script) -> Self {
        let prefix = format!("{name}-{}", std::process::id());
        let settings = StreamSettings {
            discovery: Some(Discovery {
                dbs: vec![db],
                patterns: vec![Pattern::new(&format!("{prefix}:*"))],
                exclude: Vec::new(),
            }),
            ..streams_of(&format!("{prefix}-group"), "this")
        };
        let group = settings.group.clone();
        Self {
            redis: client_of(url, db).await,
            live: watch::channel(live_of(&settings)).0,
            beside: None,
            metrics: Metrics::default(),
            health: Health::default(),
            status: Status::default(),
            group,
            prefix,
            script: script.clone(),
            settings,
            db,
            url: url.to_owned(),
            running: None,
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut StreamSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The bridge reaches its Redis this way.
    pub(crate) fn through(mut self, url: &str) -> Self {
        self.url = url.to_owned();
        self
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut StreamSettings)) {
        change(&mut self.settings);
    }

    /// What each start of it does beside the streams.
    pub(crate) fn beside(mut self, work: impl Fn() -> run::Beside + 'static) -> Self {
        self.beside = Some(Box::new(work));
        self
    }

    /// What SIGHUP does, after a change of the settings.
    pub(crate) fn hang_up(&mut self) {
        self.live.send_replace(live_of(&self.settings));
    }

    pub(crate) fn redis_settings(&self) -> RedisSettings {
        redis_at(&self.url, self.db)
    }

    pub(crate) fn settings(&self) -> StreamSettings {
        self.settings.clone()
    }

    pub(crate) fn start(&mut self) {
        let (trigger, stop) = Shutdown::manual();
        let (live, changes) = watch::channel(live_of(&self.settings));
        self.live = live;
        let bridge = run::Bridge {
            name: "scripted",
            sink: self.script.clone(),
            sink_retry: RETRY,
            redis: self.redis_settings(),
            streams: self.settings.clone(),
            live: changes,
            limiter: RateLimiter::new(0),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            status: self.status.clone(),
            stop,
            shutdown_timeout: Duration::from_secs(5),
            beside: self.beside.as_ref().map(|beside| beside()),
            parts: run::Parts::default(),
        };
        let (kill, killed) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    result = run::run(bridge) => Some(result),
                    _ = killed => None,
                }
            })
        });
        self.running = Some(Running { stop: trigger, kill, thread });
    }

    /// What it ends with by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), run::StartError> {
        let Running { kill, thread, .. } = self.running.take().expect("it runs");
        let ended =
            tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().expect("not killed");
        drop(kill);
        ended
    }

    pub(crate) async fn stop(&mut self) {
        let Running { stop, kill, thread } = self.running.take().expect("it runs");
        stop.request();
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().expect("not killed").unwrap();
        drop(kill);
    }

    /// Ends it as a crash would: nothing is finished or acknowledged.
    pub(crate) async fn crash(&mut self) {
        let Running { kill, thread, .. } = self.running.take().expect("it runs");
        kill.send(()).unwrap();
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap();
    }

    pub(crate) fn key(&self, stream: &str) -> String {
        format!("{}:{stream}", self.prefix)
    }

    /// Adds entries with these numbers as IDs.
    pub(crate) async fn add(&self, stream: &str, numbers: impl IntoIterator<Item = u64>) {
        let pipeline = self.redis.pipeline();
        for number in numbers {
            let id = format!("{number}-1");
            let _: () = pipeline
                .xadd(self.key(stream), false, None, id, vec![("n", number.to_string())])
                .await
                .unwrap();
        }
        let _: Vec<Value> = pipeline.all().await.unwrap();
    }

    /// Entries pending in the group; the highest number while there is no group, or its slot has just moved.
    pub(crate) async fn pending(&self, stream: &str) -> u64 {
        let summary: Result<Value, Error> = self.redis.xpending(self.key(stream), &self.group, ()).await;
        match summary {
            Ok(Value::Array(parts)) => parts[0].as_u64().unwrap(),
            Err(error) if error.details().starts_with("NOGROUP") => u64::MAX,
            Err(error) if *error.kind() == ErrorKind::Routing => u64::MAX,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn letters(&self, stream: &str) -> Vec<HashMap<String, String>> {
        let key = format!("{}:dead-letter", self.key(stream));
        let letters: Vec<(String, HashMap<String, String>)> =
            self.redis.xrange_values(key, "-", "+", None).await.unwrap();
        letters.into_iter().map(|(_, fields)| fields).collect()
    }

    pub(crate) async fn read_as(&self, consumer: &str, stream: &str, count: u64) {
        let id = vec![fred::types::streams::XID::NewInGroup];
        let _: Value = self
            .redis
            .xreadgroup(&self.group, consumer, Some(count), None, false, self.key(stream), id)
            .await
            .unwrap();
    }

    pub(crate) async fn make_group(&self, stream: &str) {
        let _: Value = self.redis.xgroup_create(self.key(stream), &self.group, "0", true).await.unwrap();
    }
}

/// Waits for a condition; fails with what it last saw.
pub(crate) async fn until<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> (bool, T)) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (met, seen) = look().await;
        if met {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what} did not come; last seen: {seen:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// First arrivals in order, all of `expected` there; how many came more than once.
pub(crate) fn assert_in_order(arrived: &[u64], expected: impl IntoIterator<Item = u64>) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<u64> = arrived.iter().copied().filter(|number| seen.insert(*number)).collect();
    let expected: Vec<u64> = expected.into_iter().collect();
    if let Some(at) = (0..first.len().max(expected.len())).find(|at| first.get(*at) != expected.get(*at)) {
        let around = at.saturating_sub(3)..(at + 5).min(first.len());
        panic!("first arrivals differ at {at}: {:?} for {:?}", &first[around], expected.get(at));
    }
    arrived.len() - first.len()
}
