//! What arrives, and as what.

use std::time::Duration;

use rumqttc::QoS;
use test_kit::kafka::{Brokers, Record};
use test_kit::mosquitto::Mosquitto;
use test_kit::wait_until;

use crate::harness::{kafka, mqtt, setup, wait_complete};
use crate::publisher::{Plan, publish, publish_one};

#[test]
fn a_message_becomes_a_record() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let mut bridge = setup(&mqtt(broker.port, &["plant/#"], ""), &kafka(&brokers, &topic, "")).start();
    bridge.wait_line("subscription plant/# at the MQTT broker");
    publish_one(broker.port, "plant/line 1/temp", br#"{"timestamp":1700000000123,"v":1e400}"#, false);
    publish_one(broker.port, "plant/line 1/temp", b"21.5 degrees", false);
    publish_one(broker.port, "plant/line 1/temp", b"", false);
    publish_one(broker.port, "elsewhere", b"1", false);
    let records = brokers.wait_records(&topic, 3);
    let of = |record: &Record| (record.key.clone(), String::from_utf8(record.value.clone()).unwrap());
    let key = Some("plant/line 1/temp".to_owned());
    assert_eq!(of(&records[0]), (key.clone(), r#"{"timestamp":1700000000123,"v":1e400}"#.to_owned()));
    assert_eq!(records[0].timestamp, Some(1_700_000_000_123));
    let headers = [
        ("mqtt.topic", "plant/line 1/temp"),
        ("mqtt.qos", "1"),
        ("mqtt.retain", "false"),
        ("mqtt.dup", "false"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(records[0].headers, headers);
    assert_eq!(
        (of(&records[1]), records[1].header("mqtt.payload")),
        ((key.clone(), "21.5 degrees".into()), Some("raw"))
    );
    assert_eq!((of(&records[2]), records[2].tombstone), ((key, String::new()), true));
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn all_arrive_in_order_in_every_version_and_at_every_qos() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    for (version, qos, number) in [
        (5, QoS::AtLeastOnce, 1),
        (4, QoS::AtLeastOnce, 1),
        (5, QoS::ExactlyOnce, 2),
        (4, QoS::ExactlyOnce, 2),
    ] {
        let topic = brokers.topic(3);
        let further = format!("version: {version}\nqos: {number}");
        let name = format!("all{version}{number}");
        let mut bridge =
            setup(&mqtt(broker.port, &[&format!("{name}/#")], &further), &kafka(&brokers, &topic, ""))
                .start();
        bridge.wait_line("subscription");
        let topics: Vec<String> = (0..10).map(|device| format!("{name}/device-{device}")).collect();
        let ledger = publish(Plan { port: broker.port, qos, topics, messages: 5000, pause: Duration::ZERO });
        wait_complete(&brokers, &topic, &ledger, &bridge).check(0);
        bridge.stop();
        bridge.check_errors(&[]);
    }
}

#[test]
fn what_was_published_while_it_was_away_comes_at_its_next_start() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let setup = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, &topic, ""));
    let mut bridge = setup.start();
    bridge.wait_line("subscription");
    bridge.stop();
    let topics = vec!["a/1".to_owned(), "a/2".to_owned()];
    let ledger = publish(Plan {
        port: broker.port,
        qos: QoS::AtLeastOnce,
        topics,
        messages: 2000,
        pause: Duration::ZERO,
    });
    let mut bridge = setup.start();
    wait_complete(&brokers, &topic, &ledger, &bridge).check(0);
    bridge.stop();
    // What was acknowledged does not come again.
    let mut bridge = setup.start();
    bridge.wait_line("is up");
    publish_one(broker.port, "a/3", br#"{"n":1}"#, false);
    wait_until("the last one arrives", || bridge.lines(), || brokers.held(&topic) > 2000);
    assert_eq!(brokers.held(&topic), 2001);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_stop_with_a_backlog_leaves_the_broker_its_acknowledgements() {
    let (broker, brokers) = (
        Mosquitto::with_options("max_inflight_messages 0\nmax_queued_messages 0", "allow_anonymous true\n"),
        Brokers::shared(),
    );
    let topic = brokers.topic(3);
    let setup = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, &topic, ""));
    let mut bridge = setup.start();
    bridge.wait_line("subscription");
    bridge.stop();
    let topics = (0..10).map(|device| format!("a/{device}")).collect();
    let ledger = publish(Plan {
        port: broker.port,
        qos: QoS::AtLeastOnce,
        topics,
        messages: 40_000,
        pause: Duration::ZERO,
    });
    for part in 1..=3 {
        let mut bridge = setup.start();
        wait_until("some arrive", || bridge.lines(), || brokers.held(&topic) >= part * 8000);
        bridge.stop();
        bridge.check_errors(&[]);
    }
    let mut bridge = setup.start();
    // What was handed over and not confirmed when the stop's time was over, and nothing else, comes again.
    wait_complete(&brokers, &topic, &ledger, &bridge).check(1000);
    bridge.stop();
    bridge.check_errors(&[]);
}
