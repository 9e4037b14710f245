//! What becomes of entries at the source: the rules themselves are tested in sync-core.

use test_kit::wait_until;

use crate::harness::{Scene, ids};

fn length(scene: &Scene, key: &str) -> i64 {
    scene.source.ask(0, &["XLEN", key]).text().parse().unwrap()
}

#[test]
fn what_kafka_has_is_deleted_and_what_another_group_needs_is_not() {
    let scene = Scene::begin(|setup| setup);
    scene.source.ask(0, &["XGROUP", "CREATE", "s", "slow", "0", "MKSTREAM"]);
    for number in 1..=20 {
        scene.add(0, "s", &format!("{number}-0"), "1");
        scene.add(0, "t", &format!("{number}-0"), "1");
    }
    scene.records(40);
    wait_until("all is deleted", || length(&scene, "t"), || length(&scene, "t") == 0);
    scene.wait_settled(0, "s");
    assert_eq!(length(&scene, "s"), 20);
    scene.source.ask(0, &["XREADGROUP", "GROUP", "slow", "c", "COUNT", "5", "STREAMS", "s", ">"]);
    for number in 1..=3 {
        scene.source.ask(0, &["XACK", "s", "slow", &format!("{number}-0")]);
    }
    for number in 21..=22 {
        scene.add(0, "s", &format!("{number}-0"), "1");
    }
    let records = scene.records(42);
    assert_eq!(ids(&records, "s").len(), 22);
    scene.wait_settled(0, "s");
    let first = scene.source.ask(0, &["XRANGE", "s", "-", "+", "COUNT", "1"]).list();
    let first = first.into_iter().next().unwrap().list().remove(0).text();
    assert!(["1-0", "4-0"].contains(&first.as_str()), "only what it acknowledged may be gone: {first}");
    scene.end(&[]);
}

#[test]
fn nothing_is_deleted_where_that_is_wanted() {
    let scene = Scene::begin(|setup| setup.set("STREAM_CLEANUP", "ack"));
    for number in 1..=10 {
        scene.add(0, "s", &format!("{number}-0"), "1");
    }
    scene.records(10);
    scene.wait_settled(0, "s");
    assert_eq!(length(&scene, "s"), 10);
    scene.end(&[]);
}
