//! The settings of redis2pg: its table, its defaults and spellings, and the typed values. What every bridge with a
//! Redis source shares is declared and read in `sync_core::settings`.

use std::time::Duration;

use sync_core::pattern::Pattern;
use sync_core::program::{BridgeSettings, StreamBridgeSettings};
use sync_core::settings::rules;
use sync_core::settings::shared::{GENERAL_GROUP, SOURCE_REDIS_GROUP, STREAMS_GROUP, TEXT_GROUP};
use sync_core::settings::{
    Bridge, GeneralSettings, Group, Inputs, Loaded, Mistakes, Reader, RedisSettings, Setting, StreamSettings,
    TextSettings, load,
};

use crate::postgres::settings::{POSTGRES_GROUP, PostgresSettings};

/// Everything that redis2pg is set to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where streams and keys are read.
    pub(crate) redis: RedisSettings,
    /// Which streams, and how.
    pub(crate) streams: StreamSettings,
    /// How field values appear in JSON.
    pub(crate) text: TextSettings,
    /// Log, admin address, stopping.
    pub(crate) general: GeneralSettings,
    /// Where rows are written.
    pub(crate) postgres: PostgresSettings,
    /// What a row looks like, and which table it goes to.
    pub(crate) tables: TableSettings,
    /// Which keys are copied; `None` when KEY_VALUE_AUTO_DISCOVERY is false.
    pub(crate) key_values: Option<KeyValueSettings>,
}

/// The tables, and how rows get there.
#[derive(Clone, Debug)]
pub(crate) struct TableSettings {
    /// Schema of both tables.
    pub(crate) schema: String,
    pub(crate) streams: String,
    pub(crate) key_values: String,
    /// A row that is there with other data is overwritten; else its entry is a conflict.
    pub(crate) overwrite: bool,
    pub(crate) data: DataFormat,
}

/// What `data` looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataFormat {
    /// An object; its order is JSONB's.
    Object,
    /// A list of [field, value].
    Pairs,
}

/// Which keys are copied, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValueSettings {
    pub(crate) patterns: Vec<Pattern>,
    /// Between the end of a pass and the beginning of the next.
    pub(crate) interval: Duration,
    /// Between two passes over all keys, where the server tells which ones change.
    pub(crate) full_interval: Duration,
    pub(crate) deletions: Deletions,
    /// Stands before each key.
    pub(crate) source_name: String,
}

/// What becomes of the row of a key that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletions {
    /// It stays.
    Keep,
    /// Its `deleted_at` is set.
    Mark,
    /// It goes, too.
    Delete,
}

static SCHEMA: Setting =
    Setting::new("PG_SCHEMA", "Schema of the tables; made when absent, where that is allowed.")
        .aliases(&["POSTGRES_SCHEMA"])
        .default("public");
static STREAM_TABLE: Setting =
    Setting::new("STREAM_TABLE_NAME", "Table of stream entries, in PG_SCHEMA.").default("redis_streams");
static KEY_VALUE_TABLE: Setting =
    Setting::new("KEY_VALUE_TABLE_NAME", "Table of key-values, in PG_SCHEMA.").default("redis_key_values");
static OVERWRITE: Setting = Setting::new(
    "STREAM_CONFLICT_OVERWRITE",
    "true: a row that is there with other data is overwritten. false: its entry goes to the dead letters. (A row with \
     the same data is left alone either way.)",
)
.default("false");
static DATA: Setting = Setting::new(
    "DATA_FORMAT",
    "object: data is a JSON object, whose order JSONB does not keep. pairs: a list of [field, value], which keeps order \
     and repeats.",
)
.default("object");

static KEY_VALUES: Setting =
    Setting::new("KEY_VALUE_AUTO_DISCOVERY", "Whether keys that are no streams are copied.").default("true");
static PATTERNS: Setting = Setting::new(
    "KEY_VALUE_PATTERNS",
    "Keys to copy, of the databases of SOURCE_REDIS_DB_SEARCH_RANGE: globs separated by commas.",
)
.default("*");
static INTERVAL: Setting = Setting::new(
    "SYNC_INTERVAL",
    "Seconds from the end of a pass over the keys to the beginning of the next, 0.01 to 86400.",
)
.default("1.0");
static FULL_INTERVAL: Setting = Setting::new(
    "KEY_VALUE_FULL_INTERVAL",
    "Where Redis tells which keys change (notify-keyspace-events), a pass is over those, and over all keys only this \
     often, seconds.",
)
.default("300");
static DELETIONS: Setting = Setting::new(
    "KEY_VALUE_DELETIONS",
    "The row of a key that is gone: keep it, mark it (deleted_at), or delete it.",
)
.default("keep");

static TABLES_GROUP: &[&Setting] = &[&SCHEMA, &STREAM_TABLE, &KEY_VALUE_TABLE, &OVERWRITE, &DATA];
static KEY_VALUES_GROUP: &[&Setting] = &[&KEY_VALUES, &PATTERNS, &INTERVAL, &FULL_INTERVAL, &DELETIONS];

/// The table of redis2pg.
pub(crate) static BRIDGE: Bridge = Bridge {
    name: "redis2pg",
    groups: &[
        Group { title: "Source Redis", settings: SOURCE_REDIS_GROUP },
        Group { title: "Streams", settings: STREAMS_GROUP },
        Group { title: "Key-values", settings: KEY_VALUES_GROUP },
        Group { title: "Field values", settings: TEXT_GROUP },
        Group { title: "PostgreSQL", settings: POSTGRES_GROUP },
        Group { title: "Tables", settings: TABLES_GROUP },
        Group { title: "Everywhere", settings: GENERAL_GROUP },
    ],
    defaults: &[
        ("STREAM_CONSUMER_GROUP", "redis-pg-sync"),
        ("STREAM_CONSUMER_NAME", "redis-pg-sync-1"),
        ("STREAM_POLL_INTERVAL", "0.1"),
        ("REDIS_RATE_LIMIT", "100"),
        ("ADMIN_ADDR", "127.0.0.1:9467"),
    ],
    // SOURCE_REDIS_DB and REDIS_DB are both in the description: the canonical one counts.
    spellings: &[
        "REDIS_URL",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
        "REDIS_POOL_SIZE",
        "REDIS_MAX_RETRIES",
        "REDIS_BACKOFF_BASE",
        "REDIS_BACKOFF_MAX",
        "REDIS_DB_SEARCH_RANGE",
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_DB",
        "POSTGRES_USER",
        "POSTGRES_PASSWORD",
        "POSTGRES_SCHEMA",
    ],
};

impl BridgeSettings for Settings {
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes> {
        load(&BRIDGE, inputs, |reader| {
            let redis = RedisSettings::read(reader);
            let streams = StreamSettings::read(reader, redis.db);
            let key_values = KeyValueSettings::read(reader, &streams);
            let text = TextSettings::read(reader);
            let postgres = PostgresSettings::read(reader);
            let tables = TableSettings::read(reader);
            Self {
                redis,
                streams,
                text,
                general: GeneralSettings::read(reader),
                postgres,
                tables,
                key_values,
            }
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

impl TableSettings {
    fn read(reader: &mut Reader) -> Self {
        let formats = [("object", DataFormat::Object), ("pairs", DataFormat::Pairs)];
        let streams = reader.value(&STREAM_TABLE, identifier);
        let key_values = reader.value(&KEY_VALUE_TABLE, identifier);
        if streams == key_values {
            let rule = format!("must not be the table of {}", reader.named(&STREAM_TABLE));
            reader.mistake(&KEY_VALUE_TABLE, rule);
        }
        Self {
            schema: reader.value(&SCHEMA, identifier),
            streams,
            key_values,
            overwrite: reader.value(&OVERWRITE, rules::boolean),
            data: reader.value(&DATA, rules::one_of(&formats)),
        }
    }
}

/// PostgreSQL cuts a longer name off without a word, and takes no NUL
/// (<https://www.postgresql.org/docs/15/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>).
fn identifier(given: &sync_core::settings::Given<'_>) -> rules::Ruled<String> {
    match given.text {
        text if text.len() > 63 => Err("must have 63 bytes at most, as PostgreSQL's names do".to_owned()),
        text if text.contains('\0') => Err("must not hold NUL".to_owned()),
        text => Ok(text.to_owned()),
    }
}

impl KeyValueSettings {
    /// Read whether or not keys are copied, so that a mistake shows before that is switched on.
    fn read(reader: &mut Reader, streams: &StreamSettings) -> Option<Self> {
        let deletions = [("keep", Deletions::Keep), ("mark", Deletions::Mark), ("delete", Deletions::Delete)];
        let settings = Self {
            patterns: reader.value(&PATTERNS, rules::patterns),
            interval: reader.value(&INTERVAL, rules::seconds(0.01..=86400.0)),
            full_interval: reader.value(&FULL_INTERVAL, rules::seconds(1.0..=604_800.0)),
            deletions: reader.value(&DELETIONS, rules::one_of(&deletions)),
            source_name: streams.source_name.clone().unwrap_or_default(),
        };
        let enabled = reader.value(&KEY_VALUES, rules::boolean);
        if !enabled && reader.is_set(&PATTERNS) {
            let (patterns, off) = (reader.named(&PATTERNS), reader.named(&KEY_VALUES));
            reader.warn(format!("{patterns} has no effect: {off} is off, so no key is copied"));
        }
        enabled.then_some(settings)
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
