//! Replicas share streams and databases: whatever happens to one of them, the tables hold what Redis does.

use test_kit::postgres::Postgres;
use test_kit::redis::Redis;
use test_kit::replicas::{Measure, disturb, settle};
use test_kit::wait_until;
use test_kit::writer::targets;

use crate::harness::{GROUP, Sql as _, command, setup, with_key_values};

#[test]
fn replicas_write_every_entry_once_whatever_happens_to_them() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let measure = Measure::usual();
    let streams = targets(measure.streams);
    let setup = setup(&source, &postgres).set("STREAM_OWNERSHIP", "shared");
    let arrived = || {
        let rows = postgres.try_ask("SELECT count(*) FROM redis_streams");
        rows.map_or(0, |rows| rows[0][0].parse().unwrap())
    };
    let (ledger, replicas) = disturb(&setup, &source, &streams, measure, arrived);
    // One that has just changed hands may have nothing pending, and yet something to be read.
    for stream in &streams {
        let progress = || source.progress(stream.db, &stream.key, GROUP);
        wait_until("all is read and settled", progress, || progress().is_settled());
    }
    let (out, code, _) = command(&setup, &["verify"]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(arrived(), ledger.written(), "nothing twice");
    for replica in &replicas {
        let letters = replica.lines_with("dead-lettered");
        assert!(letters.is_empty(), "{letters:?}");
    }
    settle(&source, streams.len(), replicas);
}

#[test]
fn each_database_has_one_owner_and_gets_another_when_that_dies() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    for db in 0..8 {
        source.ask(db, &["SET", "k", "1"]);
    }
    let setup = with_key_values(&source, &postgres)
        .set("STREAM_OWNERSHIP", "shared")
        .set("REDIS_STREAMS_ENABLED", "false")
        .set("SOURCE_REDIS_DB_SEARCH_RANGE", "0-7");
    let (mut first, mut second) = (setup.start(), setup.start());
    let values = |value: &str| {
        let rows =
            postgres.try_ask(&format!("SELECT count(*) FROM redis_key_values WHERE redis_value = '{value}'"));
        rows.map_or(0, |rows| rows[0][0].parse::<usize>().unwrap())
    };
    wait_until("all are copied", || (first.lines(), second.lines()), || values("1") == 8);
    first.kill();
    for db in 0..8 {
        source.ask(db, &["SET", "k", "2"]);
    }
    wait_until("the other one goes on", || second.lines(), || values("2") == 8);
    second.stop();
    second.check_errors(&[]);
    assert_eq!(postgres.count("redis_key_values"), 8);
}
