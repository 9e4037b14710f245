//! STREAM_CLEANUP: what is deleted, what is kept for other groups, and what no trouble may change of that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fred::prelude::*;
use fred::types::Value;
use fred::types::streams::XID;
use sync_core::bridge::Fate;
use sync_core::commands::monitor::{self, MonitorArguments, Output};
use sync_core::commands::{Ended, check};
use sync_core::settings::{Cleanup, Filter, StreamSettings};
use test_kit::cluster::Cluster;

use crate::script::{Bridge, Script, assert_in_order, client, redis_url, until};

/// No sweep comes while a test runs.
const NEVER: Duration = Duration::from_secs(3600);

fn deleting(settings: &mut StreamSettings) {
    settings.cleanup = Cleanup::Delete;
}

/// Deletes only what is deleted with its acknowledgement.
fn deleting_at_once(settings: &mut StreamSettings) {
    (settings.cleanup, settings.cleanup_interval) = (Cleanup::Delete, NEVER);
}

fn delivering() -> Script {
    Script::new(|_| Fate::Delivered)
}

async fn ids(bridge: &Bridge, stream: &str) -> Vec<String> {
    let found: Vec<(String, HashMap<String, String>)> =
        bridge.redis.xrange_values(bridge.key(stream), "-", "+", None).await.unwrap();
    found.into_iter().map(|(id, _)| id).collect()
}

/// The numbers of the entries that stand.
async fn standing(bridge: &Bridge, stream: &str) -> Vec<u64> {
    let number = |id: String| id.split_once('-').unwrap().0.parse().unwrap();
    ids(bridge, stream).await.into_iter().map(number).collect()
}

async fn until_standing(bridge: &Bridge, stream: &str, expected: impl IntoIterator<Item = u64>) {
    let expected: Vec<u64> = expected.into_iter().collect();
    until(&format!("{expected:?} alone to stand"), async || {
        let standing = standing(bridge, stream).await;
        (standing == expected, standing)
    })
    .await;
}

async fn until_acknowledged(bridge: &Bridge, script: &Script, stream: &str, arrived: usize) {
    let key = bridge.key(stream);
    until("all to arrive and be acknowledged", async || {
        let seen = (script.arrived_of(&key).len(), bridge.pending(stream).await);
        (seen.0 >= arrived && seen.1 == 0, seen)
    })
    .await;
}

/// Another consumer group on a stream.
struct Other<'a> {
    bridge: &'a Bridge,
    key: String,
    name: &'static str,
}

impl<'a> Other<'a> {
    async fn new(bridge: &'a Bridge, stream: &str, name: &'static str) -> Self {
        let key = bridge.key(stream);
        let _: Value = bridge.redis.xgroup_create(&key, name, "0", true).await.unwrap();
        Self { bridge, key, name }
    }

    async fn read(&self, count: u64) {
        let new = vec![XID::NewInGroup];
        let redis = &self.bridge.redis;
        let _: Value =
            redis.xreadgroup(self.name, "c", Some(count), None, false, &self.key, new).await.unwrap();
    }

    async fn acknowledge(&self, numbers: impl IntoIterator<Item = u64>) {
        let ids: Vec<String> = numbers.into_iter().map(|number| format!("{number}-1")).collect();
        let given = ids.len();
        let acknowledged: usize = self.bridge.redis.xack(&self.key, self.name, ids).await.unwrap();
        assert_eq!(acknowledged, given);
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_deleted_with_it() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-cleaned", &script).await.with(deleting_at_once);
    for stream in ["a", "b"] {
        bridge.add(stream, 1..=1000).await;
    }
    bridge.start();
    for stream in ["a", "b"] {
        until_acknowledged(&bridge, &script, stream, 1000).await;
        until_standing(&bridge, stream, []).await;
    }
    // One by one, too.
    for number in 1001..=1005 {
        bridge.add("a", [number]).await;
        until_acknowledged(&bridge, &script, "a", number as usize).await;
    }
    until_standing(&bridge, "a", []).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("a")), 1..=1005), 0);
    assert!(bridge.metrics.expose(&bridge.health).contains("redis_sync_cleaned_up_entries_total 2005"));
}

#[tokio::test]
async fn without_it_nothing_is_deleted_and_no_script_is_called() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-plain-ack", &script).await;
    bridge.add("s", 1..=100).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 100).await;
    bridge.stop().await;
    assert_eq!(standing(&bridge, "s").await, (1..=100).collect::<Vec<_>>());
    assert!(!bridge.metrics.expose(&bridge.health).contains("cleaned_up"));
}

#[tokio::test]
async fn nothing_that_another_group_has_not_acknowledged_is_deleted() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-lagging", &script).await.with(deleting);
    bridge.add("s", 1..=100).await;
    bridge.make_group("s").await;
    let redis = client(0).await;
    bridge.start();
    // It has acknowledged some before the bridge comes to them, has some pending, and was not handed the rest.
    let watched = Bridge::new("cleanup-lagging", &delivering()).await;
    let other = Other::new(&watched, "late", "slow").await;
    bridge.add("late", 1..=100).await;
    other.read(20).await;
    until_acknowledged(&bridge, &script, "late", 100).await;
    until_standing(&bridge, "s", []).await;
    other.acknowledge((1..=5).chain(8..=20)).await;
    // Pending ones keep what stands behind them: the sweep deletes what lies before.
    until_standing(&bridge, "late", 6..=100).await;
    other.acknowledge([6, 7]).await;
    until_standing(&bridge, "late", 21..=100).await;
    other.read(1000).await;
    other.acknowledge(21..=99).await;
    until_standing(&bridge, "late", [100]).await;
    other.acknowledge([100]).await;
    until_standing(&bridge, "late", []).await;
    bridge.stop().await;
    let _: Value = redis.del(bridge.key("late")).await.unwrap();
}

#[tokio::test]
async fn an_acknowledgement_deletes_only_what_lies_before_another_groups_need() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-before", &script).await.with(deleting_at_once);
    let watched = Bridge::new("cleanup-before", &delivering()).await;
    let pending = Other::new(&watched, "s", "pending").await;
    bridge.add("s", 1..=100).await;
    pending.read(60).await;
    pending.acknowledge((1..=40).chain(42..=60)).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 100).await;
    bridge.stop().await;
    assert_eq!(standing(&bridge, "s").await, (41..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restart_forgets_no_deferred_deletion() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-deferred", &script).await.with(deleting_at_once);
    let watched = Bridge::new("cleanup-deferred", &delivering()).await;
    let other = Other::new(&watched, "s", "slow").await;
    bridge.add("s", 1..=50).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 50).await;
    bridge.crash().await;
    assert_eq!(standing(&bridge, "s").await.len(), 50);
    other.read(50).await;
    other.acknowledge(1..=50).await;
    // Nothing new comes: only what was kept can bring the next process to delete it.
    bridge.change(deleting);
    bridge.change(|settings| settings.cleanup_interval = Duration::from_millis(50));
    bridge.start();
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=50), 0);
}

#[tokio::test]
async fn what_was_acknowledged_while_nothing_was_deleted_goes_too_however_much() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-before-it", &script).await;
    bridge.add("s", 1..=25_000).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 25_000).await;
    bridge.stop().await;
    assert_eq!(bridge.redis.xlen::<u64, _>(bridge.key("s")).await.unwrap(), 25_000);
    bridge.change(deleting);
    bridge.start();
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_crash_at_any_point_deletes_nothing_that_has_not_arrived() {
    let script = delivering().slow(Duration::from_millis(2));
    let mut bridge = Bridge::new("cleanup-crashes", &script)
        .await
        .with(deleting)
        .with(|settings| settings.batch_size = 20);
    let key = bridge.key("s");
    for round in 0..8 {
        bridge.add("s", round * 100 + 1..=round * 100 + 100).await;
        bridge.start();
        let enough = script.arrived_of(&key).len() + 35;
        until("some", async || (script.arrived_of(&key).len() >= enough, ())).await;
        bridge.crash().await;
        let (standing, arrived) = (standing(&bridge, "s").await, script.arrived_of(&key));
        let lost = (1..=round * 100 + 100).find(|it| !standing.contains(it) && !arrived.contains(it));
        assert_eq!(lost, None, "neither arrived nor there");
    }
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 800).await;
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
    assert_in_order(&script.arrived_of(&key), 1..=800);
    assert_eq!((bridge.metrics.totals().lost_deleted, bridge.metrics.totals().lost_trimmed), (0, 0));
}

#[tokio::test]
async fn two_bridges_that_delete_each_get_everything() {
    let scripts = [delivering(), delivering().slow(Duration::from_millis(10))];
    let mut bridges = Vec::new();
    for (script, name) in scripts.iter().zip(["first", "second"]) {
        let mut bridge = Bridge::new("cleanup-both", script).await.with(deleting);
        bridge.change(|settings| settings.group = name.into());
        bridge.group = name.into();
        bridge.make_group("s").await;
        bridges.push(bridge);
    }
    bridges[0].add("s", 1..=500).await;
    bridges.iter_mut().for_each(Bridge::start);
    for number in 501..=600 {
        bridges[0].add("s", [number]).await;
    }
    for (bridge, script) in bridges.iter().zip(&scripts) {
        until_acknowledged(bridge, script, "s", 600).await;
    }
    until_standing(&bridges[0], "s", []).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
    for (bridge, script) in bridges.iter().zip(&scripts) {
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=600), 0);
        let totals = bridge.metrics.totals();
        assert_eq!((totals.lost_deleted, totals.lost_trimmed), (0, 0));
    }
}

#[tokio::test]
async fn trim_deletes_now_and_then_and_not_when_it_acknowledges() {
    let script = delivering();
    let trimming = |settings: &mut StreamSettings| settings.cleanup = Cleanup::Trim;
    let mut bridge = Bridge::new("cleanup-trim", &script).await.with(trimming);
    bridge.change(|settings| settings.cleanup_interval = NEVER);
    let watched = Bridge::new("cleanup-trim", &delivering()).await;
    let other = Other::new(&watched, "s", "slow").await;
    bridge.add("s", 1..=50).await;
    other.read(10).await;
    other.acknowledge(1..=9).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 50).await;
    bridge.stop().await;
    assert_eq!(standing(&bridge, "s").await.len(), 50);
    bridge.change(|settings| settings.cleanup_interval = Duration::from_millis(50));
    bridge.start();
    until_standing(&bridge, "s", 10..=50).await;
    bridge.stop().await;
}

#[tokio::test]
async fn what_is_pending_in_the_own_group_stays_whoever_has_it() {
    const SCRIPT: &str = "redis.call('XADD', KEYS[1], '11-1', 'n', 11) \
        return redis.call('XREADGROUP', 'GROUP', ARGV[1], 'somebody', 'STREAMS', KEYS[1], '>')";
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-own", &script).await.with(deleting);
    bridge.add("s", 1..=10).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 10).await;
    // Another group needs what comes after 15.
    let _: Value = bridge.redis.xgroup_create(bridge.key("s"), "ahead", "15-1", false).await.unwrap();
    // Somebody else in the group is handed the next one and does not acknowledge it; then the bridge goes on.
    let _: Value = bridge.redis.eval(SCRIPT, bridge.key("s"), vec![bridge.group.clone()]).await.unwrap();
    bridge.add("s", 12..=20).await;
    let key = bridge.key("s");
    until("the rest", async || (script.arrived_of(&key).contains(&20), script.arrived_of(&key))).await;
    until_standing(&bridge, "s", [11].into_iter().chain(16..=20)).await;
    assert_eq!(bridge.pending("s").await, 1);
    bridge.stop().await;
    let _: Value = bridge.redis.xgroup_destroy(bridge.key("s"), "ahead").await.unwrap();
    // The next process delivers it.
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 20).await;
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
}

#[tokio::test]
async fn buried_and_filtered_entries_are_deleted_like_delivered_ones() {
    let script = Script::new(|(_, number)| match number {
        3 => Fate::Refused("no such thing".into()),
        5 => Fate::Unfit("too long".into()),
        _ => Fate::Delivered,
    });
    let mut bridge = Bridge::new("cleanup-buried", &script).await.with(deleting_at_once);
    bridge.add("s", 1..=6).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 4).await;
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
    let letters = bridge.letters("s").await;
    assert_eq!(letters.iter().map(|letter| letter["id"].as_str()).collect::<Vec<_>>(), ["3-1", "5-1"]);

    // More in one acknowledgement than a script may hand on in one command.
    bridge.change(|settings| {
        settings.batch_size = 20_000;
        settings.filter = Some(Filter { field: "n".into(), values: vec!["20000".into()] });
    });
    bridge.add("t", 1..=20_000).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "t", 1).await;
    until_standing(&bridge, "t", []).await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&bridge.key("t")), [20_000]);
}

#[tokio::test]
async fn ids_beyond_what_a_script_can_count_are_compared_right() {
    const LAST: u64 = u64::MAX;
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-ids", &script).await.with(deleting);
    let watched = Bridge::new("cleanup-ids", &delivering()).await;
    let all = [
        "9-9".to_owned(),
        "9-10".into(),
        format!("9-{LAST}"),
        "10-0".into(),
        "10-9007199254740993".into(),
        "10-9007199254740994".into(),
        format!("99-{LAST}"),
        "100-0".into(),
        format!("{LAST}-{}", LAST - 1),
        format!("{LAST}-{LAST}"),
    ];
    let other = Other::new(&watched, "s", "slow").await;
    for id in &all {
        let fields = vec![("n", "1")];
        let _: Value = bridge.redis.xadd(bridge.key("s"), false, None, id.as_str(), fields).await.unwrap();
    }
    bridge.start();
    until_acknowledged(&bridge, &script, "s", all.len()).await;
    for at in 0..all.len() {
        other.read(1).await;
        until("those before what is pending to go", async || {
            let ids = ids(&bridge, "s").await;
            (ids == all[at..], ids)
        })
        .await;
        let _: Value = bridge.redis.xack(&other.key, "slow", all[at].as_str()).await.unwrap();
        // Behind the last of all there is nothing from which on a stream could be kept: that one stays.
        let left = &all[(at + 1).min(all.len() - 1)..];
        until("it to go", async || {
            let ids = ids(&bridge, "s").await;
            (ids == left, ids)
        })
        .await;
    }
    bridge.stop().await;
}

#[tokio::test]
async fn a_group_that_was_destroyed_is_no_reason_to_delete_what_it_had_not_acknowledged() {
    let script = delivering();
    let gate = script.gate();
    let mut bridge = Bridge::new("cleanup-destroyed", &script).await.with(deleting);
    bridge.change(|settings| settings.auto_create_groups = false);
    bridge.make_group("s").await;
    bridge.add("s", 1..=10).await;
    bridge.start();
    until("the group at the sink", async || (!script.groups().is_empty(), ())).await;
    let _: Value = bridge.redis.xgroup_destroy(bridge.key("s"), &bridge.group).await.unwrap();
    let other = Bridge::new("cleanup-destroyed", &delivering()).await;
    let other = Other::new(&other, "s", "quick").await;
    other.read(10).await;
    other.acknowledge(1..=10).await;
    gate.send(true).unwrap();
    // A stream that it does have goes on being swept, so this one was looked at too.
    bridge.make_group("t").await;
    bridge.add("t", 1..=5).await;
    until_acknowledged(&bridge, &script, "t", 5).await;
    until_standing(&bridge, "t", []).await;
    bridge.stop().await;
    assert_eq!(standing(&bridge, "s").await, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_group_that_was_destroyed_at_rest_goes_on_where_it_was() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-at-rest", &script).await.with(deleting);
    let watched = Bridge::new("cleanup-at-rest", &delivering()).await;
    // What it acknowledged last still stands in one stream, and is gone from the other.
    let other = Other::new(&watched, "kept", "slow").await;
    for stream in ["kept", "gone"] {
        bridge.add(stream, 1..=10).await;
    }
    other.read(10).await;
    other.acknowledge(1..=8).await;
    bridge.start();
    for (stream, left) in [("kept", vec![9, 10]), ("gone", vec![])] {
        until_acknowledged(&bridge, &script, stream, 10).await;
        until_standing(&bridge, stream, left).await;
    }
    for stream in ["kept", "gone"] {
        let _: Value = bridge.redis.xgroup_destroy(bridge.key(stream), &bridge.group).await.unwrap();
        bridge.add(stream, 11..=20).await;
        until_acknowledged(&bridge, &script, stream, 20).await;
    }
    bridge.stop().await;
    for stream in ["kept", "gone"] {
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key(stream)), 1..=20), 0, "{stream}");
    }
}

#[tokio::test]
async fn clean_up_is_no_loss_and_hides_none() {
    let script = delivering();
    let mut bridge = Bridge::new("cleanup-no-loss", &script).await.with(deleting);
    bridge.add("s", 1..=300).await;
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 300).await;
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
    // Somebody trims what nobody has read, while no bridge runs; and there is more unread than a monitor may find odd.
    bridge.add("s", 301..=1000).await;
    let trimmed: u64 = bridge.redis.xtrim(bridge.key("s"), ("MINID", "=", "321-0", None)).await.unwrap();
    assert_eq!(trimmed, 20);
    let once = MonitorArguments { once: true, ..MonitorArguments::default() };
    let look = async |bridge: &Bridge| {
        let (redis, mut out) = (bridge.redis_settings(), Vec::new());
        let (every, stop) = (Duration::ZERO, std::future::pending());
        monitor::watch(redis, bridge.settings(), every, Output::Lines, &once, stop, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    };
    let seen = look(&bridge).await;
    assert!(seen.contains("20 trimmed or deleted before the group was handed them"), "{seen}");
    assert!(!seen.contains("and the stream is trimmed"), "{seen}");
    let lag_at_first = bridge.metrics.stream(&bridge.key("s")).lag.load(Relaxed);
    assert_eq!(lag_at_first, 0);
    bridge.start();
    until_acknowledged(&bridge, &script, "s", 980).await;
    until_standing(&bridge, "s", []).await;
    until("the loss to be counted", async || {
        let lost = bridge.metrics.totals().lost_trimmed;
        (lost == 20, lost)
    })
    .await;
    let seen = look(&bridge).await;
    assert!(seen.contains("lag=0") && !seen.contains("trimmed"), "{seen}");
    bridge.stop().await;
    let totals = bridge.metrics.totals();
    assert_eq!((totals.lost_trimmed, totals.lost_deleted, totals.lag), (20, 0, 0));
}

/// A user who may do all but this, by name.
async fn user(name: &str, but: &str) -> String {
    let user = format!("{name}-{}", std::process::id());
    let rules = format!("SETUSER {user} reset on >pw allkeys +@all {but}");
    let rules: Vec<&str> = rules.split(' ').collect();
    let _: Value = client(0).await.custom(fred::cmd!("ACL"), rules).await.unwrap();
    user
}

#[tokio::test]
async fn without_permission_to_delete_everything_is_acknowledged() {
    for (name, but, missing) in [
        ("cleanup-no-trim", "-xtrim -xdel", "missing: XTRIM (clean-up)"),
        ("cleanup-no-look", "-xpending", "missing: XPENDING (clean-up)"),
        ("cleanup-no-script", "-eval -evalsha", "missing: EVAL"),
    ] {
        let user = user(name, but).await;
        let script = delivering();
        let url = redis_url().replace("redis://", &format!("redis://{user}:pw@"));
        let bridge = Bridge::new(name, &script).await.with(deleting);
        let mut bridge = bridge.through(&url);
        let watched = Bridge::new(name, &delivering()).await;
        // With something pending, so that all is asked that ever is.
        let other = Other::new(&watched, "s", "slow").await;
        bridge.add("s", 1..=200).await;
        other.read(150).await;
        other.acknowledge(1..=149).await;
        bridge.start();
        until_acknowledged(&bridge, &script, "s", 200).await;
        let (settings, mut out) = (bridge.settings(), Vec::new());
        let ended =
            check::connect(bridge.redis_settings(), settings, &delivering(), false, &mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(ended, Ended::Badly, "{out}");
        assert!(out.contains(missing), "{out}");
        assert_eq!(standing(&bridge, "s").await.len(), 200);
        assert_eq!(bridge.health.ready(), Ok(()), "entries go on");
        // Once it may, a sweep deletes what was kept, without a restart.
        let rules = vec!["SETUSER", &user, "+@all"];
        let _: Value = client(0).await.custom(fred::cmd!("ACL"), rules).await.unwrap();
        until_standing(&bridge, "s", 150..=200).await;
        bridge.stop().await;
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=200), 0, "{name}");
        let _: Value = client(0).await.custom(fred::cmd!("ACL"), vec!["DELUSER", &user]).await.unwrap();
    }
}

#[tokio::test]
async fn a_held_stream_keeps_what_is_held_and_what_follows() {
    static MENDED: AtomicBool = AtomicBool::new(false);
    static TRIES: AtomicU64 = AtomicU64::new(0);
    let script = Script::new(|(_, number)| match *number > 40 && !MENDED.load(Relaxed) {
        true => {
            TRIES.fetch_add(1, Relaxed);
            Fate::Held("not permitted".into())
        }
        false => Fate::Delivered,
    });
    let mut bridge = Bridge::new("cleanup-holding", &script).await.with(deleting);
    bridge.add("s", 1..=100).await;
    bridge.start();
    until("it to be tried again", async || (TRIES.load(Relaxed) > 3, ())).await;
    until_standing(&bridge, "s", 41..=100).await;
    MENDED.store(true, Relaxed);
    until_acknowledged(&bridge, &script, "s", 100).await;
    until_standing(&bridge, "s", []).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=100), 0);
}

#[tokio::test]
async fn on_a_cluster_every_node_is_cleaned_up_and_what_others_need_is_kept() {
    let cluster = Cluster::start();
    let script = delivering();
    let mut bridge = Bridge::at(&cluster.url(), "cleanup", &script).await.with(deleting);
    let watched = Bridge::at(&cluster.url(), "cleanup", &delivering()).await;
    let names: Vec<String> = (0..30).map(|number| format!("s{number}")).collect();
    let other = Other::new(&watched, "s7", "slow").await;
    for stream in &names {
        bridge.add(stream, 1..=50).await;
    }
    other.read(30).await;
    other.acknowledge(1..=20).await;
    bridge.start();
    for stream in names.iter().filter(|stream| *stream != "s7") {
        until_acknowledged(&bridge, &script, stream, 50).await;
        until_standing(&bridge, stream, []).await;
    }
    until_standing(&bridge, "s7", 21..=50).await;
    other.acknowledge(21..=30).await;
    until_standing(&bridge, "s7", 31..=50).await;
    bridge.stop().await;
    for stream in &names {
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key(stream)), 1..=50), 0);
    }
    assert_eq!(bridge.metrics.totals().lost_trimmed + bridge.metrics.totals().lost_deleted, 0);
}
