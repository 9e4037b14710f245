//! SIGTERM, at the best and the worst of moments: exit 0 in time, what was confirmed acknowledged, the rest pending.

use std::time::{Duration, Instant};

use crate::harness::bridge::setup;
use crate::harness::fake_broker::{Answer, FakeBroker, Manners};
use crate::harness::redis::Redis;
use crate::harness::writer::{Target, Writer, targets, wait_settled, write};
use crate::harness::{free_port, wait_until};

#[test]
fn stopped_in_mid_flow_it_loses_nothing_and_repeats_nothing() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let streams = targets(10);
    let writer = Writer::start(redis.port, &streams, 6_000, Duration::from_millis(10));
    for part in 1..=4 {
        let mut bridge = setup.start();
        wait_until("entries arrive", || bridge.lines(), || broker.arrivals().len() >= part * 1_200);
        bridge.stop();
        bridge.check_errors(&[]);
        assert!(bridge.lines_with("has stopped").len() == 1);
    }
    let mut bridge = setup.start();
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    tally.check(0);
    bridge.stop();
}

#[test]
fn an_idle_bridge_stops_at_once() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    broker.wait_complete(&write(&redis, &stream, 10));
    wait_settled(&redis, &stream);
    let took = bridge.stop();
    assert!(took < Duration::from_secs(2), "{took:?}");
    bridge.check_errors(&[]);
}

#[test]
fn with_the_broker_away_it_stops_with_0_and_the_rest_stays_pending() {
    let (redis, mut broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let mut bridge = setup.start();
    let stream = [Target::new(0, "s")];
    let mut ledger = write(&redis, &stream, 50);
    broker.wait_complete(&ledger);
    wait_settled(&redis, &stream);
    broker.down();
    bridge.wait_line("MQTT broker 127.0.0.1");
    ledger.join(write(&redis, &stream, 50));
    let took = bridge.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
    bridge.check_errors(&[]);
    broker.up();
    let mut bridge = setup.start();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &stream);
    tally.check(0);
    bridge.stop();
}

#[test]
fn with_redis_away_it_stops_with_0() {
    let (mut redis, broker) = (Redis::durable(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let mut bridge = setup.start();
    let stream = [Target::new(0, "s")];
    let ledger = write(&redis, &stream, 50);
    broker.wait_complete(&ledger);
    wait_settled(&redis, &stream);
    redis.kill();
    bridge.wait_line("source Redis: ");
    bridge.stop();
    bridge.check_errors(&[]);
}

/// A broker that takes and never confirms.
fn silent() -> FakeBroker {
    FakeBroker::with(Manners::default(), |_, _| Answer::Silence)
}

#[test]
fn a_broker_that_never_confirms_holds_up_a_stop_no_longer_than_set() {
    let (redis, broker) = (Redis::start(), silent());
    let setup = setup(redis.port, broker.port);
    let mut bridge = setup.clone().set("SHUTDOWN_TIMEOUT", "1").start();
    let stream = [Target::new(0, "s")];
    let ledger = write(&redis, &stream, 50);
    broker.wait_seen(50);
    let took = bridge.stop();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    bridge.wait_line("stays pending");
    assert_eq!(redis.pending(0, "s", "mqtt-group"), 50);
    broker.script(|_, _| Answer::Take);
    let mut bridge = setup.start();
    broker.wait_seen(100);
    wait_settled(&redis, &stream);
    broker.wait_complete(&ledger).check(50);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (redis, broker) = (Redis::start(), silent());
    let mut bridge = setup(redis.port, broker.port).start();
    write(&redis, &[Target::new(0, "s")], 50);
    broker.wait_seen(50);
    bridge.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert!(bridge.runs(), "it waits for what is in flight");
    let begun = Instant::now();
    bridge.signal("INT");
    bridge.wait_exit();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_stop_while_it_still_tries_to_connect_is_obeyed() {
    let redis = Redis::start();
    for setup in [
        setup(redis.port, free_port()).set("MQTT_MAX_RETRIES", "1000"),
        setup(free_port(), free_port()).set("REDIS_MAX_RETRIES", "1000"),
    ] {
        let mut bridge = setup.start();
        bridge.wait_line("not connected yet");
        let took = bridge.stop();
        assert!(took < Duration::from_secs(2), "{took:?}");
        bridge.check_errors(&[]);
    }
}
