//! The settings of redis2redis: its table, its defaults, and the typed values. What every bridge with a Redis source
//! shares is declared and read in `sync_core::settings`.

use sync_core::program::{BridgeSettings, StreamBridgeSettings};
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::shared::{GENERAL_GROUP, SOURCE_REDIS_GROUP, STREAMS_GROUP, TARGET_REDIS};
use sync_core::settings::{
    Bridge, GeneralSettings, Given, Group, Inputs, Loaded, Mistakes, Reader, RedisSettings, Setting,
    StreamSettings, load,
};

/// Everything that redis2redis is set to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where streams are read.
    pub(crate) redis: RedisSettings,
    /// Which, and how.
    pub(crate) streams: StreamSettings,
    /// Log, admin address, stopping.
    pub(crate) general: GeneralSettings,
    /// Where entries are written.
    pub(crate) target: TargetSettings,
}

/// The target, and how is written there.
#[derive(Clone, Debug)]
pub(crate) struct TargetSettings {
    /// How it is reached; its `db` is the one to connect to.
    pub(crate) redis: RedisSettings,
    pub(crate) db: TargetDb,
    /// Stands before SOURCE_NAME and the stream's name.
    pub(crate) prefix: String,
    /// Approximate cap of each stream; 0 is none.
    pub(crate) maxlen: u64,
    pub(crate) conflict: IdConflict,
    /// So many replicas must have an entry before it is acknowledged at the source.
    pub(crate) wait_replicas: u32,
}

/// The database that streams are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetDb {
    /// All to this one.
    Number(u16),
    /// Each to the one it is in at the source.
    Same,
}

/// What becomes of an entry whose ID the target has already with other content, or is past without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdConflict {
    DeadLetter,
    AutoId,
}

static DB: Setting = Setting::new(
    "TARGET_REDIS_DB",
    "Database to write to, or same: each stream in the database it came from. With a number, streams of other \
     databases than the source's default one are named dbN:key.",
)
.default("0");
static POOL_SIZE: Setting = Setting::new(
    "TARGET_REDIS_POOL_SIZE",
    "No effect, known for older settings files: one connection carries everything, which is faster than several.",
)
.default("10");
static PREFIX: Setting =
    Setting::new("TARGET_STREAM_PREFIX", "Stands before the stream's name on the target, as in synced:foo.");
static MAXLEN: Setting =
    Setting::new("TARGET_STREAM_MAXLEN", "Approximate cap of each stream on the target, 0 is none.")
        .default("0");
static CONFLICT: Setting = Setting::new(
    "TARGET_ID_CONFLICT",
    "An entry whose ID the target has with other content, or has passed without it: dead-letter, or auto-id (it \
     is written with a new ID, just above the newest).",
)
.default("dead-letter");
static WAIT_REPLICAS: Setting = Setting::new(
    "TARGET_REDIS_WAIT_REPLICAS",
    "Acknowledge an entry only when so many replicas of the target have it (WAIT), 0 to 1000.",
)
.default("0");

static TARGET_GROUP: &[&Setting] = &[
    &TARGET_REDIS.url,
    &TARGET_REDIS.host,
    &TARGET_REDIS.port,
    &TARGET_REDIS.username,
    &TARGET_REDIS.password,
    &TARGET_REDIS.ssl,
    &TARGET_REDIS.ssl_ca,
    &TARGET_REDIS.ssl_cert,
    &TARGET_REDIS.ssl_key,
    &TARGET_REDIS.ssl_insecure,
    &DB,
    &PREFIX,
    &MAXLEN,
    &CONFLICT,
    &WAIT_REPLICAS,
    &POOL_SIZE,
    &TARGET_REDIS.max_retries,
    &TARGET_REDIS.backoff_base,
    &TARGET_REDIS.backoff_max,
    &TARGET_REDIS.health_check_interval,
];

/// The table of redis2redis.
pub(crate) static BRIDGE: Bridge = Bridge {
    name: "redis2redis",
    groups: &[
        Group { title: "Source Redis", settings: SOURCE_REDIS_GROUP },
        Group { title: "Streams", settings: STREAMS_GROUP },
        Group { title: "Target Redis", settings: TARGET_GROUP },
        Group { title: "Everywhere", settings: GENERAL_GROUP },
    ],
    defaults: &[
        ("STREAM_CONSUMER_GROUP", "redis-sync-group"),
        ("STREAM_CONSUMER_NAME", "redis-sync-consumer"),
        ("STREAM_DISCOVERY_PATTERNS", "*-stream,device:*:stream,biosignal-*"),
        ("ADMIN_ADDR", "127.0.0.1:9466"),
    ],
    spellings: &["REDIS_DB_SEARCH_RANGE"],
};

impl BridgeSettings for Settings {
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes> {
        load(&BRIDGE, inputs, |reader| {
            let redis = RedisSettings::read(reader);
            let streams = StreamSettings::read(reader, redis.db);
            let target = TargetSettings::read(reader, &streams);
            Self { redis, streams, general: GeneralSettings::read(reader), target }
        })
    }

    fn general(&self) -> &GeneralSettings {
        &self.general
    }
}

impl StreamBridgeSettings for Settings {
    fn streams(&self) -> &StreamSettings {
        &self.streams
    }
}

/// The settings part of `--help`.
pub(crate) fn help() -> String {
    BRIDGE.help()
}

impl TargetSettings {
    fn read(reader: &mut Reader, streams: &StreamSettings) -> Self {
        // The connection's own database is of no account with `same`: every write names its database.
        let redis = RedisSettings::read_with(reader, &TARGET_REDIS, |given| {
            Ok(match database(given)? {
                TargetDb::Number(db) => db,
                TargetDb::Same => 0,
            })
        });
        let db = match reader.value(&DB, database) {
            TargetDb::Same => TargetDb::Same,
            TargetDb::Number(_) => TargetDb::Number(redis.db),
        };
        let conflicts = [("dead-letter", IdConflict::DeadLetter), ("auto-id", IdConflict::AutoId)];
        let settings = Self {
            db,
            prefix: reader.optional(&PREFIX, rules::text).unwrap_or_default(),
            maxlen: reader.value(&MAXLEN, rules::integer(0..=i64::MAX as u64)),
            conflict: reader.value(&CONFLICT, rules::one_of(&conflicts)),
            wait_replicas: reader.value(&WAIT_REPLICAS, rules::integer(0..=1000)),
            redis,
        };
        settings.check_cluster(reader, streams);
        settings
    }

    /// Whether the target is a Cluster, by the URL.
    pub(crate) fn is_cluster(&self) -> bool {
        let url = self.redis.url.as_ref().and_then(|url| url.expose().split_once("://"));
        url.is_some_and(|(scheme, _)| scheme.ends_with("-cluster"))
    }

    /// A Cluster has database 0 and no other.
    fn check_cluster(&self, reader: &mut Reader, streams: &StreamSettings) {
        let elsewhere = |streams: &StreamSettings| {
            let searched = streams.discovery.iter().flat_map(|discovery| &discovery.dbs);
            searched.chain(streams.named.iter().map(|stream| &stream.db)).any(|db| *db > 0)
        };
        match self.db {
            _ if !self.is_cluster() => {}
            TargetDb::Number(0) => {}
            TargetDb::Number(_) => reader.mistake(&DB, "must be 0: a Cluster has no other database"),
            TargetDb::Same if elsewhere(streams) => reader.mistake(
                &DB,
                "needs SOURCE_REDIS_DB_SEARCH_RANGE=0 and REDIS_STREAMS of database 0: the target is a Cluster, \
                 which has no other database",
            ),
            TargetDb::Same => {}
        }
    }
}

fn database(given: &Given<'_>) -> Ruled<TargetDb> {
    match given.text {
        "same" => Ok(TargetDb::Same),
        _ => rules::integer(0..=255)(given)
            .map(TargetDb::Number)
            .map_err(|_| "must be a database number from 0 to 255, or same".to_owned()),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
