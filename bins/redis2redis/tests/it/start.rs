//! What is looked at before the first entry: settings, servers, and whether the bridge would run in circles.

use std::fs;
use std::path::PathBuf;

use test_kit::free_port;
use test_kit::redis::Redis;

use crate::harness::{Scene, bare, ids, setup};

#[test]
fn the_described_file_works_as_it_stands() {
    let sample = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/sync-core/tests/env-samples/redis2redis.env.conf");
    let (source, target) = (Redis::start(), Redis::start());
    // Only what no file can know; its own log format stays.
    let setup = test_kit::bridge::Setup::of(env!("CARGO_BIN_EXE_redis2redis"))
        .unset("LOG_FORMAT")
        .unset("STREAM_DISCOVERY_INTERVAL")
        .set("SOURCE_REDIS_HOST", "127.0.0.1")
        .set("SOURCE_REDIS_PORT", source.port)
        .set("TARGET_REDIS_HOST", "127.0.0.1")
        .set("TARGET_REDIS_PORT", target.port);
    fs::copy(sample, setup.dir().join("env.conf")).unwrap();
    let keys = [(0, "a-stream"), (15, "device:7:stream"), (2, "biosignal-x")];
    for (db, key) in keys {
        source.ask(db, &["XADD", key, "1-1", "n", "1"]);
    }
    source.ask(0, &["XADD", "other", "1-1", "n", "1"]);
    let scene = Scene { bridge: setup.start(), source, target };
    scene.same((0, "a-stream"), (0, "a-stream"));
    scene.same((15, "device:7:stream"), (0, "db15:device:7:stream"));
    scene.same((2, "biosignal-x"), (0, "db2:biosignal-x"));
    assert_eq!(scene.target.ask(0, &["DBSIZE"]).text(), "3");
    let warnings = scene.bridge.lines_with(" - WARNING - ");
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[test]
fn source_and_target_the_same_is_refused_where_it_would_never_end() {
    let redis = Redis::start();
    redis.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    for host in ["127.0.0.1", "localhost"] {
        let mut bridge = setup(redis.port, redis.port).set("TARGET_REDIS_HOST", host).start();
        assert_eq!(bridge.wait_exit().0, Some(1));
        let line = bridge.wait_line("source and target are the same Redis");
        assert!(line.level == "ERROR" && line.text.contains("TARGET_STREAM_PREFIX"), "{line:?}");
    }
    assert_eq!(ids(&redis, 0, "s"), ["1-0"]);
}

#[test]
fn source_and_target_the_same_is_fine_where_it_ends() {
    let redis = Redis::start();
    redis.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let mut other_names = setup(redis.port, redis.port)
        .set("TARGET_STREAM_PREFIX", "copy:")
        .set("STREAM_EXCLUDE_PATTERNS", "copy:*")
        .start();
    test_kit::wait_until("it is copied", || other_names.lines(), || ids(&redis, 0, "copy:s") == ["1-0"]);
    other_names.stop();
    let mut other_database = setup(redis.port, redis.port)
        .set("TARGET_REDIS_DB", 9)
        .set("SOURCE_REDIS_DB_SEARCH_RANGE", "0-8")
        .set("STREAM_CONSUMER_GROUP", "second")
        .start();
    test_kit::wait_until("it is copied", || other_database.lines(), || ids(&redis, 9, "s") == ["1-0"]);
    other_database.stop();
}

#[test]
fn a_server_that_does_not_say_who_it_is_is_a_warning() {
    let target = Redis::start();
    target.ask(0, &["ACL", "SETUSER", "writer", "on", ">pw", "~*", "+@all", "-info"]);
    let scene = Scene::between(Redis::start(), target, |setup| {
        setup.set("TARGET_REDIS_USERNAME", "writer").set("TARGET_REDIS_PASSWORD", "pw")
    });
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    scene.bridge.wait_line("whether source and target are the same Redis cannot be seen");
    scene.end(&[]);
}

#[test]
fn a_server_that_is_away_is_one_clear_line_and_exit_code_1() {
    let redis = Redis::start();
    for (setup, part) in [
        (
            setup(redis.port, free_port()).set("TARGET_REDIS_MAX_RETRIES", 2),
            "cannot reach the target Redis at",
        ),
        (
            setup(free_port(), redis.port).set("SOURCE_REDIS_MAX_RETRIES", 2),
            "cannot reach the source Redis at",
        ),
        (setup(redis.port, 1).set("TARGET_REDIS_URL", "redis://h/x"), "TARGET_REDIS_URL"),
        (bare().set("TARGET_REDIS_DB", "17x"), "TARGET_REDIS_DB"),
    ] {
        let mut bridge = setup.start();
        let (code, _) = bridge.wait_exit();
        assert!(matches!(code, Some(1 | 78)), "{code:?}");
        bridge.wait_line(part);
    }
}

#[test]
fn a_replica_is_no_target() {
    let (source, primary) = (Redis::start(), Redis::start());
    let replica = Redis::with(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    let mut bridge = setup(source.port, replica.port).set("TARGET_REDIS_MAX_RETRIES", 1).start();
    assert_eq!(bridge.wait_exit().0, Some(1));
    bridge.wait_line("it is a replica");
}

#[test]
fn check_connects_to_both() {
    let (source, target) = (Redis::start(), Redis::start());
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let mut check = setup(source.port, target.port).arg("check").arg("--connect").start();
    assert_eq!(check.wait_exit().0, Some(0), "{:#?}", check.lines());
    let out = check.stdout();
    for part in ["TARGET_REDIS_PORT", "target Redis at 127.0.0.1", "redis-sync-group"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(target.ask(0, &["DBSIZE"]).text(), "0");
}

#[test]
fn the_permissions_that_the_readme_names_are_enough() {
    let target = Redis::start();
    target.ask(
        0,
        &[
            "ACL",
            "SETUSER",
            "writer",
            "on",
            ">pw",
            "~s",
            "+select",
            "+evalsha",
            "+eval",
            "+xadd",
            "+xrange",
            "+xinfo|stream",
        ],
    );
    target.ask(0, &["XADD", "s", "2-0", "n", "other"]);
    let scene = Scene::between(Redis::start(), target, |setup| {
        setup
            .set("TARGET_REDIS_USERNAME", "writer")
            .set("TARGET_REDIS_PASSWORD", "pw")
            .set("TARGET_REDIS_HEALTH_CHECK_INTERVAL", "0.1")
    });
    for id in ["1-0", "2-0", "3-0"] {
        scene.add(0, "s", id, "v");
    }
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["2-0", "3-0"]);
    assert_eq!(scene.source.letters(0, "s").len(), 2);
    scene.end(&[]);
}
