//! The sweep against a real Redis (7.0 or later): what it says after each way to lose entries, and after each that
//! only looks like one. The sweep is called, never waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{CustomCommand, Value};
use sync_core::bridge::{Fate, Stream};
use sync_core::rate_limit::RateLimiter;
use sync_core::record::{EntryId, StreamName};
use sync_core::redis::connection::Connector;
use sync_core::redis::statistics::{Progress, Statistics};
use sync_core::settings::StreamSettings;
use sync_core::telemetry::metrics::Metrics;

use crate::script::{Bridge, Script, redis_at, redis_url, streams_of, until};

const GROUP: &str = "bridge";

async fn connect() -> Client {
    sync_core::tls::install_provider();
    Connector::new(redis_at(&redis_url(), 0))
        .unwrap()
        .commands(0)
        .await
        .expect("Redis answers at TEST_REDIS_URL")
}

fn settings(consumer: &str) -> StreamSettings {
    StreamSettings { consumer_base: "sync".into(), ..streams_of(GROUP, consumer) }
}

/// One stream and the process that reads it.
struct Bench {
    client: Client,
    key: String,
    stream: Arc<Stream>,
    statistics: Statistics,
    next: u64,
}

impl Bench {
    async fn new(key: &str) -> Self {
        let client = connect().await;
        let key = format!("statistics-test:{}:{key}", std::process::id());
        let _: () = client.del(key.as_str()).await.unwrap();
        let (statistics, stream) = process(&key, &Metrics::default());
        statistics.add(&client, stream.clone());
        Self { client, key, stream, statistics, next: 1 }
    }

    async fn command(&self, command: &str) -> Value {
        let mut words = command.split(' ').map(|word| if word == "KEY" { &self.key } else { word });
        let name = words.next().unwrap().to_owned();
        let arguments: Vec<String> = words.map(str::to_owned).collect();
        let custom = CustomCommand::new(name, None::<u16>, false);
        self.client.custom(custom, arguments).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn add(&mut self, count: u64) {
        for _ in 0..count {
            self.command(&format!("XADD KEY {}-0 field value", self.next)).await;
            self.next += 1;
        }
    }

    /// As the lane does, where the answer arrives.
    async fn read(&self, count: u64) {
        self.stream.progress.saw(self.read_as("sync-host-2", count).await.into_iter());
    }

    async fn read_as(&self, consumer: &str, count: u64) -> Vec<EntryId> {
        ids(self.command(&format!("XREADGROUP GROUP {GROUP} {consumer} COUNT {count} STREAMS KEY >")).await)
    }

    /// Another process of the same bridge takes the place of this one.
    async fn restart(&mut self) {
        let (statistics, stream) = process(&self.key, &Metrics::default());
        statistics.look_ahead(&self.client, std::slice::from_ref(&stream.name)).await.unwrap();
        statistics.add(&self.client, stream.clone());
        (self.statistics, self.stream) = (statistics, stream);
    }

    #[track_caller]
    fn is(&self, name: &str, expected: u64) {
        let metrics = &self.stream.metrics;
        let value = match name {
            "lag" => &metrics.lag,
            "pending" => &metrics.pending,
            "lost" => &metrics.lost_trimmed,
            "oldest" => &metrics.oldest_pending_ms,
            _ => panic!("{name}"),
        };
        assert_eq!(value.load(Relaxed), expected, "{name} of {}", self.key);
    }

    /// Sweeps; then these are the stream's (lag, pending, lost).
    async fn sweep(&self, lag: u64, pending: u64, lost: u64) {
        let before = self.stream.metrics.lost_trimmed.load(Relaxed);
        let found = self.statistics.sweep().await.unwrap();
        assert_eq!(found.lost, lost - before, "newly lost of {}", self.key);
        self.is("lag", lag);
        self.is("pending", pending);
        self.is("lost", lost);
    }

    async fn end(self) {
        self.command("DEL KEY").await;
    }
}

fn process(key: &str, metrics: &Metrics) -> (Statistics, Arc<Stream>) {
    let statistics = Statistics::new(&settings("sync-host-2"), RateLimiter::new(0));
    let stream = Stream {
        name: StreamName::new(0, key.to_owned()),
        spelled: key.to_owned(),
        metrics: metrics.stream(key),
        progress: Progress::default(),
    };
    (statistics, Arc::new(stream))
}

/// The IDs of an answer to XREADGROUP with one stream.
fn ids(reply: Value) -> Vec<EntryId> {
    let Value::Array(streams) = reply else { return Vec::new() };
    let Some(Value::Array(stream)) = streams.into_iter().next() else { panic!("a stream") };
    let Some(Value::Array(entries)) = stream.into_iter().nth(1) else { panic!("its entries") };
    let id = |entry| match entry {
        Value::Array(parts) => parts[0].as_str().unwrap().parse().unwrap(),
        _ => panic!("an entry"),
    };
    entries.into_iter().map(id).collect()
}

#[tokio::test]
async fn trimmed_before_it_was_read() {
    let mut b = Bench::new("before").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.sweep(10, 0, 0).await;
    b.command("XTRIM KEY MAXLEN 6").await;
    b.sweep(6, 0, 4).await;
    b.read(100).await;
    b.sweep(0, 6, 4).await;
    b.restart().await;
    // The server began its own count at the first read, so this process alone could know; no loss is made up.
    b.sweep(0, 6, 0).await;
    b.end().await;
}

#[tokio::test]
async fn trimmed_between_reads() {
    let mut b = Bench::new("between").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(2).await;
    b.sweep(8, 2, 0).await;
    b.command("XTRIM KEY MAXLEN 6").await;
    b.sweep(6, 2, 2).await;
    b.read(100).await;
    b.sweep(0, 8, 2).await;
    b.restart().await;
    b.sweep(0, 8, 2).await;
    b.end().await;
}

#[tokio::test]
async fn trimmed_while_there_is_a_backlog() {
    let mut b = Bench::new("backlog").await;
    b.add(20).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(5).await;
    b.sweep(15, 5, 0).await;
    // Unseen by any sweep until the group has caught up.
    b.command("XTRIM KEY MAXLEN 12").await;
    b.read(2).await;
    b.add(3).await;
    b.command("XACK KEY bridge 1-0 2-0 3-0 4-0 5-0").await;
    b.statistics.sweep().await.unwrap();
    b.is("lost", 0);
    b.read(100).await;
    b.sweep(0, 15, 3).await;
    b.restart().await;
    b.sweep(0, 15, 3).await;
    b.end().await;
}

#[tokio::test]
async fn all_trimmed() {
    let mut b = Bench::new("all").await;
    b.add(5).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(2).await;
    b.sweep(3, 2, 0).await;
    b.command("XTRIM KEY MAXLEN 0").await;
    b.sweep(0, 2, 3).await;
    b.sweep(0, 2, 3).await;
    b.add(4).await;
    b.sweep(4, 2, 3).await;
    b.command("XTRIM KEY MAXLEN 1").await;
    b.read(100).await;
    b.sweep(0, 3, 6).await;
    b.end().await;
}

#[tokio::test]
async fn what_was_delivered_may_be_trimmed_and_deleted() {
    let mut b = Bench::new("delivered").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(6).await;
    b.sweep(4, 6, 0).await;
    b.command("XDEL KEY 2-0 4-0").await;
    b.sweep(4, 6, 0).await;
    b.command("XDEL KEY 1-0 3-0 5-0 6-0").await;
    b.sweep(4, 6, 0).await;
    b.read(2).await;
    b.command("XTRIM KEY MINID 8-0").await;
    b.sweep(2, 8, 0).await;
    b.read(2).await;
    b.command("XTRIM KEY MAXLEN 0").await;
    b.add(1).await;
    b.sweep(1, 10, 0).await;
    b.restart().await;
    b.sweep(1, 10, 0).await;
    b.end().await;
}

#[tokio::test]
async fn deleted_before_it_was_delivered() {
    let mut b = Bench::new("ahead").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(2).await;
    b.sweep(8, 2, 0).await;
    b.command("XDEL KEY 5-0 10-0").await;
    b.read(1).await;
    b.statistics.sweep().await.unwrap();
    b.is("lost", 0);
    b.read(100).await;
    // Redis' own lag is NULL here: the newest entry is gone.
    b.sweep(0, 8, 2).await;
    b.end().await;
}

#[tokio::test]
async fn a_group_that_began_late() {
    for (name, start) in [("latest", "$"), ("at-an-id", "7-0")] {
        let mut b = Bench::new(name).await;
        b.add(10).await;
        b.command("XTRIM KEY MAXLEN 6").await;
        b.command(&format!("XGROUP CREATE KEY bridge {start}")).await;
        let behind = if start == "$" { 0 } else { 3 };
        b.statistics.sweep().await.unwrap();
        b.is("lost", 0);
        b.add(3).await;
        b.read(1).await;
        b.statistics.sweep().await.unwrap();
        b.is("lost", 0);
        b.read(100).await;
        b.sweep(0, 3 + behind, 0).await;
        b.add(5).await;
        b.command("XTRIM KEY MAXLEN 2").await;
        b.sweep(2, 3 + behind, 3).await;
        b.end().await;
    }
}

#[tokio::test]
async fn the_bridge_was_away() {
    let mut b = Bench::new("away").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(4).await;
    b.sweep(6, 4, 0).await;
    b.command("XTRIM KEY MAXLEN 3").await;
    b.restart().await;
    // Before the first sweep: what the look ahead saw counts.
    b.read(100).await;
    b.sweep(0, 7, 3).await;
    b.restart().await;
    b.sweep(0, 7, 3).await;
    b.add(2).await;
    b.read(100).await;
    b.sweep(0, 9, 3).await;
    b.end().await;
}

#[tokio::test]
async fn an_answer_that_did_not_arrive() {
    let mut b = Bench::new("unheard").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(2).await;
    b.sweep(8, 2, 0).await;
    let unheard = b.read_as("sync-host-2", 3).await;
    b.command("XTRIM KEY MAXLEN 2").await;
    b.statistics.sweep().await.unwrap();
    b.is("lost", 0);
    // The lane makes a new connection, and recovers what is pending, the deleted ones too.
    b.stream.progress.saw([1, 2].map(|ms| EntryId { ms, seq: 0 }).into_iter().chain(unheard));
    b.sweep(2, 5, 3).await;
    b.end().await;
}

#[tokio::test]
async fn made_anew_and_set_back() {
    let mut b = Bench::new("anew").await;
    b.add(10).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(100).await;
    b.sweep(0, 10, 0).await;
    b.command("XGROUP SETID KEY bridge 3-0").await;
    b.sweep(7, 10, 0).await;
    b.read(100).await;
    b.sweep(0, 10, 0).await;
    b.command("DEL KEY").await;
    b.sweep(0, 10, 0).await;
    b.next = 1;
    b.add(4).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.sweep(4, 0, 0).await;
    b.read(2).await;
    b.command("XTRIM KEY MAXLEN 1").await;
    b.sweep(1, 2, 1).await;
    b.end().await;
}

#[tokio::test]
async fn how_old_what_is_pending_is() {
    let mut b = Bench::new("age").await;
    b.add(1).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    b.read(1).await;
    b.sweep(0, 1, 0).await;
    b.is("oldest", 0);
    b.command("XACK KEY bridge 1-0").await;
    let minute_ago = chrono::Utc::now().timestamp_millis() - 60_000;
    b.command(&format!("XADD KEY {minute_ago}-0 field value")).await;
    b.read(1).await;
    b.sweep(0, 1, 0).await;
    let oldest = b.stream.metrics.oldest_pending_ms.load(Relaxed);
    assert!((60_000..120_000).contains(&oldest), "{oldest}");
    b.end().await;
}

#[tokio::test]
async fn who_else_reads_in_the_group() {
    let mut b = Bench::new("others").await;
    b.add(1).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    // An earlier process of ours: it reads no more once we look.
    b.read_as("sync-host-1", 1).await;
    b.command("XACK KEY bridge 1-0").await;
    b.read(1).await;
    for _ in 0..3 {
        let found = b.statistics.sweep().await.unwrap();
        assert_eq!((found.strangers.len(), found.removed), (0, 0), "it ended, and not long ago");
    }
    let mut strangers = Vec::new();
    for _ in 0..100 {
        b.add(1).await;
        b.read_as("somebody", 1).await;
        strangers.extend(b.statistics.sweep().await.unwrap().strangers);
    }
    assert_eq!(strangers, ["somebody"], "said once");
    b.sweep(0, 100, 0).await;
    b.end().await;
}

#[tokio::test]
async fn consumers_of_processes_that_ended_are_removed() {
    let mut b = Bench::new("abandoned").await;
    b.add(1).await;
    b.command("XGROUP CREATE KEY bridge 0").await;
    for consumer in ["sync-host-1", "sync-host-3", "synchronous", "other"] {
        b.command(&format!("XGROUP CREATECONSUMER KEY bridge {consumer}")).await;
    }
    b.read_as("sync-host-3", 1).await;
    assert_eq!(b.statistics.sweep().await.unwrap().removed, 0, "none was idle for long");
    let settings = settings("sync-host-2");
    let hasty = Statistics::with_patience(&settings, RateLimiter::new(0), Duration::ZERO);
    hasty.add(&b.client, b.stream.clone());
    let mut removed = 0;
    for _ in 0..1000 {
        removed += hasty.sweep().await.unwrap().removed;
        if removed > 0 {
            break;
        }
    }
    assert_eq!(removed, 1, "ours and nothing pending: only one is both");
    let Value::Array(left) = b.command("XINFO CONSUMERS KEY bridge").await else { panic!("consumers") };
    assert_eq!(left.len(), 3);
    b.end().await;
}

#[tokio::test]
async fn a_bridge_tells_what_was_trimmed_while_it_was_away() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("trimmed", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.make_group("s").await;
    bridge.read_as("earlier", "s", 4).await;
    let _: u64 = bridge.redis.xtrim(bridge.key("s"), ("MAXLEN", "=", 3, None)).await.unwrap();
    bridge.start();
    let lost = until("the first sweep", async || {
        let totals = bridge.metrics.totals();
        (totals.lost_trimmed > 0, totals)
    })
    .await;
    bridge.stop().await;
    // Four were pending and deleted, three were never read.
    assert_eq!((lost.lost_trimmed, lost.lost_deleted, lost.lag, lost.delivered), (3, 4, 0, 3));
}
