//! The operator's commands against a scripted sink: what replay does with each fate. What a person sees is tested
//! with the real binary.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Mutex;

use fred::prelude::*;
use fred::types::Value;
use sync_core::bridge::Fate;
use sync_core::commands::Ended;
use sync_core::commands::dead_letters::{self, DeadLettersCommand};
use sync_core::settings::StreamSettings;

use crate::script::{Bridge, Script, redis_at, redis_url, until};

/// A bridge that has written a letter for every entry of `a` and `b`, and has stopped; its settings.
async fn with_letters(name: &str, numbers: std::ops::RangeInclusive<u64>) -> (Bridge, StreamSettings) {
    let script = Script::new(|_| Fate::Unfit("too large".into()));
    let mut settings = None;
    let mut bridge = Bridge::new(name, &script).await.with(|of_bridge| settings = Some(of_bridge.clone()));
    for stream in ["a", "b"] {
        bridge.add(stream, numbers.clone()).await;
    }
    bridge.start();
    for stream in ["a", "b"] {
        let count = numbers.clone().count();
        until("letters", async || {
            let letters = bridge.letters(stream).await.len();
            (letters == count && bridge.pending(stream).await == 0, letters)
        })
        .await;
    }
    bridge.stop().await;
    (bridge, settings.unwrap())
}

async fn replay(script: &Script, settings: &StreamSettings) -> (Ended, String) {
    let command = DeadLettersCommand::Replay { streams: vec![], ids: vec![], all: true, yes: true };
    let mut out = Vec::new();
    let ended = dead_letters::run(command, redis_at(&redis_url(), 0), settings.clone(), script, &mut out)
        .await
        .unwrap();
    (ended, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn replay_delivers_in_the_order_of_entries_and_removes_what_was_confirmed() {
    let (bridge, settings) = with_letters("replayed", 1..=600).await;
    // A letter for an earlier entry that was written last, and one that a crash repeated; and somebody else's.
    for (group, id, n) in
        [(bridge.group.as_str(), "5-0", "x"), (&bridge.group, "600-1", "600"), ("others", "7-1", "7")]
    {
        let header = [
            ("bridge", "scripted"),
            ("group", group),
            ("stream", "s"),
            ("id", id),
            ("reason", "too large"),
            ("time", "2026-01-01T00:00:00.000Z"),
            ("attempts", "1"),
            ("n", n),
        ];
        let key = format!("{}:dead-letter", bridge.key("a"));
        let _: Value = bridge.redis.xadd(key, false, None, "*", header.to_vec()).await.unwrap();
    }
    let script = Script::new(|_| Fate::Delivered);
    let (ended, out) = replay(&script, &settings).await;
    assert_eq!(ended, Ended::Well, "{out}");
    let expected: Vec<u64> = (1..=4).chain([5, 5]).chain(6..=600).collect();
    assert_eq!(script.arrived_of(&bridge.key("a")), expected);
    assert_eq!(script.arrived_of(&bridge.key("b")), (1..=600).collect::<Vec<_>>());
    let left = bridge.letters("a").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["group"], "others");
    assert!(bridge.letters("b").await.is_empty());
    // The source stream has what it had.
    let length: u64 = bridge.redis.xlen(bridge.key("a")).await.unwrap();
    assert_eq!((length, bridge.pending("a").await), (600, 0));
}

#[tokio::test]
async fn replay_keeps_what_is_refused_and_leaves_a_stream_that_is_held() {
    let (bridge, settings) = with_letters("kept", 1..=10).await;
    let held = bridge.key("a");
    let script = Script::new(move |(stream, number)| match number {
        3 => Fate::Refused("never".into()),
        7 if *stream == held => Fate::Held("not authorized".into()),
        _ => Fate::Delivered,
    });
    let (ended, out) = replay(&script, &settings).await;
    assert_eq!(ended, Ended::Badly);
    let ids = |letters: Vec<std::collections::HashMap<String, String>>| -> Vec<String> {
        letters.into_iter().map(|letter| letter["id"].clone()).collect()
    };
    assert_eq!(ids(bridge.letters("a").await), ["3-1", "7-1", "8-1", "9-1", "10-1"]);
    assert_eq!(ids(bridge.letters("b").await), ["3-1"]);
    for line in [
        format!("{}: entry 3-1 refused again: never", bridge.key("a")),
        format!("{}: stopped, 4 letters not delivered: entry 7-1 not taken: not authorized", bridge.key("a")),
        format!("{}: 9 of 10 letters delivered and removed", bridge.key("b")),
        "14 letters delivered and removed, 6 stayed".to_owned(),
    ] {
        assert!(out.lines().any(|of_output| of_output == line), "{line} is not in\n{out}");
    }
}

#[tokio::test]
async fn replay_ends_when_the_connection_is_lost() {
    let (bridge, settings) = with_letters("lost", 1..=3).await;
    let script = Script::new(|(_, number)| if *number == 2 { Fate::Unknown } else { Fate::Delivered });
    let gate = script.gate();
    let out = Mutex::new(String::new());
    let replaying = async {
        let (ended, text) = replay(&script, &settings).await;
        assert_eq!(ended, Ended::Badly);
        *out.lock().unwrap() = text;
    };
    let breaking = async {
        until("the group", async || (!script.groups().is_empty(), ())).await;
        script.hang_up(0);
        gate.send(true).unwrap();
    };
    tokio::join!(replaying, breaking);
    assert_eq!(script.arrived(), [(bridge.key("a"), 1)], "nothing of the second stream is tried");
    assert_eq!(bridge.letters("a").await.len(), 2);
    let out = out.into_inner().unwrap();
    assert!(out.contains("entry 2-1 not confirmed: connection lost: told to"), "{out}");
    assert!(out.ends_with("1 letter delivered and removed, 5 stayed\n"), "{out}");
}
