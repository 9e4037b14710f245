//! Replicas share the streams: whatever happens to one of them, first arrivals keep their order.

use std::time::{Duration, Instant};

use crate::harness::bridge::{Bridge, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::writer::{Target, Writer, targets, wait_settled};
use crate::harness::{LONG, wait_for, wait_until};
use test_kit::redis::Redis;
use test_kit::replicas::{Measure, disturb, settle};

/// In flight (MQTT_MAX_INFLIGHT), and confirmed but not yet acknowledged (two groups of 4,000): what one fault repeats.
const PER_FAULT: usize = 1000 + 2 * 4000;

#[test]
fn replicas_keep_the_order_whatever_happens_to_them() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let measure = Measure::usual();
    let streams = targets(measure.streams);
    let arrived = || broker.arrivals().len();
    let (ledger, replicas) = disturb(&setup(redis.port, broker.port), &redis, &streams, measure, arrived);
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    eprintln!(
        "{} written, {} arrived, {} duplicates, {} out of order",
        tally.written,
        tally.arrived,
        tally.duplicates,
        tally.out_of_order.len()
    );
    tally.check(measure.faults * PER_FAULT);
    settle(&redis, streams.len(), replicas);
}

/// How long until all that is written from now on has arrived.
fn time_to_take_over(redis: &Redis, broker: &FakeBroker, streams: &[Target]) -> Duration {
    let begun = Instant::now();
    let ledger = Writer::start(redis.port, streams, streams.len(), Duration::ZERO).finish();
    wait_for("all has arrived", LONG, || (), || ledger.tally(&broker.arrivals()).complete().then_some(()));
    begun.elapsed()
}

#[test]
fn a_dead_replica_of_this_host_is_replaced_at_once() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let streams = targets(30);
    let mut replicas: Vec<Bridge> = (0..2).map(|_| setup.start()).collect();
    let ledger = Writer::start(redis.port, &streams, 300, Duration::ZERO).finish();
    broker.wait_complete(&ledger);
    wait_until(
        "both own some",
        || replicas[1].lines(),
        || replicas.iter().all(|replica| !replica.lines_with("owns 15 of 30 streams").is_empty()),
    );
    replicas[0].kill();
    let took = time_to_take_over(&redis, &broker, &streams);
    eprintln!("taken over within {took:?}");
    assert!(
        took < Duration::from_secs(5),
        "its process has ended, and nobody waits for a lease of 6 s: {took:?}"
    );
    let line = replicas[1].wait_line("its streams are taken over");
    assert_eq!(line.level, "WARN", "{line:?}");
    replicas[1].stop();
}

#[test]
fn it_joins_and_shares_also_without_free_memory() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let streams = targets(10);
    let ledger = Writer::start(redis.port, &streams, 100, Duration::ZERO).finish();
    // The groups: XGROUP CREATE needs memory.
    let mut first = setup.start();
    broker.wait_complete(&ledger);
    redis.ask(0, &["CONFIG", "SET", "maxmemory", "1"]);
    let second = setup.start();
    wait_until(
        "both own some",
        || second.lines(),
        || {
            !second.lines_with("owns 5 of 10 streams").is_empty()
                && !first.lines_with("owns 5 of 10").is_empty()
        },
    );
    first.stop();
    wait_until("it has all", || second.lines(), || !second.lines_with("owns 10 of 10").is_empty());
    redis.ask(0, &["CONFIG", "SET", "maxmemory", "0"]);
}
