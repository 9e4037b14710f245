//! Whole sets of settings: files, environment and command line together.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sync_core::settings::{Inputs, Loaded, Mistakes};
use tracing::Level;

use mqtt_client::Version;
use rumqttc::QoS;

use super::*;
use crate::attributes::Path as Attribute;
use crate::filter::Filter;
use crate::topic::{Mapping, Separator, Topics};
use crate::value::NonJson;

/// A directory with these files, and what is found there.
struct Place(tempfile::TempDir);

const LEAST: &str = "mqtt: {host: broker}\nkafka: {config: {bootstrap.servers: 'k:9092'}}\n";

impl Place {
    fn new(settings: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.file("settings.yaml", settings);
        place
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn inputs(&self, environment: &[(&str, &str)]) -> Inputs {
        Inputs::new(environment.iter().copied(), "").set(CONF, &self.0.path().display().to_string())
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded<Settings>, Mistakes> {
        Settings::load(&self.inputs(environment))
    }

    #[track_caller]
    fn settings(&self, environment: &[(&str, &str)]) -> Settings {
        self.load(environment).unwrap_or_else(|mistakes| panic!("{mistakes}")).settings
    }

    /// What is told, without the directory.
    #[track_caller]
    fn report(&self, environment: &[(&str, &str)]) -> String {
        let report = self.load(environment).map(|loaded| format!("{:?}", loaded.settings)).unwrap_err();
        report.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn filters(texts: &[&str]) -> Vec<Filter> {
    texts.iter().map(|text| Filter::new(text).unwrap()).collect()
}

fn ignored(filter: &str, paths: &[&str]) -> (Filter, Vec<Attribute>) {
    (Filter::new(filter).unwrap(), paths.iter().map(|path| Attribute::new(path).unwrap()).collect())
}

/// Kafka topic and key.
fn target(mapping: &Mapping, topic: &str) -> (String, String) {
    let mapped = Topics::new(mapping.clone()).target(topic).unwrap();
    (mapped.topic.to_string(), String::from_utf8(mapped.key.to_vec()).unwrap())
}

#[track_caller]
fn mistakes(settings: &str, expected: &[&str]) {
    let report = Place::new(settings).report(&[]);
    let mut lines: Vec<_> = report.lines().collect();
    lines.pop();
    assert_eq!(lines, expected, "{settings}");
}

fn warnings(settings: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let place = Place::new(settings);
    let directory = format!("{}/", place.0.path().display());
    let loaded = place.load(environment).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    loaded.warnings.iter().map(|warning| warning.replace(&directory, "")).collect()
}

#[test]
fn defaults() {
    let loaded = Place::new(LEAST).load(&[]).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let Settings { general, mqtt, kafka } = loaded.settings;
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.qos), ("broker", 1883, QoS::AtLeastOnce));
    assert_eq!(mqtt.topics, filters(&["spBv1.0/#"]));
    assert_eq!((mqtt.version, mqtt.websocket_path), (Version::Five, None));
    assert_eq!((mqtt.client_id.as_str(), mqtt.clean_session), ("mqtt2kafka", false));
    assert_eq!(mqtt.session_expiry, Duration::from_secs(7 * 86400));
    assert_eq!((mqtt.keep_alive, mqtt.reconnect_on_failure), (Duration::from_secs(60), true));
    assert!(mqtt.tls.is_none() && mqtt.credentials.is_none() && mqtt.ignored_attributes.is_empty());
    assert_eq!(mqtt.timestamp_attribute, Attribute::new("timestamp").unwrap());
    assert_eq!((mqtt.retry.max_retries, mqtt.retry.base.as_secs(), mqtt.retry.cap.as_secs()), (5, 5, 30));
    assert_eq!(target(&kafka.mapping, "a/b"), ("a_b".to_owned(), "a/b".to_owned()));
    assert_eq!((kafka.client.servers(), kafka.client.max_request_size()), ("k:9092", 1_000_000));
    assert_eq!((kafka.dead_letter_topic.as_str(), kafka.non_json), ("mqtt2kafka.dead-letter", NonJson::Raw));
    assert_eq!((kafka.retry.max_retries, kafka.retry.base.as_secs()), (u32::MAX, 1));
    assert_eq!(general.admin_addr, Some("127.0.0.1:9468".parse().unwrap()));
    assert_eq!((general.log.level, general.shutdown_timeout.as_secs()), (Level::INFO, 8));
}

#[test]
fn the_examples_work_as_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    for example in ["compose/mqtt2kafka/settings.yaml.example", "deploy/examples/mqtt2kafka/settings.yaml"] {
        let place = Place::new(&read(example));
        assert_eq!(place.load(&[]).unwrap().warnings, [""; 0], "{example}");
        place.file(".secrets.yaml", &read("deploy/examples/mqtt2kafka/secrets.yaml"));
        let loaded = place.load(&[]).unwrap();
        assert_eq!(loaded.warnings, [""; 0], "{example}");
        assert!(loaded.settings.mqtt.tls.is_none());
    }
}

#[test]
fn all_that_can_be_set() {
    let place = Place::new(
        "MQTT:
  Host: '[::1]'
  port: 1884
  topics:
    - $share/g/a/+/#
    - b
  qos: 2
  keep_alive: 30
  reconnect_on_failure: no
  version: 4
  transport: WebSockets
  websocket_path: /ws
  client_id: c-1
  session_expiry: 60
  clean_session: False
  ignored_attributes: {a/+: timestamp, '#': [x, y.z]}
  timestamp_attribute: ts
  max_retries: 2
  backoff_base: 0.5
  backoff_max: 1
kafka:
  config: {bootstrap.servers: 'k:1', enable.idempotence: True, linger.ms: 10, ssl.key.pem: '',}
  topic: plant-{topic}
  separator: .
  rules:
    - {filter: a/#, topic: all-a}
    - {regex: '^b/(.*)$', topic: 'b-{1}', key: 'b of {topic}'}
    - {filter: c/+, key: '{1}'}
  dead_letter_topic: dl
  non_json: dead-letter
  backoff_base: 40
log: {level: debug, format: json}
admin: {addr: ''}
shutdown_timeout: 2.5
dynaconf_merge: true
",
    );
    place.file(
        ".secrets.yaml",
        "mqtt: {username: u, password: 012, tls: }\nkafka: {config: {sasl.password: p}}\n",
    );
    let loaded = place.load(&[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(loaded.warnings, [""; 0]);
    let Settings { general, mqtt, kafka } = loaded.settings;
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.qos), ("::1", 1884, QoS::ExactlyOnce));
    assert_eq!(mqtt.topics, filters(&["$share/g/a/+/#", "b"]));
    assert_eq!((mqtt.keep_alive.as_secs(), mqtt.reconnect_on_failure), (30, false));
    assert_eq!((mqtt.version, mqtt.websocket_path.as_deref()), (Version::Four, Some("/ws")));
    let (username, password) = mqtt.credentials.unwrap();
    assert_eq!((username.as_str(), password.expose()), ("u", "012"));
    assert_eq!(mqtt.ignored_attributes, [ignored("a/+", &["timestamp"]), ignored("#", &["x", "y.z"])]);
    assert_eq!(mqtt.timestamp_attribute, Attribute::new("ts").unwrap());
    assert_eq!((mqtt.retry.base.as_millis(), mqtt.retry.cap.as_secs()), (500, 1));
    let config = |key| kafka.client.get(key);
    assert_eq!((config("bootstrap.servers"), config("linger.ms")), (Some("k:1"), Some("10")));
    assert_eq!((config("sasl.password"), config("ssl.key.pem")), (Some("p"), None));
    let target = |topic| target(&kafka.mapping, topic);
    assert_eq!(target("a/x"), ("all-a".into(), "a/x".into()));
    assert_eq!(target("b/x/y"), ("b-x.y".into(), "b of b/x/y".into()));
    assert_eq!(target("c/x"), ("plant-c.x".into(), "x".into()));
    assert_eq!(target("d/x"), ("plant-d.x".into(), "d/x".into()));
    assert_eq!(kafka.mapping.separator, Separator::new(".").unwrap());
    assert_eq!(kafka.dead_letter_topic, "dl");
    assert_eq!((kafka.non_json, kafka.retry.cap.as_secs()), (NonJson::DeadLetter, 40));
    assert_eq!((general.admin_addr, general.log.level), (None, Level::DEBUG));
    assert_eq!(general.shutdown_timeout, Duration::from_millis(2500));
    let shown = |name: &str| {
        let row = loaded.effective.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}"));
        (row.value.clone(), row.origin.rsplit('/').next().unwrap().to_owned())
    };
    assert_eq!(shown("mqtt.password"), ("***".into(), ".secrets.yaml line 1".into()));
    assert_eq!(shown("kafka.config.sasl.password"), ("***".into(), ".secrets.yaml line 2".into()));
    assert_eq!(shown("kafka.config.linger.ms"), ("10".into(), "settings.yaml line 22".into()));
    assert_eq!(shown("mqtt.ignored_attributes.#").0, r#"["x", "y.z"]"#);
    assert_eq!(shown("mqtt.topics"), (r#"["$share/g/a/+/#", "b"]"#.into(), "settings.yaml line 4".into()));
    assert_eq!(shown("log.level").0, "debug");
    assert_eq!(shown("mqtt.max_retries").0, "2");
}

#[test]
fn every_mistake_at_once_with_its_place() {
    mistakes(
        "mqtt:
  port: 99999
  topics: ['a/#/b', 'ok', [x]]
  qos: 3
  version: 3
  password: hunter2
  ignored_attributes:
    'a#': x
    b: [a..b]
  tls:
    ca_certs: /nonexistent
    ciphers: [HIGH]
    cert_reqs: no
  host: {a: b}
kafka:
  config:
    client.id: c
    sasl.mechanisms: [PLAIN]
    acks: 1
    linger.ms: soon
    ssl.key.pem_: hunter2
    ssl.key.password: hunter2
    security.protocol: s
    compression.codec: lz4
    compression.type: gzip
  separator: /
  rules:
    - {filter: 'a', regex: b, topic: t}
    - {filter: 'a'}
    - {filter: '+a', topic: '{', more: 1}
    - {filter: 'a/+', topic: 'a b', key: '{2}'}
    - {regex: 'a(', topic: '{1}'}
    - {regex: [x]}
  topic: '{1}'
  dead_letter_topic: ..
  port: 1
admin: 9468
",
        &[
            "mqtt.host (file settings.yaml line 14): must be a single value, neither list nor map",
            "admin (file settings.yaml line 37): must be a map of settings, such as admin.addr",
            "mqtt.tls.ca_certs=/nonexistent (file settings.yaml line 11) must be a readable file: No such file or directory (os error 2)",
            "mqtt.tls.ciphers=HIGH (file settings.yaml line 12) must be cipher suites between colons, which \"HIGH\" is not; there are TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-CHACHA20-POLY1305",
            "mqtt.tls.cert_reqs=no (file settings.yaml line 13) must be true or left out: certificates are verified unless mqtt.tls.insecure_cert is true",
            "mqtt.topics[0]=a/#/b (file settings.yaml line 3) must end with its #, which stands for all levels below",
            "mqtt.topics[2] (file settings.yaml line 3): must be a topic filter",
            "mqtt.ignored_attributes.a# (file settings.yaml line 8): must have a topic filter for its key, which must hold # as a level of its own only, not as in \"a#\"",
            "mqtt.ignored_attributes.b[0]=a..b (file settings.yaml line 9) must be names with dots between them, such as \"A.B.C\", not \"a..b\"",
            "mqtt.port=99999 (file settings.yaml line 2) must be a whole number from 1 to 65535",
            "mqtt.qos=3 (file settings.yaml line 4) must be a whole number from 0 to 2",
            "mqtt.password=*** (file settings.yaml line 6) needs mqtt.username beside it",
            "mqtt.version=3 (file settings.yaml line 5) must be 5 or 4: MQTT 3.1 is not spoken here; brokers that know it know 4 (3.1.1) too",
            "kafka.config.sasl.mechanisms (file settings.yaml line 18): must be a text, a number, true or false",
            "kafka.config.acks=1 (file settings.yaml line 19) must be all, or not set: that nothing is lost and order is kept depends on it",
            "kafka.config.linger.ms=soon (file settings.yaml line 20) is refused by librdkafka: Invalid value for configuration property \"queue.buffering.max.ms\"",
            "kafka.config.ssl.key.pem_=*** (file settings.yaml line 21) is refused by librdkafka: No such configuration property: \"ssl.key.pem_\"",
            "kafka.config.security.protocol=s (file settings.yaml line 23) is refused by librdkafka: Invalid value \"s\" for configuration property \"security.protocol\"",
            "kafka.config.compression.type=gzip (file settings.yaml line 25) is another name of compression.codec, which is set too",
            "kafka.rules[0] (file settings.yaml line 28): must have either filter or regex",
            "kafka.rules[1] (file settings.yaml line 29): must have topic, key or both",
            "kafka.rules[2].more (file settings.yaml line 30): is no part of a rule: it has filter or regex, topic and key",
            "kafka.rules[2].filter=+a (file settings.yaml line 30) must hold + as a level of its own only, not as in \"+a\"",
            "kafka.rules[3].topic=a b (file settings.yaml line 31) must hold letters, digits, '.', '_', '-' and placeholders only, not ' '",
            "kafka.rules[3].key={2} (file settings.yaml line 31) must hold the placeholders {topic} and those of the 1 wildcards or groups only, not {2}",
            "kafka.rules[4].regex=a( (file settings.yaml line 32) must be a regular expression: unclosed group",
            "kafka.rules[5].regex (file settings.yaml line 33): must be a text",
            "kafka.rules[5] (file settings.yaml line 33): must have topic, key or both",
            "kafka.topic={1} (file settings.yaml line 34) must hold the placeholders {topic} only, not {1}",
            "kafka.separator=/ (file settings.yaml line 26) must be 1 to 8 letters, digits, '.', '_' and '-', not \"/\"",
            "kafka.dead_letter_topic=.. (file settings.yaml line 35) must be the name of a topic: 1 to 249 letters, digits, '.', '_' and '-', and neither . nor ..",
        ],
    );
}

#[test]
fn what_must_be_there() {
    mistakes(
        "mqtt: {host: }\n",
        &["mqtt.host= (not set) must be set", "kafka.config= (not set) must be set"],
    );
    mistakes(
        "mqtt: {host: h}\nkafka:\n  config: {client.id: c}\n",
        &[
            "kafka.config.bootstrap.servers (file settings.yaml line 3): must be set, or metadata.broker.list: host:port of some brokers between commas",
        ],
    );
    // What each value is good for by itself shows only together.
    mistakes(
        "mqtt: {host: h..x, tls: {}, username: u, password: p}
kafka:
  config: {bootstrap.servers: 'k:1', security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN}
",
        &[
            "mqtt.host=h..x (file settings.yaml line 1) must be a name that a certificate can be for, or an address, with mqtt.tls",
            "kafka.config (file settings.yaml line 3): is refused by librdkafka: sasl.username and sasl.password must be set",
        ],
    );
    // What a broken file may still say is not missed.
    mistakes(
        "mqtt:\n  qos: 7\n  port: 1\n\thost: h\n",
        &[
            "mqtt.port (file settings.yaml line 3): is no YAML: while scanning a plain scalar, found a tab",
            "mqtt.qos=7 (file settings.yaml line 2) must be a whole number from 0 to 2",
        ],
    );
    let place = Place(tempfile::tempdir().unwrap());
    assert!(place.report(&[]).starts_with("file settings.yaml: must be a readable file: No such file"));
    // Everything in the environment; nobody named a directory.
    let environment = [("UNS_mqtt__host", "h"), ("UNS_kafka__config__bootstrap.servers", "k:1")];
    assert!(Settings::load(&Inputs::new(environment, "")).is_ok());
}

#[test]
fn the_environment_goes_before_files_and_the_command_line_before_it() {
    let place = Place::new(&format!("{LEAST}log: {{level: ERROR}}\n"));
    let settings = place.settings(&[
        ("UNS_mqtt__host", "'other'"),
        ("UNS_MQTT__PORT", "1884"),
        ("UNS_mqtt__topics", r#"["a", "b/#"]"#),
        ("UNS_mqtt__username", "u"),
        ("UNS_mqtt__password", "[x] @json \"#"),
        ("UNS_mqtt__version", "@int 4"),
        ("UNS_mqtt__ignored_attributes", r#"@json {"A/+": ["x"]}"#),
        ("UNS_mqtt__ignored_attributes__B", r#"["y"]"#),
        ("UNS_KAFKA__CONFIG__CLIENT.ID", "c"),
        ("UNS_kafka__config", r#"@json {"linger.ms": 5}"#),
        ("UNS_mqtt__tls__ca_certs", ""),
        ("UNS_dynaconf_merge", "true"),
        ("LOG_LEVEL", "WARNING"),
        ("ADMIN_ADDR", ""),
        ("MQTT_BROKER_HOST", "of another bridge"),
        ("HOME", "/"),
    ]);
    let Settings { general, mqtt, kafka } = settings;
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.version), ("other", 1884, Version::Four));
    assert_eq!(mqtt.topics, filters(&["a", "b/#"]));
    assert_eq!(mqtt.credentials.unwrap().1.expose(), "[x] @json \"#");
    assert_eq!(mqtt.ignored_attributes, [ignored("A/+", &["x"]), ignored("B", &["y"])]);
    let config = |key| kafka.client.get(key);
    assert_eq!((config("bootstrap.servers"), config("linger.ms")), (Some("k:9092"), Some("5")));
    // Names of librdkafka's are all in lower case; what is written otherwise in the environment is what was meant.
    assert_eq!(config("client.id"), Some("c"));
    assert!(mqtt.tls.is_none());
    assert_eq!((general.admin_addr, general.log.level), (None, Level::WARN));

    let inputs = place
        .inputs(&[("UNS_mqtt__host", "other"), ("LOG_LEVEL", "INFO")])
        .set("mqtt.host", "mine")
        .set("kafka.config.client.id", "c")
        .set("LOG_LEVEL", "TRACE");
    let Settings { general, mqtt, kafka } = Settings::load(&inputs).unwrap().settings;
    assert_eq!((mqtt.host.as_str(), general.log.level), ("mine", Level::TRACE));
    assert_eq!(kafka.client.get("client.id"), Some("c"));
}

#[test]
fn what_is_wrong_in_the_environment() {
    let place = Place::new(LEAST);
    let report = place.report(&[
        ("UNS_mqtt__port", "x"),
        ("UNS_mqtt__qos", "@jinja {{ 1 }}"),
        ("UNS_mqtt__tls", "@json {\"ca_certs\": "),
        ("UNS_mqtt__host__x", "y"),
        ("UNS_kafka__config__sasl.password", "@json [\"hunter2\"]"),
    ]);
    for part in [
        "UNS_mqtt__port=x (environment) must be a whole number",
        "UNS_mqtt__qos (environment): begins with @jinja",
        "UNS_mqtt__tls (environment): must be JSON: is no YAML",
        "UNS_mqtt__host__x (environment): must be a single value",
        "UNS_kafka__config__sasl.password (environment): must be a text",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn slips_are_named() {
    assert_eq!(
        warnings(
            &format!("{LEAST}mqt: {{x: 1}}\nkafa: 1\n"),
            &[("UNS_mqtt__hsot", "h"), ("UNS_MQTT_PORT", "tcp://10.0.0.1:1"), ("UNS_mqtt__tls_", "")]
        ),
        [
            "UNS_mqtt__hsot (environment) is no setting of mqtt2kafka; the nearest is mqtt.host",
            "mqt (file settings.yaml line 3) is no setting of mqtt2kafka; the nearest is mqtt",
            "kafa (file settings.yaml line 4) is no setting of mqtt2kafka; the nearest is kafka",
        ]
    );
    assert_eq!(
        warnings(
            "mqtt: {host: h, clean_session: true, qos: 0, websocket_path: /x, topics: [a, a]}\nkafka: {config: {metadata.broker.list: 'k:1'}}\n",
            &[("LOG_LEVEL", "INFO"), ("UNS_log__level", "DEBUG")]
        ),
        [
            "UNS_log__level (environment) is passed over: LOG_LEVEL (environment) is the same setting and counts",
            "mqtt.topics[1] (file settings.yaml line 1) stands there twice",
            "mqtt.qos (file settings.yaml line 1) is 0: nothing is sent again, so messages may be lost",
            "mqtt.clean_session (file settings.yaml line 1) is true: what is published while the bridge is away is lost",
            "mqtt.websocket_path (file settings.yaml line 1) has no effect without mqtt.transport=websockets",
        ]
    );
}

#[test]
fn secrets_from_files() {
    let place = Place::new(LEAST);
    let path = place.file("password", "p w\n");
    place.file(".secrets.yaml", &format!("mqtt: {{username: u, password_file: {path}}}\nkafka: {{config: {{sasl.password_file: {path}}}}}\n"));
    let loaded = place.load(&[]).unwrap();
    assert_eq!(loaded.settings.mqtt.credentials.as_ref().unwrap().1.expose(), "p w");
    assert_eq!(loaded.settings.kafka.client.get("sasl.password"), Some("p w"));
    let row = loaded.effective.iter().find(|row| row.name == "mqtt.password").unwrap();
    assert_eq!(row.value, "***");
    assert!(row.origin.starts_with(&format!("file {path}, named in file ")), "{}", row.origin);
    assert!(!format!("{loaded:?}").contains("p w"));
    // Another layer goes before it.
    assert_eq!(place.settings(&[("UNS_mqtt__password", "x")]).mqtt.credentials.unwrap().1.expose(), "x");
    let report = place.report(&[("UNS_mqtt__password", "hunter2"), ("UNS_mqtt__password_file", &path)]);
    assert!(
        report.contains("must not be set beside UNS_mqtt__password (environment): which of them counts?")
            && !report.contains("hunter2"),
        "{report}"
    );
    let report = place.report(&[("UNS_mqtt__password_file", "/nonexistent")]);
    assert!(
        report.contains("UNS_mqtt__password_file=/nonexistent (environment) must be the path"),
        "{report}"
    );
}

#[test]
fn tls() {
    let yaml = "mqtt: {host: h, tls: {insecure_cert: true}}\nkafka: {config: {bootstrap.servers: 'k:1'}}\n";
    let place = Place::new(yaml);
    let loaded = place.load(&[]).unwrap();
    assert_eq!((loaded.settings.mqtt.tls.is_some(), loaded.settings.mqtt.port), (true, 8883));
    assert!(
        loaded.warnings[0].ends_with("the server's certificate is not verified"),
        "{:?}",
        loaded.warnings
    );
    let settings = place.settings(&[
        ("UNS_mqtt__port", "1"),
        ("UNS_mqtt__tls__ciphers", "ECDHE-RSA-AES256-GCM-SHA384:TLS_AES_128_GCM_SHA256"),
    ]);
    assert_eq!(settings.mqtt.port, 1);
    assert_eq!(settings.mqtt.tls.unwrap().crypto_provider().cipher_suites.len(), 2);
    let report = place.report(&[("UNS_mqtt__tls__cert_reqs", "True")]);
    assert!(report.contains("contradicts mqtt.tls.insecure_cert"), "{report}");
    let file = place.file("empty.pem", "");
    let report =
        place.report(&[("UNS_mqtt__tls__certfile", &file), ("UNS_mqtt__tls__keyfile_password", "x")]);
    assert!(
        report.contains("UNS_mqtt__tls__certfile=") && report.contains("needs mqtt.tls.keyfile beside it"),
        "{report}"
    );
    let report = Place::new(&yaml.replace("insecure_cert: true", &format!("ca_certs: {file}"))).report(&[]);
    assert!(report.contains("mqtt.tls (file settings.yaml line 1): TLS: certificate file"), "{report}");
    mistakes(
        "mqtt: {host: h, tls: true}\nkafka: {config: {bootstrap.servers: 'k:1'}}\n",
        &["mqtt.tls (file settings.yaml line 1): must be a map of settings, such as mqtt.tls.ca_certs"],
    );
}

#[test]
fn help_names_every_setting() {
    let help = help();
    for setting in table::BRIDGE.settings() {
        assert!(help.contains(&format!("\n  {}", table::path_of(setting))), "{}", setting.name);
    }
    assert!(help.contains("\n  mqtt.password[_file]\n") && help.contains("\n  mqtt.port [default: 1883]\n"));
    assert!(help.contains("\n  admin.addr [default: 127.0.0.1:9468] (in the environment also ADMIN_ADDR)\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_is_read(settings in "(mqtt:|kafka:|  config:|  topics:|  tls:|\n| |[a-z]{1,3}: |[\\[\\]{},'\"#]){0,40}", value in any::<String>()) {
        prop_assume!(!value.contains('\0'));
        let place = Place::new(&settings);
        for key in ["UNS_mqtt__tls", "UNS_kafka__rules", "UNS_mqtt__topics", "UNS___", "UNS_kafka__config__a"] {
            let _ = place.load(&[(key, &value), ("UNS_mqtt__port", &value)]);
        }
    }
}
