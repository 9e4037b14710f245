//! The real binary between two Redis, and whether they hold the same.

use test_kit::bridge::{Bridge, Setup};
use test_kit::redis::{Redis, Reply};
use test_kit::writer::{self, Target};
use test_kit::{wait_for, wait_until};

/// The group that entries are acknowledged in.
pub(crate) const GROUP: &str = "redis-sync-group";

/// redis2redis, alone, with short delays and every stream to copy.
pub(crate) fn bare() -> Setup {
    Setup::of(env!("CARGO_BIN_EXE_redis2redis"))
        .set("STREAM_OWNERSHIP", "exclusive")
        .set("STREAM_DISCOVERY_PATTERNS", "*")
        .set("SOURCE_REDIS_BACKOFF_BASE", "0.1")
        .set("SOURCE_REDIS_BACKOFF_MAX", "0.5")
        .set("TARGET_REDIS_BACKOFF_BASE", "0.1")
        .set("TARGET_REDIS_BACKOFF_MAX", "0.5")
}

/// From one to another on loopback.
pub(crate) fn setup(source: u16, target: u16) -> Setup {
    bare()
        .set("SOURCE_REDIS_HOST", "127.0.0.1")
        .set("SOURCE_REDIS_PORT", source)
        .set("TARGET_REDIS_HOST", "127.0.0.1")
        .set("TARGET_REDIS_PORT", target)
}

/// A source, a target, and a bridge between them.
pub(crate) struct Scene {
    pub(crate) source: Redis,
    pub(crate) target: Redis,
    pub(crate) bridge: Bridge,
}

impl Scene {
    pub(crate) fn begin(set: impl FnOnce(Setup) -> Setup) -> Self {
        Self::between(Redis::start(), Redis::start(), set)
    }

    pub(crate) fn between(source: Redis, target: Redis, set: impl FnOnce(Setup) -> Setup) -> Self {
        let bridge = set(setup(source.port, target.port)).start();
        Self { source, target, bridge }
    }

    /// XADD at the source.
    pub(crate) fn add(&self, db: u16, key: &str, id: &str, value: &str) {
        self.source.ask(db, &["XADD", key, id, "n", value]);
    }

    /// Waits until all of a source stream is acknowledged.
    pub(crate) fn wait_settled(&self, db: u16, key: &str) {
        wait_settled(&self.source, &self.bridge, db, key);
    }

    /// Waits until a source stream is settled, and checks that the target's has the same entries.
    pub(crate) fn same(&self, from: (u16, &str), to: (u16, &str)) {
        self.wait_settled(from.0, from.1);
        assert_eq!(
            entries(&self.target, to.0, to.1),
            entries(&self.source, from.0, from.1),
            "{:#?}",
            self.bridge.lines()
        );
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

/// All entries of a stream as Redis lists them: IDs, fields in order, bytes.
pub(crate) fn entries(redis: &Redis, db: u16, key: &str) -> Vec<Reply> {
    redis.ask(db, &["XRANGE", key, "-", "+"]).list()
}

/// The IDs of a stream.
pub(crate) fn ids(redis: &Redis, db: u16, key: &str) -> Vec<String> {
    entries(redis, db, key).into_iter().map(|entry| entry.list()[0].text()).collect()
}

/// Waits until a stream has so many entries.
pub(crate) fn wait_length(redis: &Redis, bridge: &Bridge, db: u16, key: &str, length: usize) {
    let count = || redis.ask(db, &["XLEN", key]);
    wait_for(
        &format!("{length} entries in {key}"),
        test_kit::LONG,
        || (count(), bridge.lines()),
        || (count() == Reply::Number(i64::try_from(length).unwrap())).then_some(()),
    );
}

/// Whether every one of these streams is the same on both sides, the target naming them as with one database.
pub(crate) fn assert_same(source: &Redis, target: &Redis, streams: &[Target]) {
    for stream in streams {
        assert_eq!(
            entries(target, 0, &stream.spelled()),
            entries(source, stream.db, &stream.key),
            "{}",
            stream.spelled()
        );
    }
}

/// Waits until nothing is pending on any of these.
pub(crate) fn wait_all_settled(source: &Redis, bridge: &Bridge, streams: &[Target]) {
    for stream in streams {
        wait_settled(source, bridge, stream.db, &stream.key);
    }
    writer::wait_settled(source, GROUP, streams);
}
