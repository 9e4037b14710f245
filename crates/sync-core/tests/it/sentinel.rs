//! A source that sentinels watch: the bridge follows the primary.

use std::time::Duration;

use sync_core::bridge::Fate;
use test_kit::redis::Redis;
use test_kit::sentinel::{Passwords, Sentinels};

use crate::script::{Bridge, Script, assert_in_order, until};

const STREAMS: [&str; 3] = ["a", "b", "c"];

/// Straight to one server, and to its replica.
fn add(server: &Redis, bridge: &Bridge, numbers: std::ops::RangeInclusive<u64>) {
    for stream in STREAMS {
        let script =
            "for n = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], n .. '-1', 'n', n) end return 'done'";
        let (first, last) = (numbers.start().to_string(), numbers.end().to_string());
        server.ask(0, &["EVAL", script, "1", &bridge.key(stream), &first, &last]);
    }
}

async fn all_delivered(bridge: &Bridge, script: &Script, last: u64) {
    for stream in STREAMS {
        let key = bridge.key(stream);
        until("the last entry", async || {
            let arrived = script.arrived_of(&key);
            (arrived.contains(&last) && bridge.pending(stream).await == 0, (key.clone(), arrived.len()))
        })
        .await;
        assert_in_order(&script.arrived_of(&key), 1..=last);
    }
    let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
}

#[tokio::test]
async fn a_primary_that_dies_is_replaced_and_the_bridge_goes_on() {
    let mut sentinels = Sentinels::start();
    let script = Script::new(|_| Fate::Delivered).slow(Duration::from_millis(20));
    let mut bridge = Bridge::at(&sentinels.url(), "dies", &script).await;
    add(sentinels.primary(), &bridge, 1..=3000);
    bridge.start();
    until("some", async || (script.arrived().len() > 1000, script.arrived().len())).await;
    let sentinels = tokio::task::spawn_blocking(move || {
        sentinels.kill_primary();
        sentinels
    });
    let sentinels = sentinels.await.unwrap();
    add(sentinels.primary(), &bridge, 3001..=4000);
    all_delivered(&bridge, &script, 4000).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_primary_that_is_replaced_while_it_lives_is_left() {
    let sentinels = Sentinels::start();
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::at(&sentinels.url(), "left", &script).await;
    add(sentinels.primary(), &bridge, 1..=100);
    bridge.start();
    all_delivered(&bridge, &script, 100).await;
    // What is at the sink meanwhile is acknowledged at the new primary.
    let gate = script.gate();
    add(sentinels.primary(), &bridge, 101..=200);
    until("a group at the sink", async || (script.arrived().len() > 300, script.arrived().len())).await;
    sentinels.primary().wait_for_replicas(2);
    let sentinels = tokio::task::spawn_blocking(move || {
        sentinels.fail_over();
        sentinels
    });
    let sentinels = sentinels.await.unwrap();
    gate.send(true).unwrap();
    add(sentinels.primary(), &bridge, 201..=300);
    all_delivered(&bridge, &script, 300).await;
    bridge.stop().await;
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    for sentinels in [None, Some("theirs")] {
        let sentinels = Sentinels::with(Passwords { servers: Some("of-the-servers"), sentinels });
        let script = Script::new(|_| Fate::Delivered);
        let mut bridge = Bridge::at(&sentinels.url(), "passwords", &script).await;
        add(sentinels.primary(), &bridge, 1..=10);
        bridge.start();
        all_delivered(&bridge, &script, 10).await;
        bridge.stop().await;
    }
}
