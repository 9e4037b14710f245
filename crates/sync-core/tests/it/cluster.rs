//! A Cluster as source: the contract holds while nodes die and slots move.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fred::prelude::*;
use sync_core::bridge::{Fate, Stream};
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::commands::monitor::{self, MonitorArguments, Output};
use sync_core::commands::{Ended, check};
use sync_core::rate_limit::RateLimiter;
use sync_core::record::StreamName;
use sync_core::redis::connection::Connector;
use sync_core::redis::statistics::Statistics;
use sync_core::settings::{RedisSettings, Secret};
use test_kit::cluster::Cluster;
use test_kit::redis::Reply;

use crate::script::{Bridge, Script, assert_in_order, until};

/// Enough for each primary to own some.
const STREAMS: usize = 30;

fn names() -> Vec<String> {
    (0..STREAMS).map(|number| format!("s{number}")).collect()
}

/// Adds entries, each until the Cluster has confirmed it: also while a primary is replaced or a slot is on its way.
pub(crate) async fn add_surely(bridge: &Bridge, stream: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        until("an entry to be taken", async || {
            let fields = vec![("n", number.to_string())];
            let added: Result<String, Error> =
                bridge.redis.xadd(bridge.key(stream), false, None, format!("{number}-1"), fields).await;
            match added {
                Ok(_) => (true, String::new()),
                Err(error) => (error.details().contains("equal or smaller"), error.to_string()),
            }
        })
        .await;
    }
}

async fn all_acknowledged(bridge: &Bridge) {
    for stream in names() {
        until("all to be acknowledged", async || {
            let pending = bridge.pending(&stream).await;
            (pending == 0, (stream.clone(), pending))
        })
        .await;
    }
}

/// Everything that is in the streams arrived, in order.
fn assert_all_arrived(bridge: &Bridge, script: &Script, last: u64) {
    for stream in names() {
        assert_in_order(&script.arrived_of(&bridge.key(&stream)), 1..=last);
    }
}

async fn arrival_of_all(bridge: &Bridge, script: &Script, last: u64) {
    for stream in names() {
        let key = bridge.key(&stream);
        until("the last entry", async || {
            let arrived = script.arrived_of(&key);
            (arrived.contains(&last), (key.clone(), arrived.len()))
        })
        .await;
    }
}

#[tokio::test]
async fn streams_of_all_nodes_are_found_read_and_acknowledged() {
    let cluster = Cluster::start();
    let script = Script::new(|(stream, number)| match (stream.ends_with(":s7"), number) {
        (true, 3) => Fate::Refused("no such thing".into()),
        _ => Fate::Delivered,
    });
    let mut bridge = Bridge::at(&cluster.url(), "all", &script).await.with(|settings| {
        settings.discovery.as_mut().unwrap().dbs = vec![1, 2];
    });
    for stream in names() {
        bridge.add(&stream, 1..=200).await;
    }
    let with_keys =
        cluster.primaries().into_iter().filter(|node| node.ask(0, &["DBSIZE"]) != Reply::Number(0));
    assert_eq!(with_keys.count(), 3, "each primary has some of the streams");
    bridge.start();
    arrival_of_all(&bridge, &script, 200).await;
    bridge.add("late", 1..=10).await;
    let late = bridge.key("late");
    until("the late stream", async || (script.arrived_of(&late).len() == 10, script.arrived_of(&late))).await;
    all_acknowledged(&bridge).await;
    bridge.stop().await;
    for stream in names() {
        let expected = (1..=200).filter(|number| stream != "s7" || *number != 3);
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key(&stream)), expected), 0);
    }
    let letters = bridge.letters("s7").await;
    assert_eq!((letters.len(), letters[0]["id"].as_str()), (1, "3-1"));
}

/// Adds entries and hands the first of them to a consumer, in one script: nobody can read in between.
async fn add_and_read(bridge: &Bridge, stream: &str, consumer: &str, numbers: std::ops::RangeInclusive<u64>) {
    const SCRIPT: &str = "for n = ARGV[3], ARGV[4] do redis.call('XADD', KEYS[1], n .. '-1', 'n', n) end \
        return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 2, 'STREAMS', KEYS[1], '>')";
    let (first, last) = (numbers.start().to_string(), numbers.end().to_string());
    let arguments = vec![bridge.group.clone(), consumer.to_owned(), first, last];
    let _: Value = bridge.redis.eval(SCRIPT, bridge.key(stream), arguments).await.unwrap();
}

#[tokio::test]
async fn what_was_read_behind_the_lanes_back_is_delivered_before_what_follows() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "behind", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.start();
    let key = bridge.key("s");
    let arrival = async |last: u64| {
        until("the entries so far", async || {
            (script.arrived_of(&key).contains(&last), script.arrived_of(&key))
        })
        .await;
    };
    arrival(10).await;
    for round in 0..20 {
        // A stale owner, or a read of our own that was carried out without us.
        let consumer = if round % 2 == 0 { "stale" } else { "this" };
        let from = 11 + round * 5;
        add_and_read(&bridge, "s", consumer, from..=from + 4).await;
        arrival(from + 4).await;
    }
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&key), 1..=110), 0, "nothing was repeated");
    assert_eq!(bridge.pending("s").await, 0);
}

#[tokio::test]
async fn a_group_that_is_destroyed_or_set_back_is_taken_up() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "group", &script).await;
    bridge.add("s", 1..=50).await;
    bridge.start();
    let key = bridge.key("s");
    until("the first", async || (script.arrived_of(&key).len() == 50, script.arrived_of(&key))).await;
    until("acknowledged", async || (bridge.pending("s").await == 0, ())).await;
    let _: Value = bridge.redis.xgroup_destroy(&key, &bridge.group).await.unwrap();
    bridge.add("s", 51..=100).await;
    until("the rest", async || (script.arrived_of(&key).len() >= 100, script.arrived_of(&key))).await;
    assert_eq!(assert_in_order(&script.arrived_of(&key), 1..=100), 0, "nothing was repeated");
    let _: Value = bridge.redis.xgroup_setid(&key, &bridge.group, "90-1").await.unwrap();
    until("the last ten again", async || (script.arrived_of(&key).len() >= 110, script.arrived_of(&key)))
        .await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&key)[100..], (91..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn connections_that_are_cut_and_scripts_that_are_forgotten_lose_nothing() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "cut", &script).await;
    for stream in names() {
        bridge.add(&stream, [1]).await;
    }
    bridge.start();
    for round in 0..15 {
        for stream in names() {
            add_surely(&bridge, &stream, 2 + round * 10..12 + round * 10).await;
        }
        for node in cluster.nodes() {
            node.ask(0, &["SCRIPT", "FLUSH"]);
            node.ask(0, &["CLIENT", "KILL", "TYPE", "normal"]);
        }
    }
    arrival_of_all(&bridge, &script, 151).await;
    all_acknowledged(&bridge).await;
    let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
    bridge.stop().await;
    assert_all_arrived(&bridge, &script, 151);
}

#[tokio::test]
async fn slots_that_move_take_their_streams_along() {
    let cluster = Arc::new(Cluster::start());
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "move", &script).await;
    for stream in names() {
        bridge.add(&stream, 1..=50).await;
    }
    bridge.start();
    let there = cluster.clone();
    let moving = tokio::task::spawn_blocking(move || {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 0)] {
            let primaries = there.primaries();
            there.move_slots(primaries[from], primaries[to], 1500);
        }
    });
    let writing = async {
        for number in 51..=150 {
            for stream in names() {
                add_surely(&bridge, &stream, [number]).await;
            }
        }
    };
    let (_, moved) = tokio::join!(writing, moving);
    moved.unwrap();
    arrival_of_all(&bridge, &script, 150).await;
    all_acknowledged(&bridge).await;
    bridge.stop().await;
    assert_all_arrived(&bridge, &script, 150);
}

#[tokio::test]
async fn a_primary_that_dies_is_replaced_and_the_streams_of_others_go_on_meanwhile() {
    let mut cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "dies", &script).await;
    for stream in names() {
        bridge.add(&stream, 1..=50).await;
    }
    bridge.start();
    arrival_of_all(&bridge, &script, 50).await;
    all_acknowledged(&bridge).await;
    // What is at the sink when the primary dies cannot be acknowledged there.
    let gate = script.gate();
    for stream in names() {
        bridge.add(&stream, 51..=100).await;
    }
    until("a group at the sink", async || (script.arrived().len() > STREAMS * 50, script.arrived().len()))
        .await;
    let victim = bridge.key("s0");
    let dead = cluster.owner_of(&victim).port;
    let other = names().into_iter().find(|it| cluster.owner_of(&bridge.key(it)).port != dead).unwrap();
    let other = bridge.key(&other);
    cluster.kill_owner_of(&victim);
    gate.send(true).unwrap();
    cluster.ask(&["XADD", &other, "101-1", "n", "101"]);
    until("the others to go on", async || {
        assert!(!cluster.is_replaced(dead), "it came too late to tell anything");
        (script.arrived_of(&other).contains(&101), script.arrived_of(&other).len())
    })
    .await;
    for stream in names() {
        add_surely(&bridge, &stream, 101..=150).await;
    }
    arrival_of_all(&bridge, &script, 150).await;
    all_acknowledged(&bridge).await;
    let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
    bridge.stop().await;
    assert_all_arrived(&bridge, &script, 150);
}

#[tokio::test]
async fn a_primary_that_hangs_and_returns_as_a_replica_loses_nothing() {
    let mut cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "hangs", &script).await;
    for stream in names() {
        bridge.add(&stream, 1..=50).await;
    }
    bridge.start();
    arrival_of_all(&bridge, &script, 50).await;
    all_acknowledged(&bridge).await;
    let victim = bridge.key("s0");
    let hung = cluster.owner_of(&victim).port;
    cluster.node(hung).wait_for_replicas(1);
    cluster.node(hung).suspend(true);
    cluster.wait_until_well();
    let add = |cluster: &Cluster, number: u64| {
        for stream in names() {
            let (key, id) = (bridge.key(&stream), format!("{number}-1"));
            cluster.ask(&["XADD", &key, &id, "n", "text"]);
        }
    };
    add(&cluster, 51);
    arrival_of_all(&bridge, &script, 51).await;
    // What was sent to it before it was given up is carried out now, unseen.
    cluster.node(hung).suspend(false);
    cluster.wait_until_well();
    add(&cluster, 52);
    arrival_of_all(&bridge, &script, 52).await;
    let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
    bridge.stop().await;
    assert_all_arrived(&bridge, &script, 52);
}

#[tokio::test]
async fn commands_and_statistics_reach_all_nodes() {
    let cluster = Cluster::start();
    let refusing = Script::new(|_| Fate::Unfit("too large".into()));
    let mut bridge = Bridge::at(&cluster.url(), "commands", &refusing).await.with(|settings| {
        settings.discovery.as_mut().unwrap().dbs = vec![0, 1, 2];
    });
    for stream in names() {
        bridge.add(&stream, 1..=3).await;
    }
    bridge.start();
    for stream in names() {
        until("letters", async || {
            let letters = bridge.letters(&stream).await.len();
            (letters == 3 && bridge.pending(&stream).await == 0, letters)
        })
        .await;
        bridge.add(&stream, 4..=5).await;
    }
    bridge.stop().await;
    for stream in names() {
        bridge.add(&stream, 6..=7).await;
    }

    let delivering = Script::new(|_| Fate::Delivered);
    let mut out = Vec::new();
    let (redis, streams) = (bridge.redis_settings(), bridge.settings());
    let ended = check::connect(redis.clone(), streams.clone(), &delivering, true, &mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(ended, Ended::Well, "{out}");
    assert!(out.contains(&format!("database 0: {STREAMS} streams, all with the group")), "{out}");
    assert!(!out.contains("database 1"), "{out}");

    let all = DeadLettersCommand::Replay { streams: vec![], ids: vec![], all: true, yes: true };
    let mut out = Vec::new();
    let ended = dead_letters::run(all, redis.clone(), streams.clone(), &delivering, &mut out).await.unwrap();
    assert_eq!(ended, Ended::Well, "{}", String::from_utf8(out).unwrap());
    for stream in names() {
        assert_eq!(delivering.arrived_of(&bridge.key(&stream))[..3], [1, 2, 3]);
        assert!(bridge.letters(&stream).await.is_empty());
    }

    for node in cluster.nodes() {
        let words = "ACL SETUSER watcher on >secret ~* +select +scan +xinfo +xpending +xlen +cluster|slots +cluster|info";
        node.ask(0, &words.split(' ').collect::<Vec<_>>());
    }
    let url = cluster.url().replace("redis-cluster://", "redis-cluster://watcher:secret@");
    let watcher = RedisSettings { url: Some(Secret::new(url)), ..redis.clone() };
    let once = MonitorArguments { once: true, ..MonitorArguments::default() };
    let mut out = Vec::new();
    let (every, stop) = (std::time::Duration::ZERO, std::future::pending());
    monitor::watch(watcher, streams.clone(), every, Output::Lines, &once, stop, &mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let last = out.lines().last().unwrap();
    let number = |name: &str| {
        let words = last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        words.unwrap().trim_start_matches('~').parse::<usize>().unwrap()
    };
    assert_eq!(
        ["streams", "ok", "length", "dead_letters"].map(number),
        [STREAMS, STREAMS, 7 * STREAMS, 0],
        "{out}"
    );
    // Some of what was added last but one had not been read when the bridge stopped.
    assert!((2 * STREAMS..=4 * STREAMS).contains(&number("lag")), "{out}");

    let client = Connector::new(redis).unwrap().commands(0).await.unwrap();
    let statistics = Statistics::new(&streams, RateLimiter::new(0));
    let of = |stream: &String| {
        let key = bridge.key(stream);
        let (metrics, progress) = (bridge.metrics.stream(&key), Default::default());
        Arc::new(Stream { name: StreamName::new(0, key.clone()), spelled: key, metrics, progress })
    };
    let counted: Vec<_> = names().iter().map(of).collect();
    counted.iter().for_each(|stream| statistics.add(&client, stream.clone()));
    assert_eq!(statistics.sweep().await.unwrap().streams, STREAMS);
    for stream in counted {
        assert!(stream.metrics.lag.load(Relaxed) >= 2, "{}", stream.spelled);
    }
}

#[tokio::test]
async fn two_that_read_the_same_streams_at_once_repeat_entries_and_keep_their_order() {
    let cluster = Cluster::start();
    // One sink for both, so that there is one order of arrival.
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(3));
    let mut one = Bridge::at(&cluster.url(), "two", &script).await;
    let mut other =
        Bridge::at(&cluster.url(), "two", &script).await.with(|settings| settings.consumer = "other".into());
    for stream in names() {
        one.add(&stream, [1]).await;
    }
    one.start();
    other.start();
    for number in 0..40 {
        for stream in names() {
            one.add(&stream, 2 + number * 5..7 + number * 5).await;
        }
    }
    arrival_of_all(&one, &script, 201).await;
    all_acknowledged(&one).await;
    one.stop().await;
    other.stop().await;
    assert_all_arrived(&one, &script, 201);
    assert!(script.arrived().len() > STREAMS * 201, "they did get in each other's way");
}

#[tokio::test]
async fn a_stream_whose_slot_is_half_moved_is_read_where_it_is() {
    let cluster = Cluster::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&cluster.url(), "half", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.start();
    let key = bridge.key("s");
    until("the first", async || (script.arrived_of(&key).len() == 10, script.arrived_of(&key))).await;
    let there = cluster.send_ahead(&key);
    for node in cluster.nodes() {
        node.ask(0, &["SCRIPT", "FLUSH"]);
    }
    for number in 11..=13 {
        there.ask_ahead(&["XADD", &key, &format!("{number}-1"), "n", &number.to_string()]);
        until("what was added there", async || {
            (script.arrived_of(&key).contains(&number), script.arrived_of(&key))
        })
        .await;
    }
    until("all to be acknowledged there", async || {
        let pending = there.ask_ahead(&["XPENDING", &key, &bridge.group]).list();
        (pending[0] == Reply::Number(0), pending)
    })
    .await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&key), (1..=13).collect::<Vec<u64>>());
}
