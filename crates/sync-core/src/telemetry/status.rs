//! What `/api/status` says: who shares the streams and who owns which, and how far each stream of this process is.
//!
//! It only shows. The parts of the process tell it what they know; nobody decides anything by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::health::Health;
use super::metrics::{Metrics, StreamMetrics};

/// Cheap to clone. One per process.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    shared: bool,
    member: Option<String>,
    replicas: Vec<Replica>,
    /// Bucket to the name of its owner.
    owners: HashMap<u16, String>,
    /// All streams that there are, by spelling, and their buckets.
    streams: BTreeMap<String, u16>,
}

/// One process that shares the streams.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    /// As the owners of streams are called.
    pub name: String,
    /// Where it runs.
    pub host: String,
    /// Its process ID there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// Whether it is the one that says this.
    pub me: bool,
}

#[derive(Serialize)]
struct Page<'a> {
    ready: bool,
    reasons: Vec<String>,
    /// Of a bridge that reads streams.
    #[serde(flatten)]
    reading: Option<Reading<'a>>,
    /// Of a bridge that counts by something else than streams: label, its value, name of the number.
    #[serde(flatten)]
    labelled: BTreeMap<&'a str, BTreeMap<String, BTreeMap<String, i64>>>,
}

#[derive(Serialize)]
struct Reading<'a> {
    /// `shared` or `exclusive`: STREAM_OWNERSHIP.
    ownership: &'a str,
    /// This process's name among the replicas.
    member: Option<&'a str>,
    replicas: &'a [Replica],
    streams: Vec<StreamStatus>,
}

#[derive(Serialize)]
struct StreamStatus {
    stream: String,
    /// `null` while nobody reads it.
    owner: Option<String>,
    /// Only where this process reads it.
    #[serde(flatten)]
    progress: Option<Progress>,
}

#[derive(Serialize)]
struct Progress {
    read: u64,
    delivered: u64,
    acknowledged: u64,
    dead_lettered: u64,
    lag: u64,
    pending: u64,
    held: bool,
}

impl Status {
    /// Who shares the streams, as seen by the one called `member`.
    pub(crate) fn shared(
        &self,
        member: Option<String>,
        replicas: Vec<Replica>,
        owners: HashMap<u16, String>,
    ) {
        let mut inner = self.inner();
        inner.shared = true;
        inner.member = member;
        inner.replicas = replicas;
        inner.owners = owners;
    }

    /// All streams that there are to read.
    pub(crate) fn streams(&self, streams: BTreeMap<String, u16>) {
        self.inner().streams = streams;
    }

    /// The page, as JSON.
    pub fn page(&self, health: &Health, metrics: &Metrics) -> String {
        let inner = self.inner();
        let reasons = health.ready().err().unwrap_or_default();
        let mine = metrics.live_streams();
        let stream = |(stream, bucket): (&'_ String, &u16)| {
            let metrics = mine.get(stream.as_str());
            let owner = match inner.shared {
                true => inner.owners.get(bucket).cloned(),
                false => metrics.map(|_| "this process".to_owned()),
            };
            StreamStatus {
                stream: stream.clone(),
                owner,
                progress: metrics.map(|metrics| Progress::of(metrics)),
            }
        };
        let page = Page {
            ready: reasons.is_empty(),
            reasons,
            reading: metrics.has_streams().then(|| Reading {
                ownership: if inner.shared { "shared" } else { "exclusive" },
                member: inner.member.as_deref(),
                replicas: &inner.replicas,
                streams: inner.streams.iter().map(stream).collect(),
            }),
            labelled: metrics.labelled(),
        };
        serde_json::to_string(&page).expect("texts and numbers are JSON")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn of(stream: &StreamMetrics) -> Self {
        Self {
            read: stream.read.load(Relaxed),
            delivered: stream.delivered.load(Relaxed),
            acknowledged: stream.acknowledged.load(Relaxed),
            dead_lettered: stream.dead_lettered.load(Relaxed),
            lag: stream.lag.load(Relaxed),
            pending: stream.pending.load(Relaxed),
            held: stream.held.load(Relaxed) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn who_owns_what_and_how_far_it_is() {
        let (status, health, metrics) = (Status::default(), Health::default(), Metrics::default());
        health.started();
        let page = || serde_json::from_str::<Value>(&status.page(&health, &metrics)).unwrap();
        assert_eq!(page()["ownership"], "exclusive");
        status.streams([("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)].into());
        metrics.stream("a").delivered.store(7, Relaxed);
        assert_eq!(page()["streams"][0]["owner"], "this process");
        let replica =
            |name: &str, me| Replica { name: name.into(), host: "h".into(), pid: 1, version: "1".into(), me };
        let owners = [(1, "x".to_owned()), (2, "y".to_owned())].into();
        status.shared(Some("x".into()), vec![replica("x", true), replica("y", false)], owners);
        let page = page();
        assert_eq!((&page["ownership"], &page["ready"]), (&"shared".into(), &true.into()));
        assert_eq!((&page["member"], &page["replicas"][1]["me"]), (&"x".into(), &false.into()));
        let streams = &page["streams"];
        assert_eq!((&streams[0]["owner"], &streams[0]["delivered"]), (&"x".into(), &7.into()));
        assert_eq!((&streams[1]["stream"], &streams[1]["owner"]), (&"b".into(), &"y".into()));
        assert_eq!((&streams[1]["delivered"], &streams[2]["owner"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn what_is_counted_by_something_else_than_streams() {
        let (status, health, metrics) = (Status::default(), Health::default(), Metrics::default());
        metrics.labelled_counter("messages_received", "Received", "filter", "a/#").inc_by(3);
        let page: Value = serde_json::from_str(&status.page(&health, &metrics)).unwrap();
        assert_eq!(page["filter"]["a/#"]["messages_received"], 3);
    }
}
