//! The broker goes and comes back.

use test_kit::kafka::Kafka;
use test_kit::redis::Redis;
use test_kit::wait_until;
use test_kit::writer::{Writer, targets};

use crate::harness::{Scene, ids, setup, wait_all_settled};

#[test]
fn an_outage_is_told_once_and_everything_arrives_after_it() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(2);
    let scene = Scene::between(Redis::start(), brokers, topic, |setup| setup);
    scene.add(0, "s", "1-0", "1");
    scene.records(1);
    kafka.stop();
    for number in 2..=100 {
        scene.add(0, "s", &format!("{number}-0"), "1");
    }
    wait_until(
        "the outage is told",
        || scene.bridge.lines(),
        || {
            scene
                .bridge
                .lines()
                .iter()
                .any(|line| line.level == "WARN" && line.text.starts_with("Kafka brokers at"))
        },
    );
    kafka.up();
    scene.bridge.wait_line("is back after");
    let records = scene.records(100);
    let mut seen = std::collections::HashSet::new();
    let mut first = ids(&records, "s");
    first.retain(|id| seen.insert(id.clone()));
    assert_eq!(first, (1..=100).map(|number| format!("{number}-0")).collect::<Vec<_>>());
    scene.wait_settled(0, "s");
    // Not once for each attempt; a broker that is just coming up may be lost once more.
    let warnings = scene.bridge.lines_with("Kafka brokers at");
    let told = warnings.iter().filter(|line| line.level == "WARN").count();
    assert!((1..=3).contains(&told), "{:#?}", scene.bridge.lines());
    scene.end(&[]);
}

#[test]
fn a_stop_while_the_broker_is_away_leaves_the_rest_pending() {
    let mut kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(1);
    let source = Redis::start();
    let setup = setup(&source, &brokers, &topic).set("SHUTDOWN_TIMEOUT", "1");
    let mut bridge = setup.start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    brokers.wait_records(&topic, 1);
    kafka.kill();
    source.ask(0, &["XADD", "s", "2-0", "n", "1"]);
    wait_until("it is read", || bridge.lines(), || source.pending(0, "s", crate::harness::GROUP) > 0);
    bridge.stop();
    assert_eq!(source.pending(0, "s", crate::harness::GROUP), 1);
    kafka.up();
    let bridge = setup.start();
    crate::harness::wait_settled(&source, &bridge, 0, "s");
    let records = brokers.read(&topic);
    assert!(ids(&records, "s").contains(&"2-0".to_owned()));
}

#[test]
fn a_start_without_a_broker_ends_with_one_clear_line() {
    let source = Redis::start();
    let brokers = test_kit::kafka::Brokers(format!("127.0.0.1:{}", test_kit::free_port()));
    let mut bridge = setup(&source, &brokers, "t").set("KAFKA_MAX_RETRIES", "1").start();
    let (code, _) = bridge.wait_exit();
    assert_eq!(code, Some(1));
    let line = bridge.wait_line("redis2kafka ends");
    assert!(
        line.text.contains("cannot reach the Kafka brokers at 127.0.0.1") && line.text.contains("refused"),
        "{line:?}"
    );
}

/// Nothing times out in mid-stream: a broker that stands still delays, and reorders nothing.
#[test]
fn a_broker_that_stands_still_for_a_while_changes_no_order() {
    let kafka = Kafka::start();
    let brokers = kafka.brokers();
    let topic = brokers.topic(3);
    let scene = Scene::between(Redis::start(), brokers, topic, |setup| {
        // The client library gives a connection up after that.
        setup.set("KAFKA_CONFIG", r#"{"socket.timeout.ms": 2000}"#)
    });
    let streams = targets(10);
    let writer = Writer::start(scene.source.port, &streams, 4000, std::time::Duration::from_millis(50));
    for part in 1..=2 {
        writer.wait_written(part * 1000);
        kafka.suspend(true);
        writer.wait_written(part * 1000 + 700);
        kafka.suspend(false);
    }
    let ledger = writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    let tally = ledger.tally(&scene.brokers.arrivals(&scene.topic));
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    scene.end(&[]);
}

#[test]
fn a_topic_that_the_brokers_make_by_themselves_is_no_error() {
    let kafka = Kafka::with(&["auto.create.topics.enable=true"]);
    let scene = Scene::between(Redis::start(), kafka.brokers(), test_kit::unique("made-"), |setup| setup);
    for stream in ["a", "b", "c"] {
        scene.add(0, stream, "1-0", "1");
    }
    for stream in ["a", "b", "c"] {
        scene.wait_settled(0, stream);
    }
    assert_eq!(scene.records(3).len(), 3);
    scene.end(&[]);
}
