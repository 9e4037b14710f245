//! What Kafka refuses, and what is no Sparkplug: it goes to the dead-letter topic, and the rest goes on.

use test_kit::kafka::Kafka;
use test_kit::mosquitto::Mosquitto;

use crate::harness::{kafka, mqtt, setup};
use crate::publisher::publish_one;

#[test]
fn what_is_too_long_is_put_aside_in_parts_and_the_rest_goes_on() {
    let (broker, server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 1, &[("max.message.bytes", "20000")]);
    brokers.create("all.dead", 1, &[("max.message.bytes", "20000")]);
    let mut bridge = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, "all", "")).start();
    bridge.wait_line("subscription");
    // Nothing that compression makes small.
    let long: Vec<u8> =
        (0_u32..100_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(90_000).collect();
    publish_one(broker.port, "a/b", br#"{"n":1}"#, false);
    publish_one(broker.port, "a/b", &long, false);
    publish_one(broker.port, "a/b", br#"{"n":2}"#, false);
    let records = brokers.wait_records("all", 2);
    assert_eq!(
        records.iter().map(|record| record.json()["n"].as_u64()).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    bridge.wait_line("a message goes to all.dead");
    test_kit::wait_until(
        "it is put aside",
        || bridge.lines(),
        || {
            let letters = brokers.read("all.dead");
            let parts: Vec<_> =
                letters.iter().rev().map_while(|letter| letter.header("mqtt.error.part")).collect();
            let Some((last, count)) = parts.first().and_then(|part| part.split_once('/')) else {
                return false;
            };
            let count = count.parse().unwrap();
            last.parse() == Ok(count)
                && letters.len() >= count
                && letters[letters.len() - count..].iter().flat_map(|letter| &letter.value).eq(&long)
        },
    );
    let letters = brokers.read("all.dead");
    assert_eq!(letters[0].key.as_deref(), Some("a/b"));
    assert_eq!(letters[0].header("mqtt.topic"), Some("a/b"));
    assert_eq!(letters[0].header("mqtt.error.kafka-topic"), Some("all"));
    assert!(
        letters[0].header("mqtt.error.reason").unwrap().contains("Broker: Message size too large"),
        "{letters:?}"
    );
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn what_is_no_sparkplug_is_put_aside_as_it_is() {
    let (broker, server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 1, &[]);
    brokers.create("all.dead", 1, &[]);
    let mut bridge = setup(&mqtt(broker.port, &["spBv1.0/#"], ""), &kafka(&brokers, "all", "")).start();
    bridge.wait_line("subscription");
    publish_one(broker.port, "spBv1.0/g/DDATA/n/d", b"\xff\xff no protobuf", false);
    publish_one(broker.port, "spBv1.0/g/DDATA/n/d", &[0x08, 0x01], false);
    let records = brokers.wait_records("all", 1);
    assert_eq!(records[0].json(), serde_json::json!({"timestamp": 1}));
    let letters = brokers.wait_records("all.dead", 1);
    assert_eq!(letters[0].value, b"\xff\xff no protobuf");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_topic_that_is_not_there_goes_to_the_dead_letters_and_without_those_everything_waits() {
    let (broker, server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    let mut bridge = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, "all", "")).start();
    bridge.wait_line("subscription");
    publish_one(broker.port, "a/b", br#"{"n":1}"#, false);
    bridge.wait_line("nothing is sent or acknowledged until it takes");
    assert!(!broker.log().contains("Received PUBACK from bridge-"), "{}", broker.log());
    brokers.create("all.dead", 1, &[]);
    let letters = brokers.wait_records("all.dead", 1);
    assert_eq!(letters[0].json()["n"], 1);
    brokers.create("all", 1, &[]);
    bridge.wait_line("dead-letter topic all.dead is back");
    publish_one(broker.port, "a/b", br#"{"n":2}"#, false);
    assert_eq!(brokers.wait_records("all", 1)[0].json()["n"], 2);
    bridge.wait_line("Kafka topic all is back");
    bridge.stop();
    bridge.check_errors(&["dead-letter topic all.dead", "Kafka topic all: topic all does not exist"]);
}
