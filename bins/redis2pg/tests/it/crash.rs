//! Everything that can be killed is killed: each entry is in the table, once.

use std::time::{Duration, Instant};

use test_kit::postgres::Postgres;
use test_kit::redis::Redis;
use test_kit::wait_until;
use test_kit::writer::{Writer, targets, wait_settled as wait_acknowledged};

use crate::harness::{GROUP, Sql as _, command, setup, wait_settled};

/// How much is moved: TEST_CRASH_ENTRIES=500000 TEST_CRASH_STREAMS=200 take the measure by hand.
const USUAL: (usize, usize) = (20_000, 40);

#[test]
fn crashes_of_bridge_and_server_leave_each_entry_there_once() {
    let size = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (entries, streams) = (size("TEST_CRASH_ENTRIES", USUAL.0), size("TEST_CRASH_STREAMS", USUAL.1));
    let (source, mut postgres) = (Redis::start(), Postgres::start());
    // It may be started while the server still recovers.
    let setup = setup(&source, &postgres).set("STREAM_OWNERSHIP", "shared").set("PG_MAX_RETRIES", "100");
    let streams = targets(streams);
    let begun = Instant::now();
    let pause = Duration::from_micros(3_000_000 / (entries as u64 / 50));
    let writer = Writer::start(source.port, &streams, entries, pause);
    let mut bridge = setup.start();
    wait_until(
        "the table is there",
        || bridge.lines(),
        || postgres.one("SELECT to_regclass('redis_streams') IS NOT NULL") == "t",
    );
    let mut cut = 0;
    for step in 1..=13 {
        let goal = entries * step / 16;
        wait_until(
            "rows arrive",
            || (postgres.count("redis_streams"), writer.written(), bridge.lines()),
            || {
                // In a loop, whatever it is at.
                cut += postgres.terminate_backends("application_name = 'redis2pg' AND query LIKE 'INSERT%'");
                postgres.count("redis_streams") >= goal
            },
        );
        match step {
            3 | 7 | 11 => {
                postgres.stop_immediate();
                postgres.up();
            }
            _ => {
                bridge.check_errors(&[]);
                bridge.kill();
                bridge = setup.start();
            }
        }
    }
    let ledger = writer.finish();
    for stream in &streams {
        wait_settled(&source, &bridge, stream.db, &stream.key);
    }
    wait_acknowledged(&source, GROUP, &streams);
    let rows = postgres.count("redis_streams");
    let (out, code, _) = command(&setup, &["verify"]);
    eprintln!(
        "{} written, {rows} rows, {cut} connections cut, {:?}; {}",
        ledger.written(),
        begun.elapsed(),
        out.trim_end()
    );
    assert_eq!((rows, code), (ledger.written(), Some(0)), "{out}");
    assert!(out.starts_with("same: "), "{out}");
    bridge.stop();
    bridge.check_errors(&[]);
}
