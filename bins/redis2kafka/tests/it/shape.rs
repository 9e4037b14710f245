//! What a record looks like, where it goes, and what the topics' map says.

use test_kit::kafka::Brokers;
use test_kit::redis::Redis;
use test_kit::wait_until;

use crate::harness::{Scene, ids};

#[test]
fn a_record_says_which_entry_it_is() {
    let scene = Scene::begin(|setup| setup.set("SOURCE_NAME", "plant7/"));
    scene.source.ask(2, &["XADD", "device:1", "1651234567890-3", "temp", "21.50", "unit", "°C"]);
    let record = scene.records(1).remove(0);
    assert_eq!(record.key.as_deref(), Some("plant7/db2:device:1"));
    assert_eq!(
        String::from_utf8_lossy(&record.value),
        r#"{"stream":"plant7/db2:device:1","id":"1651234567890-3","data":{"temp":21.50,"unit":"°C"}}"#
    );
    assert_eq!(record.header("redis.stream"), Some("plant7/db2:device:1"));
    assert_eq!(record.header("redis.entry_id"), Some("1651234567890-3"));
    assert_eq!(record.header("bridge"), Some(concat!("redis2kafka ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(record.timestamp, Some(1_651_234_567_890));
    scene.end(&[]);
}

#[test]
fn bytes_that_are_no_text_repeated_names_and_big_numbers_survive() {
    let scene = Scene::begin(|setup| setup);
    let mut client = scene.source.client();
    let fields: [(&[u8], &[u8]); 3] =
        [(b"bin", b"\xff\0"), (b"big", b"123456789012345678901234567890"), (b"nul", b"a\0b")];
    client.add(b"s", &fields).unwrap();
    client.add(b"s", &[(b"a", b"1"), (b"a", b"2")]).unwrap();
    let records = scene.records(2);
    let value = |at: usize| String::from_utf8_lossy(&records[at].value).into_owned();
    assert!(
        value(0).ends_with(
            r#""data":{"bin":{"$base64":"/wA="},"big":123456789012345678901234567890,"nul":"a\u0000b"}}"#
        ),
        "{}",
        value(0)
    );
    assert!(value(1).ends_with(r#""data":{"$fields":[["a",1],["a",2]]}}"#), "{}", value(1));
    scene.end(&[]);
}

#[test]
fn the_first_pattern_that_matches_says_the_topic_and_a_stream_keeps_to_one_partition() {
    let brokers = Brokers::shared();
    let (devices, others) = (brokers.topic(4), brokers.topic(4));
    let map = format!(r#"{{"device:*": "{devices}", "*": "{others}"}}"#);
    let scene = Scene::between(Redis::start(), brokers, "never".into(), |setup| {
        setup.set("STREAM_TARGET_TOPIC_MAP", map)
    });
    for number in 0..40 {
        scene.add(0, &format!("device:{}", number % 4), "*", &number.to_string());
        scene.add(1, &format!("other:{}", number % 4), "*", &number.to_string());
    }
    for (topic, streams) in [(&devices, ["device:0", "device:1"]), (&others, ["db1:other:0", "db1:other:1"])]
    {
        let records = scene.brokers.wait_records(topic, 40);
        assert_eq!(records.len(), 40);
        for stream in streams {
            let of: Vec<_> = records.iter().filter(|record| record.key.as_deref() == Some(stream)).collect();
            assert_eq!(of.len(), 10);
            assert!(of.iter().all(|record| record.partition == of[0].partition), "{of:?}");
            assert!(ids(&records, stream).is_sorted());
        }
    }
    scene.end(&[]);
}

#[test]
fn the_time_of_sending_where_that_is_wanted() {
    let scene = Scene::begin(|setup| setup.set("KAFKA_TIMESTAMP", "now"));
    scene.add(0, "s", "5-0", "1");
    let timestamp = scene.records(1).remove(0).timestamp.unwrap();
    assert!(timestamp > 1_600_000_000_000, "{timestamp}");
    scene.end(&[]);
}

#[test]
fn a_time_that_the_topic_refuses_is_replaced_by_that_of_sending() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("times-");
    brokers.create(&topic, 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let scene = Scene::between(Redis::start(), brokers, topic, |setup| setup);
    for number in 1..=20 {
        scene.add(0, "s", &format!("{number}-0"), "1");
    }
    let records = scene.records(20);
    scene.wait_settled(0, "s");
    assert!(records.iter().all(|record| record.timestamp.unwrap() > 1_600_000_000_000), "{records:?}");
    scene.bridge.wait_line("refuses the time in the entries' IDs");
    for number in 21..=40 {
        scene.add(0, "s", &format!("{number}-0"), "1");
    }
    let records = scene.records(40);
    assert_eq!(ids(&records, "s"), (1..=40).map(|number| format!("{number}-0")).collect::<Vec<_>>());
    assert_eq!(scene.bridge.lines_with("refuses the time").len(), 1);
    scene.end(&[]);
}

#[test]
fn check_says_what_would_be_read() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let topic = brokers.topic(1);
    source.ask(0, &["XADD", "s", "*", "a", "1"]);
    let setup = crate::harness::setup(&source, &brokers, &topic);
    let mut check =
        setup.set("STREAM_TARGET_TOPIC_MAP", r#"{"x": "not-there"}"#).arg("check").arg("--connect").start();
    let (code, _) = check.wait_exit();
    let out = check.stdout();
    assert_eq!(code, Some(0), "{out}");
    for part in [
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_CONFIG",
        &topic,
        "Kafka brokers at",
        "topic not-there does not exist",
        "s",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    wait_until("nothing was sent", || (), || brokers.read(&topic).is_empty());
}

#[test]
fn entries_older_than_the_topic_keeps_are_told_once() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("short-");
    brokers.create(&topic, 1, &[("retention.ms", "86400000")]);
    let scene = Scene::between(Redis::start(), brokers, topic, |setup| setup);
    scene.add(0, "s", "1651234567890-0", "1");
    scene.records(1);
    wait_until(
        "it is told",
        || scene.bridge.lines(),
        || {
            scene.add(0, "s", "*", "1");
            scene.add(0, "t", "1651234567890-*", "1");
            !scene.bridge.lines_with("keeps records for 86400 s").is_empty()
        },
    );
    assert_eq!(scene.bridge.lines_with("keeps records for 86400 s").len(), 1);
    scene.end(&[]);
}
