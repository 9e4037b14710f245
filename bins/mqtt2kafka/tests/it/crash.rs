//! The bridge is killed, Kafka stopped, the broker restarted: nothing is lost, first arrivals keep their order.
//! TEST_MQTT_MESSAGES makes it larger.

use std::collections::HashSet;
use std::time::Duration;

use rumqttc::QoS;
use test_kit::certificate;
use test_kit::kafka::{Kafka, Record};
use test_kit::mosquitto::Mosquitto;
use test_kit::{free_port, wait_until};

use crate::harness::{kafka, mqtt, setup, wait_complete};
use crate::publisher::{Plan, Publisher, WINDOW};

/// Messages that came before and do not say so.
fn unmarked_repeats(records: &[Record]) -> usize {
    let mut seen = HashSet::new();
    let of = |record: &Record| (record.header("mqtt.topic").unwrap().to_owned(), record.json()["n"].as_u64());
    let repeats = records.iter().filter(|record| !seen.insert(of(record)));
    repeats.filter(|record| record.header("mqtt.dup") != Some("true")).count()
}

fn killed_and_cut(further: &str, qos: QoS, lines: &str, port: Option<u16>) {
    let messages = std::env::var("TEST_MQTT_MESSAGES").map_or(6000, |text| text.parse().expect("a number"));
    let (mut broker, mut server) = (Mosquitto::with(lines), Kafka::start());
    let brokers = server.brokers();
    brokers.create("all", 3, &[]);
    let number = if qos == QoS::AtLeastOnce { 1 } else { 2 };
    let further = format!("{further}\nqos: {number}");
    let setup = setup(&mqtt(port.unwrap_or(broker.port), &["a/#"], &further), &kafka(&brokers, "all", ""));
    let mut bridge = setup.start();
    bridge.wait_line("subscription");
    let topics = (0..20).map(|device| format!("a/{device}")).collect();
    let pause = Duration::from_millis(30);
    let publisher = Publisher::start(Plan { port: broker.port, qos, topics, messages, pause });
    for part in 1..=5_usize {
        let goal = i64::try_from(messages * part / 8).expect("small");
        wait_until("some arrive", || bridge.lines(), || brokers.held("all") >= goal);
        bridge.check_errors(&[]);
        match part {
            2 => {
                server.stop();
                bridge.kill();
                server.up();
            }
            4 => {
                broker.stop();
                broker.up();
                bridge.kill();
            }
            _ => bridge.kill(),
        }
        bridge = setup.start();
    }
    let ledger = publisher.finish();
    let tally = wait_complete(&brokers, "all", &ledger, &bridge);
    eprintln!("{further}: {} messages, {} twice", tally.written, tally.duplicates);
    // How many depends on the broker: what it has handed out and has not read an acknowledgement for. All that it repeats
    // says so; the publisher repeats a window when the broker restarts.
    tally.check(usize::MAX);
    let unmarked = unmarked_repeats(&brokers.read("all"));
    assert!(unmarked <= WINDOW, "{unmarked} of {}", tally.duplicates);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn five_at_qos_1() {
    killed_and_cut("version: 5", QoS::AtLeastOnce, "allow_anonymous true\n", None);
}

#[test]
fn three_one_one_at_qos_2() {
    killed_and_cut("version: 4", QoS::ExactlyOnce, "allow_anonymous true\n", None);
}

#[test]
fn over_websockets_at_qos_2() {
    let port = free_port();
    let lines = format!(
        "allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n"
    );
    killed_and_cut("version: 5\ntransport: websockets", QoS::ExactlyOnce, &lines, Some(port));
}

#[test]
fn over_tls_with_a_client_certificate_at_qos_1() {
    let port = free_port();
    let (ca, cert, key) = (certificate("ca.pem"), certificate("server.pem"), certificate("server.key"));
    let lines = format!(
        "allow_anonymous true\nlistener {port} 127.0.0.1\nallow_anonymous true\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n\
         require_certificate true\n"
    );
    let further = format!(
        "version: 4\ntls:\n  ca_certs: {ca}\n  certfile: {}\n  keyfile: {}\n  keyfile_password: tester-secret",
        certificate("client.pem"),
        certificate("client-encrypted.key"),
    );
    killed_and_cut(&further, QoS::AtLeastOnce, &lines, Some(port));
}
