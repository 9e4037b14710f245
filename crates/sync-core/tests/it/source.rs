//! What becomes of streams and groups that change under the bridge.

use std::sync::atomic::Ordering::Relaxed;

use fred::prelude::*;
use sync_core::bridge::Fate;
use sync_core::settings::StartId;

use crate::proxy::Proxy;
use crate::script::{Bridge, Script, assert_in_order, client, redis_url, until};

#[tokio::test]
async fn a_search_whose_connection_ended_meanwhile_is_no_outage() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::in_db(10, "idle", &script).await.with(|settings| {
        settings.discovery_interval = std::time::Duration::from_millis(300);
    });
    bridge.add("s", [1]).await;
    bridge.start();
    until("the first", async || (script.arrived().len() == 1, script.arrived())).await;
    let list: String = bridge.redis.custom(fred::cmd!("CLIENT"), vec!["LIST"]).await.unwrap();
    let searching = list.lines().filter(|line| line.contains(" db=10 "));
    let searching = searching.filter(|line| line.contains("cmd=scan") || line.contains("cmd=select"));
    let ids: Vec<_> = searching.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")).collect();
    assert_eq!(ids.len(), 1, "{list}");
    let kill = vec!["KILL", "ID", ids[0]];
    let _: Value = bridge.redis.custom(fred::cmd!("CLIENT"), kill).await.unwrap();
    bridge.add("late", [1]).await;
    until("the late stream", async || {
        assert_eq!(bridge.health.ready(), Ok(()));
        (script.arrived().len() == 2, script.arrived())
    })
    .await;
    bridge.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_pinged() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::in_db(12, "ping", &script).await;
    bridge.add("s", [1]).await;
    bridge.start();
    until("a ping", async || {
        let list: String = bridge.redis.custom(fred::cmd!("CLIENT"), vec!["LIST"]).await.unwrap();
        (list.lines().any(|line| line.contains(" db=12 ") && line.contains("cmd=ping")), list)
    })
    .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_lane_whose_first_connections_fail_tries_again() {
    let script = Script::new(|_| Fate::Delivered);
    let proxy = Proxy::start(&redis_url(), b"never").await;
    // The search and the lane's commands get theirs; the lane's reader gets none three times.
    proxy.refuse(2, 3);
    let mut bridge = Bridge::new("refused", &script).await.through(&proxy.url);
    bridge.add("s", 1..=10).await;
    bridge.start();
    until("all", async || (script.arrived().len() == 10, (script.arrived(), proxy.left_to_refuse()))).await;
    bridge.stop().await;
    assert_eq!(proxy.left_to_refuse(), 0);
}

#[tokio::test]
async fn what_others_left_pending_comes_first_in_order() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("pending", &script).await;
    bridge.add("s", 1..=300).await;
    bridge.make_group("s").await;
    bridge.read_as("one", "s", 50).await;
    bridge.read_as("two", "s", 100).await;
    bridge.read_as("one", "s", 50).await;
    bridge.start();
    until("all", async || (script.arrived().len() >= 300, script.arrived().len())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=300), 0);
    assert_eq!(bridge.pending("s").await, 0);
}

#[tokio::test]
async fn entries_deleted_while_pending_are_acknowledged_and_counted() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("deleted", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.make_group("s").await;
    bridge.read_as("gone", "s", 10).await;
    let _: u64 = bridge.redis.xdel(bridge.key("s"), vec!["3-1", "4-1", "10-1"]).await.unwrap();
    bridge.start();
    until("the others", async || {
        (script.arrived().len() == 7 && bridge.pending("s").await == 0, script.arrived())
    })
    .await;
    bridge.stop().await;
    assert_in_order(&script.arrived_of(&bridge.key("s")), [1, 2, 5, 6, 7, 8, 9]);
    assert_eq!(bridge.metrics.stream(&bridge.key("s")).lost_deleted.load(Relaxed), 3);
}

#[tokio::test]
async fn a_destroyed_group_is_made_again_where_it_was() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("destroyed", &script).await;
    bridge.add("s", 1..=100).await;
    bridge.add("other", 1..=100).await;
    bridge.start();
    until("the first", async || (script.arrived().len() == 200, script.arrived().len())).await;
    let _: Value = bridge.redis.xgroup_destroy(bridge.key("s"), &bridge.group).await.unwrap();
    bridge.add("s", 101..=200).await;
    bridge.add("other", 101..=200).await;
    until("the rest", async || (script.arrived().len() >= 400, script.arrived().len())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=200), 0, "nothing was repeated");
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("other")), 1..=200), 0);
}

#[tokio::test]
async fn a_stream_made_anew_with_lower_ids_is_read_from_its_start() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("anew", &script).await;
    bridge.add("s", 1000..=1010).await;
    bridge.start();
    until("the first", async || (script.arrived().len() == 11, script.arrived().len())).await;
    let _: Value = bridge.redis.del(bridge.key("s")).await.unwrap();
    bridge.add("s", 1..=5).await;
    until("the new ones", async || (script.arrived().len() == 16, script.arrived())).await;
    bridge.stop().await;
    let expected: Vec<u64> = (1000..=1010).chain(1..=5).collect();
    assert_eq!(script.arrived_of(&bridge.key("s")), expected);
}

#[tokio::test]
async fn a_key_of_another_type_disturbs_nobody_and_may_return() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("type", &script).await;
    bridge.add("s", 1..=3).await;
    bridge.add("other", 1..=3).await;
    bridge.start();
    until("the first", async || (script.arrived().len() == 6, script.arrived())).await;
    let _: Value = bridge.redis.set(bridge.key("s"), "no stream", None, None, false).await.unwrap();
    bridge.add("other", 4..=50).await;
    until("the other", async || (script.arrived().len() == 53, script.arrived().len())).await;
    let _: Value = bridge.redis.del(bridge.key("s")).await.unwrap();
    bridge.add("s", 4..=6).await;
    until("its return", async || (script.arrived().len() == 56, script.arrived().len())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=6), 0);
}

#[tokio::test]
async fn latest_skips_what_was_there_at_the_first_start_and_nothing_later() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge =
        Bridge::new("latest", &script).await.with(|settings| settings.start_id = StartId::Latest);
    bridge.add("old", 1..=3).await;
    bridge.start();
    until("the group", async || {
        let groups: Value = bridge.redis.xinfo_groups(bridge.key("old")).await.unwrap();
        (matches!(&groups, Value::Array(groups) if !groups.is_empty()), groups)
    })
    .await;
    bridge.add("old", 4..=5).await;
    bridge.add("new", 1..=2).await;
    until("what came later", async || (script.arrived().len() == 4, script.arrived())).await;
    bridge.stop().await;
    // A stream that appeared while nothing ran is not new to the group's first start either.
    bridge.add("meanwhile", 1..=2).await;
    bridge.start();
    until("what came meanwhile", async || (script.arrived().len() == 6, script.arrived())).await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&bridge.key("old")), [4, 5]);
    assert_eq!(script.arrived_of(&bridge.key("new")), [1, 2]);
    assert_eq!(script.arrived_of(&bridge.key("meanwhile")), [1, 2]);
}

#[tokio::test]
async fn a_group_that_is_not_to_be_made_is_waited_for() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge =
        Bridge::new("nogroup", &script).await.with(|settings| settings.auto_create_groups = false);
    bridge.add("without", 1..=3).await;
    bridge.add("with", 1..=3).await;
    bridge.make_group("with").await;
    bridge.start();
    until("the one with a group", async || (script.arrived().len() == 3, script.arrived())).await;
    bridge.make_group("without").await;
    until("the other", async || (script.arrived().len() == 6, script.arrived())).await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&bridge.key("without")), [1, 2, 3]);
}

#[tokio::test]
async fn large_entries_are_read_within_the_budget() {
    // Ten entries of 1 MB in each of 60 streams in four databases, so of four lanes: many times the budget, and asked
    // for before the size of any was seen.
    let script = Script::new(|_| Fate::Delivered);
    let gate = script.gate();
    let dbs = [6, 7, 8, 9];
    let mut bridge = Bridge::new("budget", &script).await.with(|settings| {
        settings.discovery.as_mut().unwrap().dbs = dbs.to_vec();
    });
    let payload = "x".repeat(1 << 20);
    let mut streams = Vec::new();
    for db in dbs {
        let redis = client(db).await;
        for stream in 0..15 {
            let key = bridge.key(&format!("s{stream}"));
            let pipeline = redis.pipeline();
            for number in 1..=10 {
                let fields = vec![("payload", payload.as_str())];
                let id = format!("{number}-1");
                let _: () = pipeline.xadd(&key, false, None, id, fields).await.unwrap();
            }
            let _: Vec<Value> = pipeline.all().await.unwrap();
            streams.push((redis.clone(), key, db));
        }
    }
    bridge.start();
    // With the sink stuck, what has been read is what fits.
    let mut steady = (0, 0);
    let read = until("the budget to fill", async || {
        let read_of = |(_, key, db): &(Client, String, u16)| {
            bridge.metrics.stream(&format!("db{db}:{key}")).read.load(Relaxed)
        };
        let read: u64 = streams.iter().map(read_of).sum();
        steady = if read == steady.0 && read > 0 { (read, steady.1 + 1) } else { (read, 0) };
        (steady.1 >= 100, read)
    })
    .await;
    assert!(read <= 32, "{read} entries of 1 MB were read ahead");
    gate.send(true).unwrap();
    until("all", async || (script.arrived().len() == 600, script.arrived().len())).await;
    bridge.stop().await;
    for (redis, key, _) in streams {
        let _: Value = redis.del(key).await.unwrap();
    }
}
