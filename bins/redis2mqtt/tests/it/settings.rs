//! Where settings come from, what is said about wrong ones, and what SIGHUP changes.

use std::fs;
use std::path::PathBuf;

use crate::harness::bridge::{bare, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::redis::Redis;
use crate::harness::writer::{Target, targets, wait_settled, write};
use crate::harness::{free_port, wait_until};

/// The settings file of the description, as it stands.
fn sample() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/sync-core/tests/env-samples/redis2mqtt.env.conf")
}

#[test]
fn the_described_file_works_from_the_path_the_variable_and_the_working_directory() {
    for place in ["--config-file", "CONFIG_FILE", "./env.conf"] {
        let (redis, broker) = (Redis::start(), FakeBroker::start());
        // Only what must differ from the file; its own log format stays.
        let setup = bare()
            .set("REDIS_PORT", redis.port)
            .set("MQTT_BROKER_PORT", broker.port)
            .unset("LOG_FORMAT")
            .unset("REDIS_RETRY_INTERVAL")
            .unset("SOURCE_REDIS_BACKOFF_MAX");
        let file = sample();
        let file = file.to_str().unwrap();
        let setup = match place {
            "--config-file" => setup.arg("--config-file").arg(file),
            "CONFIG_FILE" => setup.set("CONFIG_FILE", file),
            _ => {
                fs::copy(file, setup.dir().join("env.conf")).unwrap();
                setup
            }
        };
        let mut bridge = setup.start();
        let streams: Vec<_> = (0..4).map(|n| Target::new(n % 3, &format!("device:{n}"))).collect();
        broker.wait_complete(&write(&redis, &streams, 40)).check(0);
        wait_settled(&redis, &streams);
        bridge.stop();
        let line = &bridge.lines_with("redis2mqtt starts")[0];
        assert!(line.text.contains(" - sync_core.program - INFO - "), "{place}: {line:?}");
        let warnings = bridge.lines_with(" - WARNING - ");
        assert!(warnings.is_empty(), "{place}: {warnings:#?}");
    }
}

#[test]
fn every_mistake_is_listed_at_once_and_the_exit_code_is_78() {
    let setup = bare().unset("STREAM_DISCOVERY_INTERVAL");
    let mistakes = [
        ("REDIS_PORT", "70000"),
        ("REDIS_SSL", "perhaps"),
        ("REDIS_DBS_TO_SEARCH", "3-1"),
        ("REDIS_POOL_SIZE", "0"),
        ("MQTT_BROKER_PORT", "mqtt"),
        ("MQTT_QOS", "3"),
        ("MQTT_VERSION", "6"),
        ("MQTT_TRANSPORT", "pigeon"),
        ("MQTT_BASE_TOPIC", "a/#"),
        ("MQTT_KEEP_ALIVE", "3"),
        ("MQTT_MAX_INFLIGHT", "0"),
        ("MQTT_FILTER_FIELD", "kind"),
        ("STREAM_READ_TIMEOUT_MS", "0"),
        ("STREAM_BATCH_SIZE", "many"),
        ("STREAM_START_ID", "yesterday"),
        ("STREAM_OWNERSHIP", "mine"),
        ("STREAM_DISCOVERY_INTERVAL", "-1"),
        ("VALUE_FORMAT", "xml"),
        ("SHUTDOWN_TIMEOUT", "soon"),
        ("LOG_LEVEL", "LOUD"),
    ];
    let mut text: String = mistakes.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    text += "this is no setting\nMQTT_BROKER_HSOT=somewhere\nMQTT_PASSWORD=not-for-anybodys-eyes\n";
    fs::write(setup.dir().join("wrong.conf"), text).unwrap();
    let mut bridge = setup.arg("--config-file").arg("wrong.conf").start();
    let (code, _) = bridge.wait_exit();
    assert_eq!(code, Some(78), "{:#?}", bridge.lines());
    let said = bridge.lines().iter().map(|line| format!("{}\n", line.text)).collect::<String>();
    for (at, (key, value)) in mistakes.iter().enumerate() {
        let line = said.lines().find(|line| line.contains(key) && !line.contains("needs MQTT_FILTER_FIELD"));
        let line = line.unwrap_or_else(|| panic!("{key} is not named:\n{said}"));
        assert!(line.contains(value) && line.contains("wrong.conf"), "{line}");
        assert!(line.contains(&format!("{}", at + 1)), "the line number of {key}: {line}");
    }
    assert!(said.contains("21"), "the line that is no setting:\n{said}");
    assert!(said.contains("MQTT_BROKER_HOST"), "the nearest name to MQTT_BROKER_HSOT:\n{said}");
    assert!(!said.contains("not-for-anybodys-eyes"), "{said}");
}

#[test]
fn a_file_that_is_named_and_not_there_is_a_mistake() {
    let mut bridge = bare().arg("--config-file").arg("absent.conf").start();
    assert_eq!(bridge.wait_exit().0, Some(78));
    assert!(bridge.lines()[0].text.contains("absent.conf"), "{:#?}", bridge.lines());
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_name() {
    let setup = setup(free_port(), free_port()).set("REDIS_MAX_RETRIES", 1);
    fs::write(setup.dir().join("env.conf"), "MQTT_BASE_TOPC=x\n").unwrap();
    let mut bridge = setup.start();
    assert_eq!(bridge.wait_exit().0, Some(1));
    let line = bridge.wait_line("MQTT_BASE_TOPC");
    assert!(line.level == "WARN" && line.text.contains("MQTT_BASE_TOPIC"), "{line:?}");
}

#[test]
fn sighup_changes_patterns_and_a_bad_file_changes_nothing() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port).arg("--config-file").arg("live.conf");
    let file = setup.dir().join("live.conf");
    fs::write(&file, "STREAM_DISCOVERY_PATTERNS=a:*\nREDIS_DBS_TO_SEARCH=0\n").unwrap();
    let mut bridge = setup.start();
    let (a, b) = ([Target::new(0, "a:1")], [Target::new(1, "b:1")]);
    let mut ledger = write(&redis, &a, 10);
    ledger.join(write(&redis, &b, 10));
    wait_until("a:1 arrives", || bridge.lines(), || broker.arrivals().len() >= 10);

    fs::write(&file, "STREAM_DISCOVERY_PATTERNS=[\nREDIS_DBS_TO_SEARCH=nothing\n").unwrap();
    bridge.signal("HUP");
    bridge.wait_line("settings not read again");
    ledger.join(write(&redis, &a, 10));
    wait_until("a:1 is still read", || bridge.lines(), || broker.arrivals().len() >= 20);
    assert!(broker.arrivals().iter().all(|arrival| arrival.stream == "a:1"));

    fs::write(&file, "STREAM_DISCOVERY_PATTERNS=b:*\nREDIS_DBS_TO_SEARCH=0-1\n").unwrap();
    bridge.signal("HUP");
    bridge.wait_line("settings read again");
    broker.wait_complete(&ledger).check(0);
    bridge.wait_line("no longer read: ");
    let unread = write(&redis, &a, 10);
    let more = write(&redis, &b, 10);
    broker.wait_complete(&more);
    assert_eq!(unread.tally(&broker.arrivals()).arrived, 0);
    bridge.stop();
    bridge.check_errors(&["settings not read again"]);
}

#[test]
fn the_command_line_comes_before_the_environment_and_that_before_the_file() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port).set("MQTT_BASE_TOPIC", "environment");
    fs::write(setup.dir().join("env.conf"), "MQTT_BASE_TOPIC=file\nSOURCE_NAME=plant7-\n").unwrap();
    let mut bridge = setup.set("LOG_LEVEL", "ERROR").arg("--log-level").arg("DEBUG").start();
    write(&redis, &targets(1), 1);
    let seen = broker.wait_seen(1);
    assert_eq!(seen[0].publish.topic, "environment/plant7-device/0");
    bridge.stop();
    assert!(bridge.lines().iter().any(|line| line.level == "DEBUG"));
}

#[test]
fn help_names_every_setting_and_version_the_version() {
    for (arg, parts) in [
        ("--help", ["MQTT_BROKER_HOST", "SOURCE_REDIS_URL", "STREAM_DISCOVERY_PATTERNS", "SHUTDOWN_TIMEOUT"]),
        ("--version", ["redis2mqtt", env!("CARGO_PKG_VERSION"), "redis2mqtt", "redis2mqtt"]),
    ] {
        let mut bridge = bare().arg(arg).start();
        assert_eq!(bridge.wait_exit().0, Some(0));
        let said = bridge.stdout();
        for part in parts {
            assert!(said.contains(part), "{arg}: {part} is not in\n{said}");
        }
    }
    let mut bridge = bare().arg("--no-such-thing").start();
    assert_eq!(bridge.wait_exit().0, Some(2));
}
