//! Order per stream, when nothing fails and when batches do.

use test_kit::kafka::Brokers;
use test_kit::redis::Redis;
use test_kit::writer::{targets, write};

use crate::harness::{GROUP, Scene, wait_all_settled};

#[test]
fn many_streams_arrive_complete_in_order_and_once() {
    let scene = Scene::begin(|setup| setup);
    let streams = targets(30);
    let ledger = write(&scene.source, &streams, 20_000);
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    ledger.tally(&scene.brokers.arrivals(&scene.topic)).check(0);
    scene.end(&[]);
}

/// The topic takes 20 kB at once: batches are refused for their size, records are not.
#[test]
fn a_batch_refused_for_its_size_is_sent_record_by_record_in_order() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "20000")]);
    let source = Redis::start();
    let streams = targets(6);
    let value = "x".repeat(3000);
    let mut ledger = test_kit::oracle::Ledger::default();
    for _ in 0..60 {
        for stream in &streams {
            let id = source.ask(stream.db, &["XADD", &stream.key, "*", "v", &value]).text();
            ledger.wrote(&stream.spelled(), &id);
        }
    }
    // Uncompressed, so that the sizes are what they seem.
    let scene = Scene::between(source, brokers, topic, |setup| setup.set("KAFKA_COMPRESSION", "none"));
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    let tally = ledger.tally(&scene.brokers.arrivals(&scene.topic));
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    for stream in &streams {
        assert!(scene.source.letters(stream.db, &stream.key).is_empty(), "{GROUP}: nothing is too large");
    }
    scene.bridge.wait_line("sent again, one by one");
    scene.end(&[]);
}
