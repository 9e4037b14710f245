//! Through the buffer: what stands there, what is marked, and what becomes of both when a server goes away.

use std::time::{Duration, Instant};

use test_kit::bridge::{Bridge, Setup};
use test_kit::kafka::{Brokers, Kafka};
use test_kit::redis::{Redis, Reply};
use test_kit::writer;
use test_kit::{LONG, wait_for, wait_until};

use crate::harness::{GROUP, ids, setup, wait_all_settled, wait_settled};

/// The same bridge with a buffer.
pub(crate) fn buffered(setup: Setup, buffer: &Redis) -> Setup {
    setup
        .set("TARGET_REDIS_HOST", "127.0.0.1")
        .set("TARGET_REDIS_PORT", buffer.port)
        .set("TARGET_REDIS_BACKOFF_BASE", "0.1")
        .set("TARGET_REDIS_BACKOFF_MAX", "0.5")
        .set("BUFFER_SYNC_INTERVAL", "0.5")
}

/// How many messages Kafka does not have.
pub(crate) fn unsynced(buffer: &Redis) -> i64 {
    match buffer.ask(0, &["SCARD", "unsynced_keys_set"]) {
        Reply::Number(count) => count,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn wait_synced(buffer: &Redis, bridge: &Bridge) {
    wait_for(
        "all is synced",
        4 * LONG,
        || (unsynced(buffer), bridge.lines()),
        || (unsynced(buffer) == 0).then_some(()),
    );
}

/// A source, a buffer, a topic of the shared broker, and a bridge.
pub(crate) struct Scene {
    pub(crate) source: Redis,
    pub(crate) buffer: Redis,
    pub(crate) brokers: Brokers,
    pub(crate) topic: String,
    pub(crate) setup: Setup,
    pub(crate) bridge: Bridge,
}

impl Scene {
    pub(crate) fn begin(set: impl FnOnce(Setup) -> Setup) -> Self {
        let brokers = Brokers::shared();
        let topic = brokers.topic(1);
        Self::between(Redis::start(), Redis::durable(), brokers, topic, set)
    }

    pub(crate) fn between(
        source: Redis,
        buffer: Redis,
        brokers: Brokers,
        topic: String,
        set: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let setup = set(buffered(setup(&source, &brokers, &topic), &buffer));
        let bridge = setup.start();
        Self { source, buffer, brokers, topic, setup, bridge }
    }

    pub(crate) fn add(&self, key: &str, id: &str, value: &str) {
        self.source.ask(0, &["XADD", key, id, "n", value]);
    }

    fn key(&self, stream: &str, id: &str) -> String {
        format!("message:{}:{stream}:{id}", self.topic)
    }

    fn text(&self, words: &[&str]) -> String {
        self.buffer.ask(0, words).text()
    }

    pub(crate) fn wait_synced(&self) {
        wait_synced(&self.buffer, &self.bridge);
    }

    pub(crate) fn end(mut self, errors: &[&str]) {
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

/// A number that the server answers with.
fn number(reply: Reply) -> i64 {
    match reply {
        Reply::Number(number) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_kept_until_kafka_has_it_and_marked_then() {
    let scene = Scene::begin(|setup| {
        setup.set("TARGET_REDIS_TIME_TO_LIVE", "100").set("TARGET_REDIS_SYNC_TTL", "1000")
    });
    scene.add("a:b", "1700000000000-7", "1.50");
    scene.add("a:b", "1700000000001-0", "x");
    let records = scene.brokers.wait_records(&scene.topic, 2);
    assert_eq!(ids(&records, "a:b"), ["1700000000000-7", "1700000000001-0"]);
    assert_eq!(records[0].value, br#"{"stream":"a:b","id":"1700000000000-7","data":{"n":1.50}}"#);
    assert_eq!(records[0].key.as_deref(), Some("a:b"));
    assert_eq!(records[0].timestamp, Some(1_700_000_000_000));
    assert!(records[0].header("bridge").unwrap().starts_with("redis2kafka "));
    scene.wait_synced();
    let key = scene.key("a:b", "1700000000000-7");
    let message: serde_json::Value = serde_json::from_str(&scene.text(&["GET", &key])).expect("JSON");
    assert_eq!(message["topic"], scene.topic.as_str());
    assert_eq!(message["key"], "a:b");
    assert_eq!(message["value"]["data"]["n"], 1.5);
    assert_eq!(scene.text(&["GET", &format!("synced:{key}")]), message["digest"].as_str().unwrap());
    let left = number(scene.buffer.ask(0, &["TTL", &key]));
    assert!((80..=100).contains(&left), "{left}");
    let left = number(scene.buffer.ask(0, &["TTL", &format!("synced:{key}")]));
    assert!((900..=1000).contains(&left), "{left}");
    for set in ["unsynced_queues", &format!("unsynced:message:{}:a:b", scene.topic)] {
        assert_eq!(scene.buffer.ask(0, &["EXISTS", set]), Reply::Number(0), "{set}");
    }
    wait_settled(&scene.source, &scene.bridge, 0, "a:b");
    scene.end(&[]);
}

#[test]
fn kafka_away_for_long_and_the_bridge_restarted_meanwhile() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(3);
    kafka.stop();
    let mut scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| setup);
    let streams = writer::targets(20);
    let mut ledger = writer::write(&scene.source, &streams, 10_000);
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_eq!(unsynced(&scene.buffer), 10_000);
    scene.bridge.kill();
    scene.bridge = scene.setup.start();
    ledger.join(writer::write(&scene.source, &streams, 5_000));
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    let stopping = scene.bridge.stop();
    assert!(stopping < Duration::from_secs(8), "{stopping:?}");
    scene.bridge = scene.setup.start();
    assert_eq!(unsynced(&scene.buffer), 15_000);
    kafka.up();
    let begun = Instant::now();
    scene.wait_synced();
    eprintln!("15,000 messages drained in {:?}", begun.elapsed());
    ledger.tally(&scene.brokers.arrivals(&scene.topic)).check(0);
    scene.end(&[]);
}

#[test]
fn an_entry_that_comes_again_is_sent_once() {
    let scene = Scene::begin(|setup| setup.set("STREAM_CLEANUP", "ack"));
    for number in 1..=3 {
        scene.add("s", &format!("{number}-0"), "a");
    }
    scene.brokers.wait_records(&scene.topic, 3);
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    scene.wait_synced();
    // Everything is read once more, as after a crash between storing and acknowledging.
    let mut scene = scene;
    scene.bridge.stop();
    scene.source.ask(0, &["XGROUP", "SETID", "s", GROUP, "0"]);
    scene.bridge = scene.setup.start();
    scene.add("s", "4-0", "b");
    let records = scene.brokers.wait_records(&scene.topic, 4);
    assert_eq!(ids(&records, "s"), ["1-0", "2-0", "3-0", "4-0"]);
    // Nothing more comes behind it: what is sent next is the next record.
    scene.add("s", "5-0", "c");
    assert_eq!(ids(&scene.brokers.wait_records(&scene.topic, 5), "s")[4], "5-0");
    scene.end(&[]);
}

#[test]
fn other_content_under_a_key_waits_until_it_is_synced_and_is_a_new_message_then() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(1);
    kafka.stop();
    let scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| setup);
    let anew = |value: &str| {
        scene.source.ask(0, &["DEL", "s"]);
        for id in ["1-0", "2-0"] {
            scene.add("s", id, value);
        }
    };
    anew("first");
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    assert_eq!(unsynced(&scene.buffer), 2);
    anew("second");
    scene.add("s", "3-0", "second");
    scene.bridge.wait_line("the buffer has another message under its key");
    assert_eq!(unsynced(&scene.buffer), 2, "nothing is stored past it");
    kafka.up();
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    scene.wait_synced();
    anew("third");
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    scene.wait_synced();
    let values: Vec<_> =
        scene.brokers.wait_records(&scene.topic, 7).iter().map(test_kit::kafka::Record::json).collect();
    let values: Vec<_> = values.iter().map(|value| value["data"]["n"].as_str().unwrap()).collect();
    assert_eq!(values, ["first", "first", "second", "second", "second", "third", "third"]);
    assert!(scene.source.letters(0, "s").is_empty());
    assert_eq!(scene.buffer.ask(0, &["EXISTS", "replaced"]), Reply::Number(0));
    scene.end(&[]);
}

#[test]
fn messages_that_are_refused_one_after_the_other_hold_the_queue_once_and_are_told() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "50000")]);
    let scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| {
        setup.set("KAFKA_COMPRESSION", "none")
    });
    let refused = |count| {
        let refused = || number(scene.buffer.ask(0, &["HLEN", "refused"]));
        wait_until("it is refused", || (refused(), scene.bridge.lines()), || refused() == count);
    };
    let told = || scene.bridge.lines_with(&format!("topic {} (what waits", scene.topic)).len();
    scene.add("s", "1-0", &"x".repeat(60_000));
    refused(1);
    assert_eq!(told(), 0, "one is poison");
    scene.add("s", "2-0", &"x".repeat(60_000));
    refused(2);
    assert!(told() > 0, "two may be the topic's fault");
    scene.add("s", "3-0", "x");
    assert_eq!(ids(&scene.brokers.wait_records(&scene.topic, 1), "s"), ["3-0"]);
    scene.wait_synced();
    scene.end(&["(what waits for it in the buffer)"]);
}

#[test]
fn a_message_that_the_topic_refuses_stays_and_is_sent_again_when_asked() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "50000")]);
    let scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| {
        setup.set("KAFKA_COMPRESSION", "none").set("TARGET_REDIS_TIME_TO_LIVE", "1")
    });
    for number in 1..=5 {
        scene.add("s", &format!("{number}-0"), &"x".repeat(if number == 3 { 60_000 } else { 10 }));
    }
    scene.wait_synced();
    let records = scene.brokers.wait_records(&scene.topic, 4);
    assert_eq!(ids(&records, "s"), ["1-0", "2-0", "4-0", "5-0"]);
    assert!(scene.source.letters(0, "s").is_empty());
    let key = scene.key("s", "3-0");
    assert_eq!(scene.buffer.ask(0, &["TTL", &key]), Reply::Number(-1));
    let run = |arguments: &[&str]| {
        let setup = arguments.iter().fold(scene.setup.clone(), |setup, argument| setup.arg(argument));
        let mut command = setup.start();
        let (code, _) = command.wait_exit();
        (code, command.stdout())
    };
    let (code, listed) = run(&["buffer", "list", "--refused"]);
    assert!(
        code == Some(0) && listed.starts_with(&key) && listed.contains("MessageSizeTooLarge"),
        "{listed}"
    );
    let (_, status) = run(&["buffer", "status"]);
    assert!(status.contains("unsynced: 0 messages") && status.contains("refused: 1 message\n"), "{status}");
    // A start does not send it again.
    let mut scene = scene;
    scene.bridge.stop();
    scene.bridge = scene.setup.start();
    scene.add("s", "6-0", "x");
    let seen = ids(&scene.brokers.wait_records(&scene.topic, 5), "s");
    assert_eq!(seen[4], "6-0");
    scene.brokers.configure(&scene.topic, &[("max.message.bytes", "100000")]);
    let run = |arguments: &[&str]| {
        let setup = arguments.iter().fold(scene.setup.clone(), |setup, argument| setup.arg(argument));
        let mut command = setup.start();
        let (code, _) = command.wait_exit();
        (code, command.stdout())
    };
    assert_eq!(run(&["buffer", "resend", &key]), (Some(0), "1 message of 1 wait for Kafka again\n".into()));
    assert_eq!(ids(&scene.brokers.wait_records(&scene.topic, 6), "s")[5], "3-0");
    scene.wait_synced();
    assert_eq!(run(&["buffer", "resend", &key]).0, Some(1), "it is not refused any more");
    assert_eq!(run(&["buffer", "resend", "x"]).0, Some(2));
    scene.end(&[]);
}

#[test]
fn what_is_in_no_queue_is_found_at_start_and_sent_in_order() {
    let scene = Scene::begin(|setup| setup.set("STREAM_START_ID", "0"));
    scene.add("s", "1-0", "x");
    scene.brokers.wait_records(&scene.topic, 1);
    scene.wait_synced();
    let mut scene = scene;
    scene.bridge.stop();
    // As it is read, so it is stored, and the queue is lost: by a hand, or with a part of the data.
    let digest = "0123456789abcdef";
    for number in 2..=3000 {
        let id = format!("{number}-0");
        let text = format!(
            r#"{{"digest":"{digest}","topic":"{}","key":"s","timestamp":null,"headers":[["redis.stream","s"],["redis.entry_id","{id}"]],"text":"{number}"}}"#,
            scene.topic
        );
        scene.buffer.ask(0, &["SET", &scene.key("s", &id), &text]);
    }
    // This one stands in the refused ones, and stays there; and this one is none at all.
    scene.buffer.ask(0, &["HSET", "refused", &scene.key("s", "7-0"), "{}"]);
    scene.buffer.ask(0, &["SET", "message:x", "y"]);
    scene.bridge = scene.setup.start();
    let records = scene.brokers.wait_records(&scene.topic, 2999);
    scene.bridge.wait_line("the buffer had messages in no queue");
    let expected: Vec<_> =
        (1..=3000).filter(|number| *number != 7).map(|number| format!("{number}-0")).collect();
    assert_eq!(ids(&records, "s"), expected);
    scene.wait_synced();
    assert_eq!(scene.buffer.ask(0, &["EXISTS", "rebuild_queues"]), Reply::Number(0));
    scene.end(&[]);
}

#[test]
fn the_settings_file_of_the_description_works_as_it_stands() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/sync-core/tests/env-samples/redis2kafka.env.conf");
    let (source, buffer, brokers) = (Redis::start(), Redis::durable(), Brokers::shared());
    for topic in ["device-data-topic", "default-stream-topic", "default-sync-topic"] {
        if brokers.partitions(topic).is_none() {
            brokers.create(topic, 1, &[]);
        }
    }
    // Where the servers are in the test; streams are named, since the file leaves discovery off.
    let mut bridge = Setup::of(env!("CARGO_BIN_EXE_redis2kafka"))
        .arg("--config-file")
        .arg(file.to_str().unwrap())
        .set("SOURCE_REDIS_HOST", "127.0.0.1")
        .set("SOURCE_REDIS_PORT", source.port)
        .set("TARGET_REDIS_HOST", "127.0.0.1")
        .set("TARGET_REDIS_PORT", buffer.port)
        .set("KAFKA_BOOTSTRAP_SERVERS", &brokers.0)
        .set("REDIS_STREAMS", "device:1:stream,x-stream,db3:other")
        .start();
    let id = format!("{}-{}", std::process::id(), buffer.port);
    for (db, stream) in [(0, "device:1:stream"), (0, "x-stream"), (3, "other")] {
        source.ask(db, &["XADD", stream, &id, "n", "1"]);
    }
    wait_until(
        "all is stored",
        || unsynced(&buffer),
        || number(buffer.ask(0, &["DBSIZE"])) >= 6 && unsynced(&buffer) == 0,
    );
    for (topic, stream) in [
        ("device-data-topic", "device:1:stream"),
        ("default-stream-topic", "x-stream"),
        ("default-sync-topic", "db3:other"),
    ] {
        assert_eq!(
            ids(&brokers.read(topic), stream).iter().filter(|found| **found == id).count(),
            1,
            "{topic}"
        );
    }
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn without_kafka_it_starts_is_not_ready_and_tells_what_waits() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(1);
    kafka.stop();
    let scene = Scene::between(Redis::start(), Redis::durable(), brokers, topic, |setup| {
        setup.set("ADMIN_ADDR", "127.0.0.1:0")
    });
    let line = scene.bridge.wait_line("Status and metrics are at");
    let address = line.text.split("127.0.0.1:").nth(1).unwrap();
    let port: u16 = address.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    let number_of = |name: &str| {
        let page = get(port, "/metrics");
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    scene.bridge.wait_line("connected to the buffer Redis");
    scene.add("s", "1700000000000-0", "x");
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    let ready = get(port, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("Kafka brokers at"), "{ready}");
    let unsynced = || number_of("redis_sync_buffer_unsynced");
    wait_until("it tells what waits", || get(port, "/metrics"), || unsynced() == Some(1.0));
    assert!(number_of("redis_sync_buffer_oldest_unsynced_seconds") > Some(1e7));
    kafka.up();
    scene.wait_synced();
    wait_until("it is ready", || get(port, "/readyz"), || get(port, "/readyz").starts_with("HTTP/1.1 200"));
    wait_until("nothing waits", || get(port, "/metrics"), || unsynced() == Some(0.0));
    assert_eq!(number_of("redis_sync_buffer_synced_total"), Some(1.0));
    scene.end(&[]);
}

pub(crate) fn get(port: u16, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
