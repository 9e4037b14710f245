//! Each security protocol against a real listener, and what is said when it does not let us in.

use test_kit::bridge::Setup;
use test_kit::kafka::Brokers;
use test_kit::redis::Redis;
use test_kit::{certificate, shared, wait_until};

use crate::buffer::buffered;
use crate::harness::{ids, setup};

fn arrives(address: &str, set: impl FnOnce(Setup) -> Setup) {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let setup = setup(&source, &brokers, &topic).set("KAFKA_BOOTSTRAP_SERVERS", shared(address));
    let mut bridge = set(setup).start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    assert_eq!(ids(&brokers.wait_records(&topic, 1), "s"), ["1-0"]);
    bridge.stop();
    bridge.check_errors(&[]);
}

fn sasl(setup: Setup, mechanism: &str) -> Setup {
    setup
        .set("KAFKA_SASL_MECHANISM", mechanism)
        .set("KAFKA_SASL_USERNAME", shared("TEST_KAFKA_USER"))
        .set("KAFKA_SASL_PASSWORD", shared("TEST_KAFKA_PASSWORD"))
}

#[test]
fn ssl() {
    arrives("TEST_KAFKA_SSL_ADDR", |setup| {
        setup.set("KAFKA_SECURITY_PROTOCOL", "SSL").set("KAFKA_SSL_CA", certificate("ca.pem"))
    });
}

#[test]
fn ssl_with_a_client_certificate() {
    arrives("TEST_KAFKA_SSL_ADDR", |setup| {
        setup
            .set("KAFKA_SECURITY_PROTOCOL", "SSL")
            .set("KAFKA_SSL_CA", certificate("ca.pem"))
            .set("KAFKA_SSL_CERT", certificate("client.pem"))
            .set("KAFKA_SSL_KEY", certificate("client.key"))
    });
}

#[test]
fn sasl_plaintext() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        arrives("TEST_KAFKA_SASL_PLAINTEXT_ADDR", |setup| {
            sasl(setup.set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"), mechanism)
        });
    }
}

#[test]
fn sasl_ssl() {
    arrives("TEST_KAFKA_SASL_SSL_ADDR", |setup| {
        let setup =
            setup.set("KAFKA_SECURITY_PROTOCOL", "SASL_SSL").set("KAFKA_SSL_CA", certificate("ca.pem"));
        sasl(setup, "SCRAM-SHA-256")
    });
}

/// The last line of a bridge that cannot start.
fn refused(address: &str, set: impl FnOnce(Setup) -> Setup) -> String {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let setup = setup(&source, &brokers, "t").set("KAFKA_BOOTSTRAP_SERVERS", shared(address));
    let mut bridge = set(setup.set("KAFKA_MAX_RETRIES", "1")).start();
    let (code, _) = bridge.wait_exit();
    assert_eq!(code, Some(1), "{:#?}", bridge.lines());
    bridge.wait_line("redis2kafka ends").text
}

#[test]
fn a_wrong_password_and_a_certificate_that_is_not_trusted_are_told() {
    let line = refused("TEST_KAFKA_SASL_PLAINTEXT_ADDR", |setup| {
        sasl(setup.set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"), "PLAIN")
            .set("KAFKA_SASL_PASSWORD", "wrong")
    });
    assert!(line.contains("uthentication failed"), "{line}");
    let line = refused("TEST_KAFKA_SSL_ADDR", |setup| {
        setup.set("KAFKA_SECURITY_PROTOCOL", "SSL").set("KAFKA_SSL_CA", certificate("other-ca.pem"))
    });
    assert!(line.contains("certificate"), "{line}");
}

#[test]
fn a_user_without_rights_is_held_and_told_once_and_nothing_is_a_dead_letter() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let setup = sasl(setup(&source, &brokers, &topic), "PLAIN")
        .set("KAFKA_BOOTSTRAP_SERVERS", shared("TEST_KAFKA_SASL_PLAINTEXT_ADDR"))
        .set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    let mut bridge = setup
        .clone()
        .set("KAFKA_SASL_USERNAME", shared("TEST_KAFKA_STRANGER"))
        .set("KAFKA_BACKOFF_BASE", "0.1")
        .set("KAFKA_BACKOFF_MAX", "0.5")
        .set("LOG_LEVEL", "DEBUG")
        .start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    bridge.wait_line("the user may not write to any topic");
    let tries = || bridge.lines_with("the user may not write to any topic").len();
    wait_until("it is tried again", || bridge.lines(), || tries() > 4);
    bridge.stop();
    let told: Vec<_> =
        bridge.lines().into_iter().filter(|line| line.text.starts_with("Kafka brokers at")).collect();
    let told_as = |level: &str| told.iter().filter(|line| line.level == level).count();
    assert_eq!(["ERROR", "WARN"].map(told_as), [1, 0], "{told:?}");
    assert!(told.iter().all(|line| !line.text.contains("is back")), "{told:?}");
    bridge.check_errors(&["not permitted to write to topic", "the user may not write to any topic"]);
    assert!(source.letters(0, "s").is_empty());
    let bridge = setup.start();
    assert_eq!(ids(&brokers.wait_records(&topic, 1), "s"), ["1-0"]);
    drop(bridge);
}

#[test]
fn a_sync_without_rights_says_so() {
    let (source, buffer, brokers) = (Redis::start(), Redis::durable(), Brokers::shared());
    let topic = brokers.topic(1);
    let setup = sasl(buffered(setup(&source, &brokers, &topic), &buffer), "PLAIN")
        .set("KAFKA_BOOTSTRAP_SERVERS", shared("TEST_KAFKA_SASL_PLAINTEXT_ADDR"))
        .set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        .set("KAFKA_SASL_USERNAME", shared("TEST_KAFKA_STRANGER"));
    let mut send = setup.clone().arg("send").arg(&topic).arg("--device").arg("d").arg("1").start();
    assert_eq!(send.wait_exit().0, Some(0), "{:?}", send.lines());
    let mut sync = setup.arg("sync").start();
    assert_eq!(sync.wait_exit().0, Some(1));
    let lines = sync.lines();
    let last = &lines.last().expect("it says something").text;
    assert!(last.contains("not permitted") || last.contains("may not write"), "{lines:?}");
}
