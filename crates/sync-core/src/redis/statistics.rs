//! What a person wants to know of each stream and only Redis can tell: lag, what is pending and how old it is, what
//! was trimmed before it was delivered, and who else reads in the group. Read in one pipelined sweep each 30 s; the
//! loop does not wait for it and decides nothing by it.
//!
//! An idle stream costs two commands a sweep (XINFO STREAM, XINFO GROUPS); XPENDING and XINFO CONSUMERS are asked
//! only where something is pending or several consumers are listed. XINFO STREAM answers with two whole entries, so
//! a pipeline is bounded by what its answers are expected to weigh.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fred::clients::Client;
use tokio::time::{Instant, sleep};

mod account;
pub(crate) mod ask;
mod lag;
mod progress;

pub(crate) use self::account::{Snapshot, age_ms};
pub(crate) use self::lag::{Lag, Onlooker, lost_ahead};
pub use self::progress::Progress;

use self::account::Account;
use self::ask::{Answer, Consumer};
use super::{Fault, groups};
use crate::bridge::Stream;
use crate::rate_limit::RateLimiter;
use crate::record::StreamName;
use crate::settings::StreamSettings;
use crate::shutdown::Shutdown;

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(30);
/// Before the first one, and before the next one after a failure.
const SOON: Duration = Duration::from_secs(2);
/// Streams asked about in one pipeline,
const CHUNK: usize = 200;
/// unless their answers are expected to be larger than this. One stream alone may exceed it.
const CHUNK_BYTES: usize = 4 << 20;
/// What an answer weighs beside its two entries.
const MIN_WEIGHT: usize = 2 << 10;
/// What the answer about a stream that was never asked about is taken to weigh.
pub(crate) const UNSEEN: usize = CHUNK_BYTES / CHUNK;
/// A consumer of ours with nothing pending that was idle for so long belongs to a process that ended.
const ABANDONED: Duration = Duration::from_secs(60);

/// Nobody misses it where it is not permitted.
const TIDYING: &str = "removing consumers of processes that ended";

/// Cheap to clone. The lanes say which streams they read; the sweep sets those streams' gauges.
#[derive(Clone, Debug)]
pub struct Statistics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    group: String,
    consumer: String,
    /// What the names of earlier processes of this bridge begin with.
    own_names: String,
    limiter: RateLimiter,
    patience: Duration,
    known: Mutex<HashMap<StreamName, Known>>,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Known {
    /// For commands in the stream's database.
    client: Client,
    /// `None` until a lane has taken it.
    stream: Option<Arc<Stream>>,
    account: Account,
    /// When the last answer came.
    looked: Option<Instant>,
    /// What it weighed.
    weight: usize,
}

/// What was said already, and is not said again.
#[derive(Debug, Default)]
struct Said {
    strangers: HashSet<Bytes>,
    failures: HashSet<&'static str>,
}

/// What a sweep found besides the gauges.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Streams looked at.
    pub streams: usize,
    /// Entries lost since the sweep before.
    pub lost: u64,
    /// Consumers of earlier processes that were removed.
    pub removed: u64,
    /// Other consumers that are active in the group, met for the first time.
    pub strangers: Vec<String>,
}

impl Statistics {
    /// Of the streams that one process reads with these settings.
    pub fn new(settings: &StreamSettings, limiter: RateLimiter) -> Self {
        Self::with_patience(settings, limiter, ABANDONED)
    }

    /// The same, but a consumer counts as abandoned once it was idle for longer than that.
    pub fn with_patience(settings: &StreamSettings, limiter: RateLimiter, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            group: settings.group.clone(),
            consumer: settings.consumer.clone(),
            own_names: format!("{}-", settings.consumer_base),
            limiter,
            patience,
            known: Mutex::default(),
            said: Mutex::default(),
        }))
    }

    /// Sweeps until a stop is requested. A sweep that finds Redis away goes on when it is back.
    pub(crate) async fn run(self, stop: Shutdown) {
        let mut pause = SOON;
        let sweeping = async {
            loop {
                sleep(pause).await;
                let started = Instant::now();
                pause = match self.sweep().await {
                    Ok(found) => {
                        tracing::debug!(streams = found.streams, took = ?started.elapsed(), "looked at the streams");
                        INTERVAL
                    }
                    Err(fault) => {
                        tracing::debug!("no statistics now: {fault}");
                        SOON
                    }
                };
            }
        };
        tokio::select! {
            () = sweeping => {}
            () = stop.requested() => {}
        }
    }

    /// Before a lane reads these: what was lost while nobody read is seen only until the first read.
    pub async fn look_ahead(&self, client: &Client, names: &[StreamName]) -> Result<(), Fault> {
        for names in names.chunks(CHUNK) {
            self.0.limiter.take().await;
            let answers = ask::streams(client, &self.0.group, names).await?;
            let now = Instant::now();
            let mut known = self.known();
            for (name, answer) in names.iter().zip(answers) {
                let Ok(Some(answer)) = answer else { continue };
                let known = known.entry(name.clone()).or_insert_with(|| Known::new(client.clone()));
                known.account.open(answer.snapshot);
                (known.looked, known.weight) = (Some(now), answer.weight);
            }
        }
        Ok(())
    }

    /// A lane reads this stream from now on.
    pub fn add(&self, client: &Client, stream: Arc<Stream>) {
        let mut known = self.known();
        let known = known.entry(stream.name.clone()).or_insert_with(|| Known::new(client.clone()));
        if let Some(before) = known.account.before() {
            stream.progress.begin_at(before.delivered);
        }
        known.stream = Some(stream);
    }

    /// These consumers are other replicas of this bridge: nothing is wrong when they read.
    pub(crate) fn companions(&self, consumers: impl IntoIterator<Item = String>) {
        self.said().strangers.extend(consumers.into_iter().map(Bytes::from));
    }

    /// It no longer does.
    pub fn remove(&self, stream: &Arc<Stream>) {
        let mut known = self.known();
        // Another lane may have taken it up meanwhile.
        if known
            .get(&stream.name)
            .is_some_and(|known| known.stream.as_ref().is_none_or(|read| Arc::ptr_eq(read, stream)))
        {
            known.remove(&stream.name);
        }
    }

    /// What is read now, in order of names, each with a client for its database.
    pub(crate) fn read_now(&self) -> BTreeMap<StreamName, (Client, Arc<Stream>)> {
        let read = |(name, known): (&StreamName, &Known)| {
            Some((name.clone(), (known.client.clone(), known.stream.clone()?)))
        };
        self.known().iter().filter_map(read).collect()
    }

    /// One look at every stream that is read now. Sets `lag`, `pending`, `oldest_pending_ms`,
    /// `lost_trimmed` and `settled`.
    pub async fn sweep(&self) -> Result<Found, Fault> {
        let mut found = Found::default();
        for (client, chunk) in self.chunks() {
            self.look(&client, &chunk, &mut found).await?;
        }
        Ok(found)
    }

    /// What is read now, by database, in pieces for one pipeline each.
    fn chunks(&self) -> Vec<(Client, Vec<StreamName>)> {
        let known = self.known();
        let read = known.iter().filter(|(_, known)| known.stream.is_some());
        let streams: BTreeMap<&StreamName, usize> = read.map(|(name, known)| (name, known.weight)).collect();
        let client = |chunk: &Vec<StreamName>| known.get(chunk.first()?).map(|known| known.client.clone());
        let chunks = chunks(streams.into_iter()).into_iter();
        chunks.filter_map(|chunk| Some((client(&chunk)?, chunk))).collect()
    }

    async fn look(&self, client: &Client, names: &[StreamName], found: &mut Found) -> Result<(), Fault> {
        let inner = &self.0;
        inner.limiter.take().await;
        let asked = Instant::now();
        let answers = ask::streams(client, &inner.group, names).await?;
        let mut looked: Vec<(&StreamName, Answer)> = Vec::with_capacity(names.len());
        for (name, answer) in names.iter().zip(answers) {
            match answer {
                Ok(Some(answer)) => looked.push((name, answer)),
                // Without its group, or gone: the lane sees to it.
                Ok(None) => {}
                Err(fault) => self.failed("XINFO", &fault),
            }
        }
        let more: Vec<_> = looked.iter().filter(|(_, a)| a.pending > 0 || a.consumers > 1).collect();
        let mut details = HashMap::new();
        if !more.is_empty() {
            inner.limiter.take().await;
            let wanted: Vec<_> =
                more.iter().map(|(name, a)| (*name, a.pending > 0, a.consumers > 1)).collect();
            let answers = ask::details(client, &inner.group, &wanted).await?;
            for ((name, ..), answer) in wanted.into_iter().zip(answers) {
                match answer {
                    Ok(answer) => {
                        details.insert(name, answer);
                    }
                    Err(fault) => self.failed("XPENDING or XINFO CONSUMERS", &fault),
                }
            }
        }
        let mut abandoned = Vec::new();
        for (name, answer) in looked {
            let (oldest, consumers) = details.remove(name).unwrap_or_default();
            if consumers.iter().any(|consumer| inner.is_abandoned(consumer)) {
                abandoned.push(name);
            }
            let Some((stream, growth, strangers)) = self.apply(name, &answer, &consumers, asked) else {
                continue;
            };
            found.streams += 1;
            stream.metrics.pending.store(answer.pending, Relaxed);
            stream
                .metrics
                .oldest_pending_ms
                .store(age_ms(oldest.map(|oldest| oldest.id), unix_ms()), Relaxed);
            if let Some(growth) = growth {
                found.lost += growth.count;
                tracing::warn!(
                    stream = stream.spelled,
                    count = growth.count,
                    total = growth.total,
                    exact = growth.exact,
                    "lost at the source: the stream was trimmed before delivery"
                );
            }
            for stranger in strangers {
                let stranger = String::from_utf8_lossy(&stranger).into_owned();
                tracing::warn!(
                    stream = stream.spelled,
                    group = inner.group,
                    consumer = stranger,
                    "another consumer reads in this group: order across the two is not kept"
                );
                found.strangers.push(stranger);
            }
        }
        for name in abandoned {
            found.removed += self.remove_abandoned(client, name).await?;
        }
        Ok(())
    }

    /// Brings the stream's account up to date. `None` when it is no longer read.
    fn apply(
        &self,
        name: &StreamName,
        answer: &Answer,
        consumers: &[Consumer],
        asked: Instant,
    ) -> Option<(Arc<Stream>, Option<account::Growth>, Vec<Bytes>)> {
        let mut known = self.known();
        let known = known.get_mut(name)?;
        let stream = known.stream.clone()?;
        // Who asked for something since the last answer is active; a process that ended before then is not.
        let since = known.looked.map_or(Duration::ZERO, |looked| asked.saturating_duration_since(looked));
        let active: Vec<_> = consumers
            .iter()
            .filter(|consumer| consumer.name != self.0.consumer.as_bytes() && consumer.idle < since)
            .collect();
        if known.account.before().is_some_and(|before| answer.snapshot.set_back_since(before)) {
            stream.progress.restart();
        }
        let counted = stream.progress.at(answer.snapshot.delivered);
        let growth = known.account.look(answer.snapshot, counted, active.is_empty());
        (known.looked, known.weight) = (Some(Instant::now()), answer.weight);
        let lag = known.account.lag(&answer.snapshot, counted);
        stream.metrics.lag.store(lag, Relaxed);
        let needed = lag.saturating_add(answer.pending);
        stream.metrics.settled.store(answer.snapshot.length.saturating_sub(needed), Relaxed);
        stream.metrics.lost_trimmed.store(known.account.lost(), Relaxed);
        let mut said = self.said();
        let strangers = active.into_iter().filter(|consumer| said.strangers.insert(consumer.name.clone()));
        Some((stream, growth, strangers.map(|consumer| consumer.name.clone()).collect()))
    }

    async fn remove_abandoned(&self, client: &Client, name: &StreamName) -> Result<u64, Fault> {
        let inner = &self.0;
        inner.limiter.spend(1);
        let idle_ms = u64::try_from(inner.patience.as_millis()).unwrap_or(u64::MAX);
        let (group, me, prefix) = (&inner.group, &inner.consumer, &inner.own_names);
        match groups::remove_idle_consumers(client, &name.key, group, me, prefix, idle_ms).await {
            Ok(removed) => {
                if removed > 0 {
                    tracing::debug!(db = name.db, key = %String::from_utf8_lossy(&name.key), removed,
                        "removed consumers of processes that ended");
                }
                Ok(removed)
            }
            Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => Err(fault),
            // It only tidies up.
            Err(fault) => {
                self.failed(TIDYING, &fault);
                Ok(0)
            }
        }
    }

    /// Says once what cannot be asked.
    fn failed(&self, what: &'static str, fault: &Fault) {
        if !self.said().failures.insert(what) {
            return;
        }
        match what {
            TIDYING => tracing::debug!("{what} is not possible: {fault}"),
            _ => tracing::warn!(
                "{what} is not possible, so lag, pending and losses are not all known: {fault}"
            ),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<StreamName, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams with what the answer about each is expected to weigh, in order of their names: in pieces for one pipeline
/// each, in one database.
pub(crate) fn chunks<'a>(streams: impl Iterator<Item = (&'a StreamName, usize)>) -> Vec<Vec<StreamName>> {
    let mut chunks: Vec<Vec<StreamName>> = Vec::new();
    let mut room = 0;
    for (name, weight) in streams {
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK && room >= weight && chunk[0].db == name.db => {
                chunk.push(name.clone());
            }
            _ => {
                chunks.push(vec![name.clone()]);
                room = CHUNK_BYTES;
            }
        }
        room = room.saturating_sub(weight);
    }
    chunks
}

impl Inner {
    fn is_abandoned(&self, consumer: &Consumer) -> bool {
        consumer.pending == 0
            && consumer.idle > self.patience
            && consumer.name != self.consumer.as_bytes()
            && consumer.name.starts_with(self.own_names.as_bytes())
    }
}

impl Known {
    fn new(client: Client) -> Self {
        Self { client, stream: None, account: Account::default(), looked: None, weight: UNSEEN }
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
