//! Three replicas share the streams while they are killed, stopped for longer than their lease, and replaced.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::bridge::{Bridge, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::oracle::Ledger;
use crate::harness::writer::{Target, Writer, targets, wait_settled};
use crate::harness::{LONG, wait_for, wait_until};
use test_kit::redis::Redis;

const REPLICAS: usize = 3;
/// Longer than a lease, so that the others take over while the process stands still.
const STANDSTILL: Duration = Duration::from_millis(8500);
/// In flight (MQTT_MAX_INFLIGHT), and confirmed but not yet acknowledged (two groups of 4,000): what one fault repeats.
const PER_FAULT: usize = 1000 + 2 * 4000;
/// How much is moved: 200,000 entries, 200 streams and 30 faults take the measure by hand.
const USUAL: (usize, usize, usize) = (12_000, 40, 6);

#[test]
fn replicas_keep_the_order_whatever_happens_to_them() {
    let size = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let entries = size("TEST_REPLICAS_ENTRIES", USUAL.0);
    let (count, faults) = (size("TEST_REPLICAS_STREAMS", USUAL.1), size("TEST_REPLICAS_FAULTS", USUAL.2));
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let streams = targets(count);
    let mut replicas: Vec<Bridge> = (0..REPLICAS).map(|_| setup.start()).collect();
    let mut random = std::process::id() as usize;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut ledger = Ledger::default();
    for fault in 0..faults {
        // A burst, and the fault in the middle of it: then much is in flight.
        let burst = entries / (faults + faults / 3);
        let (at, goal) = (next(REPLICAS), broker.arrivals().len() + next(burst * 3 / 4));
        let writer = Writer::start(redis.port, &streams, burst, Duration::ZERO);
        let state = || (broker.arrivals().len(), writer.written());
        wait_until("entries arrive", state, || broker.arrivals().len() >= goal);
        match fault % 3 {
            0 => {
                replicas[at].kill();
                replicas[at] = setup.start();
            }
            1 => {
                replicas[at].signal("STOP");
                sleep(STANDSTILL);
                // It wakes up while the others are busy with what was its own.
                let more = Writer::start(redis.port, &streams, burst, Duration::ZERO);
                let goal = broker.arrivals().len() + burst / 4;
                wait_until("more arrives", || broker.arrivals().len(), || broker.arrivals().len() >= goal);
                replicas[at].signal("CONT");
                ledger.join(more.finish());
            }
            _ => {
                replicas[at].stop();
                replicas[at].check_errors(&[]);
                replicas[at] = setup.start();
            }
        }
        ledger.join(writer.finish());
    }
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    eprintln!(
        "{} written, {} arrived, {} duplicates, {} out of order",
        tally.written,
        tally.arrived,
        tally.duplicates,
        tally.out_of_order.len()
    );
    tally.check(faults * PER_FAULT);
    for mut replica in replicas {
        replica.stop();
        replica.check_errors(&[]);
    }
    assert_eq!(redis.ask(0, &["KEYS", "redis-sync:*"]).list(), [], "nothing is left of the last one");
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
    let line = replicas[1].wait_line("a replica has ended");
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
