//! Servers go away and come back while entries flow: the bridge stays, says so once, and goes on where it was.

use std::time::{Duration, Instant};

use crate::harness::bridge::{Bridge, setup};
use crate::harness::fake_broker::{Answer, FakeBroker, Manners};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::oracle::Ledger;
use crate::harness::redis::Redis;
use crate::harness::subscriber::Subscriber;
use crate::harness::wait_until;
use crate::harness::writer::{Target, Writer, targets, wait_settled, write};

/// What one lost connection to the broker may repeat: the window.
const WINDOW: usize = 1000;

/// Changes of state are told once each: no line per attempt.
fn check_told_once(bridge: &Bridge, part: &str, outages: usize) {
    let told: Vec<_> = bridge
        .lines_with(part)
        .into_iter()
        .filter(|line| line.level == "WARN" || line.level == "ERROR")
        .collect();
    assert!(!told.is_empty() && told.len() <= outages, "{outages} outages: {told:#?}");
}

#[test]
fn a_broker_that_dies_in_mid_flow_gets_the_rest_when_it_is_back() {
    let (redis, mut broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    let streams = targets(10);
    let writer = Writer::start(redis.port, &streams, 6_000, Duration::from_millis(8));
    for part in 1..=3 {
        wait_until("entries arrive", || bridge.lines(), || broker.arrivals().len() >= part * 1200);
        broker.down();
        wait_until(
            "it is noticed",
            || bridge.lines(),
            || bridge.lines_with("MQTT broker 127").len() >= 2 * part,
        );
        std::thread::sleep(Duration::from_millis(300));
        broker.up();
        let back = || bridge.lines_with("is back").len();
        wait_until("it is back", || bridge.lines(), || back() >= part);
    }
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    tally.check(3 * WINDOW);
    check_told_once(&bridge, "MQTT broker", 3);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn cut_connections_to_the_broker_keep_the_order() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).set("MQTT_BACKOFF_BASE", "0.01").start();
    let streams = targets(6);
    let writer = Writer::start(redis.port, &streams, 6_000, Duration::from_millis(8));
    let mut cuts = 0;
    while writer.written() < 6_000 {
        std::thread::sleep(Duration::from_millis(60));
        broker.cut();
        cuts += 1;
    }
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    tally.check(cuts * WINDOW);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_killed_mosquitto_is_found_again() {
    let (redis, mut broker) = (Redis::start(), Mosquitto::start());
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    arrived.wait_complete(&write(&redis, &stream, 100));
    wait_settled(&redis, &stream);
    broker.kill();
    let while_away = write(&redis, &stream, 100);
    broker.up();
    // It knew its subscriber from what it had saved, or the subscriber has come again: neither is the bridge's matter.
    let pending = || redis.pending(0, "s", "mqtt-group");
    wait_until("all is confirmed", pending, || pending() == 0 && bridge.lines_with("is back").len() == 1);
    let tally = while_away.tally(&arrived.arrivals());
    assert!(tally.out_of_order.is_empty(), "{tally:#?}");
    arrived.wait_complete(&write(&redis, &stream, 100));
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn redis_that_dies_and_comes_back_with_its_data_loses_nothing() {
    let (mut redis, broker) = (Redis::durable(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    let streams = targets(10);
    let writer = Writer::start(redis.port, &streams, 4_000, Duration::from_millis(10));
    for part in 1..=3 {
        wait_until("entries arrive", || bridge.lines(), || broker.arrivals().len() >= part * 800);
        redis.kill();
        redis.up();
    }
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    // What was confirmed and could not be acknowledged is acknowledged later, not sent again; a read that was under
    // way is no duplicate either.
    tally.check(3 * WINDOW);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn connections_to_redis_killed_in_a_loop_keep_the_order() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port)
        .set("REDIS_RETRY_INTERVAL", "0.01")
        .set("SOURCE_REDIS_BACKOFF_MAX", "0.05")
        .start();
    let streams = targets(8);
    let writer = Writer::start(redis.port, &streams, 8_000, Duration::from_millis(10));
    let mut kills = 0;
    while writer.written() < 8_000 {
        std::thread::sleep(Duration::from_millis(15));
        kills += redis.cut_connections();
    }
    assert!(kills > 50, "only {kills} connections were killed");
    let ledger = writer.finish();
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &streams);
    tally.check(ledger.written());
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn redis_that_comes_back_empty_is_read_from_its_new_beginning() {
    let (mut redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    broker.wait_complete(&write(&redis, &stream, 50));
    wait_settled(&redis, &stream);
    redis.kill();
    redis.up();
    // IDs far below those of before.
    for number in 1..=50 {
        redis.ask(0, &["XADD", "s", &format!("{number}-0"), "n", &number.to_string()]);
    }
    wait_until("the new entries arrive", || bridge.lines(), || broker.arrivals().len() >= 100);
    let ids: Vec<_> = broker.arrivals().into_iter().skip(50).map(|arrival| arrival.id).collect();
    assert_eq!(ids, (1..=50).map(|ms| (ms, 0)).collect::<Vec<_>>());
    wait_settled(&redis, &stream);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn redis_that_hangs_is_waited_for() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    let mut ledger = write(&redis, &stream, 50);
    broker.wait_complete(&ledger);
    redis.suspend(true);
    bridge.wait_line("source Redis: ");
    redis.suspend(false);
    ledger.join(write(&redis, &stream, 50));
    let tally = broker.wait_complete(&ledger);
    wait_settled(&redis, &stream);
    tally.check(0);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_broker_that_hangs_is_given_up_and_connected_to_again() {
    let (redis, broker) = (Redis::start(), Mosquitto::start());
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    let mut ledger = write(&redis, &stream, 50);
    arrived.wait_complete(&ledger);
    broker.suspend(true);
    ledger.join(write(&redis, &stream, 50));
    bridge.wait_line("the broker has not answered");
    broker.suspend(false);
    let tally = arrived.wait_complete(&ledger);
    wait_settled(&redis, &stream);
    tally.check(100);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn nothing_is_acknowledged_before_the_broker_confirms_it() {
    let (redis, broker) = (Redis::start(), FakeBroker::with(Manners::default(), |_, _| Answer::Silence));
    let mut bridge = setup(redis.port, broker.port).start();
    let stream = [Target::new(0, "s")];
    let ledger = write(&redis, &stream, 100);
    broker.wait_seen(100);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(redis.pending(0, "s", "mqtt-group"), 100);
    broker.script(|_, _| Answer::Take);
    broker.cut();
    let begun = Instant::now();
    broker.wait_seen(200);
    wait_settled(&redis, &stream);
    assert!(begun.elapsed() < Duration::from_secs(10));
    broker.wait_complete(&ledger).check(100);
    bridge.stop();
    bridge.check_errors(&[]);
}

/// Stopped with ten entries delivered; then 500 are written, of which 20 are left when it starts again.
fn trimmed_while_stopped() -> (Redis, FakeBroker, Bridge, Ledger) {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port);
    let mut bridge = setup.start();
    let stream = [Target::new(0, "s")];
    broker.wait_complete(&write(&redis, &stream, 10));
    bridge.stop();
    write(&redis, &stream, 500);
    redis.ask(0, &["XTRIM", "s", "MAXLEN", "20"]);
    let mut ledger = Ledger::default();
    for entry in redis.ask(0, &["XRANGE", "s", "-", "+"]).list() {
        ledger.wrote("s", &entry.list()[0].text());
    }
    (redis, broker, setup.start(), ledger)
}

#[test]
fn trimmed_before_it_was_read_goes_on_with_what_is_left() {
    let (redis, broker, mut bridge, ledger) = trimmed_while_stopped();
    broker.wait_complete(&ledger).check(0);
    wait_settled(&redis, &[Target::new(0, "s")]);
    assert_eq!(broker.arrivals().len(), 30);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn what_was_trimmed_before_it_was_read_is_told_and_counted() {
    let (_redis, _broker, mut bridge, _) = trimmed_while_stopped();
    let line = bridge.wait_line("lost at the source");
    assert!(line.text.contains("480"), "{line:?}");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_source_that_comes_back_empty_is_back() {
    let (mut redis, broker) = (Redis::start(), FakeBroker::start());
    let stream = Target::new(0, "s");
    let ledger = write(&redis, std::slice::from_ref(&stream), 10);
    // The search finds the streams gone before the lane that read them tries again.
    let mut bridge = setup(redis.port, broker.port)
        .set("STREAM_DISCOVERY_INTERVAL", 1)
        .unset("REDIS_RETRY_INTERVAL")
        .set("SOURCE_REDIS_BACKOFF_BASE", 4)
        .set("SOURCE_REDIS_BACKOFF_MAX", 4)
        .start();
    broker.wait_complete(&ledger);
    wait_settled(&redis, &[stream]);
    redis.kill();
    redis.up();
    bridge.wait_line("source Redis: ");
    bridge.wait_line("no longer read: s");
    bridge.wait_line("source Redis is back");
    bridge.stop();
    bridge.check_errors(&[]);
}
