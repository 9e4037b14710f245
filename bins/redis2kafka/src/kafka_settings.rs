//! How Kafka is reached and written to: the settings, and what librdkafka is told for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kafka_producer::{Client, MOST_IN_FLIGHT, Names, is_of_delivery, is_server, one_name};
use serde::Deserialize;
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Reader, RetrySettings, Setting};

/// How Kafka is reached, and what records are sent as.
#[derive(Clone, Debug)]
pub(crate) struct KafkaSettings {
    pub(crate) client: Client,
    pub(crate) retry: RetrySettings,
    pub(crate) timestamp: TimestampOf,
}

/// KAFKA_TIMESTAMP: what time a record bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimestampOf {
    /// The one in the entry's ID.
    Entry,
    /// The moment of sending.
    Sending,
}

static SERVERS: Setting = Setting::new(
    "KAFKA_BOOTSTRAP_SERVERS",
    "host:port of some brokers between commas: the others are learnt from them.",
)
.default("localhost:9092");
static PROTOCOL: Setting =
    Setting::new("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")
        .default("PLAINTEXT");
static MECHANISM: Setting =
    Setting::new("KAFKA_SASL_MECHANISM", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.").default("PLAIN");
static USERNAME: Setting = Setting::new("KAFKA_SASL_USERNAME", "User, with SASL_PLAINTEXT and SASL_SSL.");
static PASSWORD: Setting = Setting::new("KAFKA_SASL_PASSWORD", "Its password.").secret();
static SSL_CA: Setting = Setting::new(
    "KAFKA_SSL_CA",
    "PEM file of the authorities to trust instead of the system's; `cargo xtask truststore` makes one of a Java trust \
     store.",
);
static SSL_CERT: Setting =
    Setting::new("KAFKA_SSL_CERT", "PEM file of the client's certificate chain; together with the key.");
static SSL_KEY: Setting = Setting::new("KAFKA_SSL_KEY", "PEM file of the client's private key.");
static MAX_REQUEST_SIZE: Setting = Setting::new(
    "KAFKA_MAX_REQUEST_SIZE",
    "The longest record, bytes, 1000 to 1000000000. A longer one goes to the dead letters; brokers and topics have \
     limits of their own (message.max.bytes, max.message.bytes).",
)
.default("20971520");
static MAX_SENDS: Setting = Setting::new(
    "KAFKA_MAX_CONCURRENT_SENDS",
    "Requests under way to each broker; each holds many records. More than 5 are 5, the most with which Kafka keeps \
     order.",
)
.default("100");
static PARTITIONER: Setting = Setting::new(
    "KAFKA_PARTITIONER",
    "Which partition a key belongs to: murmur2_random (as Java's clients), consistent_random, fnv1a_random, murmur2, \
     consistent, fnv1a.",
)
.default("murmur2_random");
static TIMESTAMP: Setting = Setting::new(
    "KAFKA_TIMESTAMP",
    "Time that a record bears: entry (of the entry's ID) or now. Where the broker refuses the entry's time, the record \
     is sent again with the time of sending.",
)
.default("entry");
static COMPRESSION: Setting =
    Setting::new("KAFKA_COMPRESSION", "none, gzip, snappy, lz4 or zstd.").default("lz4");
static CONFIG: Setting = Setting::new(
    "KAFKA_CONFIG",
    "JSON object of further settings of librdkafka, such as {\"client.id\": \"plant-7\"}; not those that delivery \
     depends on (acks, enable.idempotence, timeouts, retries).",
)
.secret();
static MAX_RETRIES: Setting = Setting::new(
    "KAFKA_MAX_RETRIES",
    "Connection attempts at start, at least 1; at runtime there is no limit, and with the buffer none is needed at start.",
)
.default("5");
static BACKOFF_BASE: Setting =
    Setting::new("KAFKA_BACKOFF_BASE", "Seconds before the first retry; each further one waits longer.")
        .default("1.0");
static BACKOFF_MAX: Setting =
    Setting::new("KAFKA_BACKOFF_MAX", "Longest wait between retries, seconds.").default("30.0");

/// In the order in which people look for them.
pub(crate) static KAFKA_GROUP: [&Setting; 17] = [
    &SERVERS,
    &PROTOCOL,
    &MECHANISM,
    &USERNAME,
    &PASSWORD,
    &SSL_CA,
    &SSL_CERT,
    &SSL_KEY,
    &MAX_REQUEST_SIZE,
    &MAX_SENDS,
    &PARTITIONER,
    &TIMESTAMP,
    &COMPRESSION,
    &CONFIG,
    &MAX_RETRIES,
    &BACKOFF_BASE,
    &BACKOFF_MAX,
];

/// What KAFKA_CONFIG may not say, since a setting of its own does.
const SAID_ELSEWHERE: [(&str, &Setting); 17] = [
    ("bootstrap.servers", &SERVERS),
    ("metadata.broker.list", &SERVERS),
    ("security.protocol", &PROTOCOL),
    ("sasl.mechanism", &MECHANISM),
    ("sasl.mechanisms", &MECHANISM),
    ("sasl.username", &USERNAME),
    ("sasl.password", &PASSWORD),
    ("ssl.ca.location", &SSL_CA),
    ("ssl.certificate.location", &SSL_CERT),
    ("ssl.key.location", &SSL_KEY),
    ("message.max.bytes", &MAX_REQUEST_SIZE),
    ("max.in.flight", &MAX_SENDS),
    ("max.in.flight.requests.per.connection", &MAX_SENDS),
    ("partitioner", &PARTITIONER),
    ("compression.codec", &COMPRESSION),
    ("compression.type", &COMPRESSION),
    ("statistics.interval.ms", &CONFIG),
];

const NAMES: Names = Names {
    max_request_size: "KAFKA_MAX_REQUEST_SIZE",
    time: "the time in the entries' IDs",
    time_of_sending: "set KAFKA_TIMESTAMP=now",
};

impl KafkaSettings {
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let mut config = Config { reader, client: Client::new(NAMES) };
        let servers = config.reader.value(&SERVERS, servers);
        config.put(&SERVERS, "bootstrap.servers", &servers);
        config.read_security();
        let max_request_size: usize =
            config.reader.value(&MAX_REQUEST_SIZE, rules::integer(1000..=1_000_000_000));
        config.put(&MAX_REQUEST_SIZE, "message.max.bytes", &max_request_size.to_string());
        let sends: u32 = config.reader.value(&MAX_SENDS, rules::integer(1..=1_000_000));
        config.put(&MAX_SENDS, "max.in.flight", &sends.min(MOST_IN_FLIGHT).to_string());
        for (setting, key) in [(&PARTITIONER, "partitioner"), (&COMPRESSION, "compression.codec")] {
            let value = config.reader.value(setting, rules::text);
            config.put(setting, key, &value);
        }
        config.read_further();
        let client = config.client;
        Self {
            client,
            retry: RetrySettings::read(reader, &MAX_RETRIES, &BACKOFF_BASE, &BACKOFF_MAX),
            timestamp: reader.value(
                &TIMESTAMP,
                rules::one_of(&[("entry", TimestampOf::Entry), ("now", TimestampOf::Sending)]),
            ),
        }
    }
}

struct Config<'a> {
    reader: &'a mut Reader,
    client: Client,
}

impl Config<'_> {
    /// Has librdkafka look at the value.
    fn put(&mut self, setting: &Setting, key: &str, value: &str) {
        if let Err(words) = self.client.put(key, value) {
            self.reader.mistake(setting, format!("is refused by librdkafka ({key}): {words}"));
        }
    }

    fn read_security(&mut self) {
        let protocols = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].map(|name| (name, name));
        let protocol = self.reader.value(&PROTOCOL, rules::one_of(&protocols));
        self.put(&PROTOCOL, "security.protocol", protocol);
        let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|name| (name, name));
        let mechanism = self.reader.value(&MECHANISM, rules::one_of(&mechanisms));
        let username = self.reader.optional(&USERNAME, rules::text);
        let password = self.reader.optional(&PASSWORD, rules::secret);
        if protocol.starts_with("SASL_") {
            self.put(&MECHANISM, "sasl.mechanism", mechanism);
            match username {
                Some(username) => self.put(&USERNAME, "sasl.username", &username),
                None => self.reader.mistake(&USERNAME, format!("must be set with {protocol}")),
            }
            match password {
                Some(password) => self.put(&PASSWORD, "sasl.password", password.expose()),
                None => self.reader.mistake(&PASSWORD, format!("must be set with {protocol}")),
            }
        } else if username.is_some() {
            let (username, protocol_) = (self.reader.named(&USERNAME), self.reader.named(&PROTOCOL));
            self.reader.warn(format!("{username} has no effect: {protocol_} is {protocol}"));
        }
        let files = [&SSL_CA, &SSL_CERT, &SSL_KEY]
            .map(|setting| (setting, self.reader.optional(setting, rules::readable_file)));
        if protocol.ends_with("SSL") {
            let keys = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"];
            for ((setting, file), key) in files.iter().zip(keys) {
                if let Some(file) = file {
                    self.put(setting, key, &file.display().to_string());
                }
            }
            let [_, (_, cert), (_, key)] = &files;
            self.both(cert.as_ref(), key.as_ref());
        } else {
            for (setting, _) in files.iter().filter(|(_, file)| file.is_some()) {
                let (file, protocol_) = (self.reader.named(setting), self.reader.named(&PROTOCOL));
                self.reader.warn(format!("{file} has no effect: {protocol_} is {protocol}"));
            }
        }
    }

    fn both(&mut self, cert: Option<&PathBuf>, key: Option<&PathBuf>) {
        match (cert, key) {
            (Some(_), None) => self.reader.mistake(&SSL_KEY, "must be set together with KAFKA_SSL_CERT"),
            (None, Some(_)) => self.reader.mistake(&SSL_CERT, "must be set together with KAFKA_SSL_KEY"),
            _ => {}
        }
    }

    fn read_further(&mut self) {
        for (key, value) in self.reader.optional(&CONFIG, further).unwrap_or_default() {
            self.put(&CONFIG, &key, &value);
        }
    }
}

/// One or more `host:port`, or `host` alone.
fn servers(given: &Given<'_>) -> Ruled<String> {
    let servers = rules::list(given)?;
    if let Some(server) = servers.iter().find(|server| !is_server(server)) {
        return Err(format!("must be host:port of some brokers between commas, which {server} is not"));
    }
    Ok(servers.join(","))
}

/// Keys in order, values as librdkafka takes them.
fn further(given: &Given<'_>) -> Ruled<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Number(serde_json::Number),
        Switch(bool),
    }
    let written: BTreeMap<String, Value> = serde_json::from_str(given.text).map_err(|error| {
        // Where it is wrong, not what stands there: it may be a secret.
        let (line, column) = (error.line(), error.column());
        format!("must be a JSON object of texts, numbers, true and false (line {line}, column {column})")
    })?;
    for key in written.keys() {
        if is_of_delivery(key) {
            return Err(format!("must not set {key}: that nothing is lost and order is kept depends on it"));
        }
        if let Some((_, setting)) = SAID_ELSEWHERE.iter().find(|(said, _)| said == key) {
            return Err(format!("must not set {key}: {} does", setting.name));
        }
    }
    let text = |value| match value {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Switch(switch) => switch.to_string(),
    };
    Ok(written.into_iter().map(|(key, value)| (one_name(&key).to_owned(), text(value))).collect())
}
