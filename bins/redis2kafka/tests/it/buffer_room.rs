//! How much the buffer takes, and whether it keeps it: it is full, or would throw messages away.

use std::time::Duration;

use test_kit::kafka::{Brokers, Kafka};
use test_kit::redis::Redis;
use test_kit::{wait_until, writer};

use crate::buffer::{Scene, buffered, unsynced};
use crate::harness::{GROUP, setup, wait_all_settled, wait_settled};

#[test]
fn a_full_buffer_holds_the_source_back_and_nothing_is_lost() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(1);
    kafka.stop();
    let buffer =
        Redis::with(&["--appendonly", "yes", "--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let scene = Scene::between(Redis::start(), buffer, brokers, topic, |setup| {
        setup.set("TARGET_REDIS_TIME_TO_LIVE", "1").set("TARGET_REDIS_SYNC_TTL", "1")
    });
    let streams = writer::targets(5);
    let ledger = writer::write(&scene.source, &streams, 20_000);
    let told =
        scene.bridge.wait_line("the buffer is full, and entries stay at the source: raise its maxmemory");
    assert!(told.text.starts_with("room in the buffer Redis at 127.0.0.1:"), "{}", told.text);
    let (before, pending) = (unsynced(&scene.buffer), scene.source.pending(0, "device:0", GROUP));
    assert!(before > 100 && before < 20_000 && pending > 0, "{before} {pending}");
    kafka.up();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    scene.wait_synced();
    ledger.tally(&scene.brokers.arrivals(&scene.topic)).check(0);
    assert!(streams.iter().all(|stream| scene.source.letters(stream.db, &stream.key).is_empty()));
    // It may have been full again, with what Kafka had already; and no stream was told of.
    scene.bridge.wait_line("room in the buffer Redis at");
    wait_until(
        "there is room",
        || scene.bridge.lines(),
        || {
            let (full, back) =
                (scene.bridge.lines_with("the buffer is full"), scene.bridge.lines_with("is back after"));
            full.len() == back.iter().filter(|line| line.text.starts_with("room in the buffer")).count()
        },
    );
    assert_eq!(scene.bridge.lines_with("stream db0:device").len(), 0, "{:?}", scene.bridge.lines());
    assert_eq!(scene.bridge.lines_with("held").len(), 0, "{:?}", scene.bridge.lines());
    scene.end(&[]);
}

#[test]
fn what_it_is_full_of_is_told_where_kafka_has_it() {
    let buffer =
        Redis::with(&["--appendonly", "yes", "--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let brokers = Brokers::shared();
    let topic = brokers.topic(1);
    let scene = Scene::between(Redis::start(), buffer, brokers, topic, |setup| setup);
    let streams = writer::targets(5);
    let ledger = writer::write(&scene.source, &streams, 20_000);
    let told = scene.bridge.wait_line("the buffer is full");
    assert!(
        told.text.contains("keys are of messages that Kafka has: maxmemory-policy volatile-ttl"),
        "{}",
        told.text
    );
    scene.buffer.ask(0, &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    scene.wait_synced();
    ledger.tally(&scene.brokers.arrivals(&scene.topic)).check(0);
    scene.end(&[]);
}

#[test]
fn a_policy_that_would_lose_messages_is_told_when_it_is_set_at_runtime() {
    let scene = Scene::begin(|setup| setup);
    scene.add("s", "1-0", "x");
    wait_settled(&scene.source, &scene.bridge, 0, "s");
    scene.buffer.ask(0, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    scene.bridge.wait_line("its maxmemory-policy is allkeys-lru");
    scene.buffer.ask(0, &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    scene.bridge.wait_line("is back after");
    // Also whoever is to look at what waits there is told.
    scene.buffer.ask(0, &["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    let mut status = scene.setup.clone().arg("buffer").arg("status").start();
    assert_eq!(status.wait_exit().0, Some(0));
    assert_eq!(status.lines_with("maxmemory-policy is allkeys-random").len(), 1, "{:?}", status.lines());
    scene.buffer.ask(0, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(scene.bridge.lines_with("maxmemory-policy is allkeys-lru").len(), 1);
    scene.end(&["its maxmemory-policy is"]);
}

#[test]
fn a_buffer_that_would_lose_messages_is_refused() {
    let source = Redis::start();
    let brokers = Brokers::shared();
    let start = |options: &[&str]| {
        let buffer = Redis::with(options);
        let mut bridge = buffered(setup(&source, &brokers, "none"), &buffer).start();
        let (code, took) = bridge.wait_exit();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(code, Some(1), "{:?}", bridge.lines());
        bridge
    };
    let bridge = start(&["--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(bridge.lines_with("its maxmemory-policy is allkeys-lru").len(), 1);
    let bridge = start(&["--cluster-enabled", "yes"]);
    assert_eq!(bridge.lines_with("it is a Cluster").len(), 1);
    let cluster = Redis::with(&["--cluster-enabled", "yes"]);
    let mut status = buffered(setup(&source, &brokers, "none"), &cluster).arg("buffer").arg("status").start();
    assert_eq!(status.wait_exit().0, Some(1));
    assert_eq!(status.lines_with("it is a Cluster").len(), 1, "{:?}", status.lines());
    let mut bridge =
        setup(&source, &brokers, "none").set("TARGET_REDIS_URL", "redis-cluster://127.0.0.1:1").start();
    assert_eq!(bridge.wait_exit().0, Some(78));
    assert_eq!(bridge.lines_with("must not be a Cluster").len(), 1);
    let memory = Redis::start();
    let mut bridge = buffered(setup(&source, &brokers, "none"), &memory).start();
    bridge.wait_line("neither an append-only file nor snapshots");
    bridge.stop();
}
