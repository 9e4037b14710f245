//! The first batch that a producer sends to a partition is refused while another is on its way behind it.

use test_kit::kafka::Brokers;
use test_kit::oracle::Ledger;
use test_kit::redis::Redis;

use crate::harness::Scene;

/// A broker checks the sequence numbers of a producer that has written to the partition before; of a new one it takes
/// any. So what is behind a refused first batch may take effect although the batch did not. Each record fits by itself;
/// three of them are more than the topic takes, and two are not. (The client library sends a second request to a
/// partition only while fewer than five records are under way to it.)
#[test]
fn what_follows_a_refused_first_batch_does_not_overtake_it() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("first-");
    brokers.create(&topic, 1, &[("max.message.bytes", "7000")]);
    let scene = Scene::between(Redis::start(), brokers, topic, |setup| {
        setup.set("KAFKA_COMPRESSION", "none").set("KAFKA_CONFIG", r#"{"batch.size": 10000}"#)
    });
    let value = "x".repeat(3000);
    let mut ledger = Ledger::default();
    // Each refusal makes another producer, whose first batch comes with the next stream.
    for round in 0..12 {
        let key = format!("s{round}");
        let mut script = String::new();
        for number in 1..=5 {
            script += &format!("redis.call('XADD', KEYS[1], '{number}-0', 'v', ARGV[1]) ");
            ledger.wrote(&key, &format!("{number}-0"));
        }
        // In one step: they are read together.
        scene.source.ask(0, &["EVAL", &script, "1", &key, &value]);
        scene.wait_settled(0, &key);
    }
    let tally = ledger.tally(&scene.brokers.arrivals(&scene.topic));
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    scene.end(&[]);
}
