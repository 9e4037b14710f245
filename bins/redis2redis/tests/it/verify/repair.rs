//! What `--repair` copies, and what it leaves alone.

use test_kit::cluster::Cluster;
use test_kit::redis::Redis;
use test_kit::sentinel::Sentinels;
use test_kit::writer::{targets, write};
use test_kit::{LONG, wait_for};

use super::{Sides, add, fill, run};
use crate::harness::{GROUP, bare, entries};

#[test]
fn repair_copies_what_is_above_the_targets_newest_id_and_names_the_rest() {
    let sides = Sides::begin();
    fill(&sides.source, "s", 1, 3000);
    sides.acknowledge_all("s");
    fill(&sides.target, "s", 1, 3);
    fill(&sides.target, "s", 5, 1200);
    sides.source.ask(3, &["XADD", "t", "1-0", "big", &"y".repeat(3 << 20)]);
    sides.source.ask(3, &["XADD", "t", "2-0", "a", "1", "a", "", "a", "2"]);
    let hint = "Redis adds no entry below a stream's newest ID. Delete such a stream at the target, and verify \
                --repair copies all that the source holds of it.";
    let same = "1 missing at the target; 2,999 entries the same";
    let ran = sides.run(&["--repair"]);
    ran.expect(
        1,
        &[
            "s: 1,800 entries copied to the target",
            "s 4-0 missing at the target: cannot be repaired, below the target's newest ID",
            &format!("s: different: {same}"),
            "db3:t: 2 entries copied to the target",
            hint,
            "different: 1 of 2 streams: 1 missing at the target; 3,001 entries the same; 1,802 entries copied",
        ],
    );
    assert_eq!(entries(&sides.target, 0, "db3:t"), entries(&sides.source, 3, "t"));
    sides.target.ask(0, &["DEL", "s"]);
    let ran = sides.run(&["--repair"]);
    ran.expect(
        0,
        &["s: 3,000 entries copied to the target", "same: 2 streams, 3,002 entries; 3,000 entries copied"],
    );
    assert_eq!(entries(&sides.target, 0, "s"), entries(&sides.source, 0, "s"));
    sides.run(&["--repair"]).expect(0, &["same: 2 streams, 3,002 entries"]);
}

#[test]
fn repair_changes_nothing_that_the_target_has() {
    let sides = Sides::begin();
    add(&sides.source, "s", &["1-0", "2-0"]);
    sides.target.ask(0, &["XADD", "s", "1-0", "n", "other"]);
    add(&sides.target, "s", &["3-0"]);
    let before = entries(&sides.target, 0, "s");
    let ran = sides.run(&["--repair"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("s 2-0 not yet replicated: cannot be repaired, below"), "{}", ran.out);
    assert!(ran.out.contains("s 1-0 with other content at the target\n"), "{}", ran.out);
    assert_eq!(entries(&sides.target, 0, "s"), before);
}

#[test]
fn repair_stops_at_what_the_target_does_not_take() {
    let sides = Sides::begin();
    fill(&sides.source, "s", 1, 100);
    sides.acknowledge_all("s");
    sides.target.ask(0, &["CONFIG", "SET", "maxmemory", "1"]);
    let ran = sides.run(&["--repair"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.starts_with("s: not all could be copied: 1-0: OOM "), "{}", ran.out);
    assert!(
        ran.out.ends_with("different: 1 of 1 stream: 100 missing at the target; 0 entries the same\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("cannot be repaired"), "{}", ran.out);
}

#[test]
fn a_cluster_is_compared_and_repaired_key_by_key() {
    let (source, cluster) = (Redis::start(), Cluster::start());
    let streams = targets(24);
    write(&source, &streams, 4800);
    let setup = bare().set("SOURCE_REDIS_PORT", source.port).set("TARGET_REDIS_URL", cluster.url());
    let ran = run(&setup, &["--repair"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 25), "{} {}", ran.out, ran.err);
    assert!(ran.out.ends_with("same: 24 streams, 4,800 entries; 4,800 entries copied\n"), "{}", ran.out);
    for stream in &streams {
        let there = cluster.ask(&["XRANGE", &stream.spelled(), "-", "+"]).list();
        assert_eq!(there, entries(&source, stream.db, &stream.key), "{}", stream.spelled());
    }
    let last = entries(&source, 1, "device:1").pop().expect("entries").list()[0].text();
    cluster.ask(&["XDEL", "db1:device:1", &last]);
    let ran = run(&setup, &[]);
    // No group has begun here.
    let different = "1 not yet replicated; 4,799 entries the same";
    assert!(ran.out.ends_with(&format!("different: 1 of 24 streams: {different}\n")), "{}", ran.out);
}

#[test]
fn after_a_failover_the_new_primary_is_compared_and_repaired() {
    let (source, mut sentinels) = (Redis::start(), Sentinels::start());
    fill(&source, "s", 1, 2000);
    let setup = bare().set("SOURCE_REDIS_PORT", source.port).set("TARGET_REDIS_URL", sentinels.url());
    let copied =
        ["s: 2,000 entries copied to the target", "same: 1 stream, 2,000 entries; 2,000 entries copied"];
    run(&setup, &["--repair"]).expect(0, &copied);
    let first = sentinels.primary().port;
    sentinels.server(first).wait_for_replicas(2);
    sentinels.server(first).kill();
    // As if it had taken these with it.
    fill(&source, "s", 2001, 3000);
    source.ask(0, &["XGROUP", "CREATE", "s", GROUP, "$"]);
    // Until another server has taken over, and every Sentinel knows it, verify may be led to the one that is gone.
    let answered = |arguments: &[&str]| {
        let last = std::cell::RefCell::new(String::new());
        wait_for(
            "another takes over",
            LONG,
            || last.borrow().clone(),
            || {
                let ran = run(&setup, arguments);
                last.replace(ran.err.clone());
                Some(ran).filter(|ran| ran.err.is_empty())
            },
        )
    };
    let ran = answered(&[]);
    let last = "different: 1 of 1 stream: 1,000 missing at the target; 2,000 entries the same\n";
    assert!(ran.code == Some(1) && ran.out.ends_with(last), "{}{}", ran.out, ran.err);
    let copied =
        ["s: 1,000 entries copied to the target", "same: 1 stream, 3,000 entries; 1,000 entries copied"];
    answered(&["--repair"]).expect(0, &copied);
}
