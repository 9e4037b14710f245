//! Several replicas of one bridge in one consumer group: each stream has one reader, whoever comes, goes, dies or is
//! cut off, and first arrivals keep their order.

mod databases;
mod on_a_cluster;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fred::prelude::*;
use fred::types::streams::XID;
use serde_json::Value as Json;
use sync_core::bridge::Fate;
use sync_core::settings::{Ownership, StartId};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::script::{Bridge, Script, assert_in_order, client, redis_url, until};

/// A lease, a tick, and what a busy machine needs.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// `count` replicas that deliver into one script, in a database of their own.
async fn replicas(db: u16, name: &str, script: &Script, count: usize) -> Vec<Bridge> {
    let mut replicas = Vec::new();
    for number in 0..count {
        replicas.push(replica(number, Bridge::in_db(db, name, script).await));
    }
    replicas
}

fn replica(number: usize, bridge: Bridge) -> Bridge {
    bridge.with(|settings| {
        settings.ownership = Ownership::Shared;
        settings.consumer = format!("replica-{number}");
    })
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("s{number}")).collect()
}

/// Stream to owner, as this replica's page says.
fn owners(bridge: &Bridge) -> BTreeMap<String, Option<String>> {
    let page: Json = serde_json::from_str(&bridge.status.page(&bridge.health, &bridge.metrics)).unwrap();
    let streams = page["streams"].as_array().unwrap().iter();
    streams
        .map(|s| (s["stream"].as_str().unwrap().to_owned(), s["owner"].as_str().map(str::to_owned)))
        .collect()
}

/// Waits until every stream has an owner and each of these replicas has its part.
async fn shared_out(bridges: &[&Bridge], streams: usize) -> Vec<u64> {
    let part = streams / bridges.len();
    until("streams are shared out", async || {
        let owned: Vec<u64> = bridges.iter().map(|bridge| bridge.metrics.totals().streams).collect();
        let all_owned = owners(bridges[0]).values().flatten().count() == streams;
        let even = owned.iter().all(|n| n.abs_diff(part as u64) <= 2);
        (all_owned && even && owned.iter().sum::<u64>() == streams as u64, owned)
    })
    .await
}

async fn all_arrived(
    script: &Script,
    streams: &[String],
    bridge: &Bridge,
    numbers: std::ops::RangeInclusive<u64>,
) {
    let expected = numbers.clone().count();
    until("all has arrived", async || {
        let mut distinct: HashMap<String, std::collections::HashSet<u64>> = HashMap::new();
        for (stream, number) in script.arrived() {
            distinct.entry(stream).or_default().insert(number);
        }
        let counts: Vec<usize> =
            streams.iter().map(|s| distinct.get(&bridge.key(s)).map_or(0, |seen| seen.len())).collect();
        (counts.iter().all(|count| *count == expected), counts)
    })
    .await;
    for stream in streams {
        assert_in_order(&script.arrived_of(&bridge.key(stream)), numbers.clone());
    }
}

async fn keys_of_ours(client: &Client, group: &str) -> Vec<String> {
    client.custom(fred::cmd!("KEYS"), vec![format!("redis-sync:{{{group}}}:*")]).await.unwrap()
}

#[tokio::test]
async fn replicas_share_the_streams_and_hand_over_when_one_comes_or_leaves() {
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(40);
    let mut bridges = replicas(3, "share", &script, 3).await;
    for stream in &streams {
        bridges[0].add(stream, 1..=10).await;
    }
    bridges[0].start();
    shared_out(&[&bridges[0]], 40).await;
    bridges[1].start();
    bridges[2].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 40).await;
    until("all say the same", async || {
        let seen: Vec<_> = bridges.iter().map(owners).collect();
        (seen.iter().all(|owners| *owners == seen[0] && owners.values().all(Option::is_some)), seen)
    })
    .await;
    for stream in &streams {
        bridges[0].add(stream, 11..=50).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=50).await;
    let repeats = script.arrived().len();
    assert_eq!(repeats, 40 * 50, "handing over repeats nothing");

    let begun = Instant::now();
    bridges[1].stop().await;
    shared_out(&[&bridges[0], &bridges[2]], 40).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it left: nobody waits for its lease");
    for stream in &streams {
        bridges[0].add(stream, 51..=60).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=60).await;
    assert_eq!(script.arrived().len(), 40 * 60);
    assert_eq!(
        keys_of_ours(&bridges[0].redis, &bridges[0].group).await.len(),
        4,
        "members, owners, two fences"
    );
    bridges[0].stop().await;
    bridges[2].stop().await;
    let left = keys_of_ours(&bridges[0].redis, &bridges[0].group).await;
    assert!(left.is_empty(), "the last one leaves nothing behind: {left:?}");
}

#[tokio::test]
async fn what_a_dead_replica_had_is_taken_over_in_order() {
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(2));
    let streams = names(20);
    let mut bridges = replicas(4, "dead", &script, 2).await;
    for stream in &streams {
        bridges[0].add(stream, 1..=200).await;
    }
    bridges[0].start();
    bridges[1].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 20).await;
    bridges[1].crash().await;
    let begun = Instant::now();
    for stream in &streams {
        bridges[0].add(stream, 201..=300).await;
    }
    shared_out(&[&bridges[0]], 20).await;
    assert!(begun.elapsed() < TAKEN_OVER, "{:?}", begun.elapsed());
    all_arrived(&script, &streams, &bridges[0], 1..=300).await;
    bridges[0].stop().await;
}

#[tokio::test]
async fn a_replica_that_was_cut_off_for_longer_than_its_lease_disturbs_nobody() {
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(1));
    let streams = names(20);
    let mut bridges = replicas(5, "cut", &script, 2).await;
    let proxy = Proxy::start(&redis_url(), b"never").await;
    let second = bridges.pop().unwrap().through(&proxy.url);
    bridges.push(second);
    for stream in &streams {
        bridges[0].add(stream, 1..=100).await;
    }
    bridges[0].start();
    bridges[1].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 20).await;
    proxy.cut_off(true);
    for stream in &streams {
        bridges[0].add(stream, 101..=200).await;
    }
    shared_out(&[&bridges[0]], 20).await;
    for stream in &streams {
        bridges[0].add(stream, 201..=300).await;
    }
    proxy.cut_off(false);
    shared_out(&bridges.iter().collect::<Vec<_>>(), 20).await;
    for stream in &streams {
        bridges[0].add(stream, 301..=400).await;
    }
    all_arrived(&script, &streams, &bridges[0], 1..=400).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
}

/// The request may still be on its way, and would free what this member owns when it comes.
#[tokio::test]
async fn who_releases_and_hears_no_answer_goes_on_under_another_name() {
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(10);
    let mut bridges = replicas(11, "unheard", &script, 2).await;
    let proxy = Proxy::start(&redis_url(), b"released").await;
    let first = bridges.remove(0).through(&proxy.url);
    bridges.insert(0, first);
    for stream in &streams {
        bridges[0].add(stream, 1..=10).await;
    }
    let name = |bridge: &Bridge| {
        let page = bridge.status.page(&bridge.health, &bridge.metrics);
        serde_json::from_str::<Json>(&page).unwrap()["member"].as_str().map(str::to_owned)
    };
    bridges[0].start();
    shared_out(&[&bridges[0]], 10).await;
    let before = name(&bridges[0]);
    proxy.swallow(1);
    bridges[1].start();
    until("the answer is lost", async || (proxy.left() == 0, ())).await;
    shared_out(&bridges.iter().collect::<Vec<_>>(), 10).await;
    assert_ne!(name(&bridges[0]), before);
    all_arrived(&script, &streams, &bridges[0], 1..=10).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
}

#[tokio::test]
async fn the_read_of_a_lost_connection_takes_nothing() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridges = replicas(6, "late", &script, 1).await;
    let bridge = &mut bridges[0];
    bridge.add("s", 1..=1).await;
    bridge.start();
    until("it is read", async || (script.arrived().len() == 1, ())).await;
    let fences = async || {
        let mut keys = keys_of_ours(&bridge.redis, &bridge.group).await;
        keys.retain(|key| key.contains(":fence:"));
        keys
    };
    let old = fences().await;
    assert_eq!(old.len(), 1);
    // What the server was sent before the connection broke, and gets to see only now.
    let late = client(6).await;
    let late_id: i64 = late.client_id().await.unwrap();
    let (group, keys) = (bridge.group.clone(), vec![old[0].clone(), bridge.key("s")]);
    let read = tokio::spawn(async move {
        let new = vec![XID::NewInGroup, XID::NewInGroup];
        late.xreadgroup::<Value, _, _, _, _>(&group, "replica-0", None, Some(20_000), false, keys, new).await
    });
    until("another fence stands", async || {
        let clients: String = bridge.redis.custom(fred::cmd!("CLIENT"), vec!["LIST"]).await.unwrap();
        for line in clients.lines().filter(|line| line.contains(" db=6 ") && line.contains(" flags=b ")) {
            let id = line.split(' ').next().unwrap().trim_start_matches("id=");
            if id != late_id.to_string() {
                let kill = vec!["KILL", "ID", id];
                let _: Value = bridge.redis.custom(fred::cmd!("CLIENT"), kill).await.unwrap();
            }
        }
        let new = fences().await;
        (new.len() == 1 && new != old, new)
    })
    .await;
    let ended = read.await.unwrap().unwrap_err();
    assert!(ended.details().starts_with("UNBLOCKED") || ended.details().starts_with("NOGROUP"), "{ended:?}");
    bridge.add("s", 2..=20).await;
    until("all arrives", async || (script.arrived().len() == 20, script.arrived())).await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=20), 0);
    bridges[0].stop().await;
}

#[tokio::test]
async fn a_read_that_waits_when_its_membership_ends_takes_nothing() {
    let metrics = sync_core::telemetry::metrics::Metrics::default();
    let (numbers, seen) = (metrics.clone(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let times_lost = move || numbers.counter("memberships_lost", "").get();
    let when = seen.clone();
    let script = Script::new(move |(_, number)| {
        when.lock().unwrap().push((*number, times_lost()));
        Fate::Delivered
    });
    let mut bridges = replicas(3, "waits", &script, 1).await;
    bridges[0].metrics = metrics;
    bridges[0].add("s", 1..=1).await;
    bridges[0].start();
    until("it is read", async || (script.arrived().len() == 1, ())).await;
    for round in 1..=2u64 {
        // What another member does to one whose lease ran out, and an entry in the same moment.
        const END: &str = "for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end \
            return redis.call('XADD', KEYS[1], ARGV[1], 'n', ARGV[2])";
        let mut keys = vec![bridges[0].key("s")];
        keys.extend(keys_of_ours(&bridges[0].redis, &bridges[0].group).await);
        let number = (round + 1).to_string();
        let entry = vec![format!("{number}-1"), number];
        let _: Value = bridges[0].redis.eval(END, keys, entry).await.unwrap();
        until("it is read again", async || (script.arrived().len() as u64 == round + 1, ())).await;
    }
    bridges[0].stop().await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, [(1, 0), (2, 1), (3, 2)], "each entry was taken by the membership after the one before");
}

#[tokio::test]
async fn another_server_life_or_lost_books_make_everybody_join_again() {
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(12);
    let mut bridges = replicas(7, "life", &script, 2).await;
    for stream in &streams {
        bridges[0].add(stream, 1..=5).await;
    }
    bridges[0].start();
    bridges[1].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 12).await;
    let prefix = format!("redis-sync:{{{}}}:", bridges[0].group);
    let mut numbers = 6..;
    let mut last = 5;
    for damage in ["another life", "an older state", "owners evicted", "members evicted", "a fence evicted"] {
        let before: Vec<u64> = bridges.iter().map(lost).collect();
        let redis = &bridges[0].redis;
        match damage {
            "another life" => {
                let words = vec![format!("{prefix}members"), "#server".into(), "another".into()];
                let _: Value = redis.custom(fred::cmd!("HSET"), words).await.unwrap();
            }
            "an older state" => {
                let words = vec![format!("{prefix}members"), "#version".into(), "1".into()];
                let _: Value = redis.custom(fred::cmd!("HSET"), words).await.unwrap();
            }
            "owners evicted" => redis.del(format!("{prefix}owners")).await.unwrap(),
            "members evicted" => redis.del(format!("{prefix}members")).await.unwrap(),
            _ => {
                let keys = keys_of_ours(redis, &bridges[0].group).await;
                let fence = keys.into_iter().find(|key| key.contains(":fence:")).unwrap();
                redis.del(fence).await.unwrap()
            }
        }
        if damage != "a fence evicted" {
            until("both have lost their membership", async || {
                let now: Vec<u64> = bridges.iter().map(lost).collect();
                (now.iter().zip(&before).all(|(now, before)| now > before), (damage, now))
            })
            .await;
        }
        for _ in 0..5 {
            last = numbers.next().unwrap();
            for stream in &streams {
                bridges[0].add(stream, last..=last).await;
            }
        }
        shared_out(&bridges.iter().collect::<Vec<_>>(), 12).await;
        all_arrived(&script, &streams, &bridges[0], 1..=last).await;
    }
    for bridge in &mut bridges {
        bridge.stop().await;
    }
    let left = keys_of_ours(&bridges[0].redis, &bridges[0].group).await;
    assert!(left.is_empty(), "also the fences of memberships that were lost are gone: {left:?}");
}

fn lost(bridge: &Bridge) -> u64 {
    bridge.metrics.counter("memberships_lost", "").get()
}

#[tokio::test]
async fn another_bridge_in_the_same_group_is_refused() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridges = replicas(8, "taken", &script, 1).await;
    bridges[0].start();
    until("it is a member", async || {
        (!keys_of_ours(&bridges[0].redis, &bridges[0].group).await.is_empty(), ())
    })
    .await;
    let elsewhere = Script::new(|_| Fate::Delivered).called("elsewhere");
    let mut other = replicas(8, "taken", &elsewhere, 1).await.remove(0);
    other.start();
    let error = other.ended().await.unwrap_err().to_string();
    assert!(error.contains("is used by scripted to scripted sink"), "{error}");
    assert!(error.contains("STREAM_CONSUMER_GROUP"), "{error}");
    bridges[0].stop().await;
}

#[tokio::test]
async fn without_permission_for_keys_of_its_own_it_says_what_to_set() {
    let admin = client(0).await;
    let user = format!("streams-only-{}", std::process::id());
    let rules = ["ACL", "SETUSER", &user, "on", ">pw", "+@all", "~denied*"];
    let _: Value = admin.custom(fred::cmd!("ACL"), rules[1..].to_vec()).await.unwrap();
    let script = Script::new(|_| Fate::Delivered);
    let url = redis_url().replace("redis://", &format!("redis://{user}:pw@"));
    let mut shared = replicas(9, "denied", &script, 1).await.remove(0).through(&url);
    shared.start();
    let error = shared.ended().await.unwrap_err().to_string();
    assert!(error.contains("STREAM_OWNERSHIP=exclusive") && error.contains("NOPERM"), "{error}");
    let alone = replicas(9, "denied", &script, 1).await.remove(0).through(&url);
    let mut alone = alone.with(|settings| settings.ownership = Ownership::Exclusive);
    alone.add("s", 1..=3).await;
    alone.start();
    until("it reads alone", async || (script.arrived().len() == 3, ())).await;
    alone.stop().await;
    let _: Value = admin.custom(fred::cmd!("ACL"), vec!["DELUSER", &user]).await.unwrap();
}

#[tokio::test]
async fn replicas_agree_where_the_end_was_at_the_first_start() {
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(10);
    let mut bridges = replicas(10, "end", &script, 2).await;
    for bridge in &mut bridges {
        bridge.change(|settings| settings.start_id = StartId::Latest);
    }
    for stream in &streams {
        bridges[0].add(stream, 1..=5).await;
    }
    bridges[0].start();
    shared_out(&[&bridges[0]], 10).await;
    bridges[1].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 10).await;
    for stream in &streams {
        bridges[0].add(stream, 6..=8).await;
    }
    all_arrived(&script, &streams, &bridges[0], 6..=8).await;
    // One that came later is read from its beginning.
    bridges[0].add("new", 1..=3).await;
    until("it is found", async || (script.arrived_of(&bridges[0].key("new")).len() == 3, ())).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
}

#[tokio::test]
async fn only_the_first_replica_skips_what_was_there_before() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridges = replicas(11, "later", &script, 2).await;
    for bridge in &mut bridges {
        bridge.change(|settings| settings.start_id = StartId::Latest);
    }
    // The first one finds no stream, and does not look again during this test.
    bridges[0].change(|settings| settings.discovery_interval = Duration::from_secs(600));
    bridges[0].start();
    until("it is a member", async || {
        (!keys_of_ours(&bridges[0].redis, &bridges[0].group).await.is_empty(), ())
    })
    .await;
    for stream in names(4) {
        bridges[0].add(&stream, 1..=3).await;
    }
    bridges[1].start();
    // Its part of them.
    until("two are read from their beginning", async || {
        let whole = names(4).into_iter().filter(|s| script.arrived_of(&bridges[0].key(s)) == [1, 2, 3]);
        (whole.count() >= 2, script.arrived())
    })
    .await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
}

#[tokio::test]
async fn replicas_that_may_not_ask_who_the_server_is_share_with_those_that_may() {
    let admin = client(0).await;
    let user = format!("no-info-{}", std::process::id());
    let rules = vec!["SETUSER", &user, "on", ">pw", "allkeys", "+@all", "-info"];
    let _: Value = admin.custom(fred::cmd!("ACL"), rules).await.unwrap();
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(10);
    let mut bridges = replicas(13, "info", &script, 2).await;
    let second =
        bridges.pop().unwrap().through(&redis_url().replace("redis://", &format!("redis://{user}:pw@")));
    bridges.push(second);
    for stream in &streams {
        bridges[0].add(stream, 1..=5).await;
    }
    bridges[0].start();
    bridges[1].start();
    shared_out(&bridges.iter().collect::<Vec<_>>(), 10).await;
    // Renewed by each of them, several times.
    let version = async || {
        let words = vec![format!("redis-sync:{{{}}}:members", bridges[0].group)];
        let members: Vec<String> = bridges[0].redis.custom(fred::cmd!("HGETALL"), words).await.unwrap();
        members.into_iter().filter(|word| word.contains(r#""bridge""#)).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        let before = version().await;
        until("both have renewed their leases", async || {
            let now = version().await;
            (now.iter().zip(&before).all(|(now, before)| now != before), ())
        })
        .await;
    }
    assert_eq!(bridges.iter().map(lost).sum::<u64>(), 0);
    all_arrived(&script, &streams, &bridges[0], 1..=5).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
    let _: Value = admin.custom(fred::cmd!("ACL"), vec!["DELUSER", &user]).await.unwrap();
}
