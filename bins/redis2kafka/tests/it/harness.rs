//! The real binary between a Redis and a broker.

use test_kit::bridge::{Bridge, Setup};
use test_kit::kafka::{Brokers, Record};
use test_kit::redis::Redis;
use test_kit::wait_until;
use test_kit::writer::Target;

/// The group that entries are acknowledged in.
pub(crate) const GROUP: &str = "redis-kafka-sync";

/// redis2kafka, alone, with short delays and every stream to send.
pub(crate) fn setup(source: &Redis, brokers: &Brokers, topic: &str) -> Setup {
    Setup::of(env!("CARGO_BIN_EXE_redis2kafka"))
        .set("STREAM_OWNERSHIP", "exclusive")
        .set("STREAM_AUTO_DISCOVERY", "true")
        .set("STREAM_DISCOVERY_PATTERNS", "*")
        .set("SOURCE_REDIS_HOST", "127.0.0.1")
        .set("SOURCE_REDIS_PORT", source.port)
        .set("SOURCE_REDIS_BACKOFF_BASE", "0.1")
        .set("SOURCE_REDIS_BACKOFF_MAX", "0.5")
        .set("KAFKA_BOOTSTRAP_SERVERS", &brokers.0)
        .set("KAFKA_TOPIC", topic)
        .set("KAFKA_BACKOFF_BASE", "0.1")
        .set("KAFKA_BACKOFF_MAX", "0.5")
}

/// A private source, a topic of the shared broker, and a bridge between them.
pub(crate) struct Scene {
    pub(crate) source: Redis,
    pub(crate) brokers: Brokers,
    pub(crate) topic: String,
    pub(crate) bridge: Bridge,
}

impl Scene {
    pub(crate) fn begin(set: impl FnOnce(Setup) -> Setup) -> Self {
        let brokers = Brokers::shared();
        let topic = brokers.topic(1);
        Self::between(Redis::start(), brokers, topic, set)
    }

    pub(crate) fn between(
        source: Redis,
        brokers: Brokers,
        topic: String,
        set: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let bridge = set(setup(&source, &brokers, &topic)).start();
        Self { source, brokers, topic, bridge }
    }

    /// XADD at the source.
    pub(crate) fn add(&self, db: u16, key: &str, id: &str, value: &str) {
        self.source.ask(db, &["XADD", key, id, "n", value]);
    }

    /// Waits until all of a source stream is acknowledged.
    pub(crate) fn wait_settled(&self, db: u16, key: &str) {
        wait_settled(&self.source, &self.bridge, db, key);
    }

    /// What the topic holds, once so many are there.
    pub(crate) fn records(&self, count: usize) -> Vec<Record> {
        self.brokers.wait_records(&self.topic, count)
    }

    /// Stops the bridge; it must have logged no other error than these.
    pub(crate) fn end(mut self, errors: &[&str]) {
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

/// Waits until the group has read all of a stream and has nothing pending.
pub(crate) fn wait_settled(source: &Redis, bridge: &Bridge, db: u16, key: &str) {
    let progress = || source.progress(db, key, GROUP);
    wait_until("all is settled", || (key.to_owned(), progress(), bridge.lines()), || progress().is_settled());
}

/// The same of several.
pub(crate) fn wait_all_settled(source: &Redis, bridge: &Bridge, streams: &[Target]) {
    for stream in streams {
        wait_settled(source, bridge, stream.db, &stream.key);
    }
}

/// The IDs of a stream's records, in the order in which they stand.
pub(crate) fn ids(records: &[Record], stream: &str) -> Vec<String> {
    let of = records.iter().filter(|record| record.header("redis.stream") == Some(stream));
    of.map(|record| record.header("redis.entry_id").expect("an ID").to_owned()).collect()
}
