//! The settings of redis2mqtt as they load.

use sync_core::settings::ValueFormat;

use super::*;

fn load_env(environment: &[(&str, &str)]) -> Result<Loaded<Settings>, Mistakes> {
    Settings::load(&Inputs::new(environment.iter().copied(), "/absent/env.conf"))
}

fn mqtt(environment: &[(&str, &str)]) -> MqttSettings {
    load_env(environment).expect("loads").settings.mqtt
}

#[test]
fn defaults() {
    let Loaded { settings, warnings, .. } = load_env(&[]).expect("loads");
    assert_eq!(warnings, [""; 0]);
    let Settings { redis, streams, text, mqtt, general } = settings;
    assert_eq!(
        (mqtt.host.as_str(), mqtt.port, mqtt.client_id.as_str()),
        ("localhost", 1883, "redis-mqtt-sync")
    );
    assert_eq!((mqtt.qos, mqtt.retain, mqtt.base_topic.as_str()), (1, false, "redis"));
    assert_eq!((mqtt.version, mqtt.transport), (Version::Auto, Transport::Tcp));
    assert_eq!(
        (mqtt.keep_alive, mqtt.max_inflight, mqtt.max_packet_size),
        (Duration::from_secs(60), 1000, None)
    );
    assert!(mqtt.tls.is_none() && mqtt.username.is_none() && mqtt.password.is_none());
    let retry = RetrySettings { max_retries: 5, base: Duration::from_secs(5), cap: Duration::from_secs(30) };
    assert_eq!((mqtt.retry, redis.retry), (retry, retry));
    assert_eq!((streams.group.as_str(), streams.rate_limit), ("mqtt-group", 1000));
    assert!(streams.consumer.starts_with("mqtt-sync-"));
    assert_eq!(streams.discovery.map(|discovery| discovery.dbs), Some(vec![0, 1, 2]));
    assert_eq!(text.value_format, ValueFormat::Json);
    assert_eq!(general.admin_addr.map(|addr| addr.port()), Some(9464));
}

#[test]
fn the_descriptions_file_says_the_defaults() {
    let sample =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/sync-core/tests/env-samples/redis2mqtt.env.conf");
    let no_environment: [(&str, &str); 0] = [];
    let loaded = Settings::load(&Inputs::new(no_environment, sample)).expect("loads");
    assert_eq!(loaded.warnings, [""; 0]);
    let mut settings = loaded.settings;
    assert!(settings.general.log.format.take().is_some());
    let defaults = load_env(&[]).expect("loads").settings;
    assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
}

#[test]
fn every_description_loads() {
    for name in ["redis2kafka", "redis2pg", "redis2redis"] {
        let sample = format!(
            "{}/../../crates/sync-core/tests/env-samples/{name}.env.conf",
            env!("CARGO_MANIFEST_DIR")
        );
        let no_environment: [(&str, &str); 0] = [];
        Settings::load(&Inputs::new(no_environment, sample)).expect(name);
    }
}

#[test]
fn its_own_spelling_wins() {
    let both = [("STREAM_GROUP", "own"), ("STREAM_CONSUMER_GROUP", "other")];
    let loaded = load_env(&both).expect("loads");
    assert_eq!(loaded.settings.streams.group, "own");
    assert!(loaded.warnings[0].starts_with("STREAM_CONSUMER_GROUP (environment) is passed over"));
}

#[test]
fn addresses() {
    let check = |environment: &[(&str, &str)], host: &str, port: u16, tls: bool| {
        let mqtt = mqtt(environment);
        assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some()), (host, port, tls), "{environment:?}");
    };
    check(&[("MQTT_USE_TLS", "true")], "localhost", 8883, true);
    check(&[("MQTT_USE_TLS", "true"), ("MQTT_BROKER_PORT", "1884")], "localhost", 1884, true);
    check(&[("MQTT_BROKER_HOST", "[::1]")], "::1", 1883, false);
    let ws = ("MQTT_TRANSPORT", "websockets");
    check(&[ws], "ws://localhost:1883/mqtt", 1883, false);
    check(&[ws, ("MQTT_USE_TLS", "1")], "wss://localhost:8883/mqtt", 8883, true);
    check(
        &[ws, ("MQTT_BROKER_HOST", "::1"), ("MQTT_BROKER_PORT", "9001")],
        "ws://[::1]:9001/mqtt",
        9001,
        false,
    );
    check(&[ws, ("MQTT_BROKER_HOST", "ws://b")], "ws://b:80/mqtt", 80, false);
    check(&[ws, ("MQTT_BROKER_HOST", "wss://b/x?y=z")], "wss://b:443/x?y=z", 443, true);
    check(&[ws, ("MQTT_BROKER_HOST", "ws://[::1]:9001/")], "ws://[::1]:9001/", 9001, false);
    check(
        &[ws, ("MQTT_BROKER_HOST", "ws://b"), ("MQTT_BROKER_PORT", "9001")],
        "ws://b:9001/mqtt",
        9001,
        false,
    );

    let other_port = [ws, ("MQTT_BROKER_HOST", "ws://b:9001"), ("MQTT_BROKER_PORT", "1883")];
    let loaded = load_env(&other_port).expect("loads");
    assert_eq!(loaded.settings.mqtt.port, 9001);
    assert!(loaded.warnings[0].contains("has port 9001"));
    let port = loaded.effective.iter().find(|effective| effective.name == "MQTT_BROKER_PORT").expect("shown");
    assert_eq!((port.value.as_str(), port.origin.as_str()), ("9001", "MQTT_BROKER_HOST"));
}

#[test]
fn mistakes() {
    let check = |environment: &[(&str, &str)], part: &str| {
        let report = load_env(environment).expect_err(part).to_string();
        assert!(report.contains(part) && report.contains("1 mistake in"), "{report}");
        assert!(!report.contains("hunter2"), "{report}");
    };
    check(&[("MQTT_QOS", "3")], "MQTT_QOS=3 (environment) must be a whole number from 0 to 2");
    check(&[("MQTT_BROKER_HOST", "mqtt://me:hunter2@b")], "without a scheme");
    check(&[("MQTT_BROKER_HOST", "mqtts://b")], "MQTT_USE_TLS=true");
    check(&[("MQTT_BROKER_HOST", "ws://b")], "MQTT_TRANSPORT=websockets");
    check(&[("MQTT_BROKER_HOST", "b:1883")], "the port has its own setting");
    check(&[("MQTT_BROKER_PORT", "tcp://10.0.0.1:1883")], "Kubernetes");
    let ws = ("MQTT_TRANSPORT", "websockets");
    check(&[ws, ("MQTT_BROKER_HOST", "http://b")], "ws:// or wss://");
    check(&[ws, ("MQTT_BROKER_HOST", "ws://")], "must name a host");
    check(&[ws, ("MQTT_BROKER_HOST", "ws://me:hunter2@b")], "MQTT_USERNAME and MQTT_PASSWORD");
    check(&[ws, ("MQTT_BROKER_HOST", "ws://b:0")], "from 1 to 65535");
    check(&[ws, ("MQTT_BROKER_HOST", "ws://b"), ("MQTT_USE_TLS", "true")], "contradicts");
    check(&[("MQTT_VERSION", "3")], "one of auto, 5, 4");
    check(&[("MQTT_KEEP_ALIVE", "4")], "0 (off) or whole seconds from 5");
    check(&[("MQTT_KEEP_ALIVE", "65536")], "0 (off) or whole seconds from 5");
    check(&[("MQTT_MAX_INFLIGHT", "0")], "from 1 to 65535");
    check(&[("MQTT_MAX_PACKET_SIZE", "10")], "from 64");
    check(&[("MQTT_BASE_TOPIC", "a/+/b")], "must not hold");
    check(&[("MQTT_BASE_TOPIC", "//")], "more than slashes");
    check(&[("MQTT_BASE_TOPIC", "$SYS/x")], "$SYS");
    check(&[("MQTT_BASE_TOPIC", "$share/x")], "$share");
    check(&[("MQTT_PASSWORD", "hunter2"), ("MQTT_VERSION", "4")], "needs MQTT_USERNAME");
    check(&[("MQTT_USE_TLS", "1"), ("MQTT_TLS_KEY", "/dev/null")], "needs MQTT_TLS_CERT");
    check(&[("MQTT_BACKOFF_BASE", "9"), ("MQTT_BACKOFF_MAX", "8")], "must not be above MQTT_BACKOFF_MAX");
}

#[test]
fn warnings() {
    let check = |environment: &[(&str, &str)], part: &str| {
        let warnings = load_env(environment).expect("loads").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
        assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
    };
    check(&[("MQTT_TLS_CA", "/absent.pem")], "has no effect without MQTT_USE_TLS=true");
    check(&[("MQTT_PASSWORD", "hunter2")], "has no MQTT_USERNAME beside it");
    check(&[("MQTT_BASE_TOPIC", "a/b/")], "without the slash");
    check(&[("MQTT_QOSS", "hunter2")], "the nearest is MQTT_QOS");
    assert_eq!(mqtt(&[("MQTT_BASE_TOPIC", "/a/b//")]).base_topic, "/a/b");
    assert_eq!(mqtt(&[("MQTT_BASE_TOPIC", "$aws/things")]).base_topic, "$aws/things");
    assert_eq!(mqtt(&[("MQTT_KEEP_ALIVE", "0")]).keep_alive, Duration::ZERO);
    assert_eq!(load_env(&[("MQTT_PASSWORD", "x"), ("MQTT_VERSION", "5")]).expect("loads").warnings, [""; 0]);
}

#[test]
fn help_names_the_defaults() {
    let help = help();
    for line in [
        "  REDIS_DBS_TO_SEARCH [default: 0,1,2] (or SOURCE_REDIS_DB_SEARCH_RANGE, REDIS_DB_SEARCH_RANGE)\n",
        "  REDIS_RATE_LIMIT [default: 1000] (or SOURCE_REDIS_RATE_LIMIT)\n",
        "  MQTT_PASSWORD[_FILE]\n",
        "  MQTT_MAX_INFLIGHT [default: 1000]\n",
        "  STREAM_GROUP [default: mqtt-group] (or STREAM_CONSUMER_GROUP)\n",
    ] {
        assert!(help.contains(line), "{line}{help}");
    }
}
