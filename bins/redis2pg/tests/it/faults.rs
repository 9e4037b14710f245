//! PostgreSQL goes away, turns read-only, or cuts connections: waited for, in order, and nothing is lost.

use std::time::Duration;

use test_kit::postgres::Postgres;
use test_kit::redis::Redis;
use test_kit::writer::{Target, Writer, targets, write};
use test_kit::{wait_until, writer};

use crate::harness::{GROUP, Sql as _, command, setup, wait_settled};

#[test]
fn stopped_and_started_again_it_is_one_line_each_and_goes_on() {
    let (source, mut postgres) = (Redis::start(), Postgres::start());
    let stream = Target::new(0, "s");
    let mut bridge = setup(&source, &postgres).start();
    write(&source, std::slice::from_ref(&stream), 100);
    wait_settled(&source, &bridge, 0, "s");
    postgres.stop_fast();
    write(&source, std::slice::from_ref(&stream), 100);
    bridge.wait_line("PostgreSQL server at 127.0.0.1");
    postgres.up();
    wait_settled(&source, &bridge, 0, "s");
    assert_eq!(postgres.count("redis_streams"), 200);
    bridge.wait_line("is back after");
    let outages =
        bridge.lines_with("PostgreSQL server at").into_iter().filter(|line| line.level == "WARN").count();
    assert_eq!(outages, 1, "{:#?}", bridge.lines());
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn connections_that_are_cut_again_and_again_cost_no_entry() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let streams = targets(10);
    let mut bridge = setup(&source, &postgres).start();
    bridge.wait_line("connected to the PostgreSQL server");
    let writer = Writer::start(source.port, &streams, 20_000, Duration::from_millis(2));
    let mut cuts = 0;
    while writer.written() < 20_000 || cuts < 5 {
        cuts += postgres.terminate_backends("application_name = 'redis2pg'");
    }
    let ledger = writer.finish();
    for stream in &streams {
        wait_settled(&source, &bridge, stream.db, &stream.key);
    }
    writer::wait_settled(&source, GROUP, &streams);
    assert!(cuts >= 5, "{cuts} cut");
    assert_eq!(postgres.count("redis_streams"), ledger.written());
    let (out, code, _) = command(&setup(&source, &postgres), &["verify"]);
    assert_eq!(code, Some(0), "{out}");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_server_that_is_read_only_is_waited_for() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let mut bridge = setup(&source, &postgres).start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    wait_settled(&source, &bridge, 0, "s");
    postgres.ask("ALTER SYSTEM SET default_transaction_read_only = on");
    postgres.ask("SELECT pg_reload_conf()");
    wait_until("it is read-only", || (), || postgres.one("SHOW default_transaction_read_only") == "on");
    source.ask(0, &["XADD", "s", "2-0", "n", "2"]);
    bridge.wait_line("read-only");
    postgres.ask("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.ask("SELECT pg_reload_conf()");
    wait_settled(&source, &bridge, 0, "s");
    assert_eq!(postgres.count("redis_streams"), 2);
    assert!(source.letters(0, "s").is_empty());
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_table_that_is_dropped_is_made_again() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let mut bridge = setup(&source, &postgres).start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    wait_settled(&source, &bridge, 0, "s");
    postgres.ask("DROP TABLE redis_streams");
    source.ask(0, &["XADD", "s", "2-0", "n", "2"]);
    wait_settled(&source, &bridge, 0, "s");
    assert_eq!(postgres.rows("SELECT message_id FROM redis_streams"), [["2-0"]]);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_role_that_loses_its_grant_holds_and_loses_nothing() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let (out, ..) = command(&setup(&source, &postgres), &["schema"]);
    postgres.ask(&out);
    postgres.ask(
        "CREATE ROLE writer LOGIN PASSWORD 'pw'; GRANT SELECT, INSERT, UPDATE ON redis_streams TO writer",
    );
    let setup = setup(&source, &postgres).set("PG_USER", "writer").set("PG_PASSWORD", "pw");
    let mut bridge = setup.start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    wait_settled(&source, &bridge, 0, "s");
    postgres.ask("REVOKE INSERT ON redis_streams FROM writer");
    source.ask(0, &["XADD", "s", "2-0", "n", "2"]);
    bridge.wait_line("permission denied");
    assert!(source.letters(0, "s").is_empty());
    postgres.ask("GRANT INSERT ON redis_streams TO writer");
    wait_settled(&source, &bridge, 0, "s");
    assert_eq!(postgres.count("redis_streams"), 2);
    assert!(source.letters(0, "s").is_empty());
    bridge.stop();
    bridge.check_errors(&["permission denied"]);
}

#[test]
fn a_lock_that_others_hold_is_waited_for() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let mut bridge = setup(&source, &postgres).set("PG_QUERY_TIMEOUT", "0.5").start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    wait_settled(&source, &bridge, 0, "s");
    let login = postgres.login.clone();
    let locked = std::thread::spawn(move || {
        login.ask("postgres", "BEGIN; LOCK TABLE redis_streams; SELECT pg_sleep(3); COMMIT");
    });
    wait_until(
        "it is locked",
        || (),
        || {
            postgres.count("pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'redis_streams'::regclass") == 1
        },
    );
    source.ask(0, &["XADD", "s", "2-0", "n", "2"]);
    bridge.wait_line("57014");
    locked.join().unwrap();
    wait_settled(&source, &bridge, 0, "s");
    assert_eq!(postgres.count("redis_streams"), 2);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_connection_is_replaced_after_so_many_queries() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let mut bridge = setup(&source, &postgres).set("PG_MAX_QUERIES", 10).start();
    let sessions = "SELECT count(DISTINCT pid) FROM seen";
    for n in 1..=60 {
        source.ask(0, &["XADD", "s", &format!("{n}-0"), "n", "1"]);
        wait_settled(&source, &bridge, 0, "s");
        if n == 1 {
            postgres.ask("CREATE TABLE seen (pid int)");
        }
        postgres.ask("INSERT INTO seen SELECT pid FROM pg_stat_activity WHERE application_name = 'redis2pg'");
    }
    let seen: usize = postgres.one(sessions).parse().unwrap();
    assert!(seen >= 4, "{seen} connections for 60 batches");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_process_that_stands_still_in_a_transaction_does_not_hold_its_successor_up_for_ever() {
    let (source, postgres) = (Redis::start(), Postgres::start());
    let streams = [Target::new(0, "s")];
    let shared = setup(&source, &postgres).set("STREAM_OWNERSHIP", "shared").set("STREAM_BATCH_SIZE", 20_000);
    let ledger = write(&source, &streams, 60_000);
    let mut first = shared.start();
    wait_until(
        "it is in the middle",
        || first.lines(),
        || postgres.try_ask("SELECT count(*) FROM redis_streams").is_ok_and(|rows| rows[0][0] != "0"),
    );
    first.signal("STOP");
    let mut second = shared.start();
    wait_settled(&source, &second, 0, "s");
    assert_eq!(postgres.count("redis_streams"), ledger.written());
    first.signal("CONT");
    first.stop();
    second.stop();
    assert_eq!(postgres.count("redis_streams"), ledger.written());
    let (out, code, _) = command(&setup(&source, &postgres), &["verify"]);
    assert_eq!(code, Some(0), "{out}");
}
