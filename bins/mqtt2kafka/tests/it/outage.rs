//! Servers that are away, and come back.

use std::time::Duration;

use rumqttc::QoS;
use test_kit::bridge::Bridge;
use test_kit::kafka::{Brokers, Kafka};
use test_kit::mosquitto::Mosquitto;
use test_kit::wait_until;

use crate::harness::{kafka, mqtt, setup, wait_complete};
use crate::publisher::{Plan, publish};

fn plan(broker: &Mosquitto, messages: usize) -> Plan {
    let topics = (0..4).map(|device| format!("a/{device}")).collect();
    Plan { port: broker.port, qos: QoS::AtLeastOnce, topics, messages, pause: Duration::ZERO }
}

#[test]
fn published_while_kafka_was_down_and_the_bridge_killed_all_arrive() {
    let (broker, mut server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 1, &[]);
    let setup = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, "all", ""));
    server.stop();
    // The session is made before Kafka is asked for, or nothing would be kept.
    let mut bridge = setup.start();
    bridge.wait_line("subscription");
    let ledger = publish(plan(&broker, 1000));
    bridge.check_errors(&[]);
    bridge.kill();
    let mut bridge = setup.start();
    wait_for_outage(&bridge);
    server.up();
    wait_complete(&brokers, "all", &ledger, &bridge).check(0);
    bridge.stop();
    bridge.check_errors(&[]);
}

/// Until it has noticed that Kafka is away.
fn wait_for_outage(bridge: &Bridge) {
    let told = || bridge.lines_with("Kafka brokers at").iter().any(|line| line.level != "INFO");
    wait_until("it tells of the outage", || bridge.lines(), told);
}

#[test]
fn while_kafka_is_away_the_session_lives_and_nothing_is_acknowledged() {
    let (broker, mut server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 1, &[]);
    // The broker ends a connection that says nothing for one and a half times this.
    let further = "keep_alive: 1";
    let mut bridge = setup(&mqtt(broker.port, &["a/#"], further), &kafka(&brokers, "all", "")).start();
    bridge.wait_line("subscription");
    server.stop();
    wait_for_outage(&bridge);
    let ledger = publish(plan(&broker, 500));
    let pings = || broker.log().matches("Received PINGREQ").count();
    wait_until("it pings", || broker.log(), || pings() >= 4);
    assert!(!broker.log().contains("exceeded timeout"), "{}", broker.log());
    assert!(!broker.log().contains("Received PUBACK from bridge-"), "{}", broker.log());
    server.up();
    wait_complete(&brokers, "all", &ledger, &bridge).check(0);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_broker_that_restarts_gets_its_acknowledgements_anew() {
    let (mut broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let mut bridge = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, &topic, "")).start();
    bridge.wait_line("subscription");
    let publisher = crate::publisher::Publisher::start(Plan {
        pause: Duration::from_millis(20),
        ..plan(&broker, 20_000)
    });
    for part in 1..=2 {
        wait_until("some arrive", || bridge.lines(), || brokers.held(&topic) >= part * 5000);
        broker.stop();
        broker.up();
    }
    let ledger = publisher.finish();
    // What was in flight at each stop, on either side of the broker.
    wait_complete(&brokers, &topic, &ledger, &bridge).check(2 * 2 * 1000);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_stop_while_kafka_is_away_is_quick_and_clean() {
    let (broker, mut server) = (Mosquitto::start(), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 1, &[]);
    let setup = setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&brokers, "all", ""));
    let mut bridge = setup.start();
    bridge.wait_line("subscription");
    server.stop();
    wait_for_outage(&bridge);
    let ledger = publish(plan(&broker, 300));
    let took = bridge.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    bridge.wait_line("the broker will send them again");
    bridge.check_errors(&[]);
    server.up();
    let mut bridge = setup.start();
    wait_complete(&brokers, "all", &ledger, &bridge).check(0);
    bridge.stop();
}
