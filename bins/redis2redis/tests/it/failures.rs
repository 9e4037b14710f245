//! The target says no, or goes away in the middle: nothing is skipped, nothing is written twice, order holds.

use std::time::{Duration, Instant};

use test_kit::redis::{Client, Redis, Reply};
use test_kit::writer::{Target, Writer, targets, write};
use test_kit::{LONG, wait_until};

use crate::harness::{GROUP, Scene, assert_same, entries, ids, setup, wait_all_settled};

/// So many entries of one stream, each of a kilobyte: a group's worth of scripts.
fn fill(redis: &Redis, key: &str, entries: usize) {
    let mut client = redis.client();
    let value = "x".repeat(1000);
    for n in 1..=entries {
        client.send(&[b"XADD", key.as_bytes(), format!("{n}-0").as_bytes(), b"n", value.as_bytes()]).unwrap();
    }
    for _ in 0..entries {
        client.reply().unwrap();
    }
}

/// What stands on the target is the source's beginning, without a gap.
fn check_prefix(scene: &Scene, key: &str) -> usize {
    let (here, there) = (ids(&scene.source, 0, key), ids(&scene.target, 0, key));
    assert_eq!(here[..there.len()], there[..]);
    there.len()
}

#[test]
fn out_of_memory_between_two_scripts_holds_the_stream_and_keeps_its_order() {
    let scene_target = Redis::start();
    let used = |redis: &Redis| -> u64 {
        let info = redis.ask(0, &["INFO", "memory"]).text();
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap()
    };
    let limit = used(&scene_target) + (6 << 20);
    scene_target.ask(0, &["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let source = Redis::start();
    fill(&source, "s", 15_000);
    let scene = Scene::between(source, scene_target, |setup| setup.set("STREAM_BATCH_SIZE", 5000));
    scene.bridge.wait_line("OOM");
    let arrived = check_prefix(&scene, "s");
    assert!(arrived > 500 && arrived < 15_000, "{arrived}");
    let pending = scene.source.pending(0, "s", GROUP);
    assert!(pending > 0, "nothing is acknowledged that is not there");
    scene.target.ask(0, &["CONFIG", "SET", "maxmemory", "0"]);
    scene.same((0, "s"), (0, "s"));
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn a_permission_taken_away_holds_the_stream_and_nothing_else() {
    let target = Redis::start();
    target.ask(0, &["ACL", "SETUSER", "writer", "on", ">pw", "~*", "+@all"]);
    let scene = Scene::between(Redis::start(), target, |setup| {
        setup.set("TARGET_REDIS_USERNAME", "writer").set("TARGET_REDIS_PASSWORD", "pw")
    });
    scene.add(0, "closed", "1-0", "v");
    scene.same((0, "closed"), (0, "closed"));
    scene.target.ask(0, &["ACL", "SETUSER", "writer", "resetkeys", "~open*"]);
    fill(&scene.source, "open", 1000);
    for n in 2..=1500 {
        scene.add(0, "closed", &format!("{n}-0"), "v");
    }
    scene.bridge.wait_line("NOPERM");
    scene.same((0, "open"), (0, "open"));
    assert_eq!(ids(&scene.target, 0, "closed"), ["1-0"]);
    scene.target.ask(0, &["ACL", "SETUSER", "writer", "allkeys"]);
    scene.same((0, "closed"), (0, "closed"));
    assert!(scene.source.letters(0, "closed").is_empty());
    scene.end(&["held, and tried again"]);
}

#[test]
fn a_key_of_another_type_holds_its_stream_until_it_is_gone() {
    let target = Redis::start();
    target.ask(0, &["SET", "s", "x"]);
    let scene = Scene::between(Redis::start(), target, |setup| setup);
    scene.add(0, "s", "1-0", "v");
    scene.add(0, "other", "1-0", "v");
    scene.bridge.wait_line("WRONGTYPE");
    scene.same((0, "other"), (0, "other"));
    scene.target.ask(0, &["DEL", "s"]);
    scene.same((0, "s"), (0, "s"));
    scene.end(&["held, and tried again"]);
}

#[test]
fn a_database_that_the_target_does_not_have_is_held() {
    let scene = Scene::between(Redis::start(), Redis::with(&["--databases", "2"]), |setup| {
        setup.set("TARGET_REDIS_DB", "same")
    });
    scene.add(5, "s", "1-0", "v");
    scene.add(1, "s", "1-0", "v");
    scene.bridge.wait_line("DB index is out of range");
    scene.same((1, "s"), (1, "s"));
    assert_eq!(scene.source.pending(5, "s", GROUP), 1);
    assert!(scene.source.letters(5, "s").is_empty());
    scene.end(&["held, and tried again"]);
}

#[test]
fn a_script_that_is_forgotten_is_sent_again() {
    let scene = Scene::begin(|setup| setup.set("STREAM_BATCH_SIZE", 50));
    let streams = targets(10);
    let writer = Writer::start(scene.source.port, &streams, 6000, Duration::from_millis(2));
    for part in 1..=10 {
        writer.wait_written(part * 500);
        scene.target.ask(0, &["SCRIPT", "FLUSH"]);
    }
    writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_same(&scene.source, &scene.target, &streams);
    assert!(scene.bridge.lines_with("held").is_empty());
    scene.end(&[]);
}

#[test]
fn when_one_call_fails_and_the_next_on_its_way_would_not_nothing_is_skipped() {
    let source = Redis::start();
    fill(&source, "s", 20_000);
    let scene = Scene::between(source, Redis::start(), |setup| setup.set("STREAM_BATCH_SIZE", 5000));
    let (mut client, script) = (scene.target.client(), include_bytes!("../../src/write.lua"));
    // Forgotten for one moment, known for the next: of the calls under way some find it and others don't.
    let mut forget_and_learn = || {
        client.ask(&[b"SCRIPT", b"FLUSH"]).unwrap();
        client.ask(&[b"SCRIPT", b"LOAD", script]).unwrap();
    };
    let begun = Instant::now();
    let arrived = || scene.target.ask(0, &["XLEN", "s"]) == Reply::Number(20_000);
    while !arrived() && scene.source.letters(0, "s").is_empty() && begun.elapsed() < LONG {
        (0..20).for_each(|_| forget_and_learn());
    }
    scene.same((0, "s"), (0, "s"));
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn an_entry_with_more_fields_than_can_be_written_at_once_is_a_dead_letter() {
    let scene = Scene::begin(|setup| setup);
    let mut client = scene.source.client();
    for (id, pairs) in [("1-0", 3900), ("2-0", 3901), ("3-0", 1)] {
        let mut words: Vec<&[u8]> = vec![b"XADD", b"s", id.as_bytes()];
        words.extend(std::iter::repeat_n(b"f".as_slice(), 2 * pairs));
        assert_eq!(client.ask(&words).unwrap().text(), id);
    }
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["1-0", "3-0"]);
    assert_eq!(entries(&scene.target, 0, "s")[0], entries(&scene.source, 0, "s")[0]);
    assert_eq!(scene.source.letters(0, "s").len(), 1);
    scene.end(&[]);
}

#[test]
fn cut_connections_lose_nothing_and_repeat_nothing() {
    let scene = Scene::begin(|setup| setup);
    let streams = targets(10);
    let writer = Writer::start(scene.source.port, &streams, 8000, Duration::from_millis(2));
    for part in 1..=8 {
        writer.wait_written(part * 900);
        scene.target.cut_connections();
    }
    writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_same(&scene.source, &scene.target, &streams);
    scene.end(&[]);
}

#[test]
fn killed_six_times_source_and_target_are_the_same_entry_by_entry() {
    let (source, target) = (Redis::start(), Redis::start());
    let setup = setup(source.port, target.port);
    let streams = targets(20);
    let writer = Writer::start(source.port, &streams, 12_000, Duration::from_millis(3));
    let arrived = || -> usize {
        let lengths = streams.iter().map(|stream| target.ask(0, &["XLEN", &stream.spelled()]).text());
        lengths.map(|length| length.parse::<usize>().unwrap()).sum()
    };
    for part in 1..=6 {
        let mut bridge = setup.start();
        let goal = (arrived() + 800).min(part * 1800);
        wait_until("entries arrive", || bridge.lines(), || arrived() >= goal);
        bridge.check_errors(&[]);
        bridge.kill();
    }
    let mut bridge = setup.start();
    writer.finish();
    wait_all_settled(&source, &bridge, &streams);
    assert_same(&source, &target, &streams);
    assert_eq!(arrived(), 12_000);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_target_killed_and_restarted_with_its_append_only_file_has_everything_once() {
    let mut scene = Scene::between(Redis::start(), Redis::durable(), |setup| setup);
    let streams = targets(10);
    let writer = Writer::start(scene.source.port, &streams, 6000, Duration::from_millis(3));
    for part in 1..=3 {
        writer.wait_written(part * 1500);
        scene.target.kill();
        scene.target.up();
    }
    writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_same(&scene.source, &scene.target, &streams);
    scene.end(&[]);
}

#[test]
fn a_target_that_is_still_loading_is_waited_for() {
    // Each key takes a third of a millisecond to load.
    let target = Redis::with(&["--appendonly", "yes", "--key-load-delay", "300"]);
    let mut scene = Scene::between(Redis::start(), target, |setup| setup);
    let mut client = scene.target.client();
    for n in 0..8000 {
        client.send(&[b"SET", format!("k{n}").as_bytes(), b"v"]).unwrap();
    }
    assert!((0..8000).all(|_| client.reply().is_ok()));
    scene.target.ask(0, &["BGREWRITEAOF"]);
    let persistence = || scene.target.ask(0, &["INFO", "persistence"]).text();
    wait_until("the file is rewritten", persistence, || {
        let info = persistence();
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    });
    scene.bridge.wait_line("connected to the target Redis");
    scene.target.kill();
    scene.target.up_loading();
    scene.add(0, "s", "1-0", "v");
    let answer =
        |target: &Redis| Client::open(target.port).and_then(|mut client| client.ask(&[b"PING"])).ok();
    let loading =
        |answer: Option<Reply>| matches!(answer, Some(Reply::Error(text)) if text.starts_with("LOADING"));
    wait_until("it loads", || answer(&scene.target), || loading(answer(&scene.target)));
    // No connection counts as one while it does.
    while loading(answer(&scene.target)) {
        assert!(scene.bridge.lines_with("is back").is_empty(), "{:#?}", scene.bridge.lines());
    }
    scene.same((0, "s"), (0, "s"));
    scene.bridge.wait_line("is back");
    scene.end(&[]);
}

/// A target with one replica that has everything so far.
fn with_replica() -> (Redis, Redis) {
    let target = Redis::start();
    let replica = Redis::with(&["--replicaof", &format!("127.0.0.1 {}", target.port)]);
    wait_until(
        "the replica is in step",
        || (),
        || target.ask(0, &["INFO", "replication"]).text().contains("state=online"),
    );
    (target, replica)
}

#[test]
fn nothing_is_acknowledged_before_the_replicas_have_it() {
    let (target, replica) = with_replica();
    let scene = Scene::between(Redis::start(), target, |setup| setup.set("TARGET_REDIS_WAIT_REPLICAS", 1));
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    replica.suspend(true);
    let begin = scene.bridge.lines_with("replicas have it").len();
    for n in 2..=200 {
        scene.add(0, "s", &format!("{n}-0"), "v");
    }
    wait_until(
        "the replica is missed",
        || scene.bridge.lines(),
        || scene.bridge.lines_with("only 0 of 1 replicas have it").len() > begin,
    );
    // Written, cut off, and found there by the next connection: that is no reason to acknowledge either.
    wait_until("some are written", || (), || ids(&scene.target, 0, "s").len() > 1);
    scene.target.cut_connections();
    scene.bridge.wait_line("Connection closed");
    // WAIT promises something for what its connection has written: the script writes what changes nothing.
    let commands = || scene.target.ask(0, &["INFO", "commandstats"]).text();
    wait_until("a write for WAIT", commands, || commands().contains("cmdstat_xsetid"));
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        let delivered = ids(&scene.target, 0, "s").len();
        assert!(delivered <= 200);
        assert!(unacknowledged(&scene) == 199, "{:#?}", scene.bridge.lines());
        std::thread::sleep(Duration::from_millis(20));
    }
    replica.suspend(false);
    scene.same((0, "s"), (0, "s"));
    wait_until("the replica has it", || (), || ids(&replica, 0, "s").len() == 200);
    scene.end(&[]);
}

/// Entries that are pending or not read yet.
fn unacknowledged(scene: &Scene) -> i64 {
    let group = scene.source.ask(0, &["XINFO", "GROUPS", "s"]).list().swap_remove(0).list();
    let number = |name: &str| match group.chunks(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1]) {
        Some(Reply::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    };
    number("pending") + number("lag")
}

#[test]
fn a_primary_that_becomes_a_replica_is_left_and_tried_again() {
    let scene = Scene::begin(|setup| setup);
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    // A replica of nobody that answers: it keeps its data and takes no writes.
    scene.target.ask(0, &["REPLICAOF", "127.0.0.1", "1"]);
    for n in 2..=700 {
        scene.add(0, "s", &format!("{n}-0"), "v");
    }
    scene.bridge.wait_line("READONLY");
    wait_until(
        "the connection is left",
        || scene.bridge.lines(),
        || scene.bridge.lines_with("READONLY").iter().any(|line| line.text.starts_with("target Redis")),
    );
    scene.target.ask(0, &["REPLICAOF", "NO", "ONE"]);
    scene.same((0, "s"), (0, "s"));
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn a_target_that_stops_answering_is_left_and_comes_back() {
    let scene = Scene::begin(|setup| setup);
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    scene.target.suspend(true);
    write(&scene.source, &[Target::new(0, "s")], 100);
    scene.bridge.wait_line("target Redis at 127.0.0.1");
    wait_until(
        "it is noticed",
        || scene.bridge.lines(),
        || scene.bridge.lines().iter().any(|line| line.level == "WARN" && line.text.contains("target Redis")),
    );
    scene.target.suspend(false);
    scene.same((0, "s"), (0, "s"));
    scene.end(&[]);
}

#[test]
fn a_stop_with_the_target_away_is_clean_and_the_rest_goes_out_next_time() {
    let mut scene = Scene::begin(|setup| setup);
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    scene.target.kill();
    scene.add(0, "s", "2-0", "v");
    scene.bridge.wait_line("target Redis");
    scene.bridge.stop();
    scene.target.up();
    scene.target.ask(0, &["XADD", "s", "1-0", "n", "v"]);
    scene.bridge = setup(scene.source.port, scene.target.port).start();
    scene.same((0, "s"), (0, "s"));
    scene.end(&[]);
}
