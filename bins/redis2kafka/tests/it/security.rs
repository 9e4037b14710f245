//! Each security protocol against a real listener, and what is said when it does not let us in.

use test_kit::bridge::Setup;
use test_kit::kafka::Brokers;
use test_kit::redis::Redis;
use test_kit::{certificate, shared};

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
fn a_user_without_rights_is_held_and_reported_and_nothing_is_a_dead_letter() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let setup = sasl(setup(&source, &brokers, &topic), "PLAIN")
        .set("KAFKA_BOOTSTRAP_SERVERS", shared("TEST_KAFKA_SASL_PLAINTEXT_ADDR"))
        .set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    let mut bridge = setup.clone().set("KAFKA_SASL_USERNAME", shared("TEST_KAFKA_STRANGER")).start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    bridge.wait_line("not permitted to write to topic");
    bridge.stop();
    bridge.check_errors(&["not permitted to write to topic"]);
    assert!(source.letters(0, "s").is_empty());
    let bridge = setup.start();
    assert_eq!(ids(&brokers.wait_records(&topic, 1), "s"), ["1-0"]);
    drop(bridge);
}
