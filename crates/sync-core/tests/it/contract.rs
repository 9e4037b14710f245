//! Acknowledge last, keep order, hold back what fails, bury what is poison.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::prelude::*;
use sync_core::bridge::Fate;

use crate::proxy::Proxy;
use crate::script::{Bridge, Script, assert_in_order, redis_url, until};

#[tokio::test]
async fn everything_is_delivered_in_order_and_acknowledged() {
    let script = Script::new(|_| Fate::Delivered);
    let mut bridge = Bridge::new("plain", &script).await;
    for stream in ["a", "b", "c"] {
        bridge.add(stream, 1..=1000).await;
    }
    bridge.start();
    until("all", async || (script.arrived().len() == 3000, script.arrived().len())).await;
    // A stream that appears later is found.
    bridge.add("late", 1..=10).await;
    until("the late stream", async || {
        let arrived = script.arrived_of(&bridge.key("late"));
        (arrived.len() == 10, arrived)
    })
    .await;
    bridge.stop().await;
    for stream in ["a", "b", "c"] {
        assert_eq!(assert_in_order(&script.arrived_of(&bridge.key(stream)), 1..=1000), 0);
        assert_eq!(bridge.pending(stream).await, 0);
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_fate_is_known() {
    let script = Script::new(|_| Fate::Delivered);
    let gate = script.gate();
    let mut bridge = Bridge::new("last", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.start();
    until("the group", async || (!script.groups().is_empty(), script.groups())).await;
    assert_eq!(bridge.pending("s").await, 10);
    bridge.crash().await;
    // The next process delivers them all again: nobody had confirmed them.
    gate.send(true).unwrap();
    bridge.start();
    until("all", async || (bridge.pending("s").await == 0, script.arrived())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=10), 10);
}

#[tokio::test]
async fn what_comes_back_goes_first_again_and_its_mates_go_on() {
    // Every seventh record of `bad` comes back twice.
    let failed = Mutex::new(std::collections::HashMap::<u64, u32>::new());
    let script = Script::new(move |(stream, number)| {
        if stream.ends_with(":bad") && number % 7 == 0 {
            let mut failed = failed.lock().unwrap();
            let times = failed.entry(*number).or_default();
            *times += 1;
            if *times <= 2 {
                return Fate::Busy("later".into());
            }
        }
        Fate::Delivered
    });
    let mut bridge = Bridge::new("back", &script).await;
    bridge.add("bad", 1..=30).await;
    bridge.add("good", 1..=2000).await;
    bridge.start();
    let (bad, good) = (bridge.key("bad"), bridge.key("good"));
    until("all", async || {
        let counts = (script.arrived_of(&bad).len(), script.arrived_of(&good).len());
        (counts == (30, 2000), counts)
    })
    .await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bad), 1..=30), 0, "delivered ones were not repeated");
    assert_eq!(assert_in_order(&script.arrived_of(&good), 1..=2000), 0);
    assert_eq!((bridge.pending("bad").await, bridge.pending("good").await), (0, 0));
    assert!(bridge.letters("bad").await.is_empty());
}

#[tokio::test]
async fn a_lost_connection_repeats_only_what_was_not_confirmed() {
    let count = AtomicU32::new(0);
    let script = Script::new(move |_| match count.fetch_add(1, Relaxed) {
        20 => Fate::Unknown,
        _ => Fate::Delivered,
    });
    let mut bridge = Bridge::new("lost", &script).await;
    bridge.add("s", 1..=200).await;
    bridge.start();
    until("all", async || {
        (bridge.pending("s").await == 0 && script.arrived().len() >= 200, script.arrived())
    })
    .await;
    let connections = script.connections();
    script.hang_up(3);
    bridge.add("s", 201..=400).await;
    until("the rest", async || (script.arrived().len() >= 400, script.arrived().len())).await;
    assert_eq!(script.connections(), connections + 1);
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=400), 0);
    assert_eq!(bridge.pending("s").await, 0);
}

#[tokio::test]
async fn poison_is_buried_with_its_reason_and_its_mates_go_in() {
    let script = Script::new(|(_, number)| match number {
        3 => Fate::Refused("no such thing".into()),
        5 => Fate::Unfit("too long".into()),
        _ => Fate::Delivered,
    });
    let mut bridge = Bridge::new("poison", &script).await;
    bridge.add("s", 1..=6).await;
    bridge.start();
    until("the last", async || (script.arrived().len() == 4, script.arrived())).await;
    bridge.stop().await;
    let letters = bridge.letters("s").await;
    let of = |field: &str| letters.iter().map(|letter| letter[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("id"), ["3-1", "5-1"]);
    assert_eq!(of("reason"), ["no such thing", "too long"]);
    assert_eq!(of("n"), ["3", "5"]);
    assert_eq!((of("bridge")[0].as_str(), of("group")[0].as_str()), ("scripted", bridge.group.as_str()));
    assert_eq!(bridge.pending("s").await, 0);
}

#[tokio::test]
async fn a_whole_group_refused_alike_is_held_and_not_buried() {
    let mended = Arc::new(AtomicBool::new(false));
    let script = Script::new({
        let mended = mended.clone();
        move |(stream, _)| match mended.load(Relaxed) || stream.ends_with(":fine") {
            true => Fate::Delivered,
            false => Fate::Held("no right to write".into()),
        }
    });
    let mut bridge = Bridge::new("held", &script).await;
    bridge.add("denied", 1..=50).await;
    bridge.start();
    until("the hold", async || {
        let reasons = bridge.health.ready().err().unwrap_or_default();
        (reasons.iter().any(|reason| reason.contains("no right to write")), reasons)
    })
    .await;
    bridge.add("fine", 1..=50).await;
    until("the other stream", async || (script.arrived().len() == 50, script.arrived().len())).await;
    // Tried with one record at a time while it is held.
    until("more attempts", async || {
        let denied = bridge.key("denied");
        let last = script.groups().into_iter().rfind(|group| group[0].0 == denied).unwrap();
        (last.len() == 1, last)
    })
    .await;
    mended.store(true, Relaxed);
    until("all", async || (script.arrived().len() == 100, script.arrived().len())).await;
    let _ = until("readiness", async || (bridge.health.ready().is_ok(), bridge.health.ready())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("denied")), 1..=50), 0);
    assert!(bridge.letters("denied").await.is_empty());
}

#[tokio::test]
async fn several_refused_for_one_reason_are_tried_alone_before_they_are_buried() {
    let script = Script::new(|_| Fate::Refused("not like this".into()));
    let mut bridge = Bridge::new("alike", &script).await;
    bridge.add("s", 1..=10).await;
    bridge.start();
    until("the letters", async || {
        let letters = bridge.letters("s").await;
        (letters.len() == 10, letters)
    })
    .await;
    bridge.stop().await;
    let groups = script.groups();
    let several = groups.iter().position(|group| group.len() > 1).expect("a group of several");
    assert_eq!(groups[several + 1].len(), 1, "then alone: {groups:?}");
}

#[tokio::test]
async fn one_refusal_after_the_other_is_the_destinations_and_not_the_records() {
    let mended = Arc::new(AtomicBool::new(false));
    let script = Script::new({
        let mended = mended.clone();
        move |_| if mended.load(Relaxed) { Fate::Delivered } else { Fate::Refused("not like this".into()) }
    });
    let mut bridge = Bridge::new("trickle", &script).await;
    bridge.start();
    // They come one at a time, so that none is refused together with another.
    for number in 1..=3 {
        bridge.add("s", [number]).await;
        let letters = || async { bridge.letters("s").await };
        until("its letter", async || (letters().await.len() as u64 == number, letters().await)).await;
    }
    let letters = bridge.letters("s").await;
    let attempts: Vec<&str> = letters.iter().map(|letter| letter["attempts"].as_str()).collect();
    assert_eq!(attempts, ["1", "2", "2"], "the first is poison, the next are held and tried again first");
    mended.store(true, Relaxed);
    bridge.add("s", 4..=10).await;
    until("the rest", async || (script.arrived().len() == 7, script.arrived())).await;
    bridge.stop().await;
    assert_eq!(bridge.health.ready(), Ok(()));
}

#[tokio::test]
async fn a_reply_that_is_lost_with_its_connection_is_delivered_before_what_came_later() {
    let script = Script::new(|_| Fate::Delivered);
    let proxy = Proxy::start(&redis_url(), b"-1\r\n*2").await;
    let mut bridge = Bridge::new("reply", &script).await.through(&proxy.url);
    bridge.add("s", 1..=10).await;
    bridge.start();
    until("the first", async || (script.arrived().len() == 10, script.arrived())).await;
    // Redis hands these out, and nobody gets them: they are pending, and older than what comes next.
    for round in 0..5u64 {
        proxy.swallow(1);
        let first = 11 + round * 20;
        bridge.add("s", first..first + 10).await;
        until("the loss", async || (proxy.left() == 0, proxy.left())).await;
        bridge.add("s", first + 10..first + 20).await;
    }
    until("all", async || {
        (script.arrived().len() >= 110 && bridge.pending("s").await == 0, script.arrived())
    })
    .await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=110), 0);
}

#[tokio::test]
async fn after_so_many_answers_an_entry_is_buried_if_the_settings_say_so() {
    let script = Script::new(|(_, number)| match number {
        2 => Fate::Busy("quota".into()),
        _ => Fate::Delivered,
    });
    let mut bridge = Bridge::new("max", &script).await.with(|settings| settings.max_deliveries = 4);
    bridge.add("s", 1..=3).await;
    bridge.start();
    until("all", async || (script.arrived().len() == 2, script.arrived())).await;
    bridge.stop().await;
    let letters = bridge.letters("s").await;
    assert_eq!((letters.len(), letters[0]["id"].as_str(), letters[0]["attempts"].as_str()), (1, "2-1", "4"));
}

#[tokio::test]
async fn a_destination_that_is_shut_is_waited_for_without_a_word_and_without_an_end() {
    let (open, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let script = Script::new({
        let (open, refused) = (open.clone(), refused.clone());
        move |_| match open.load(Relaxed) {
            true => Fate::Delivered,
            false => {
                refused.fetch_add(1, Relaxed);
                Fate::Shut("full".into())
            }
        }
    });
    let mut bridge = Bridge::new("shut", &script).await.with(|settings| settings.max_deliveries = 2);
    bridge.add("s", 1..=30).await;
    bridge.start();
    until("many attempts", async || (refused.load(Relaxed) > 8, refused.load(Relaxed))).await;
    assert_eq!((bridge.health.ready(), bridge.health.failures()), (Ok(()), 0));
    assert_eq!(bridge.metrics.stream(&bridge.key("s")).held.load(Relaxed), 1);
    open.store(true, Relaxed);
    until("all", async || (script.arrived().len() == 30 && bridge.pending("s").await == 0, script.arrived()))
        .await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=30), 0);
    assert!(bridge.letters("s").await.is_empty());
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_leaves_the_rest_pending() {
    let script = Script::new(|_| Fate::Delivered);
    let gate = script.gate();
    let mut bridge = Bridge::new("stop", &script).await.with(|settings| settings.batch_size = 10);
    bridge.add("s", 1..=100).await;
    bridge.start();
    until("two groups in flight", async || (script.groups().len() == 2, script.groups().len())).await;
    let in_flight = script.arrived().len() as u64;
    let opener = tokio::spawn(async move {
        tokio::task::yield_now().await;
        gate.send(true).unwrap();
        gate
    });
    bridge.stop().await;
    let _gate = opener.await.unwrap();
    assert_eq!(script.arrived().len() as u64, in_flight, "nothing new was handed over after the stop");
    // All that was in flight is acknowledged: the next process begins right behind it.
    bridge.start();
    until("the rest", async || (script.arrived().len() >= 100, script.arrived().len())).await;
    bridge.stop().await;
    assert_eq!(assert_in_order(&script.arrived_of(&bridge.key("s")), 1..=100), 0);
    assert_eq!(bridge.pending("s").await, 0);
}

#[tokio::test]
async fn a_filter_acknowledges_what_it_drops() {
    use sync_core::settings::Filter;
    let script = Script::new(|_| Fate::Delivered);
    let filter = Filter { field: "n".into(), values: vec!["2".into(), "4".into()] };
    let mut bridge = Bridge::new("filter", &script).await.with(|settings| settings.filter = Some(filter));
    bridge.add("s", 1..=5).await;
    bridge.start();
    until("both", async || (script.arrived().len() == 2 && bridge.pending("s").await == 0, script.arrived()))
        .await;
    bridge.stop().await;
    assert_eq!(script.arrived_of(&bridge.key("s")), [2, 4]);
    assert_eq!(bridge.metrics.stream(&bridge.key("s")).filtered.load(Relaxed), 3);
}

#[tokio::test]
async fn many_faults_at_once_lose_nothing_and_keep_order() {
    // Three answers in a thousand are no, and connections to Redis and to the sink are cut several times a second.
    let state = Mutex::new(0x2545_f491_4f6c_dd1du64);
    let script = Script::new(move |_| {
        let mut state = state.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        match *state % 1000 {
            0 => Fate::Busy("later".into()),
            1 => Fate::Unknown,
            2 => Fate::Shut("full".into()),
            _ => Fate::Delivered,
        }
    })
    .slow(Duration::from_millis(2));
    let mut bridge = Bridge::in_db(5, "chaos", &script).await;
    let streams: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    for stream in &streams {
        bridge.add(stream, 1..=1500).await;
    }
    bridge.start();
    let mut cuts = 0;
    until("all", async || {
        cuts += 1;
        if cuts % 40 == 0 {
            script.hang_up(1);
        }
        if cuts % 60 == 0 {
            kill_readers(&bridge).await;
        }
        let first: HashSet<_> = script.arrived().into_iter().collect();
        (first.len() == 8 * 1500, first.len())
    })
    .await;
    until("acknowledgements", async || {
        let mut pending = 0;
        for stream in &streams {
            pending += bridge.pending(stream).await;
        }
        (pending == 0, pending)
    })
    .await;
    bridge.stop().await;
    script.assert_came_back_first();
    for stream in &streams {
        assert_in_order(&script.arrived_of(&bridge.key(stream)), 1..=1500);
    }
}

/// Cuts every reading connection in the test's own database.
async fn kill_readers(bridge: &Bridge) {
    let list: String = bridge.redis.custom(fred::cmd!("CLIENT"), vec!["LIST"]).await.unwrap();
    for line in list.lines().filter(|line| line.contains(" db=5 ") && !line.contains("cmd=client")) {
        let id = line.split(' ').find_map(|part| part.strip_prefix("id=")).unwrap().to_owned();
        let _: Value = bridge
            .redis
            .custom(fred::cmd!("CLIENT"), vec!["KILL".to_owned(), "ID".into(), id])
            .await
            .unwrap();
    }
}
