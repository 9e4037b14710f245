//! What arrives, and how: topics and payloads exactly, every protocol version, quality of service and transport, every
//! way to reach Redis.

use std::time::Duration;

use serde_json::json;

use crate::harness::bridge::{Bridge, GROUP, Setup, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::redis::{Client, Redis};
use crate::harness::subscriber::Subscriber;
use crate::harness::writer::{Target, targets, wait_settled, write};
use crate::harness::{certificate, shared, unique, wait_until};

#[test]
fn topic_and_payload_are_as_described() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    redis.ask(0, &["XADD", "device:1", "1651234567890-0", "temp", "23.5", "state", "on", "note", ""]);
    redis.ask(
        1,
        &["XADD", "device:1", "5-7", "big", "12345678901234567890123", "flag", "true", "o", "{\"a\":1}"],
    );
    let mut bridge = setup(redis.port, broker.port).start();
    let mut seen = broker.wait_seen(2);
    seen.sort_by_key(|seen| seen.publish.topic.clone());
    let check = |at: usize, topic: &str, begins: &str, id: &str| {
        let publish = &seen[at].publish;
        assert_eq!(publish.topic, topic);
        let payload = String::from_utf8(publish.payload.clone()).unwrap();
        let (head, time) = payload.split_at(begins.len());
        assert_eq!(head, begins);
        assert_eq!(time.len(), "2023-05-01T12:34:56.789012\"}".len(), "{payload}");
        assert!(time.ends_with("\"}"));
        // The user property `id` of MQTT 5.
        let property = [&[0x26, 0, 2], b"id".as_slice(), &[0, id.len() as u8], id.as_bytes()].concat();
        assert_eq!(publish.properties, property);
        assert_eq!((publish.qos, publish.retain, seen[at].level), (1, false, 5));
    };
    check(
        0,
        "redis/db1/device/1",
        r#"{"stream":"db1:device:1","id":"5-7","data":{"big":12345678901234567890123,"flag":true,"o":{"a":1}},"timestamp":""#,
        "5-7",
    );
    check(
        1,
        "redis/device/1",
        r#"{"stream":"device:1","id":"1651234567890-0","data":{"temp":23.5,"state":"on","note":""},"timestamp":""#,
        "1651234567890-0",
    );
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_stream_created_while_it_runs_is_read_within_an_interval() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    bridge.wait_line("Searching Redis databases 0, 1, 2");
    for round in 0..5u16 {
        let stream = [Target::new(round % 3, &format!("new:{round}"))];
        let begun = std::time::Instant::now();
        broker.wait_complete(&write(&redis, &stream, 3)).check(0);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn what_the_filter_stops_is_acknowledged_and_not_sent() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    for (number, kind) in ["a", "b", "c", "a", "d", "b"].iter().enumerate() {
        redis.ask(0, &["XADD", "s", &format!("{}-0", number + 1), "kind", kind]);
    }
    redis.ask(0, &["XADD", "s", "9-0", "other", "a"]);
    let mut bridge = setup(redis.port, broker.port)
        .set("MQTT_FILTER_FIELD", "kind")
        .set("MQTT_FILTER_VALUES", "a,b")
        .start();
    broker.wait_seen(4);
    wait_settled(&redis, &[Target::new(0, "s")]);
    let ids: Vec<_> = broker.arrivals().into_iter().map(|arrival| arrival.id.0).collect();
    assert_eq!(ids, [1, 2, 4, 6]);
    let group = redis.ask(0, &["XINFO", "GROUPS", "s"]).list().swap_remove(0).list();
    let field = |name: &str| group.iter().position(|part| part.text() == name).map(|at| group[at + 1].text());
    assert_eq!(field("last-delivered-id"), Some("9-0".to_owned()));
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn every_quality_of_service_in_both_versions() {
    for version in ["4", "5"] {
        for qos in 0..=2u8 {
            let (redis, broker) = (Redis::start(), Mosquitto::start());
            let arrived = Subscriber::start(broker.port, "redis/#");
            let streams = targets(4);
            let ledger = write(&redis, &streams, 400);
            let mut bridge =
                setup(redis.port, broker.port).set("MQTT_QOS", qos).set("MQTT_VERSION", version).start();
            arrived.wait_complete(&ledger).check(0);
            wait_settled(&redis, &streams);
            assert!(arrived.messages().iter().all(|message| message.qos == qos && !message.retain));
            bridge.stop();
            bridge.check_errors(&[]);
        }
    }
}

#[test]
fn retained_messages_are_there_for_who_comes_later() {
    let (redis, broker) = (Redis::start(), Mosquitto::start());
    let mut bridge = setup(redis.port, broker.port).set("MQTT_RETAIN", "true").start();
    write(&redis, &targets(4), 40);
    let live = Subscriber::start(broker.port, "redis/#");
    live.wait_complete(&write(&redis, &targets(4), 4));
    wait_settled(&redis, &targets(4));
    let late = Subscriber::start(broker.port, "redis/#");
    let messages = late.wait_count(4);
    assert!(messages.iter().all(|message| message.retain) && messages.len() == 4);
    bridge.stop();
    bridge.check_errors(&[]);
}

/// Delivers through a shared broker whose plain listener is heard.
fn through_shared_broker(base: &str, set: impl FnOnce(Setup) -> Setup) {
    let redis = Redis::start();
    let (_, port) =
        shared("TEST_MQTT_ADDR").rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
    let arrived = Subscriber::start(port.parse().unwrap(), &format!("{base}/#"));
    let streams = targets(4);
    let ledger = write(&redis, &streams, 200);
    let mut bridge = set(setup(redis.port, 1).set("MQTT_BASE_TOPIC", base)).start();
    arrived.wait_complete(&ledger).check(0);
    wait_settled(&redis, &streams);
    bridge.stop();
    bridge.check_errors(&[]);
}

fn to(setup: Setup, address: &str) -> Setup {
    let (host, port) = address.rsplit_once(':').unwrap();
    setup.set("MQTT_BROKER_HOST", host).set("MQTT_BROKER_PORT", port)
}

#[test]
fn over_websockets() {
    through_shared_broker(&unique("ws"), |setup| {
        let url = shared("TEST_MQTT_WS_URL");
        setup.unset("MQTT_BROKER_PORT").set("MQTT_TRANSPORT", "websockets").set("MQTT_BROKER_HOST", url)
    });
}

#[test]
fn over_tls_with_a_client_certificate() {
    through_shared_broker(&unique("tls"), |setup| {
        to(setup, &shared("TEST_MQTT_TLS_ADDR"))
            .set("MQTT_USE_TLS", "true")
            .set("MQTT_TLS_CA", certificate("ca.pem"))
            .set("MQTT_TLS_CERT", certificate("client.pem"))
            .set("MQTT_TLS_KEY", certificate("client.key"))
    });
}

#[test]
fn with_user_and_password_also_from_a_file() {
    for version in ["5", "4"] {
        through_shared_broker(&format!("allowed/{}", unique("auth")), |setup| {
            let file = setup.dir().join("password");
            std::fs::write(&file, shared("TEST_MQTT_PASSWORD") + "\n").unwrap();
            to(setup, &shared("TEST_MQTT_AUTH_ADDR"))
                .set("MQTT_VERSION", version)
                .set("MQTT_USERNAME", shared("TEST_MQTT_USER"))
                .set("MQTT_PASSWORD_FILE", file.display())
        });
    }
}

/// Reads from the shared Redis, reached as `set` says.
fn from_shared_redis(set: impl FnOnce(Setup) -> Setup) {
    let broker = FakeBroker::start();
    let key = unique("from-shared-redis");
    let port: u16 = shared("TEST_REDIS_URL").rsplit_once(':').unwrap().1.parse().unwrap();
    let mut client = Client::open(port).unwrap();
    for _ in 0..20 {
        client.add(key.as_bytes(), &[(b"a", b"1")]).unwrap();
    }
    let setup = setup(1, broker.port).unset("REDIS_HOST").unset("REDIS_PORT");
    let mut bridge: Bridge = set(setup.set("STREAM_DISCOVERY_PATTERNS", &key)).start();
    broker.wait_seen(20);
    let pending = |client: &mut Client| client.ask(&[b"XPENDING", key.as_bytes(), GROUP.as_bytes()]).unwrap();
    wait_until("settled", || (), || pending(&mut client).list()[0].text() == "0");
    client.ask(&[b"DEL", key.as_bytes()]).unwrap();
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn from_redis_by_url_user_tls_and_socket() {
    let address = |variable: &str| shared(variable).rsplit_once("//").unwrap().1.to_owned();
    let port = |variable: &str| shared(variable).rsplit_once(':').unwrap().1.to_owned();
    let ca = certificate("ca.pem");
    from_shared_redis(|setup| setup.set("REDIS_URL", shared("TEST_REDIS_URL")));
    from_shared_redis(|setup| {
        let (user, password) = (shared("TEST_REDIS_USER"), shared("TEST_REDIS_PASSWORD"));
        setup.set("SOURCE_REDIS_URL", format!("redis://{user}:{password}@{}", address("TEST_REDIS_URL")))
    });
    from_shared_redis(|setup| {
        setup
            .set("REDIS_PORT", port("TEST_REDIS_URL"))
            .set("REDIS_USERNAME", shared("TEST_REDIS_USER"))
            .set("REDIS_PASSWORD", shared("TEST_REDIS_PASSWORD"))
    });
    from_shared_redis(|setup| {
        setup.set("REDIS_URL", shared("TEST_REDIS_TLS_URL")).set("SOURCE_REDIS_SSL_CA", &ca)
    });
    from_shared_redis(|setup| {
        setup
            .set("REDIS_PORT", port("TEST_REDIS_TLS_URL"))
            .set("REDIS_SSL", "true")
            .set("SOURCE_REDIS_SSL_CA", &ca)
            .set("SOURCE_REDIS_SSL_CERT", certificate("client.pem"))
            .set("SOURCE_REDIS_SSL_KEY", certificate("client.key"))
    });
    from_shared_redis(|setup| setup.set("REDIS_URL", format!("unix://{}", shared("TEST_REDIS_SOCKET"))));
}

#[test]
fn values_as_text_when_asked_and_a_start_at_the_end() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    redis.ask(0, &["XADD", "old", "1-0", "n", "1"]);
    let setup = setup(redis.port, broker.port).set("VALUE_FORMAT", "text").set("STREAM_START_ID", "$");
    let mut bridge = setup.start();
    bridge.wait_line("created the consumer group");
    redis.ask(0, &["XADD", "old", "2-0", "n", "2"]);
    redis.ask(0, &["XADD", "new", "1-0", "n", "3"]);
    let seen = broker.wait_seen(2);
    let data: Vec<_> = seen
        .iter()
        .map(|seen| {
            serde_json::from_slice::<serde_json::Value>(&seen.publish.payload).unwrap()["data"].clone()
        })
        .collect();
    assert!(data.contains(&json!({"n": "2"})) && data.contains(&json!({"n": "3"})), "{data:?}");
    bridge.stop();
    bridge.check_errors(&[]);
}
