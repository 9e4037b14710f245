//! Replicas that share the streams of a Cluster. The books stand at one of its nodes, and there are no fences.

use test_kit::cluster::Cluster;

use super::*;
use crate::cluster::add_surely;

/// Enough for each primary to own some.
const STREAMS: usize = 30;
/// Longer than a lease.
const OUTAGE: Duration = Duration::from_secs(8);

async fn replicas(cluster: &Cluster, name: &str, script: &Script, count: usize) -> Vec<Bridge> {
    let mut replicas = Vec::new();
    for number in 0..count {
        replicas.push(replica(number, Bridge::at(&cluster.url(), name, script).await));
    }
    replicas
}

/// Started, with ten entries in each stream, all delivered.
async fn sharing(bridges: &mut [Bridge], script: &Script, streams: &[String]) {
    for stream in streams {
        bridges[0].add(stream, 1..=10).await;
    }
    bridges.iter_mut().for_each(Bridge::start);
    shared_out(&bridges.iter().collect::<Vec<_>>(), STREAMS).await;
    all_arrived(script, streams, &bridges[0], 1..=10).await;
}

fn books(bridge: &Bridge) -> String {
    format!("redis-sync:{{{}}}:members", bridge.group)
}

fn nothing_is_left(cluster: &Cluster) {
    for node in cluster.primaries() {
        assert_eq!(node.ask(0, &["KEYS", "redis-sync:*"]).list(), [], "the last one leaves nothing behind");
    }
}

#[tokio::test]
async fn replicas_share_the_streams_and_hand_over_when_one_comes_or_leaves() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(STREAMS);
    let mut bridges = replicas(&cluster, "share", &script, 3).await;
    sharing(&mut bridges[..1], &script, &streams).await;
    // They come while there is something to read.
    bridges[1].start();
    bridges[2].start();
    for number in 11..=60 {
        for stream in &streams {
            bridges[0].add(stream, [number]).await;
        }
    }
    shared_out(&bridges.iter().collect::<Vec<_>>(), STREAMS).await;
    all_arrived(&script, &streams, &bridges[0], 1..=60).await;
    assert_eq!(script.arrived().len(), STREAMS * 60, "handing over repeats nothing");

    let begun = Instant::now();
    bridges[1].stop().await;
    shared_out(&[&bridges[0], &bridges[2]], STREAMS).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it left: nobody waits for its lease");
    for stream in &streams {
        bridges[0].add(stream, 61..=70).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=70).await;
    assert_eq!(script.arrived().len(), STREAMS * 70);
    bridges[0].stop().await;
    bridges[2].stop().await;
    nothing_is_left(&cluster);
}

#[tokio::test]
async fn what_a_dead_replica_had_is_taken_over_in_order() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(2));
    let streams = names(STREAMS);
    let mut bridges = replicas(&cluster, "dead", &script, 2).await;
    sharing(&mut bridges, &script, &streams).await;
    // It dies with something at the sink, and something waiting.
    let gate = script.gate();
    for stream in &streams {
        bridges[0].add(stream, 11..=200).await;
    }
    until("a group at the sink", async || (script.arrived().len() > STREAMS * 10, ())).await;
    bridges[1].crash().await;
    gate.send(true).unwrap();
    let begun = Instant::now();
    for stream in &streams {
        bridges[0].add(stream, 201..=300).await;
    }
    shared_out(&[&bridges[0]], STREAMS).await;
    assert!(begun.elapsed() < TAKEN_OVER, "{:?}", begun.elapsed());
    all_arrived(&script, &streams, &bridges[0], 1..=300).await;
    bridges[0].stop().await;
    nothing_is_left(&cluster);
}

#[tokio::test]
async fn while_a_node_without_the_books_is_away_the_others_streams_go_on() {
    let mut cluster = Cluster::start();
    for node in cluster.nodes() {
        node.ask(0, &["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(STREAMS);
    let mut bridges = replicas(&cluster, "other", &script, 3).await;
    sharing(&mut bridges, &script, &streams).await;
    for stream in &streams {
        until("acknowledged", async || (bridges[0].pending(stream).await == 0, ())).await;
    }

    // With its replica, so that nobody takes its place before the leases would have run out.
    let with_books = cluster.owner_of(&books(&bridges[0])).port;
    let victim = cluster.primaries().into_iter().find(|node| node.port != with_books).unwrap();
    let (port, its) = (victim.port, victim.port.to_string());
    victim.ask(0, &["SAVE"]);
    let replica = cluster.nodes().find(|node| node.info("master_port").as_ref() == Some(&its)).unwrap().port;
    let others: Vec<_> =
        streams.iter().filter(|it| cluster.owner_of(&bridges[0].key(it)).port != port).cloned().collect();
    assert!((1..STREAMS).contains(&others.len()));
    cluster.node(replica).kill();
    cluster.node(port).kill();
    let begun = Instant::now();
    let mut last = 10;
    while begun.elapsed() < OUTAGE {
        last += 1;
        for stream in &others {
            let (key, id, number) = (bridges[0].key(stream), format!("{last}-1"), last.to_string());
            cluster.ask(&["XADD", &key, &id, "n", &number]);
        }
        all_arrived(&script, &others, &bridges[0], 1..=last).await;
    }
    cluster.node(port).up();
    cluster.node(replica).up();
    cluster.wait_until_well();
    for stream in &streams {
        let first = if others.contains(stream) { last + 1 } else { 11 };
        add_surely(&bridges[0], stream, first..=last + 10).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=last + 10).await;
    for bridge in &mut bridges {
        assert_eq!(lost(bridge), 0, "its lease was renewed all the time");
        bridge.stop().await;
    }
    nothing_is_left(&cluster);
}

#[tokio::test]
async fn when_the_node_with_the_books_dies_all_join_again_where_they_are_now() {
    let mut cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(1));
    let streams = names(STREAMS);
    let mut bridges = replicas(&cluster, "books", &script, 3).await;
    sharing(&mut bridges, &script, &streams).await;
    cluster.kill_owner_of(&books(&bridges[0]));
    for number in 11..=60 {
        for stream in &streams {
            add_surely(&bridges[0], stream, [number]).await;
        }
    }
    until("all to have joined again", async || {
        let lost: Vec<_> = bridges.iter().map(lost).collect();
        (lost.iter().all(|times| *times > 0), lost)
    })
    .await;
    shared_out(&bridges.iter().collect::<Vec<_>>(), STREAMS).await;
    for stream in &streams {
        add_surely(&bridges[0], stream, 61..=100).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=100).await;
    for bridge in &mut bridges {
        let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
        bridge.stop().await;
    }
    nothing_is_left(&cluster);
}
