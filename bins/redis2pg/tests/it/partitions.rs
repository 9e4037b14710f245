//! A table that its user has partitioned by time: found to be, written to once, and waited for where a partition is
//! missing.

use test_kit::postgres::Database;
use test_kit::redis::Redis;

use crate::harness::{GROUP, Scene, Sql as _};

/// One month, of which 2023-11 is.
const TABLE: &str = "CREATE TABLE redis_streams (stream_key text NOT NULL, message_id text NOT NULL, data jsonb NOT NULL, \
    \"timestamp\" timestamptz NOT NULL, UNIQUE (stream_key, message_id, \"timestamp\")) PARTITION BY RANGE (\"timestamp\"); \
    CREATE TABLE november PARTITION OF redis_streams FOR VALUES FROM ('2023-11-01+0') TO ('2023-12-01+0')";
const DECEMBER: &str =
    "CREATE TABLE december PARTITION OF redis_streams FOR VALUES FROM ('2023-12-01+0') TO ('2024-01-01+0')";

#[test]
fn each_entry_is_one_row_also_when_it_is_delivered_again() {
    let sql = Database::create();
    sql.ask(TABLE);
    let scene = Scene::over(Redis::start(), sql, |setup| setup);
    for n in 0..500 {
        scene.add("s", &format!("1700000000000-{n}"), &["n", "1"]);
    }
    scene.settled("s");
    // Everything once more.
    let mut scene = scene;
    scene.bridge.stop();
    scene.source.ask(0, &["XGROUP", "SETID", "s", GROUP, "0"]);
    let scene = Scene::over(scene.source, scene.sql, |setup| setup);
    scene.settled("s");
    assert_eq!(scene.sql.count("redis_streams"), 500);
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn a_missing_partition_holds_its_stream_and_no_other_until_it_is_made() {
    let sql = Database::create();
    sql.ask(TABLE);
    let source = Redis::start();
    for n in 0..50 {
        source.ask(0, &["XADD", "good", &format!("1700000000000-{n}"), "n", "1"]);
        source.ask(0, &["XADD", "bad", &format!("1700000000000-{n}"), "n", "1"]);
    }
    source.ask(0, &["XADD", "bad", "1702000000000-0", "n", "december"]);
    source.ask(0, &["XADD", "bad", "1702000000001-0", "n", "december, too"]);
    let scene = Scene::over(source, sql, |setup| setup);
    scene.bridge.wait_line("no partition of relation");
    scene.settled("good");
    // What comes before it is there, and nothing after it.
    let rows = || scene.sql.count("redis_streams WHERE stream_key = 'bad'");
    test_kit::wait_until("what comes before is there", || scene.bridge.lines(), || rows() == 50);
    scene.add("good", "1700000000001-0", &["n", "1"]);
    scene.settled("good");
    assert_eq!(rows(), 50);
    scene.sql.ask(DECEMBER);
    scene.settled("bad");
    assert_eq!(rows(), 52);
    assert!(scene.source.letters(0, "bad").is_empty());
    scene.end(&["no partition of relation"]);
}
