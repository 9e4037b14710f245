//! Sessions, and who has them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::spawn;

use test_kit::kafka::Brokers;
use test_kit::mosquitto::Mosquitto;

use crate::harness::{kafka, mqtt, setup};
use crate::publisher::publish_one;

#[test]
fn a_second_one_with_the_same_client_id_takes_over_and_the_first_says_so_and_stays_away() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let further = "backoff_max: 60";
    let settings = mqtt(broker.port, &["a/#"], "").replace("backoff_max: 0.5", further);
    let setup = setup(&settings, &kafka(&brokers, &topic, ""));
    let mut first = setup.start();
    first.wait_line("subscription");
    let mut second = setup.start();
    first.wait_line("another client uses this mqtt.client_id");
    second.wait_line("is up");
    publish_one(broker.port, "a/b", br#"{"n":1}"#, false);
    assert_eq!(brokers.wait_records(&topic, 1).len(), 1);
    second.check_errors(&[]);
    first.check_errors(&["another client uses this mqtt.client_id"]);
    second.stop();
    first.stop();
}

#[test]
fn a_filter_that_is_refused_is_told_and_asked_for_again() {
    // Mosquitto grants what its ACL denies, and hands nothing out: only another broker refuses.
    let (port, refusals) = broker_that_refuses(2);
    let brokers = Brokers::shared();
    let topic = brokers.topic(1);
    let further = "version: 4\nkeep_alive: 2";
    let mut bridge = setup(&mqtt(port, &["a/#", "b/#"], further), &kafka(&brokers, &topic, "")).start();
    let line = bridge.wait_line("subscription b/# at the MQTT broker");
    assert!(line.text.contains("refused"), "{line:?}");
    let line = bridge.wait_line("is back after");
    assert!(line.text.contains("subscription b/#"), "{line:?}");
    assert_eq!(refusals.load(Ordering::SeqCst), 2);
    bridge.stop();
    bridge.check_errors(&["subscription b/#"]);
}

/// A broker of MQTT 3.1.1 for one client, which refuses the second of two filters so many times, and hands nothing out.
fn broker_that_refuses(times: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicU32::new(0));
    let refusals = refused.clone();
    spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        loop {
            let mut head = [0; 2];
            if socket.read_exact(&mut head).is_err() {
                return;
            }
            let mut body = vec![0; head[1].into()];
            socket.read_exact(&mut body).unwrap();
            let answer = match head[0] >> 4 {
                1 => vec![0x20, 2, 0, 0],
                8 if refused.load(Ordering::SeqCst) < times => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    vec![0x90, 4, body[0], body[1], 1, 0x80]
                }
                8 => vec![0x90, 4, body[0], body[1], 1, 1],
                12 => vec![0xD0, 0],
                _ => continue,
            };
            socket.write_all(&answer).unwrap();
        }
    });
    (port, refusals)
}

#[test]
fn without_reconnecting_a_lost_connection_ends_the_process() {
    let (mut broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let mut bridge =
        setup(&mqtt(broker.port, &["a/#"], "reconnect_on_failure: false"), &kafka(&brokers, &topic, ""))
            .start();
    bridge.wait_line("subscription");
    broker.stop();
    let (code, _) = bridge.wait_exit();
    assert_eq!(code, Some(1));
    bridge.check_errors(&["mqtt.reconnect_on_failure is false"]);
}
