//! What a program calls, and the same from the shell.

use redis2kafka::{Error, Inputs, Redis2Kafka};
use test_kit::bridge::Setup;
use test_kit::kafka::Brokers;
use test_kit::redis::Redis;

use crate::harness::{GROUP, ids, setup};

fn inputs(source: &Redis, brokers: &Brokers, topic: &str, buffer: Option<&Redis>) -> Inputs {
    let inputs = Inputs::new::<&str, &str>([], "absent.conf")
        .set("SOURCE_REDIS_HOST", "127.0.0.1")
        .set("SOURCE_REDIS_PORT", &source.port.to_string())
        .set("KAFKA_BOOTSTRAP_SERVERS", &brokers.0)
        .set("KAFKA_TOPIC", topic);
    match buffer {
        None => inputs,
        Some(buffer) => {
            inputs.set("TARGET_REDIS_HOST", "127.0.0.1").set("TARGET_REDIS_PORT", &buffer.port.to_string())
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn fill(source: &Redis) {
    for number in 1..=50 {
        source.ask(0, &["XADD", "device:1:stream", &format!("{number}-0"), "n", "1"]);
        source.ask(0, &["XADD", "other-stream", &format!("{number}-0"), "n", "1"]);
        source.ask(0, &["XADD", "not-this", &format!("{number}-0"), "n", "1"]);
        source.ask(1, &["XADD", "elsewhere-stream", &format!("{number}-0"), "n", "1"]);
    }
}

#[test]
fn what_stands_in_streams_is_processed_directly_and_through_the_buffer() {
    for buffered in [false, true] {
        let (source, brokers) = (Redis::start(), Brokers::shared());
        let buffer = buffered.then(Redis::durable);
        let (devices, others) = (brokers.topic(1), brokers.topic(1));
        fill(&source);
        let inputs = inputs(&source, &brokers, &others, buffer.as_ref());
        block_on(async {
            let bridge = Redis2Kafka::start(&inputs).await.unwrap();
            let topics = [("device:*:stream", devices.as_str())];
            let process = async || bridge.process_source_streams(&topics, "*stream", 0, 10).await.unwrap();
            assert_eq!(process().await, 100);
            assert_eq!(process().await, 0);
            bridge.stop().await;
        });
        let expected: Vec<_> = (1..=50).map(|number| format!("{number}-0")).collect();
        let stream = |topic: &str, stream: &str| ids(&brokers.wait_records(topic, 50), stream);
        assert_eq!(stream(&devices, "device:1:stream"), expected, "buffered: {buffered}");
        assert_eq!(stream(&others, "other-stream"), expected);
        assert_eq!(source.pending(0, "other-stream", GROUP), 0);
    }
}

#[test]
fn an_entry_that_was_deleted_is_not_waited_for() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let topic = brokers.topic(1);
    for id in ["1-0", "2-0"] {
        source.ask(0, &["XADD", "s", id, "n", "1"]);
    }
    source.ask(0, &["XDEL", "s", "2-0"]);
    block_on(async {
        let bridge = Redis2Kafka::start(&inputs(&source, &brokers, &topic, None)).await.unwrap();
        assert_eq!(bridge.process_source_streams(&[], "s", 0, 10).await.unwrap(), 1);
    });
}

#[test]
fn messages_are_stored_and_synced() {
    let (source, brokers, buffer) = (Redis::start(), Brokers::shared(), Redis::durable());
    let topic = brokers.topic(1);
    block_on(async {
        let bridge = Redis2Kafka::start(&inputs(&source, &brokers, "other", Some(&buffer))).await.unwrap();
        let first = bridge.send_message(&topic, br#"{"a":1}"#, "device123").await.unwrap();
        let second = bridge.send_message(&topic, "text", "device123").await.unwrap();
        assert!(first.starts_with(&format!("direct:{topic}:device123:")) && first != second, "{first}");
        assert!(brokers.read(&topic).is_empty());
        assert_eq!(bridge.sync_unsynced_keys(Some(&topic)).await.unwrap(), 2);
        assert_eq!(bridge.sync_unsynced_keys(None).await.unwrap(), 0);
        bridge.stop().await;
    });
    let records = brokers.read(&topic);
    let values: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(&record.value)).collect();
    assert_eq!(values, [r#"{"a":1}"#, "text"]);
    assert!(records.iter().all(|record| record.key.as_deref() == Some("device123")));
}

#[test]
fn errors_have_types() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    block_on(async {
        let wrong = Redis2Kafka::start(&inputs(&source, &brokers, "no topic", None)).await;
        assert!(matches!(wrong, Err(Error::Settings(_))));
        let bridge = Redis2Kafka::start(&inputs(&source, &brokers, "t", None)).await.unwrap();
        assert!(matches!(bridge.send_message("t", "m", "d").await, Err(Error::NoBuffer)));
        assert!(matches!(bridge.sync_unsynced_keys(None).await, Err(Error::NoBuffer)));
        let wrong = bridge.send_message("no topic", "m", "d").await;
        assert!(matches!(wrong, Err(Error::Topic { .. })), "{wrong:?}");
    });
    let (buffer, away) = (Redis::durable(), Brokers(format!("127.0.0.1:{}", test_kit::free_port())));
    block_on(async {
        let bridge = Redis2Kafka::start(&inputs(&source, &away, "t", Some(&buffer))).await.unwrap();
        bridge.send_message("t", "m", "d").await.unwrap();
        let long = bridge.send_message("t", "m".repeat(30 << 20), "d").await;
        assert!(matches!(long, Err(Error::TooLong { most: 20_971_520, .. })), "{long:?}");
        let unsynced = bridge.sync_unsynced_keys(None).await;
        assert!(matches!(unsynced, Err(Error::Unsynced(_))), "{unsynced:?}");
    });
}

fn prints(setup: Setup, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).start();
    let (code, _) = command.wait_exit();
    (code, command.stdout().trim().to_owned())
}

#[test]
fn the_same_from_the_shell() {
    let (source, brokers, buffer) = (Redis::start(), Brokers::shared(), Redis::durable());
    let topic = brokers.topic(1);
    fill(&source);
    let buffered = || {
        setup(&source, &brokers, &topic)
            .set("TARGET_REDIS_HOST", "127.0.0.1")
            .set("TARGET_REDIS_PORT", buffer.port)
    };
    let (code, key) = prints(buffered(), &["send", &topic, "--device", "d", "hello"]);
    assert!(code == Some(0) && key.starts_with(&format!("direct:{topic}:d:")), "{code:?} {key}");
    assert_eq!(prints(buffered(), &["sync"]), (Some(0), "1 messages".to_owned()));
    let process = ["process", "--pattern", "device:*", "--batch-size", "7"];
    assert_eq!(prints(buffered(), &process), (Some(0), "50 entries".to_owned()));
    assert_eq!(brokers.wait_records(&topic, 51).len(), 51);
    let (code, _) = prints(setup(&source, &brokers, &topic), &["send", &topic, "hello"]);
    assert_eq!(code, Some(2), "there is no buffer");
}

#[test]
fn what_the_topic_refuses_does_not_keep_the_rest() {
    let (source, brokers, buffer) = (Redis::start(), Brokers::shared(), Redis::durable());
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "20000")]);
    // Neither compressed nor apart from the others.
    let inputs = inputs(&source, &brokers, "other", Some(&buffer)).set("KAFKA_COMPRESSION", "none");
    block_on(async {
        let bridge = Redis2Kafka::start(&inputs).await.unwrap();
        for number in 1..=5 {
            let message = "x".repeat(if number == 3 { 30_000 } else { 10 });
            bridge.send_message(&topic, message, "device").await.unwrap();
        }
        assert_eq!(bridge.sync_unsynced_keys(None).await.unwrap(), 4);
        bridge.stop().await;
    });
    assert_eq!(brokers.read(&topic).len(), 4);
}

#[test]
fn a_buffer_that_is_away_is_told() {
    let (source, brokers) = (Redis::start(), Brokers::shared());
    let mut buffer = Redis::durable();
    let inputs = inputs(&source, &brokers, "other", Some(&buffer)).set("TARGET_REDIS_MAX_RETRIES", "1");
    block_on(async {
        let bridge = Redis2Kafka::start(&inputs).await.unwrap();
        buffer.kill();
        let stored = bridge.send_message("t", "m", "d").await;
        assert!(matches!(stored, Err(Error::NotStored(_))), "{stored:?}");
    });
}

#[test]
fn a_buffer_that_is_full_is_waited_for_and_told() {
    let (source, brokers, buffer) = (Redis::start(), Brokers::shared(), Redis::durable());
    let inputs = inputs(&source, &brokers, "other", Some(&buffer));
    let full = |full: bool| {
        buffer.ask(0, &["CONFIG", "SET", "maxmemory", if full { "1" } else { "0" }]);
    };
    let once = inputs.clone().set("TARGET_REDIS_MAX_RETRIES", "1");
    let often = inputs.set("TARGET_REDIS_MAX_RETRIES", "1000").set("TARGET_REDIS_BACKOFF_BASE", "0.05");
    block_on(async {
        let (once, often) =
            (Redis2Kafka::start(&once).await.unwrap(), Redis2Kafka::start(&often).await.unwrap());
        full(true);
        let stored = once.send_message("t", "m", "d").await;
        assert!(matches!(&stored, Err(Error::NotStored(reason)) if reason.contains("OOM")), "{stored:?}");
        let mut waiting = std::pin::pin!(often.send_message("t", "m", "d"));
        let patience = std::time::Duration::from_millis(500);
        assert!(tokio::time::timeout(patience, &mut waiting).await.is_err(), "it waits");
        full(false);
        waiting.await.unwrap();
    });
}
