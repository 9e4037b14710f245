//! The settings of redis2mqtt: its table, its defaults and spellings, and the typed values. What every bridge
//! with a Redis source shares is declared and read in `sync_core::settings`.

use std::time::Duration;

use sync_core::program::{BridgeSettings, StreamBridgeSettings};
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::shared::{GENERAL_GROUP, SOURCE_REDIS_GROUP, STREAMS_GROUP, TEXT_GROUP};
use sync_core::settings::{
    Bridge, GeneralSettings, Given, Group, Inputs, Loaded, Mistakes, Reader, RedisSettings, RetrySettings,
    Secret, Setting, Show, StreamSettings, TextSettings, TlsSettings, TlsTable, load,
};

use crate::message::check_base;

/// Everything that redis2mqtt is set to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where streams are read.
    pub(crate) redis: RedisSettings,
    /// Which, and how.
    pub(crate) streams: StreamSettings,
    /// How field values appear in a payload.
    pub(crate) text: TextSettings,
    /// Log, admin address, stopping.
    pub(crate) general: GeneralSettings,
    /// Where entries are published.
    pub(crate) mqtt: MqttSettings,
}

/// The broker, and how is published there.
#[derive(Clone, Debug)]
pub(crate) struct MqttSettings {
    /// TCP: a host name or address, IPv6 without brackets. Websockets: the whole URL with port and path, `wss://`
    /// exactly where `tls` is set.
    pub(crate) host: String,
    /// TCP port, the same as in a URL in `host`.
    pub(crate) port: u16,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) version: Version,
    pub(crate) transport: Transport,
    /// 0, 1 or 2.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Without a slash at its end, `+`, `#` and NUL; never empty.
    pub(crate) base_topic: String,
    /// Zero is off, else 5 to 65535 whole seconds.
    pub(crate) keep_alive: Duration,
    /// Publishes without a confirmation, at least 1. (QoS 2 under 3.1.1 has a lower bound of its own.)
    pub(crate) max_inflight: u16,
    /// Bytes of a whole packet; `None` leaves it to the broker and the protocol.
    pub(crate) max_packet_size: Option<u32>,
    pub(crate) retry: RetrySettings,
}

/// Protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 5, and 3.1.1 with a broker that does not speak it.
    Auto,
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1, which is level 4 on the wire.
    V4,
}

/// What MQTT runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP, or TLS over it.
    Tcp,
    /// WebSocket frames, over HTTP or HTTPS.
    Websockets,
}

static HOST: Setting =
    Setting::new("MQTT_BROKER_HOST", "Host name or address; with websockets also a ws:// or wss:// URL.")
        .default("localhost")
        .show(Show::Host);
static PORT: Setting = Setting::new("MQTT_BROKER_PORT", "1 to 65535; 8883 with TLS.").default("1883");
static CLIENT_ID: Setting = Setting::new(
    "MQTT_CLIENT_ID",
    "As it is with STREAM_OWNERSHIP=exclusive; shared: host name and a random suffix are appended.",
)
.default("redis-mqtt-sync");
static USERNAME: Setting = Setting::new("MQTT_USERNAME", "User at the broker.");
static PASSWORD: Setting =
    Setting::new("MQTT_PASSWORD", "Password at the broker; needs a user name.").secret();
static USE_TLS: Setting = Setting::new("MQTT_USE_TLS", "TLS: true or false.").default("false");
static TLS_CA: Setting =
    Setting::new("MQTT_TLS_CA", "PEM file of the authorities to trust instead of the system's.");
static TLS_CERT: Setting =
    Setting::new("MQTT_TLS_CERT", "PEM file of the client's certificate chain; together with the key.");
static TLS_KEY: Setting = Setting::new("MQTT_TLS_KEY", "PEM file of the client's private key.");
static TLS_INSECURE: Setting =
    Setting::new("MQTT_TLS_INSECURE", "true accepts any certificate of the broker.").default("false");
static VERSION: Setting = Setting::new(
    "MQTT_VERSION",
    "5, 4 (which is 3.1.1), or auto: 5, and 3.1.1 where the broker does not speak it.",
)
.default("auto");
static TRANSPORT: Setting =
    Setting::new("MQTT_TRANSPORT", "tcp or websockets (path /mqtt unless MQTT_BROKER_HOST is a URL).")
        .default("tcp");
static QOS: Setting =
    Setting::new("MQTT_QOS", "0, 1 or 2. With 0 nothing confirms that a message arrived.").default("1");
static RETAIN: Setting = Setting::new("MQTT_RETAIN", "Publish with the retain flag.").default("false");
static BASE_TOPIC: Setting =
    Setting::new("MQTT_BASE_TOPIC", "First part of every topic; no + or #, not under $SYS or $share.")
        .default("redis");
static KEEP_ALIVE: Setting = Setting::new("MQTT_KEEP_ALIVE", "Seconds, 0 (off) or 5 to 65535.").default("60");
static MAX_INFLIGHT: Setting = Setting::new(
    "MQTT_MAX_INFLIGHT",
    "Publishes without a confirmation, 1 to 65535; the broker's own limit counts too.",
)
.default("1000");
static MAX_PACKET_SIZE: Setting = Setting::new(
    "MQTT_MAX_PACKET_SIZE",
    "Largest packet in bytes, 64 to 268435460; unset: what the broker accepts.",
);
static MAX_RETRIES: Setting = Setting::new(
    "MQTT_MAX_RETRIES",
    "Connection attempts at start, at least 1; at runtime there is no limit.",
)
.default("5");
static BACKOFF_BASE: Setting =
    Setting::new("MQTT_BACKOFF_BASE", "Seconds before the first retry; each further one waits longer.")
        .default("5");
static BACKOFF_MAX: Setting =
    Setting::new("MQTT_BACKOFF_MAX", "Longest wait between retries, seconds.").default("30.0");

static MQTT_GROUP: &[&Setting] = &[
    &HOST,
    &PORT,
    &CLIENT_ID,
    &USERNAME,
    &PASSWORD,
    &USE_TLS,
    &TLS_CA,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_INSECURE,
    &VERSION,
    &TRANSPORT,
    &QOS,
    &RETAIN,
    &BASE_TOPIC,
    &KEEP_ALIVE,
    &MAX_INFLIGHT,
    &MAX_PACKET_SIZE,
    &MAX_RETRIES,
    &BACKOFF_BASE,
    &BACKOFF_MAX,
];

/// The table of redis2mqtt.
pub(crate) static BRIDGE: Bridge = Bridge {
    name: "redis2mqtt",
    groups: &[
        Group { title: "Source Redis", settings: SOURCE_REDIS_GROUP },
        Group { title: "Streams", settings: STREAMS_GROUP },
        Group { title: "Field values", settings: TEXT_GROUP },
        Group { title: "MQTT", settings: MQTT_GROUP },
        Group { title: "Everywhere", settings: GENERAL_GROUP },
    ],
    defaults: &[
        ("SOURCE_REDIS_DB_SEARCH_RANGE", "0,1,2"),
        ("SOURCE_REDIS_BACKOFF_BASE", "5"),
        ("REDIS_RATE_LIMIT", "1000"),
        ("STREAM_CONSUMER_GROUP", "mqtt-group"),
        ("STREAM_CONSUMER_NAME", "mqtt-sync"),
        ("ADMIN_ADDR", "127.0.0.1:9464"),
    ],
    spellings: &[
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "REDIS_USERNAME",
        "REDIS_SSL",
        "REDIS_POOL_SIZE",
        "REDIS_MAX_RETRIES",
        "REDIS_RETRY_INTERVAL",
        "REDIS_RATE_LIMIT",
        "REDIS_DBS_TO_SEARCH",
        "MQTT_FILTER_FIELD",
        "MQTT_FILTER_VALUES",
        "STREAM_GROUP",
        "STREAM_CONSUMER",
        "STREAM_READ_TIMEOUT_MS",
    ],
};

impl BridgeSettings for Settings {
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes> {
        load(&BRIDGE, inputs, |reader| {
            let redis = RedisSettings::read(reader);
            let streams = StreamSettings::read(reader, redis.db);
            let text = TextSettings::read(reader);
            let mqtt = MqttSettings::read(reader);
            Self { redis, streams, text, general: GeneralSettings::read(reader), mqtt }
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

impl MqttSettings {
    fn read(reader: &mut Reader) -> Self {
        let transports = [("tcp", Transport::Tcp), ("websockets", Transport::Websockets)];
        let versions =
            [("auto", Version::Auto), ("5", Version::V5), ("4", Version::V4), ("3.1.1", Version::V4)];
        let transport = reader.value(&TRANSPORT, rules::one_of(&transports));
        let version = reader.value(&VERSION, rules::one_of(&versions));
        let (host, port, tls) = address(reader, transport);
        let files = TlsTable {
            switch: "MQTT_USE_TLS=true",
            ca: &TLS_CA,
            cert: &TLS_CERT,
            key: &TLS_KEY,
            insecure: &TLS_INSECURE,
        };
        let (username, password) = credentials(reader, version);
        Self {
            host,
            port,
            client_id: reader.value(&CLIENT_ID, client_id),
            username,
            password,
            tls: TlsSettings::read(reader, tls, &files),
            version,
            transport,
            qos: reader.value(&QOS, rules::integer(0..=2)),
            retain: reader.value(&RETAIN, rules::boolean),
            base_topic: base_topic(reader),
            keep_alive: reader.value(&KEEP_ALIVE, keep_alive),
            max_inflight: reader.value(&MAX_INFLIGHT, rules::integer(1..=65535)),
            max_packet_size: reader.optional(&MAX_PACKET_SIZE, rules::integer(64..=268_435_460)),
            retry: RetrySettings::read(reader, &MAX_RETRIES, &BACKOFF_BASE, &BACKOFF_MAX),
        }
    }
}

/// Host (for websockets the whole URL), port and whether TLS is on.
fn address(reader: &mut Reader, transport: Transport) -> (String, u16, bool) {
    let tls = reader.value(&USE_TLS, rules::boolean);
    let port = reader.value(&PORT, rules::port);
    let port_is_set = reader.is_set(&PORT);
    if transport == Transport::Tcp {
        let host = reader.value(&HOST, |given| {
            rules::host(given).map_err(|rule| match given.text.split_once("://") {
                Some(("ws" | "wss", _)) => {
                    format!("{rule}; with MQTT_TRANSPORT=websockets it may be such a URL")
                }
                Some(("mqtts" | "ssl" | "tls", _)) => format!("{rule}; MQTT_USE_TLS=true switches TLS on"),
                _ => rule,
            })
        });
        let port = default_port(reader, port, tls);
        return (host, port, tls);
    }
    let broker = reader.value(&HOST, websocket);
    let Some(secure) = broker.secure else {
        let port = default_port(reader, port, tls);
        let scheme = if tls { "wss" } else { "ws" };
        return (format!("{scheme}://{}:{port}{}", broker.host, broker.path), port, tls);
    };
    if tls && !secure {
        reader.mistake(&USE_TLS, "contradicts the ws:// of MQTT_BROKER_HOST; TLS is wss://");
    }
    let (url_port, port_origin) = match broker.port {
        Some(url_port) => (url_port, "MQTT_BROKER_HOST"),
        None if port_is_set => (port, "MQTT_BROKER_PORT"),
        None => (if secure { 443 } else { 80 }, "default of the scheme in MQTT_BROKER_HOST"),
    };
    if port_is_set && url_port != port {
        let named = reader.named(&PORT);
        reader.warn(format!("{named} is passed over: the URL in MQTT_BROKER_HOST has port {url_port}"));
    }
    if !port_is_set || url_port != port {
        reader.replace(PORT.name, url_port.to_string(), port_origin);
    }
    if secure && !tls {
        reader.replace(USE_TLS.name, "true", "wss:// in MQTT_BROKER_HOST");
    }
    let scheme = if secure { "wss" } else { "ws" };
    (format!("{scheme}://{}:{url_port}{}", broker.host, broker.path), url_port, secure)
}

fn default_port(reader: &mut Reader, port: u16, tls: bool) -> u16 {
    if !tls || reader.is_set(&PORT) {
        return port;
    }
    reader.replace(PORT.name, "8883", "default with TLS");
    8883
}

/// MQTT_BROKER_HOST for websockets.
struct Websocket {
    /// `ws` or `wss`; a plain host says neither.
    secure: Option<bool>,
    /// As in a URL: IPv6 with brackets.
    host: String,
    port: Option<u16>,
    path: String,
}

fn websocket(given: &Given<'_>) -> Ruled<Websocket> {
    let bracketed = |host: String| if host.contains(':') { format!("[{host}]") } else { host };
    let Some((scheme, rest)) = given.text.split_once("://") else {
        let host = bracketed(rules::host(given)?);
        return Ok(Websocket { secure: None, host, port: None, path: "/mqtt".to_owned() });
    };
    let secure = match scheme {
        "ws" => false,
        "wss" => true,
        _ => return Err("must be a host, or begin with ws:// or wss://".to_owned()),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("must not hold user and password: they are MQTT_USERNAME and MQTT_PASSWORD".to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, Some(rules::port(&Given { text: port, ..*given })?))
        }
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err("must name a host after ws:// or wss://".to_owned());
    }
    let host = bracketed(rules::host(&Given { text: host, ..*given })?);
    let path = match path {
        "" => "/mqtt".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    Ok(Websocket { secure: Some(secure), host, port, path })
}

/// MQTT 3.1.1 has no password without a user name (MQTT-3.1.2-22), MQTT 5 has.
fn credentials(reader: &mut Reader, version: Version) -> (Option<String>, Option<Secret>) {
    let username = reader.optional(&USERNAME, rules::text);
    let password = reader.optional(&PASSWORD, rules::secret);
    if password.is_some() && username.is_none() {
        match version {
            Version::V4 => reader.mistake(&PASSWORD, "needs MQTT_USERNAME beside it under MQTT 3.1.1"),
            Version::Auto => {
                let named = reader.named(&PASSWORD);
                reader
                    .warn(format!("{named} has no MQTT_USERNAME beside it, which MQTT 3.1.1 does not allow"));
            }
            Version::V5 => {}
        }
    }
    (username, password)
}

fn client_id(given: &Given<'_>) -> Ruled<String> {
    // Host name and suffix may still be appended, and MQTT counts 65535 bytes at most (MQTT-1.5.3).
    match given.text.len() <= 60_000 && !given.text.contains('\0') {
        true => Ok(given.text.to_owned()),
        false => Err("must be at most 60000 bytes without NUL".to_owned()),
    }
}

fn keep_alive(given: &Given<'_>) -> Ruled<Duration> {
    let rule = |_| "must be 0 (off) or whole seconds from 5 to 65535".to_owned();
    match rules::integer::<u64>(0..=65535)(given).map_err(rule)? {
        1..=4 => Err(rule(String::new())),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn base_topic(reader: &mut Reader) -> String {
    let topic = reader.value(&BASE_TOPIC, |given| {
        let trimmed = given.text.trim_end_matches('/');
        let reserved = ["$SYS", "$share"].iter().any(|reserved| trimmed.split('/').next() == Some(reserved));
        match trimmed {
            "" => Err("must hold more than slashes".to_owned()),
            _ if reserved => Err("must not be under $SYS or $share, which belong to the broker".to_owned()),
            topic => match check_base(topic) {
                Ok(()) => Ok((topic.to_owned(), topic.len() < given.text.len())),
                Err(error) => Err(error.to_string()),
            },
        }
    });
    let (topic, was_trimmed) = topic;
    if was_trimmed {
        let named = reader.named(&BASE_TOPIC);
        reader.warn(format!("{named} counts without the slash at its end"));
        reader.replace(BASE_TOPIC.name, topic.clone(), named);
    }
    topic
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
