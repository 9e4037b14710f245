//! Servers that cannot be reached at the start, or say no: as many attempts as set, then one clear line that names the
//! place, exit 1, and no secret anywhere.

use std::net::{Ipv4Addr, TcpListener};

use crate::harness::bridge::{Bridge, Setup, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::redis::Redis;
use crate::harness::{certificate, free_port, shared};

const SECRET: &str = "not-for-anybodys-eyes";

/// It ends with 1 after `attempts`, and its only ERROR line holds all of these.
fn fails(setup: &Setup, attempts: usize, parts: &[&str]) -> Bridge {
    let mut bridge = setup.start();
    let (code, _) = bridge.wait_exit();
    assert_eq!(code, Some(1), "{:#?}", bridge.lines());
    let errors: Vec<_> = bridge.lines().into_iter().filter(|line| line.level == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{:#?}", bridge.lines());
    for part in parts.iter().chain(&[format!("{attempts} attempts").as_str()]) {
        assert!(errors[0].text.contains(part), "{part:?} is not in {:?}", errors[0]);
    }
    assert_eq!(bridge.lines_with("not connected yet").len(), attempts - 1, "{:#?}", bridge.lines());
    assert!(bridge.lines().iter().all(|line| !line.text.contains(SECRET)), "{:#?}", bridge.lines());
    bridge
}

/// The address split at its port.
fn host_and_port(address: &str) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host.to_owned(), port.to_owned())
}

/// A setup whose broker is this one of the shared ones.
fn to_broker(redis: &Redis, address: &str) -> Setup {
    let (host, port) = host_and_port(address);
    setup(redis.port, 1)
        .set("MQTT_BROKER_HOST", host)
        .set("MQTT_BROKER_PORT", port)
        .set("MQTT_MAX_RETRIES", 2)
}

#[test]
fn no_redis() {
    let port = free_port();
    let setup = setup(port, free_port()).set("REDIS_MAX_RETRIES", 3).set("REDIS_PASSWORD", SECRET);
    fails(&setup, 3, &["cannot reach the source Redis", &format!("127.0.0.1:{port}")]);
}

#[test]
fn no_broker() {
    let (redis, port) = (Redis::start(), free_port());
    let setup = setup(redis.port, port).set("MQTT_MAX_RETRIES", 3).set("MQTT_USERNAME", "u");
    let setup = setup.set("MQTT_PASSWORD", SECRET);
    fails(&setup, 3, &["cannot reach the MQTT broker", &format!("127.0.0.1:{port}"), "refused"]);
}

#[test]
fn a_name_that_does_not_exist() {
    let redis = Redis::start();
    let redis_name = setup(1, free_port()).set("REDIS_HOST", "redis.invalid").set("REDIS_MAX_RETRIES", 1);
    fails(&redis_name, 1, &["cannot reach the source Redis", "redis.invalid"]);
    let broker = setup(redis.port, 1).set("MQTT_BROKER_HOST", "broker.invalid").set("MQTT_MAX_RETRIES", 1);
    fails(&broker, 1, &["cannot reach the MQTT broker", "broker.invalid"]);
}

#[test]
fn something_else_listens_there() {
    let redis = Redis::start();
    fails(
        &setup(redis.port, redis.port).set("MQTT_MAX_RETRIES", 1),
        1,
        &["cannot reach the MQTT broker", "no answer within"],
    );
    let broker = FakeBroker::start();
    fails(
        &setup(broker.port, broker.port).set("REDIS_MAX_RETRIES", 1),
        1,
        &["cannot reach the source Redis"],
    );
    // Takes connections and never says a word.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    fails(
        &setup(silent.local_addr().unwrap().port(), 1).set("REDIS_MAX_RETRIES", 1),
        1,
        &["cannot reach the source Redis"],
    );
    fails(
        &setup(redis.port, silent.local_addr().unwrap().port()).set("MQTT_MAX_RETRIES", 1),
        1,
        &["cannot reach the MQTT broker", "no answer within"],
    );
}

#[test]
fn a_wrong_redis_password() {
    let redis = Redis::with(&["--requirepass", "right"]);
    let setup = setup(redis.port, free_port()).set("REDIS_MAX_RETRIES", 2);
    fails(&setup.clone().set("REDIS_PASSWORD", SECRET), 2, &["cannot reach the source Redis", "WRONGPASS"]);
    fails(&setup, 2, &["cannot reach the source Redis", "NOAUTH"]);
    let user = setup.set("REDIS_USERNAME", "nobody").set("REDIS_PASSWORD", SECRET);
    fails(&user, 2, &["cannot reach the source Redis", "WRONGPASS"]);
}

#[test]
fn a_wrong_mqtt_password() {
    let redis = Redis::start();
    for version in ["auto", "5", "4"] {
        let setup = to_broker(&redis, &shared("TEST_MQTT_AUTH_ADDR")).set("MQTT_VERSION", version);
        let wrong = setup.clone().set("MQTT_USERNAME", shared("TEST_MQTT_USER")).set("MQTT_PASSWORD", SECRET);
        fails(&wrong, 2, &["cannot reach the MQTT broker", "NotAuthorized"]);
        fails(&setup, 2, &["cannot reach the MQTT broker", "NotAuthorized"]);
    }
}

#[test]
fn tls_where_the_broker_speaks_none_and_none_where_it_does() {
    let redis = Redis::start();
    let ca = certificate("ca.pem");
    let tls = |setup: Setup| setup.set("MQTT_USE_TLS", "true").set("MQTT_TLS_CA", &ca);
    let plain = to_broker(&redis, &shared("TEST_MQTT_ADDR"));
    fails(&tls(plain), 2, &["cannot reach the MQTT broker", "no TLS"]);
    let encrypted = to_broker(&redis, &shared("TEST_MQTT_TLS_ADDR"));
    fails(&encrypted, 2, &["cannot reach the MQTT broker", "does it expect TLS?"]);
    let cert = |setup: Setup| {
        setup.set("MQTT_TLS_CERT", certificate("client.pem")).set("MQTT_TLS_KEY", certificate("client.key"))
    };
    let stranger = cert(tls(encrypted.clone())).set("MQTT_TLS_CA", certificate("other-ca.pem"));
    fails(&stranger, 2, &["cannot reach the MQTT broker", "certificate", "MQTT_TLS_CA"]);
    fails(&tls(encrypted), 2, &["cannot reach the MQTT broker", "ertificate"]);
}

#[test]
fn tls_where_redis_speaks_none_and_none_where_it_does() {
    let redis = Redis::start();
    let tls = |setup: Setup| setup.set("REDIS_SSL", "true").set("SOURCE_REDIS_SSL_CA", certificate("ca.pem"));
    let setup = setup(redis.port, free_port()).set("REDIS_MAX_RETRIES", 2);
    fails(&tls(setup.clone()), 2, &["cannot reach the source Redis", "does it speak TLS on this port?"]);
    let (_, port) = host_and_port(&shared("TEST_REDIS_TLS_URL"));
    let encrypted = setup.set("REDIS_HOST", "localhost").set("REDIS_PORT", port);
    fails(&encrypted, 2, &["cannot reach the source Redis", "does it expect TLS?"]);
    let stranger = tls(encrypted).set("SOURCE_REDIS_SSL_CA", certificate("other-ca.pem"));
    fails(&stranger, 2, &["cannot reach the source Redis", "the authority that signed"]);
}
