//! What Kafka does not take: records go to the dead letters, topics are waited for.

use test_kit::kafka::Brokers;
use test_kit::redis::Redis;
use test_kit::wait_until;

use crate::harness::{Scene, ids};

fn reason(letter: &[(String, String)]) -> &str {
    letter.iter().find(|(name, _)| name == "reason").map_or("", |(_, reason)| reason)
}

#[test]
fn a_record_longer_than_the_setting_is_a_dead_letter_and_its_stream_goes_on() {
    let scene = Scene::begin(|setup| setup.set("KAFKA_MAX_REQUEST_SIZE", "5000"));
    scene.add(0, "s", "1-0", "a");
    scene.add(0, "s", "2-0", &"x".repeat(6000));
    scene.add(0, "s", "3-0", "b");
    assert_eq!(ids(&scene.records(2), "s"), ["1-0", "3-0"]);
    scene.wait_settled(0, "s");
    let letters = scene.source.letters(0, "s");
    assert_eq!(letters.len(), 1);
    assert!(reason(&letters[0]).contains("KAFKA_MAX_REQUEST_SIZE is 5000"), "{letters:?}");
    scene.end(&[]);
}

#[test]
fn a_record_longer_than_the_topic_takes_is_a_dead_letter_and_its_batch_mates_go_in() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "50000")]);
    let source = Redis::start();
    let streams = ["a", "b"];
    for number in 1..=30 {
        let long = "x".repeat(if number == 11 { 60_000 } else { 100 });
        for stream in streams {
            source.ask(0, &["XADD", stream, &format!("{number}-0"), "v", &long]);
        }
    }
    let scene = Scene::between(source, brokers, topic, |setup| setup.set("KAFKA_COMPRESSION", "none"));
    let records = scene.records(58);
    for stream in streams {
        scene.wait_settled(0, stream);
        let mut first = ids(&records, stream);
        first.dedup();
        let expected: Vec<_> =
            (1..=30).filter(|number| *number != 11).map(|number| format!("{number}-0")).collect();
        let mut seen = std::collections::HashSet::new();
        first.retain(|id| seen.insert(id.clone()));
        assert_eq!(first, expected);
        let letters = scene.source.letters(0, stream);
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(reason(&letters[0]).contains("MessageSizeTooLarge"), "{letters:?}");
    }
    scene.end(&[]);
}

#[test]
fn long_records_go_in_order_with_short_ones() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("large-");
    brokers.create(&topic, 1, &[("max.message.bytes", "10000000")]);
    let source = Redis::start();
    for number in 1..=12 {
        let value = "x".repeat(if number % 3 == 0 { 2_000_000 } else { 10 });
        source.ask(0, &["XADD", "s", &format!("{number}-0"), "v", &value]);
    }
    let scene = Scene::between(source, brokers, topic, |setup| setup);
    let records = scene.records(12);
    assert_eq!(ids(&records, "s"), (1..=12).map(|number| format!("{number}-0")).collect::<Vec<_>>());
    scene.wait_settled(0, "s");
    scene.end(&[]);
}

#[test]
fn an_unknown_topic_is_waited_for_and_other_topics_go_on() {
    let brokers = Brokers::shared();
    let (there, absent) = (brokers.topic(1), test_kit::unique("absent-"));
    let map = format!(r#"{{"a": "{absent}"}}"#);
    let scene =
        Scene::between(Redis::start(), brokers, there, |setup| setup.set("STREAM_TARGET_TOPIC_MAP", map));
    for number in 1..=5 {
        scene.add(0, "a", &format!("{number}-0"), "1");
        scene.add(0, "b", &format!("{number}-0"), "1");
    }
    scene.bridge.wait_line("does not exist, and the brokers do not make it");
    assert_eq!(ids(&scene.records(5), "b").len(), 5);
    scene.wait_settled(0, "b");
    assert!(scene.source.pending(0, "a", crate::harness::GROUP) > 0);
    scene.brokers.create(&absent, 1, &[]);
    let records = scene.brokers.wait_records(&absent, 5);
    assert_eq!(ids(&records, "a"), (1..=5).map(|number| format!("{number}-0")).collect::<Vec<_>>());
    scene.wait_settled(0, "a");
    assert!(scene.source.letters(0, "a").is_empty());
    scene.bridge.wait_line("stream a is back");
    // And when it is deleted and made anew.
    scene.brokers.delete(&absent);
    scene.add(0, "a", "6-0", "1");
    wait_until(
        "it is held again",
        || scene.bridge.lines(),
        || scene.bridge.lines_with("stream a: held").len() > 1,
    );
    scene.brokers.create(&absent, 1, &[]);
    assert_eq!(ids(&scene.brokers.wait_records(&absent, 1), "a"), ["6-0"]);
    scene.wait_settled(0, "a");
    scene.end(&["does not exist, and the brokers do not make it"]);
}

/// Neither the other streams nor the bridge's health suffer from what one stream holds.
#[test]
fn many_records_that_a_topic_refuses_hold_nobody_up() {
    let brokers = Brokers::shared();
    let topic = test_kit::unique("small-");
    brokers.create(&topic, 1, &[("max.message.bytes", "50000")]);
    let source = Redis::start();
    let streams = test_kit::writer::targets(10);
    let mut ledger = test_kit::writer::write(&source, &streams, 3000);
    for number in 1..=40 {
        let refused = number % 2 == 0;
        let value = "x".repeat(if refused { 60_000 } else { 100 });
        let id = source.ask(0, &["XADD", "poison", "*", "v", &value]).text();
        if !refused {
            ledger.wrote("poison", &id);
        }
    }
    let scene = Scene::between(source, brokers, topic, |setup| {
        setup.set("KAFKA_COMPRESSION", "none").set("KAFKA_BACKOFF_BASE", "1").set("KAFKA_BACKOFF_MAX", "30")
    });
    crate::harness::wait_all_settled(&scene.source, &scene.bridge, &streams);
    scene.wait_settled(0, "poison");
    let tally = ledger.tally(&scene.brokers.arrivals(&scene.topic));
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    assert_eq!(scene.source.letters(0, "poison").len(), 20);
    assert!(scene.bridge.lines_with("is back after").is_empty(), "{:#?}", scene.bridge.lines());
    scene.end(&[]);
}
