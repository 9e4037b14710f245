//! The bridge is killed: nothing is lost, nothing stranded, first arrivals keep their order.

use std::time::Duration;

use crate::harness::bridge::setup;
use crate::harness::fake_broker::FakeBroker;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::redis::Redis;
use crate::harness::subscriber::Subscriber;
use crate::harness::wait_until;
use crate::harness::writer::{Target, Writer, targets, wait_settled, write};

/// In flight at the broker (MQTT_MAX_INFLIGHT) and confirmed but not yet acknowledged (two groups of 4,000): what a
/// crash may repeat.
const PER_CRASH: usize = 1000 + 2 * 4000;

#[test]
fn killed_at_any_moment_the_bridge_loses_nothing_and_keeps_the_order() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port).set("STREAM_OWNERSHIP", "exclusive");
    let streams = targets(20);
    let entries = 12_000;
    let writer = Writer::start(redis.port, &streams, entries, Duration::from_millis(4));
    let mut kills = 0;
    for part in 1..=6 {
        let mut bridge = setup.start();
        let goal = (entries * part / 8).min(broker.arrivals().len() + 1000);
        wait_until("entries arrive", || bridge.lines(), || broker.arrivals().len() >= goal);
        bridge.check_errors(&[]);
        bridge.kill();
        kills += 1;
    }
    let mut bridge = setup.start();
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    tally.check(kills * PER_CRASH);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn what_a_dead_consumer_left_pending_comes_first_and_in_order() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let stream = Target::new(0, "s");
    let ledger = write(&redis, std::slice::from_ref(&stream), 300);
    redis.ask(0, &["XGROUP", "CREATE", "s", "mqtt-group", "0"]);
    // Two that read in turn, so that neither's entries are in one piece; and neither acknowledges all.
    for round in 0..10 {
        let name = if round % 2 == 0 { "gone-one" } else { "gone-two" };
        redis.ask(0, &["XREADGROUP", "GROUP", "mqtt-group", name, "COUNT", "15", "STREAMS", "s", ">"]);
    }
    let mut bridge = setup(redis.port, broker.port).start();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &[stream]);
    tally.check(0);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_pending_entry_that_was_deleted_is_acknowledged_and_reported() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let stream = Target::new(0, "s");
    let ledger = write(&redis, std::slice::from_ref(&stream), 10);
    redis.ask(0, &["XGROUP", "CREATE", "s", "mqtt-group", "0"]);
    let read = redis.ask(0, &["XREADGROUP", "GROUP", "mqtt-group", "gone", "STREAMS", "s", ">"]);
    let entries = read.list().swap_remove(0).list().swap_remove(1).list();
    let id = entries[4].clone().list()[0].text();
    redis.ask(0, &["XDEL", "s", &id]);
    let mut bridge = setup(redis.port, broker.port).start();
    wait_until("nine arrive", || broker.arrivals(), || broker.arrivals().len() >= 9);
    wait_settled(&redis, &[stream]);
    let tally = ledger.tally(&broker.arrivals());
    assert_eq!((tally.arrived, tally.duplicates, tally.out_of_order.len()), (9, 0, 0), "{tally:#?}");
    let line = bridge.wait_line("lost at the source");
    assert!(line.text.contains(&id), "{line:?}");
    bridge.stop();
    bridge.check_errors(&[]);
}

/// How much is moved in the test below: 100,000 and 50 take the measure of the contract by hand.
const LARGE: (usize, usize) = (8_000, 20);

#[test]
fn crashes_of_bridge_broker_and_redis_lose_nothing() {
    let size = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (entries, streams) = (size("TEST_CRASH_ENTRIES", LARGE.0), size("TEST_CRASH_STREAMS", LARGE.1));
    let mut redis = Redis::durable();
    let mut broker = Mosquitto::start();
    let arrived = Subscriber::start(broker.port, "redis/#");
    let setup = setup(redis.port, broker.port);
    let begun = std::time::Instant::now();
    let streams = targets(streams);
    let pause = Duration::from_micros(4_000_000 / (entries as u64 / 50));
    let writer = Writer::start(redis.port, &streams, entries, pause);
    let mut bridge = setup.start();
    let mut random = std::process::id() as usize;
    let mut duplicates = 0;
    for step in 1..=13 {
        let goal = entries * step / 16 + random % (entries / 20);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 3;
        let state = || (arrived.count(), writer.written());
        wait_until("entries arrive", state, || arrived.count() >= goal.min(entries * 7 / 8));
        match step {
            4 | 10 => {
                broker.stop();
                broker.up();
                duplicates += PER_CRASH;
            }
            7 => {
                redis.kill();
                redis.up();
                duplicates += PER_CRASH;
            }
            _ => {
                bridge.check_errors(&[]);
                bridge.kill();
                bridge = setup.start();
                duplicates += PER_CRASH;
            }
        }
    }
    let ledger = writer.finish();
    let tally = arrived.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    eprintln!(
        "{} written, {} arrived, {} duplicates, {} out of order, {:?}",
        tally.written,
        tally.arrived,
        tally.duplicates,
        tally.out_of_order.len(),
        begun.elapsed()
    );
    tally.check(duplicates);
    bridge.stop();
    bridge.check_errors(&[]);
}
