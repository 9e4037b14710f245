//! The settings of mqtt2kafka: their paths, defaults and meanings, each declared once. Nothing here holds a value.

use sync_core::settings::shared::{ADMIN_ADDR, LOG_DIR, LOG_FORMAT, LOG_LEVEL, SHUTDOWN_TIMEOUT};
use sync_core::settings::{Bridge, Group, Setting, Show, wrap};

macro_rules! settings {
    ($($name:ident: $path:literal = $help:literal $(.$method:ident($($argument:expr),*))*;)*) => {
        $(pub(super) static $name: Setting = Setting::new($path, $help)$(.$method($($argument),*))*;)*
    };
}

settings! {
    HOST: "mqtt.host" = "Host name or address of the broker; must be set.".show(Show::Host);
    PORT: "mqtt.port" = "1 to 65535; 8883 with mqtt.tls.".default("1883");
    USERNAME: "mqtt.username" = "User at the broker; together with the password.";
    PASSWORD: "mqtt.password" = "Password at the broker.".secret();
    TOPICS: "mqtt.topics" = "List of topic filters, or one: with + and #, also $share/group/filter."
        .default(r#"["spBv1.0/#"]"#);
    QOS: "mqtt.qos" = "Of the subscriptions: 0, 1 or 2. With 0 a message that is on its way is lost with its connection."
        .default("1");
    KEEP_ALIVE: "mqtt.keep_alive" = "Seconds, 1 to 65535.".default("60");
    RECONNECT: "mqtt.reconnect_on_failure" = "false: a lost connection ends the process.".default("true");
    VERSION: "mqtt.version" = "5, or 4 (which is 3.1.1).".default("5");
    TRANSPORT: "mqtt.transport" = "tcp or websockets.".default("tcp");
    WEBSOCKET_PATH: "mqtt.websocket_path" = "Path of the URL, with websockets.".default("/mqtt");
    CLIENT_ID: "mqtt.client_id" = "Names the session at the broker, which keeps what is published while the bridge is \
        away: the same after every start, and of each replica another." .default("mqtt2kafka");
    SESSION_EXPIRY: "mqtt.session_expiry" = "Seconds that the broker is to keep the session of a bridge that is away, \
        1 to 4294967295 (for ever); with MQTT 5." .default("604800");
    CLEAN_SESSION: "mqtt.clean_session" = "true: begin without what was published while the bridge was away."
        .default("false");
    CA_CERTS: "mqtt.tls.ca_certs" = "PEM file of the authorities to trust instead of the system's.";
    CERTFILE: "mqtt.tls.certfile" = "PEM file of the client's certificate chain; together with the key.";
    KEYFILE: "mqtt.tls.keyfile" = "PEM file of the client's private key.";
    KEYFILE_PASSWORD: "mqtt.tls.keyfile_password" = "Of the private key, if it is encrypted (PKCS#8).".secret();
    CIPHERS: "mqtt.tls.ciphers" = "Cipher suites by their OpenSSL or IANA names, between colons or as a list; no \
        others are offered, of TLS 1.3 neither.";
    CERT_REQS: "mqtt.tls.cert_reqs" = "true. Certificates are verified unless insecure_cert is true.";
    INSECURE_CERT: "mqtt.tls.insecure_cert" = "true accepts any certificate of the broker.".default("false");
    IGNORED_ATTRIBUTES: "mqtt.ignored_attributes" = "Map of topic filter to attribute, or list of attributes, that are \
        left out of JSON payloads; a.b is b in a.";
    TIMESTAMP_ATTRIBUTE: "mqtt.timestamp_attribute" = "Attribute of JSON payloads with the time that the Kafka record \
        bears: milliseconds or seconds since 1970, or RFC 3339." .default("timestamp");
    MQTT_MAX_RETRIES: "mqtt.max_retries" = "Connection attempts at start, at least 1; at runtime there is no limit."
        .default("5");
    MQTT_BACKOFF_BASE: "mqtt.backoff_base" = "Seconds before the first retry; each further one waits longer."
        .default("5");
    MQTT_BACKOFF_MAX: "mqtt.backoff_max" = "Longest wait between retries, seconds.".default("30.0");

    CONFIG: "kafka.config" = "Map of librdkafka's settings; must hold bootstrap.servers (or metadata.broker.list). A \
        secret one, such as sasl.password, may be read from the file that sasl.password_file names.";
    TOPIC: "kafka.topic" = "Template of the Kafka topic: {topic} is the MQTT topic with the separator for each /."
        .default("{topic}");
    SEPARATOR: "kafka.separator" = "Stands for / in names of Kafka topics.".default("_");
    RULES: "kafka.rules" = "List of maps, the first that matches counts: filter (MQTT topic filter) or regex (of the \
        whole MQTT topic), and templates for topic and key.";
    DEAD_LETTER_TOPIC: "kafka.dead_letter_topic" = "Where messages go that Kafka refuses for good."
        .default("mqtt2kafka.dead-letter");
    NON_JSON: "kafka.non_json" = "Payloads that are not JSON: raw (passed on as they are) or dead-letter.".default("raw");
    KAFKA_BACKOFF_BASE: "kafka.backoff_base" = "Seconds before the first retry; each further one waits longer."
        .default("1.0");
    KAFKA_BACKOFF_MAX: "kafka.backoff_max" = "Longest wait between retries, seconds.".default("30.0");
}

/// The settings that every bridge has, and where they stand in this one's file.
pub(super) const GENERAL: [(&str, &Setting); 5] = [
    ("log.level", &LOG_LEVEL),
    ("log.format", &LOG_FORMAT),
    ("log.dir", &LOG_DIR),
    ("admin.addr", &ADMIN_ADDR),
    ("shutdown_timeout", &SHUTDOWN_TIMEOUT),
];

/// What is more than a text.
pub(super) const STRUCTURED: [&Setting; 4] = [&TOPICS, &IGNORED_ATTRIBUTES, &CONFIG, &RULES];

pub(super) static BRIDGE: Bridge = Bridge {
    name: "mqtt2kafka",
    groups: &[
        Group {
            title: "MQTT",
            settings: &[
                &HOST,
                &PORT,
                &USERNAME,
                &PASSWORD,
                &TOPICS,
                &QOS,
                &KEEP_ALIVE,
                &RECONNECT,
                &VERSION,
                &TRANSPORT,
                &WEBSOCKET_PATH,
                &CLIENT_ID,
                &SESSION_EXPIRY,
                &CLEAN_SESSION,
                &IGNORED_ATTRIBUTES,
                &TIMESTAMP_ATTRIBUTE,
                &MQTT_MAX_RETRIES,
                &MQTT_BACKOFF_BASE,
                &MQTT_BACKOFF_MAX,
            ],
        },
        Group {
            title: "TLS to the broker: on where mqtt.tls is a map, be it an empty one",
            settings: &[
                &CA_CERTS,
                &CERTFILE,
                &KEYFILE,
                &KEYFILE_PASSWORD,
                &CIPHERS,
                &CERT_REQS,
                &INSECURE_CERT,
            ],
        },
        Group {
            title: "Kafka",
            settings: &[
                &CONFIG,
                &TOPIC,
                &SEPARATOR,
                &RULES,
                &DEAD_LETTER_TOPIC,
                &NON_JSON,
                &KAFKA_BACKOFF_BASE,
                &KAFKA_BACKOFF_MAX,
            ],
        },
        Group {
            title: "Everywhere",
            settings: &[&LOG_LEVEL, &LOG_FORMAT, &LOG_DIR, &ADMIN_ADDR, &SHUTDOWN_TIMEOUT],
        },
    ],
    defaults: &[("ADMIN_ADDR", "127.0.0.1:9468")],
    spellings: &[],
};

/// Where a setting stands in the file.
pub(super) fn path_of(setting: &Setting) -> &'static str {
    let general = GENERAL.iter().find(|(_, general)| general.name == setting.name);
    general.map_or(setting.name, |(path, _)| path)
}

/// The setting at a path.
pub(super) fn setting_at(path: &str) -> Option<&'static Setting> {
    BRIDGE.settings().find(|setting| path_of(setting) == path)
}

/// Whether settings stand below a path.
pub(super) fn is_section(path: &str) -> bool {
    BRIDGE.settings().any(|setting| {
        path_of(setting).strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.starts_with('.'))
    })
}

pub(super) fn is_structured(setting: &Setting) -> bool {
    STRUCTURED.iter().any(|structured| structured.name == setting.name)
}

/// What of librdkafka's settings nobody is to see.
pub(super) fn is_secret_option(key: &str) -> bool {
    const PARTS: [&str; 8] =
        ["password", "passphrase", "secret", "jaas", "token", "oauthbearer.config", "key.pem", "ssl_key"];
    PARTS.iter().any(|part| key.contains(part)) && !key.ends_with(".url")
}

/// The settings part of `--help`.
pub(crate) fn help() -> String {
    let mut text = "Settings of mqtt2kafka. They stand in settings.yaml in the directory that --conf names (./conf), and, over\n\
         it, in .secrets.yaml beside it. Before both goes the environment, as UNS_mqtt__host for mqtt.host (maps\n\
         and lists as JSON: UNS_mqtt__tls='@json {\"ca_certs\": \"/ca.pem\"}'), before that the command line, as\n\
         --set mqtt.host=broker. Maps go into one another, anything else is replaced, and an empty value is as\n\
         good as none. A setting marked _file is a secret and may be read from the file that <name>_file names.\n"
        .to_owned();
    for group in BRIDGE.groups {
        text += &format!("\n{}:\n", group.title);
        for setting in group.settings {
            text += &format!("  {}{}", path_of(setting), if setting.is_secret() { "[_file]" } else { "" });
            if let Some(default) = BRIDGE.default_of(setting) {
                text += &format!(" [default: {default}]");
            }
            if path_of(setting) != setting.name {
                text += &format!(" (in the environment also {})", setting.name);
            }
            text.push('\n');
            for line in wrap(setting.help, 92) {
                text += &format!("      {line}\n");
            }
        }
    }
    text
}
