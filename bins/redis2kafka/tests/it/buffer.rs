//! Through the buffer: what stands there, what is marked, and what becomes of both when a server goes away.

use std::time::{Duration, Instant};

use test_kit::bridge::{Bridge, Setup};
use test_kit::kafka::{Brokers, Kafka};
use test_kit::redis::{Redis, Reply};
use test_kit::writer::{self, Target};
use test_kit::{LONG, wait_for, wait_until};

use crate::harness::{ids, setup, wait_all_settled, wait_settled};

/// The same bridge with a buffer.
pub(crate) fn buffered(setup: Setup, buffer: &Redis) -> Setup {
    setup
        .set("TARGET_REDIS_HOST", "127.0.0.1")
        .set("TARGET_REDIS_PORT", buffer.port)
        .set("TARGET_REDIS_BACKOFF_BASE", "0.1")
        .set("TARGET_REDIS_BACKOFF_MAX", "0.5")
        .set("BUFFER_SYNC_INTERVAL", "0.5")
}

/// How many messages Kafka does not have.
pub(crate) fn unsynced(buffer: &Redis) -> i64 {
    match buffer.ask(0, &["SCARD", "unsynced_keys_set"]) {
        Reply::Number(count) => count,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn wait_synced(buffer: &Redis, bridge: &Bridge) {
    wait_for("all is synced", 4 * LONG, || (unsynced(buffer), bridge.lines()), || (unsynced(buffer) == 0).then_some(()));
}

/// A source, a buffer, a topic of the shared broker, and a bridge.
struct Scene {
    source: Redis,
    buffer: Redis,
    brokers: Brokers,
    topic: String,
    setup: Setup,
    bridge: Bridge,
}

impl Scene {
    fn begin(set: impl FnOnce(Setup) -> Setup) -> Self {
        let brokers = Brokers::shared();
        let topic = brokers.topic(1);
        Self::between(Redis::start(), Redis::durable(), brokers, topic, set)
    }

    fn between(
        source: Redis,
        buffer: Redis,
        brokers: Brokers,
        topic: String,
        set: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let setup = set(buffered(setup(&source, &brokers, &topic), &buffer));
        let bridge = setup.start();
        Self { source, buffer, brokers, topic, setup, bridge }
    }

    fn add(&self, key: &str, id: &str, value: &str) {
        self.source.ask(0, &["XADD", key, id, "n", value]);
    }

    fn key(&self, stream: &str, id: &str) -> String {
        format!("message:{}:{stream}:{id}", self.topic)
    }

    fn text(&self, words: &[&str]) -> String {
        self.buffer.ask(0, words).text()
    }

    fn wait_synced(&self) {
        wait_synced(&self.buffer, &self.bridge);
    }

    fn end(mut self, errors: &[&str]) {
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

/// A number that the server answers with.
fn number(reply: Reply) -> i64 {
    match reply {
        Reply::Number(number) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_kept_until_kafka_has_it_and_marked_then() {
    let scene = Scene::begin(|setup| setup.set("TARGET_REDIS_TIME_TO_LIVE", "100").set("TARGET_REDIS_SYNC_TTL", "1000"));
    scene.add("a:b", "1700000000000-7", "1.50");
    scene.add("a:b", "1700000000001-0", "x");
    let records = scene.brokers.wait_records(&scene.topic, 2);
    assert_eq!(ids(&records, "a:b"), ["1700000000000-7", "1700000000001-0"]);
    assert_eq!(records[0].value, br#"{"stream":"a:b","id":"1700000000000-7","data":{"n":1.50}}"#);
    assert_eq!(records[0].key.as_deref(), Some("a:b"));
    assert_eq!(records[0].timestamp, Some(1_700_000_000_000));
    assert!(records[0].header("bridge").unwrap().starts_with("redis2kafka "));
    scene.wait_synced();
    let key = scene.key("a:b", "1700000000000-7");
    let message: serde_json::Value = serde_json::from_str(&scene.text(&["GET", &key])).expect("JSON");
    assert_eq!(message["topic"], scene.topic.as_str());
    assert_eq!(message["key"], "a:b");
    assert_eq!(message["value"]["data"]["n"], 1.5);
    assert_eq!(scene.text(&["GET", &format!("synced:{key}")]), message["digest"].as_str().unwrap());
    let left = number(scene.buffer.ask(0, &["TTL", &key]));
    assert!((80..=100).contains(&left), "{left}");
    let left = number(scene.buffer.ask(0, &["TTL", &format!("synced:{key}")]));
    assert!((900..=1000).contains(&left), "{left}");
    for set in ["unsynced_queues", &format!("unsynced:message:{}:a:b", scene.topic)] {
        assert_eq!(scene.buffer.ask(0, &["EXISTS", set]), Reply::Number(0), "{set}");
    }
    wait_settled(&scene.source, &scene.bridge, 0, "a:b");
    scene.end(&[]);
}

#[test]
fn kafka_away_for_long_and_the_bridge_restarted_meanwhile() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(3);
    kafka.stop();
    let mut scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| setup);
    let streams = writer::targets(20);
    let mut ledger = writer::write(&scene.source, &streams, 10_000);
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_eq!(unsynced(&scene.buffer), 10_000);
    scene.bridge.kill();
    scene.bridge = scene.setup.start();
    ledger.join(writer::write(&scene.source, &streams, 5_000));
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    let stopping = scene.bridge.stop();
    assert!(stopping < Duration::from_secs(8), "{stopping:?}");
    scene.bridge = scene.setup.start();
    assert_eq!(unsynced(&scene.buffer), 15_000);
    kafka.up();
    let begun = Instant::now();
    scene.wait_synced();
    eprintln!("15,000 messages drained in {:?}", begun.elapsed());
    ledger.tally(&scene.brokers.arrivals(&scene.topic)).check(0);
    scene.end(&[]);
}
