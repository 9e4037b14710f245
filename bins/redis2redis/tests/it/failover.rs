//! Cluster and Sentinel as targets: another server takes over, or slots move, in the middle of a transfer.

use std::time::Duration;

use test_kit::cluster::Cluster;
use test_kit::redis::{Redis, Reply};
use test_kit::sentinel::Sentinels;
use test_kit::wait_until;
use test_kit::writer::{Target, Writer, targets};

use crate::harness::{assert_same, bare, entries, wait_all_settled};

const ENTRIES: usize = 8000;

#[test]
fn sentinels_fail_over_in_the_middle_and_everything_is_there_once() {
    let (source, mut sentinels) = (Redis::start(), Sentinels::start());
    let mut bridge = bare()
        .set("SOURCE_REDIS_PORT", source.port)
        .set("TARGET_REDIS_URL", sentinels.url())
        .set("TARGET_REDIS_WAIT_REPLICAS", 1)
        .start();
    let streams = targets(10);
    let writer = Writer::start(source.port, &streams, ENTRIES, Duration::from_millis(10));
    writer.wait_written(ENTRIES / 4);
    let first = sentinels.primary().port;
    let arrived = |server: &Redis| server.ask(0, &["XLEN", &streams[0].spelled()]).text() != "0";
    wait_until("some arrive", || bridge.lines(), || arrived(sentinels.primary()));
    sentinels.server(first).kill();
    writer.finish();
    wait_all_settled(&source, &bridge, &streams);
    let second = sentinels.primary();
    assert_ne!(first, second.port);
    assert_same(&source, second, &streams);
    bridge.stop();
    bridge.check_errors(&[]);
}

/// A bridge to a Cluster and a source that is being written.
fn to_cluster(streams: &[Target], during: impl FnOnce(&mut Cluster, &Writer)) {
    let mut cluster = Cluster::start();
    let source = Redis::start();
    let mut bridge =
        bare().set("SOURCE_REDIS_PORT", source.port).set("TARGET_REDIS_URL", cluster.url()).start();
    let writer = Writer::start(source.port, streams, ENTRIES, Duration::from_millis(10));
    writer.wait_written(ENTRIES / 4);
    during(&mut cluster, &writer);
    writer.finish();
    wait_all_settled(&source, &bridge, streams);
    for stream in streams {
        let there = cluster.ask(&["XRANGE", &stream.spelled(), "-", "+"]).list();
        assert_eq!(there, entries(&source, stream.db, &stream.key), "{}", stream.spelled());
    }
    bridge.stop();
    bridge.check_errors(&[]);
}

/// So many names that every node has some of them.
fn spread() -> Vec<Target> {
    (0..24).map(|i| Target::new(i % 2, &format!("device:{i}"))).collect()
}

#[test]
fn a_clusters_primary_ends_in_the_middle_and_everything_is_there_once() {
    let streams = spread();
    to_cluster(&streams, |cluster, writer| {
        let owner = cluster.owner_of(&streams[0].spelled()).port;
        cluster.node(owner).stop();
        writer.wait_written(ENTRIES / 2);
        cluster.wait_until_well();
    });
}

#[test]
fn slots_move_in_the_middle_and_everything_is_there_once() {
    let streams = spread();
    to_cluster(&streams, |cluster, writer| {
        for round in 1..=3 {
            let from = cluster.owner_of(&streams[0].spelled());
            let to = cluster.primaries().into_iter().find(|to| to.port != from.port).unwrap();
            cluster.move_slots(from, to, 1500);
            writer.wait_written(ENTRIES / 4 + round * 500);
        }
    });
}

#[test]
fn a_cluster_waits_for_replicas_too() {
    let (cluster, source) = (Cluster::start(), Redis::start());
    let mut bridge = bare()
        .set("SOURCE_REDIS_PORT", source.port)
        .set("TARGET_REDIS_URL", cluster.url())
        .set("TARGET_REDIS_WAIT_REPLICAS", 1)
        .start();
    let streams = spread();
    for stream in &streams {
        source.ask(stream.db, &["XADD", &stream.key, "1-0", "n", "1"]);
    }
    wait_all_settled(&source, &bridge, &streams);
    for stream in &streams {
        assert_eq!(cluster.ask(&["XLEN", &stream.spelled()]), Reply::Number(1));
    }
    bridge.stop();
    bridge.check_errors(&[]);
}
