//! The settings of redis2kafka: its table, its defaults, and the typed values. What every bridge with a Redis source
//! shares is declared and read in `sync_core::settings`; how Kafka is reached, in `kafka_settings.rs`.

use std::time::Duration;

use sync_core::program::{BridgeSettings, StreamBridgeSettings};
use sync_core::settings::rules;
use sync_core::settings::shared::{
    GENERAL_GROUP, SOURCE_REDIS_GROUP, STREAM_CLEANUP, STREAMS_GROUP, TARGET_REDIS, TEXT_GROUP,
};
use sync_core::settings::{
    Bridge, Cleanup, GeneralSettings, Group, Inputs, Loaded, Mistakes, Reader, RedisSettings, Setting,
    StreamSettings, TextSettings, load,
};

use crate::kafka_settings::{KAFKA_GROUP, KafkaSettings};
use crate::topic::{self, TopicMap, Topics};

/// Everything that redis2kafka is set to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where streams are read.
    pub(crate) redis: RedisSettings,
    /// Which, and how.
    pub(crate) streams: StreamSettings,
    /// Log, admin address, stopping.
    pub(crate) general: GeneralSettings,
    /// How values become JSON.
    pub(crate) text: TextSettings,
    /// Where records go.
    pub(crate) kafka: KafkaSettings,
    /// To which topic.
    pub(crate) topics: Topics,
    /// What keeps messages until Kafka has them, where there is such a thing.
    pub(crate) buffer: Option<BufferSettings>,
}

/// The durable buffer.
#[derive(Clone, Debug)]
pub(crate) struct BufferSettings {
    /// How it is reached.
    pub(crate) redis: RedisSettings,
    /// How long a message stays once Kafka has it.
    pub(crate) time_to_live: Duration,
    /// How long is remembered that Kafka has it.
    pub(crate) sync_ttl: Duration,
    /// Between two looks for messages that nobody sends.
    pub(crate) sync_interval: Duration,
}

static TOPIC: Setting =
    Setting::new("KAFKA_TOPIC", "Topic of the streams that STREAM_TARGET_TOPIC_MAP has none for.")
        .default("default-sync-topic");
static TOPIC_MAP: Setting = Setting::new(
    "STREAM_TARGET_TOPIC_MAP",
    "JSON object of patterns of streams and their topics; the first that matches counts, in the order written, such as \
     {\"device:*:stream\": \"device-data-topic\", \"*-stream\": \"default-stream-topic\"}.",
);
static TIME_TO_LIVE: Setting = Setting::new(
    "TARGET_REDIS_TIME_TO_LIVE",
    "Seconds that a message stays in the buffer once Kafka has it; until then it stays anyway.",
)
.default("3600");
static SYNC_TTL: Setting = Setting::new(
    "TARGET_REDIS_SYNC_TTL",
    "Seconds that the buffer remembers that Kafka has a message; at least TARGET_REDIS_TIME_TO_LIVE.",
)
.default("604800");
static SYNC_INTERVAL: Setting = Setting::new(
    "BUFFER_SYNC_INTERVAL",
    "Seconds between two looks for messages in the buffer that Kafka does not have and nobody sends.",
)
.default("10");
static POOL_SIZE: Setting = Setting::new(
    "TARGET_REDIS_POOL_SIZE",
    "No effect, known for older settings files: three connections carry everything: one stores, one sends, one hears what others store.",
)
.default("10");

static BUFFER_GROUP: &[&Setting] = &[
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
    &TARGET_REDIS.db,
    &TIME_TO_LIVE,
    &SYNC_TTL,
    &SYNC_INTERVAL,
    &POOL_SIZE,
    &TARGET_REDIS.max_retries,
    &TARGET_REDIS.backoff_base,
    &TARGET_REDIS.backoff_max,
    &TARGET_REDIS.health_check_interval,
];

/// The table of redis2kafka.
pub(crate) static BRIDGE: Bridge = Bridge {
    name: "redis2kafka",
    groups: &[
        Group { title: "Source Redis", settings: SOURCE_REDIS_GROUP },
        Group { title: "Streams", settings: STREAMS_GROUP },
        Group { title: "Clean-up", settings: &[&STREAM_CLEANUP] },
        Group { title: "Topics", settings: &[&TOPIC, &TOPIC_MAP] },
        Group { title: "Values", settings: TEXT_GROUP },
        Group { title: "Kafka", settings: &KAFKA_GROUP },
        Group {
            title: "Buffer (where TARGET_REDIS_HOST or TARGET_REDIS_URL is set)",
            settings: BUFFER_GROUP,
        },
        Group { title: "Everywhere", settings: GENERAL_GROUP },
    ],
    defaults: &[
        ("STREAM_AUTO_DISCOVERY", "false"),
        ("STREAM_CONSUMER_GROUP", "redis-kafka-sync"),
        ("STREAM_CONSUMER_NAME", "redis-kafka-consumer"),
        ("STREAM_DISCOVERY_PATTERNS", "*-stream,device:*:stream"),
        ("ADMIN_ADDR", "127.0.0.1:9465"),
    ],
    spellings: &[],
};

impl BridgeSettings for Settings {
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes> {
        load(&BRIDGE, inputs, |reader| {
            let redis = RedisSettings::read(reader);
            let streams =
                StreamSettings { cleanup: Cleanup::read(reader), ..StreamSettings::read(reader, redis.db) };
            let map: TopicMap = reader.optional(&TOPIC_MAP, topic::topic_map).unwrap_or_default();
            let other = reader.value(&TOPIC, topic::topic);
            Self {
                redis,
                streams,
                general: GeneralSettings::read(reader),
                text: TextSettings::read(reader),
                kafka: KafkaSettings::read(reader),
                topics: Topics::new(map, &other),
                buffer: BufferSettings::read(reader),
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

impl BufferSettings {
    fn read(reader: &mut Reader) -> Option<Self> {
        let settings = Self {
            redis: RedisSettings::read_from(reader, &TARGET_REDIS),
            time_to_live: reader.value(&TIME_TO_LIVE, rules::seconds(1.0..=1e9)),
            sync_ttl: reader.value(&SYNC_TTL, rules::seconds(1.0..=1e9)),
            sync_interval: reader.value(&SYNC_INTERVAL, rules::seconds(0.1..=86400.0)),
        };
        if settings.time_to_live > settings.sync_ttl {
            let marker = reader.named(&SYNC_TTL);
            reader.mistake(
                &TIME_TO_LIVE,
                format!("must be at most {marker}: a message that outlives its marker would be sent again"),
            );
        }
        let url = settings.redis.url.as_ref().and_then(|url| url.expose().split_once("://"));
        if url.is_some_and(|(scheme, _)| scheme.ends_with("-cluster")) {
            reader.mistake(
                &TARGET_REDIS.url,
                "must not be a Cluster: what the buffer holds must change together, and there each key has its node",
            );
        }
        (reader.is_set(&TARGET_REDIS.host) || reader.is_set(&TARGET_REDIS.url)).then_some(settings)
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
