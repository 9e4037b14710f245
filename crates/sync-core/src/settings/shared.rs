//! The tables of settings that several bridges have: source Redis, streams, and what every bridge has. A bridge
//! lists these beside its own and gives its own defaults ([`super::Bridge`]).

use super::table::{Setting, Show};

/// The settings of one Redis deployment, for [`super::RedisSettings::read_from`].
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the setting of that name; its meaning is in its `help`")]
pub struct RedisTable {
    pub url: Setting,
    pub host: Setting,
    pub port: Setting,
    pub username: Setting,
    pub password: Setting,
    pub ssl: Setting,
    pub ssl_ca: Setting,
    pub ssl_cert: Setting,
    pub ssl_key: Setting,
    pub ssl_insecure: Setting,
    pub db: Setting,
    pub pool_size: Setting,
    pub max_retries: Setting,
    pub backoff_base: Setting,
    pub backoff_max: Setting,
    pub health_check_interval: Setting,
}

/// `redis_table!("SOURCE_REDIS_", "REDIS_"; "REDIS_RETRY_INTERVAL")`: prefix of the names, prefix of the
/// aliases, further aliases of the first delay.
macro_rules! redis_table {
    ($prefix:literal $(, $alias:literal)? $(; $base:literal)?) => {{
        macro_rules! setting {
            ($name:literal, $help:literal) => {
                Setting::new(concat!($prefix, $name), $help).aliases(&[$(concat!($alias, $name))?])
            };
        }
        RedisTable {
            url: setting!("URL", "redis://[user:password@]host[:port][/db], rediss:// (TLS), unix:///path, \
                redis-cluster:// or redis-sentinel://; replaces host, port, user, password and TLS. Characters such \
                as @ / ? # in a password are written %40 %2F %3F %23.").show(Show::Url),
            host: setting!("HOST", "Host name or address.").default("localhost").show(Show::Host),
            port: setting!("PORT", "1 to 65535.").default("6379"),
            username: setting!("USERNAME", "ACL user."),
            password: setting!("PASSWORD", "Password of the user, or of requirepass.").secret(),
            ssl: setting!("SSL", "TLS: true or false.").default("false"),
            ssl_ca: setting!("SSL_CA", "PEM file of the authorities to trust instead of the system's."),
            ssl_cert: setting!("SSL_CERT", "PEM file of the client's certificate chain; together with the key."),
            ssl_key: setting!("SSL_KEY", "PEM file of the client's private key."),
            ssl_insecure: setting!("SSL_INSECURE", "true accepts any certificate of the server.").default("false"),
            db: setting!("DB", "The default database, 0 to 65535.").default("0"),
            pool_size: setting!("POOL_SIZE", "Upper bound of reading connections, at least 1; each database that \
                holds streams has at least one.").default("10"),
            max_retries: setting!("MAX_RETRIES", "Connection attempts at start, at least 1; at runtime there is no \
                limit.").default("5"),
            backoff_base: setting!("BACKOFF_BASE", "Seconds before the first retry; each further one waits longer.")
                .aliases(&[$(concat!($alias, "BACKOFF_BASE"),)? $($base)?])
                .default("1.0"),
            backoff_max: setting!("BACKOFF_MAX", "Longest wait between retries, seconds.").default("30.0"),
            health_check_interval: setting!("HEALTH_CHECK_INTERVAL", "Idle connections are pinged this often, \
                seconds.").default("60"),
        }
    }};
}

/// SOURCE_REDIS_*: where streams are read.
pub static SOURCE_REDIS: RedisTable = redis_table!("SOURCE_REDIS_", "REDIS_"; "REDIS_RETRY_INTERVAL");
/// TARGET_REDIS_*: where a bridge writes to Redis.
pub static TARGET_REDIS: RedisTable = redis_table!("TARGET_REDIS_");

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $help:literal $(.$method:ident($($argument:expr),*))*;)*) => {
        $($(#[$doc])* #[doc = concat!(stringify!($name), ": its meaning is in its `help`.")] pub static $name: Setting =
            Setting::new(stringify!($name), $help)$(.$method($($argument),*))*;)*
    };
}

settings! {
    SOURCE_REDIS_DB_SEARCH_RANGE = "Databases that discovery searches: ranges and numbers, such as 0-15 or 0,1,3-5."
        .aliases(&["REDIS_DB_SEARCH_RANGE", "REDIS_DBS_TO_SEARCH"]).default("0-15");
    SOURCE_REDIS_ENCODING = "How bytes become text at the destination: any label of the WHATWG encoding standard."
        .aliases(&["REDIS_ENCODING"]).default("utf-8");
    REDIS_RATE_LIMIT = "Requests per second to the source Redis, 0 is unlimited; lowered by itself while Redis is \
        overloaded." .aliases(&["SOURCE_REDIS_RATE_LIMIT"]).default("0");

    REDIS_STREAMS_ENABLED = "Whether streams are read at all.".default("true");
    REDIS_STREAMS = "Streams to read whether or not discovery is on: key or dbN:key, separated by commas.";
    STREAM_AUTO_DISCOVERY = "Look for streams that match the patterns.".default("true");
    STREAM_DISCOVERY_PATTERNS = "Globs separated by commas: *, ?, [seq], [!seq]; letter case counts.".default("*");
    STREAM_EXCLUDE_PATTERNS = "Globs separated by commas: what matches is never discovered.";
    STREAM_DISCOVERY_INTERVAL = "Seconds between searches, 0.1 to 86400.".default("10");
    STREAM_AUTO_CREATE_CONSUMER_GROUPS = "Create missing consumer groups; false: streams without the group are \
        skipped." .default("true");
    STREAM_START_ID = "Where a new group begins: 0, an entry ID, or $ (only what arrives after the first start)."
        .default("0");
    STREAM_CONSUMER_GROUP = "Consumer group; replicas that share streams share it.".aliases(&["STREAM_GROUP"]);
    STREAM_CONSUMER_NAME = "Base name in the group; host name and process ID are appended."
        .aliases(&["STREAM_CONSUMER"]);
    STREAM_BATCH_SIZE = "At most so many entries per stream and read, at least 1.".default("100");
    STREAM_POLL_INTERVAL = "How long an idle read may wait, 0.001 to 2 seconds (STREAM_READ_TIMEOUT_MS: \
        milliseconds); data ends it at once." .aliases(&["STREAM_READ_TIMEOUT_MS"]).default("1");
    FILTER_FIELD = "Only entries in which this field has one of FILTER_VALUES are delivered."
        .aliases(&["MQTT_FILTER_FIELD"]);
    FILTER_VALUES = "Values that pass, separated by commas.".aliases(&["MQTT_FILTER_VALUES"]);
    STREAM_DEAD_LETTER_SUFFIX = "The dead-letter stream of a key is the key and this, in the same database."
        .default(":dead-letter");
    STREAM_DEAD_LETTER_MAXLEN = "Approximate cap of each dead-letter stream, 0 is none.".default("0");
    STREAM_OWNERSHIP = "shared: replicas share the streams; exclusive: this process is alone and keeps no books in \
        Redis." .default("shared");
    SOURCE_NAME = "Stands before the stream name at the destination, for several sources into one.";
    STREAM_MAX_DELIVERIES = "Dead-letter an entry after so many negative answers about it, 0 is never."
        .default("0");

    STREAM_CLEANUP = "Acknowledged entries: delete (at once, or as soon as every other consumer group of the stream has \
        acknowledged them), ack (they stay), or trim (deleted every 30 seconds, under the same condition)."
        .default("delete");

    VALUE_FORMAT = "json: values that are JSON numbers, booleans, objects or arrays are embedded as they are; \
        text: every value is a string." .default("json");
    LOG_LEVEL = "TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL.".default("INFO");
    LOG_FORMAT = "A template such as %(asctime)s - %(levelname)s - %(message)s, or text, or json."
        .default("%(asctime)s - %(name)s - %(levelname)s - %(message)s");
    LOG_DIR = "Also log to a file in this directory, one per start.";
    CONFIG_FILE = "The settings file; ./env.conf if it exists. Not read from the file itself.";
    ADMIN_ADDR = "Address and port of metrics, health checks and status page; empty or off: none."
        .default("127.0.0.1:9464").empty_counts();
    SHUTDOWN_TIMEOUT = "Seconds that a stop waits for what is in flight, 0 to 3600.".default("8");
    MONITOR_INTERVAL = "Seconds between two looks of monitor, 0.1 to 86400.".default("5");
    METRICS_PER_STREAM = "With more streams than this, metrics give totals and the worst streams only."
        .default("1000");
}

/// The group "Source Redis" of a bridge that reads streams.
pub static SOURCE_REDIS_GROUP: &[&Setting] = &[
    &SOURCE_REDIS.url,
    &SOURCE_REDIS.host,
    &SOURCE_REDIS.port,
    &SOURCE_REDIS.username,
    &SOURCE_REDIS.password,
    &SOURCE_REDIS.ssl,
    &SOURCE_REDIS.ssl_ca,
    &SOURCE_REDIS.ssl_cert,
    &SOURCE_REDIS.ssl_key,
    &SOURCE_REDIS.ssl_insecure,
    &SOURCE_REDIS.db,
    &SOURCE_REDIS_DB_SEARCH_RANGE,
    &SOURCE_REDIS.pool_size,
    &SOURCE_REDIS.max_retries,
    &SOURCE_REDIS.backoff_base,
    &SOURCE_REDIS.backoff_max,
    &SOURCE_REDIS.health_check_interval,
    &REDIS_RATE_LIMIT,
];

/// The group "Streams" of a bridge that reads streams.
pub static STREAMS_GROUP: &[&Setting] = &[
    &REDIS_STREAMS_ENABLED,
    &REDIS_STREAMS,
    &STREAM_AUTO_DISCOVERY,
    &STREAM_DISCOVERY_PATTERNS,
    &STREAM_EXCLUDE_PATTERNS,
    &STREAM_DISCOVERY_INTERVAL,
    &STREAM_AUTO_CREATE_CONSUMER_GROUPS,
    &STREAM_START_ID,
    &STREAM_CONSUMER_GROUP,
    &STREAM_CONSUMER_NAME,
    &STREAM_BATCH_SIZE,
    &STREAM_POLL_INTERVAL,
    &FILTER_FIELD,
    &FILTER_VALUES,
    &STREAM_DEAD_LETTER_SUFFIX,
    &STREAM_DEAD_LETTER_MAXLEN,
    &STREAM_OWNERSHIP,
    &SOURCE_NAME,
    &STREAM_MAX_DELIVERIES,
];

/// The group "Field values" of a bridge that writes them as text or JSON.
pub static TEXT_GROUP: &[&Setting] = &[&SOURCE_REDIS_ENCODING, &VALUE_FORMAT];

/// The group "Everywhere".
pub static GENERAL_GROUP: &[&Setting] = &[
    &LOG_LEVEL,
    &LOG_FORMAT,
    &LOG_DIR,
    &CONFIG_FILE,
    &ADMIN_ADDR,
    &SHUTDOWN_TIMEOUT,
    &METRICS_PER_STREAM,
    &MONITOR_INTERVAL,
];
