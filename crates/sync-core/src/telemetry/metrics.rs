//! What is counted: per stream by the lane that reads it, per process here.
//!
//! Counting is adding to an atomic; all else happens when somebody asks. How the numbers are written for
//! Prometheus is in `exposition`. Totals of the process never go down, also when a stream is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;

use super::health::Health;
use crate::budget::Budget;
use crate::rate_limit::RateLimiter;

mod exposition;
mod process;

/// The help of the gauge `streams_discovered`.
pub const STREAMS_DISCOVERED: &str = "Streams that there are to read, those of other replicas included";

/// Cheap to clone. One per process.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bridge: &'static str,
    version: &'static str,
    /// Seconds since 1970.
    started: f64,
    /// METRICS_PER_STREAM.
    per_stream: AtomicUsize,
    streams: Mutex<Streams>,
    delivery: Histogram,
    budget_used: AtomicU64,
    budget_limit: AtomicU64,
    /// Asked when somebody reads the numbers.
    budget: OnceLock<Budget>,
    limiter: OnceLock<RateLimiter>,
    /// Milliseconds since 1970; 0 is never.
    last_delivery: AtomicU64,
    extra: Mutex<BTreeMap<String, Extra>>,
    /// Nothing is read from Redis: what is about that is not shown.
    without_streams: AtomicBool,
}

#[derive(Debug, Default)]
struct Streams {
    /// What is read now, by spelling.
    live: HashMap<Arc<str>, Arc<StreamMetrics>>,
    /// Forgotten, but somebody still holds the counters and may add to them.
    fading: HashMap<Arc<str>, Arc<StreamMetrics>>,
    /// The sums of what was forgotten.
    gone: Totals,
    /// `lost_trimmed` counts from the group's creation, so a stream that comes back brings its old loss with it:
    /// the total takes the larger of the two and not their sum. Only streams that lost something are here.
    gone_trimmed: HashMap<Arc<str>, u64>,
}

/// The counters of one stream; the lane that reads it holds the `Arc` and adds to it.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    /// Entries read from the source, redeliveries included.
    pub read: AtomicU64,
    /// Entries confirmed by the sink.
    pub delivered: AtomicU64,
    /// Entries acknowledged in Redis.
    pub acknowledged: AtomicU64,
    /// Entries that the filter dropped.
    pub filtered: AtomicU64,
    /// Entries that went to the dead-letter stream.
    pub dead_lettered: AtomicU64,
    /// Deliveries that came back undelivered and are tried again.
    pub retried: AtomicU64,
    /// Entries that were pending but deleted from the stream: lost at the source.
    pub lost_deleted: AtomicU64,
    /// Gauge: entries trimmed at the source before they were delivered, since the group was created.
    pub lost_trimmed: AtomicU64,
    /// Gauge: entries not yet delivered to the group.
    pub lag: AtomicU64,
    /// Gauge: entries delivered to the group, not yet acknowledged.
    pub pending: AtomicU64,
    /// Gauge: age of the oldest pending entry in milliseconds.
    pub oldest_pending_ms: AtomicU64,
    /// Gauge, shown only as a sum where there is clean-up: entries that the group has done with and that still stand.
    pub settled: AtomicU64,
    /// Gauge: 1 while the stream is held.
    pub held: AtomicU64,
}

/// Sums over all streams, forgotten ones included, since the process started; gauges over those read now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries read from the source, redeliveries included.
    pub read: u64,
    /// Entries confirmed by the sink.
    pub delivered: u64,
    /// Entries acknowledged in Redis.
    pub acknowledged: u64,
    /// Entries that the filter dropped.
    pub filtered: u64,
    /// Entries that went to the dead-letter stream.
    pub dead_lettered: u64,
    /// Deliveries that came back undelivered and were tried again.
    pub retried: u64,
    /// Entries that were pending but deleted from their stream.
    pub lost_deleted: u64,
    /// Entries trimmed before they were delivered.
    pub lost_trimmed: u64,
    /// Streams read now.
    pub streams: u64,
    /// Of these, how many are held.
    pub held: u64,
    /// Entries not yet delivered to the group.
    pub lag: u64,
    /// Entries delivered to the group, not yet acknowledged.
    pub pending: u64,
    /// Age of the oldest pending entry of all streams in milliseconds.
    pub oldest_pending_ms: u64,
}

impl Totals {
    /// Adds what a stream has counted so far; `lost_trimmed` and the gauges are not sums of this kind.
    fn add_counters(&mut self, stream: &StreamMetrics) {
        self.read += stream.read.load(Relaxed);
        self.delivered += stream.delivered.load(Relaxed);
        self.acknowledged += stream.acknowledged.load(Relaxed);
        self.filtered += stream.filtered.load(Relaxed);
        self.dead_lettered += stream.dead_lettered.load(Relaxed);
        self.retried += stream.retried.load(Relaxed);
        self.lost_deleted += stream.lost_deleted.load(Relaxed);
    }

    fn add_gauges(&mut self, stream: &StreamMetrics) {
        self.streams += 1;
        self.held += u64::from(stream.held.load(Relaxed) != 0);
        self.lag += stream.lag.load(Relaxed);
        self.pending += stream.pending.load(Relaxed);
        self.oldest_pending_ms = self.oldest_pending_ms.max(stream.oldest_pending_ms.load(Relaxed));
    }
}

#[derive(Debug)]
enum Extra {
    Counter(&'static str, Counter),
    Gauge(&'static str, Gauge),
    Counters(&'static str, Family<Counter>),
    Gauges(&'static str, Family<Gauge>),
}

/// One number for each value of a label.
#[derive(Debug)]
struct Family<T> {
    label: &'static str,
    numbers: BTreeMap<String, T>,
}

impl Default for Metrics {
    /// Of a process without a name: for tests.
    fn default() -> Self {
        Self::new("", "", 1000)
    }
}

impl Metrics {
    /// The metrics of the bridge with this name and version; with more than `per_stream` streams
    /// (METRICS_PER_STREAM) only the worst ones show one by one.
    pub fn new(bridge: &'static str, version: &'static str, per_stream: usize) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self(Arc::new(Inner {
            bridge,
            version,
            started,
            per_stream: AtomicUsize::new(per_stream),
            streams: Mutex::default(),
            delivery: Histogram::default(),
            budget_used: AtomicU64::new(0),
            budget_limit: AtomicU64::new(0),
            budget: OnceLock::new(),
            limiter: OnceLock::new(),
            last_delivery: AtomicU64::new(0),
            extra: Mutex::default(),
            without_streams: AtomicBool::new(false),
        }))
    }

    /// METRICS_PER_STREAM from now on.
    pub fn set_per_stream(&self, per_stream: usize) {
        self.0.per_stream.store(per_stream, Relaxed);
    }

    /// The counters of the stream with this spelling, made when absent.
    pub fn stream(&self, spelled: &str) -> Arc<StreamMetrics> {
        let mut streams = self.streams();
        if let Some(stream) = streams.live.get(spelled) {
            return Arc::clone(stream);
        }
        // One that is still held somewhere goes on, so that no two sets of counters bear one name.
        let (name, stream) =
            streams.fading.remove_entry(spelled).unwrap_or_else(|| (spelled.into(), Arc::default()));
        streams.live.insert(name, Arc::clone(&stream));
        stream
    }

    /// The counters of what is read now, by spelling.
    pub(crate) fn live_streams(&self) -> HashMap<Arc<str>, Arc<StreamMetrics>> {
        self.streams().live.clone()
    }

    /// The stream is no longer read: its series end, what it counted stays in the totals.
    pub fn forget(&self, spelled: &str) {
        let mut streams = self.streams();
        if let Some((name, stream)) = streams.live.remove_entry(spelled) {
            streams.fading.insert(name, stream);
        }
        streams.settle();
    }

    /// A group took this long from its handing over to the sink until it was settled.
    pub fn delivery_seconds(&self, seconds: f64) {
        self.0.delivery.observe(seconds);
    }

    /// Bytes read and not yet settled, and how many may be.
    pub fn read_budget(&self, used: u64, limit: u64) {
        self.0.budget_used.store(used, Relaxed);
        self.0.budget_limit.store(limit, Relaxed);
    }

    /// The budget whose use is shown from now on; the first one given stays.
    pub(crate) fn watch_budget(&self, budget: Budget) {
        let _ = self.0.budget.set(budget);
    }

    /// The limiter whose operations are shown from now on; the first one given stays.
    pub(crate) fn watch_limiter(&self, limiter: RateLimiter) {
        let _ = self.0.limiter.set(limiter);
    }

    /// Requests sent to the source Redis.
    pub fn redis_operations(&self) -> u64 {
        self.0.limiter.get().map_or(0, RateLimiter::operations)
    }

    /// The destination has just confirmed something.
    pub fn delivered_now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.last_delivery.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// When the destination last confirmed an entry, in seconds since 1970; `None` is never.
    pub fn last_delivery(&self) -> Option<f64> {
        let milliseconds = self.0.last_delivery.load(Relaxed);
        (milliseconds > 0).then_some(milliseconds as f64 / 1e3)
    }

    /// A counter of this bridge alone, shown as `redis_sync_<name>_total`; the same one for the same name. The
    /// help is one sentence without its full stop.
    pub fn counter(&self, name: &str, help: &'static str) -> Counter {
        match self.extra().entry(name.to_owned()).or_insert_with(|| Extra::Counter(help, Counter::default()))
        {
            Extra::Counter(_, counter) => counter.clone(),
            _ => panic!("{name} is registered as something else"),
        }
    }

    /// A gauge of this bridge alone, shown as `redis_sync_<name>`; the same one for the same name. The help is
    /// one sentence without its full stop.
    pub fn gauge(&self, name: &str, help: &'static str) -> Gauge {
        match self.extra().entry(name.to_owned()).or_insert_with(|| Extra::Gauge(help, Gauge::default())) {
            Extra::Gauge(_, gauge) => gauge.clone(),
            _ => panic!("{name} is registered as something else"),
        }
    }

    /// As [`Self::counter`], one for each value of a label: the same one for the same name and value. They never end, so
    /// a label has few values, such as what stands in the settings.
    pub fn labelled_counter(
        &self,
        name: &str,
        help: &'static str,
        label: &'static str,
        value: &str,
    ) -> Counter {
        let mut extra = self.extra();
        let family = || Extra::Counters(help, Family { label, numbers: BTreeMap::new() });
        match extra.entry(name.to_owned()).or_insert_with(family) {
            Extra::Counters(_, family) if family.label == label => family.of(value),
            _ => panic!("{name} is registered as something else"),
        }
    }

    /// As [`Self::gauge`], one for each value of a label, see [`Self::labelled_counter`].
    pub fn labelled_gauge(&self, name: &str, help: &'static str, label: &'static str, value: &str) -> Gauge {
        let mut extra = self.extra();
        let family = || Extra::Gauges(help, Family { label, numbers: BTreeMap::new() });
        match extra.entry(name.to_owned()).or_insert_with(family) {
            Extra::Gauges(_, family) if family.label == label => family.of(value),
            _ => panic!("{name} is registered as something else"),
        }
    }

    /// The numbers with a label: by its name, by its value, by their own names.
    pub(crate) fn labelled(&self) -> BTreeMap<&'static str, BTreeMap<String, BTreeMap<String, i64>>> {
        let mut all = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
        for (name, extra) in &*self.extra() {
            let (label, numbers): (_, Vec<_>) = match extra {
                Extra::Counters(_, Family { label, numbers }) => {
                    let number = |counter: &Counter| i64::try_from(counter.get()).unwrap_or(i64::MAX);
                    (*label, numbers.iter().map(|(value, counter)| (value, number(counter))).collect())
                }
                Extra::Gauges(_, Family { label, numbers }) => {
                    (*label, numbers.iter().map(|(value, gauge)| (value, gauge.get())).collect())
                }
                Extra::Counter(..) | Extra::Gauge(..) => continue,
            };
            for (value, number) in numbers {
                all.entry(label).or_default().entry(value.clone()).or_default().insert(name.clone(), number);
            }
        }
        all
    }

    /// Of a process that reads nothing from Redis: what there is to say about that is left out.
    pub fn without_streams(&self) {
        self.0.without_streams.store(true, Relaxed);
    }

    /// Whether something is read from Redis.
    pub(crate) fn has_streams(&self) -> bool {
        !self.0.without_streams.load(Relaxed)
    }

    /// Sums over all streams.
    pub fn totals(&self) -> Totals {
        let mut streams = self.streams();
        streams.settle();
        streams.totals()
    }

    /// Everything in the OpenMetrics text format.
    pub fn expose(&self, health: &Health) -> String {
        if let Some((used, limit)) = self.0.budget.get().map(Budget::usage) {
            self.read_budget(used as u64, limit as u64);
        }
        exposition::expose(self, health)
    }

    /// Every stream that shows one by one, by name: all, or the worst when there are too many.
    fn worst(&self) -> Vec<(Arc<str>, Arc<StreamMetrics>)> {
        let mut all: Vec<_> = {
            let streams = self.streams();
            streams.live.iter().map(|(name, stream)| (Arc::clone(name), Arc::clone(stream))).collect()
        };
        let most = self.0.per_stream.load(Relaxed);
        if all.len() > most {
            // The numbers move while we sort, so they are read once.
            all.sort_by_cached_key(|(name, stream)| {
                let held = stream.held.load(Relaxed);
                let badness = (held, stream.oldest_pending_ms.load(Relaxed), stream.lag.load(Relaxed));
                (std::cmp::Reverse(badness), Arc::clone(name))
            });
            all.truncate(most);
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extra(&self) -> MutexGuard<'_, BTreeMap<String, Extra>> {
        self.0.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Default> Family<T> {
    fn of(&mut self, value: &str) -> T {
        if !self.numbers.contains_key(value) {
            self.numbers.insert(value.to_owned(), T::default());
        }
        self.numbers[value].clone()
    }
}

impl Streams {
    /// Adds up forgotten streams that nobody can count on any more.
    fn settle(&mut self) {
        let Self { fading, gone, gone_trimmed, .. } = self;
        fading.retain(|name, stream| {
            // Nobody can take a new handle while the map is locked.
            if Arc::strong_count(stream) > 1 {
                return true;
            }
            gone.add_counters(stream);
            let trimmed = stream.lost_trimmed.load(Relaxed);
            if trimmed > 0 {
                let before = gone_trimmed.entry(Arc::clone(name)).or_default();
                *before = trimmed.max(*before);
            }
            false
        });
    }

    fn totals(&self) -> Totals {
        let mut totals = self.gone.clone();
        totals.lost_trimmed = self.gone_trimmed.values().sum();
        for (name, stream) in self.live.iter().chain(&self.fading) {
            totals.add_counters(stream);
            let before = self.gone_trimmed.get(name).copied().unwrap_or(0);
            totals.lost_trimmed += stream.lost_trimmed.load(Relaxed).saturating_sub(before);
        }
        for stream in self.live.values() {
            totals.add_gauges(stream);
        }
        totals
    }
}

/// Upper bounds in seconds: from a local broker's half a millisecond to an outage's minutes.
const BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

/// A histogram of atomics (the library's own takes a lock).
#[derive(Debug, Default)]
struct Histogram {
    /// One per bound, and one for what lies above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, seconds: f64) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        // The cast saturates, and makes a negative or unordered value 0.
        self.microseconds.fetch_add((seconds * 1e6) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_of_counters_per_name() {
        let metrics = Metrics::default();
        let stream = metrics.stream("a");
        stream.read.fetch_add(1, Relaxed);
        assert!(Arc::ptr_eq(&stream, &metrics.stream("a")));
        // Still held while it is forgotten and comes back: the same counters go on.
        metrics.forget("a");
        assert!(Arc::ptr_eq(&stream, &metrics.stream("a")));
    }

    #[test]
    fn totals_survive_forgetting() {
        let metrics = Metrics::default();
        let stream = metrics.stream("a");
        stream.read.store(5, Relaxed);
        stream.lag.store(7, Relaxed);
        stream.held.store(1, Relaxed);
        metrics.forget("a");
        // The lane settles what was in flight after the stream was forgotten.
        stream.read.fetch_add(1, Relaxed);
        stream.delivered.fetch_add(6, Relaxed);
        let expected = Totals { read: 6, delivered: 6, ..Totals::default() };
        assert_eq!(metrics.totals(), expected);
        drop(stream);
        assert_eq!(metrics.totals(), expected);
        assert_eq!(metrics.totals(), expected);
        assert!(metrics.streams().fading.is_empty());
        metrics.stream("a").read.fetch_add(4, Relaxed);
        assert_eq!(metrics.totals(), Totals { read: 10, streams: 1, ..expected });
    }

    #[test]
    fn a_loss_that_comes_back_with_its_stream_counts_once() {
        let metrics = Metrics::default();
        let trimmed = |lost| {
            metrics.stream("a").lost_trimmed.store(lost, Relaxed);
            metrics.totals().lost_trimmed
        };
        assert_eq!(trimmed(5), 5);
        metrics.forget("a");
        assert_eq!(metrics.totals().lost_trimmed, 5);
        metrics.stream("a");
        assert_eq!(metrics.totals().lost_trimmed, 5);
        assert_eq!(trimmed(5), 5);
        assert_eq!(trimmed(8), 8);
    }

    #[test]
    fn the_worst_come_first_held_then_old_then_lagging() {
        let metrics = Metrics::default();
        for (name, held, oldest, lag) in [
            ("fine", 0, 0, 0),
            ("lags", 0, 0, 9),
            ("lags more", 0, 0, 10),
            ("old", 0, 1, 0),
            ("held", 1, 0, 0),
        ] {
            let stream = metrics.stream(name);
            stream.held.store(held, Relaxed);
            stream.oldest_pending_ms.store(oldest, Relaxed);
            stream.lag.store(lag, Relaxed);
        }
        let names = |most| {
            metrics.set_per_stream(most);
            metrics.worst().iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(0), [""; 0]);
        assert_eq!(names(1), ["held"]);
        assert_eq!(names(2), ["held", "old"]);
        assert_eq!(names(3), ["held", "lags more", "old"]);
        assert_eq!(names(5), ["fine", "held", "lags", "lags more", "old"]);
    }

    #[test]
    fn the_same_name_is_the_same_metric() {
        let metrics = Metrics::default();
        metrics.counter("reconnects", "Reconnects").inc();
        assert_eq!(metrics.counter("reconnects", "Reconnects").inc(), 1);
    }
}
