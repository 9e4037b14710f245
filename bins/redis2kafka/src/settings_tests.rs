//! The settings of redis2kafka as they load.

use std::time::Duration;

use super::*;
use crate::kafka_settings::TimestampOf;

fn load_env(environment: &[(&str, &str)]) -> Result<Loaded<Settings>, Mistakes> {
    Settings::load(&Inputs::new(environment.iter().copied(), "/absent/env.conf"))
}

#[test]
fn the_descriptions_file_says_the_defaults() {
    let sample =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/sync-core/tests/env-samples/redis2kafka.env.conf");
    let no_environment: [(&str, &str); 0] = [];
    let loaded = Settings::load(&Inputs::new(no_environment, sample)).expect("loads");
    // So it says: with STREAM_AUTO_DISCOVERY=false, only what is sent by hand goes through it.
    assert!(
        matches!(&loaded.warnings[..], [one] if one.starts_with("no stream is read")),
        "{:?}",
        loaded.warnings
    );
    let mut settings = loaded.settings;
    assert_eq!(settings.kafka.client.servers(), "remote-kafka:9092");
    let buffer = settings.buffer.take().expect("TARGET_REDIS_HOST is set");
    assert_eq!(buffer.redis.host, "redis-cache");
    assert_eq!(buffer.time_to_live, Duration::from_secs(3600));
    assert_eq!(buffer.sync_ttl, Duration::from_secs(604_800));
    assert_eq!(settings.topics.all(), ["device-data-topic", "default-stream-topic", "default-sync-topic"]);
    let defaults = load_env(&[
        ("KAFKA_BOOTSTRAP_SERVERS", "remote-kafka:9092"),
        (
            "STREAM_TARGET_TOPIC_MAP",
            r#"{"device:*:stream":"device-data-topic","*-stream":"default-stream-topic"}"#,
        ),
    ]);
    assert_eq!(format!("{settings:?}"), format!("{:?}", defaults.expect("loads").settings));
}

#[test]
fn defaults() {
    let Loaded { settings, warnings, .. } = load_env(&[]).expect("loads");
    assert!(matches!(&warnings[..], [one] if one.starts_with("no stream is read")), "{warnings:?}");
    let Settings { streams, general, kafka, buffer, topics, .. } = settings;
    assert_eq!(streams.group, "redis-kafka-sync");
    assert!(streams.consumer.starts_with("redis-kafka-consumer-"));
    assert!(streams.discovery.is_none());
    assert_eq!((kafka.timestamp, kafka.client.max_request_size()), (TimestampOf::Entry, 20_971_520));
    assert_eq!(general.admin_addr.map(|address| address.port()), Some(9465));
    assert!(buffer.is_none());
    assert_eq!(topics.all(), ["default-sync-topic"]);
}

fn librdkafka(environment: &[(&str, &str)], key: &str) -> Option<String> {
    let settings = load_env(environment).expect("loads").settings;
    settings.kafka.client.get(key).map(str::to_owned)
}

#[test]
fn what_librdkafka_is_told() {
    assert_eq!(librdkafka(&[], "bootstrap.servers").as_deref(), Some("localhost:9092"));
    assert_eq!(librdkafka(&[], "max.in.flight").as_deref(), Some("5"));
    assert_eq!(librdkafka(&[("KAFKA_MAX_CONCURRENT_SENDS", "2")], "max.in.flight").as_deref(), Some("2"));
    assert_eq!(librdkafka(&[], "partitioner").as_deref(), Some("murmur2_random"));
    let config = [("KAFKA_CONFIG", r#"{"client.id": "plant-7", "linger.ms": 20, "log.thread.name": true}"#)];
    for (key, value) in [("client.id", "plant-7"), ("linger.ms", "20"), ("log.thread.name", "true")] {
        assert_eq!(librdkafka(&config, key).as_deref(), Some(value));
    }
    let sasl = [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "scram-sha-256"),
        ("KAFKA_SASL_USERNAME", "u"),
        ("KAFKA_SASL_PASSWORD", "p"),
    ];
    assert_eq!(librdkafka(&sasl, "sasl.mechanism").as_deref(), Some("SCRAM-SHA-256"));
    assert_eq!(librdkafka(&sasl, "sasl.password").as_deref(), Some("p"));
}

#[test]
fn mistakes_name_the_key_and_the_rule() {
    let check = |key: &str, value: &str, words: &str| {
        let mistakes = load_env(&[(key, value)]).expect_err(value).to_string();
        assert!(mistakes.contains(key) && mistakes.contains(words), "{key}={value}: {mistakes}");
        assert!(!mistakes.contains("s3cret"), "{mistakes}");
    };
    check("KAFKA_CONFIG", r#"{"lingre.ms": "s3cret"}"#, "No such configuration property: \"lingre.ms\"");
    check("KAFKA_CONFIG", r#"{"linger.ms": "s3cret"}"#, "linger.ms");
    check("KAFKA_CONFIG", r#"{"acks": 1}"#, "must not set acks: that nothing is lost");
    check(
        "KAFKA_CONFIG",
        r#"{"sasl.password": "s3cret"}"#,
        "must not set sasl.password: KAFKA_SASL_PASSWORD does",
    );
    check("KAFKA_CONFIG", r#"{"a": ["s3cret"]}"#, "must be a JSON object of texts, numbers, true and false");
    check("KAFKA_CONFIG", r#"{"test.mock.num.brokers": 3}"#, "must not set test.mock.num.brokers");
    check("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:99999", "host:port of some brokers");
    check("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:x", "which b:x is not");
    check("KAFKA_COMPRESSION", "rar", "refused by librdkafka");
    check("KAFKA_PARTITIONER", "round", "refused by librdkafka");
    check("KAFKA_MAX_REQUEST_SIZE", "10", "from 1000 to 1000000000");
    check("KAFKA_SECURITY_PROTOCOL", "TLS", "must be one of PLAINTEXT, SSL");
    check("KAFKA_TOPIC", "a topic", "must hold letters");
    check("STREAM_TARGET_TOPIC_MAP", r#"{"a": "b c"}"#, "the topic of a must hold letters");
    check("TARGET_REDIS_TIME_TO_LIVE", "700000", "must be at most TARGET_REDIS_SYNC_TTL");
}

#[test]
fn a_user_without_a_name() {
    let mistakes = load_env(&[("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")]).expect_err("no user").to_string();
    assert!(mistakes.contains("KAFKA_SASL_USERNAME= (not set) must be set with SASL_SSL"), "{mistakes}");
    assert!(mistakes.contains("KAFKA_SASL_PASSWORD= (not set) must be set with SASL_SSL"), "{mistakes}");
}

#[test]
fn what_has_no_effect_is_told() {
    let check = |environment: &[(&str, &str)], words: &str| {
        let warnings = load_env(environment).expect("loads").warnings.join("\n");
        assert!(warnings.contains(words), "{warnings}");
    };
    check(&[("KAFKA_SASL_USERNAME", "u")], "KAFKA_SASL_USERNAME (environment) has no effect");
    check(&[("KAFKA_SSL_CA", "/etc/hostname")], "KAFKA_SSL_CA (environment) has no effect");
}
