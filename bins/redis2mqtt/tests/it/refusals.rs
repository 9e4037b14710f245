//! The broker says no, or hangs up: what is about the record goes to the dead letters, what is about the destination
//! holds the stream, and the other streams go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::bridge::setup;
use crate::harness::fake_broker::{Answer, FakeBroker, Manners};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::oracle::Ledger;
use crate::harness::packets::Publish;
use crate::harness::redis::Redis;
use crate::harness::subscriber::Subscriber;
use crate::harness::wait_until;
use crate::harness::writer::{Target, wait_settled, write};

/// Streams `a`, `b` and `c`, and in the middle of `b` one entry with this value, which nothing else has.
pub(crate) struct Scene {
    pub(crate) redis: Redis,
    /// All but the bad one.
    pub(crate) ledger: Ledger,
    pub(crate) bad: String,
    pub(crate) streams: Vec<Target>,
}

pub(crate) const BAD: &str = "thorn";

impl Scene {
    pub(crate) fn write() -> Self {
        Self::write_bad(BAD.as_bytes())
    }

    pub(crate) fn write_bad(value: &[u8]) -> Self {
        let redis = Redis::start();
        let streams: Vec<_> = ["a", "b", "c"].into_iter().map(|key| Target::new(0, key)).collect();
        let mut ledger = write(&redis, &streams, 90);
        let bad = redis.client().add(b"b", &[(b"reading", value)]).unwrap();
        ledger.join(write(&redis, &streams, 90));
        Self { redis, ledger, bad, streams }
    }

    /// The bad one stands in the dead letters of `b`, once, with its origin and a reason that says this.
    pub(crate) fn check_letter(&self, reason: &str) {
        wait_settled(&self.redis, &self.streams);
        let letters = self.redis.letters(0, "b");
        assert_eq!(letters.len(), 1, "{letters:?}");
        let names: Vec<_> = letters[0].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bridge", "group", "stream", "id", "reason", "time", "attempts", "reading"]);
        let value = |at: usize| letters[0][at].1.as_str();
        assert_eq!(&[value(0), value(1), value(2), value(3)], &["redis2mqtt", "mqtt-group", "b", &self.bad]);
        assert!(value(4).contains(reason), "{}", value(4));
        for key in ["a", "c"] {
            assert!(self.redis.letters(0, key).is_empty());
        }
    }
}

pub(crate) fn is_bad(publish: &Publish) -> bool {
    publish.payload.windows(BAD.len()).any(|window| window == BAD.as_bytes())
}

#[test]
fn a_record_on_which_a_311_broker_hangs_up_is_dead_lettered_and_all_else_arrives() {
    let scene = Scene::write();
    let manners = Manners { only_four: true, ..Manners::default() };
    let broker = FakeBroker::with(manners, |publish, _| match is_bad(publish) {
        true => Answer::HangUp,
        false => Answer::Take,
    });
    let mut bridge = setup(scene.redis.port, broker.port).start();
    broker.wait_complete(&scene.ledger).check(3 * scene.ledger.written());
    scene.check_letter("closed the connection 3 times");
    let tries = broker.seen().iter().filter(|seen| is_bad(&seen.publish)).count();
    assert!((3..=5).contains(&tries), "{tries} tries: before the first, others may have stood first in line");
    assert_eq!(broker.connections().1, 1, "that the broker does not speak version 5 is remembered");
    assert_eq!(bridge.lines_with("MQTT 3.1.1 is used").len(), 1);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_record_on_which_a_5_broker_hangs_up_is_dead_lettered_and_all_else_arrives() {
    let scene = Scene::write();
    let broker = FakeBroker::with(Manners::default(), |publish, _| match is_bad(publish) {
        true => Answer::Disconnect(0x95),
        false => Answer::Take,
    });
    let mut bridge = setup(scene.redis.port, broker.port).start();
    broker.wait_complete(&scene.ledger).check(3 * scene.ledger.written());
    scene.check_letter("closed the connection 3 times");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_topic_that_the_broker_calls_invalid_is_dead_lettered() {
    for code in [0x90, 0x99] {
        let scene = Scene::write();
        let broker = FakeBroker::with(Manners::default(), move |publish, _| match is_bad(publish) {
            true => Answer::Code(code),
            false => Answer::Take,
        });
        let mut bridge = setup(scene.redis.port, broker.port).start();
        broker.wait_complete(&scene.ledger).check(0);
        scene.check_letter(&format!("0x{code:02X}"));
        bridge.stop();
        bridge.check_errors(&[]);
    }
}

#[test]
fn a_denied_topic_is_held_until_the_acl_is_mended_and_others_go_on() {
    let scene = Scene::write();
    let broker = Mosquitto::with_acl("topic write redis/a\ntopic write redis/c\ntopic read #\n");
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(scene.redis.port, broker.port).start();
    let line = bridge.wait_line("NotAuthorized");
    assert!(
        line.level == "ERROR" && line.text.contains("stream b") && line.text.contains("redis/b"),
        "{line:?}"
    );
    // What is confirmed of the others while b is refused stays confirmed.
    let others: Vec<_> = scene.streams.iter().filter(|stream| stream.key != "b").cloned().collect();
    wait_until("the others arrive", || arrived.count(), || arrived.count() >= 120);
    wait_settled(&scene.redis, &others);
    let more = write(&scene.redis, &others, 20);
    arrived.wait_complete(&more).check(0);
    assert!(arrived.messages().iter().all(|message| message.topic != "redis/b"));
    assert!(scene.redis.pending(0, "b", "mqtt-group") > 0);

    broker.write_acl("topic readwrite #\n");
    broker.reread();
    let mut ledger = scene.ledger.clone();
    ledger.join(more);
    ledger.wrote("b", &scene.bad);
    // Out of order in the ledger, not at the destination: the tally asks the arrivals alone.
    let tally = arrived.wait_complete(&ledger);
    tally.check(0);
    wait_settled(&scene.redis, &scene.streams);
    assert!(scene.redis.letters(0, "b").is_empty(), "permission is no property of a record");
    bridge.wait_line("stream b is back");
    assert_eq!(bridge.lines_with("NotAuthorized").len(), 1, "said once");
    bridge.stop();
    bridge.check_errors(&["NotAuthorized"]);
}

#[test]
fn a_quota_is_waited_out_in_order_and_never_dead_lettered() {
    let scene = Scene::write();
    let left = Arc::new(AtomicUsize::new(5));
    let broker = FakeBroker::with(Manners::default(), move |publish, _| {
        let refuse = is_bad(publish)
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if refuse { Answer::Code(0x97) } else { Answer::Take }
    });
    let mut ledger = scene.ledger.clone();
    ledger.wrote("b", &scene.bad);
    // One at a time: then not even a quota reorders.
    let mut bridge = setup(scene.redis.port, broker.port).set("MQTT_MAX_INFLIGHT", 1).start();
    broker.wait_complete(&ledger).check(0);
    wait_settled(&scene.redis, &scene.streams);
    assert!(scene.redis.letters(0, "b").is_empty());
    assert_eq!(broker.seen().iter().filter(|seen| is_bad(&seen.publish)).count(), 6);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn with_a_window_a_quota_reorders_no_more_than_the_window() {
    let scene = Scene::write();
    let left = Arc::new(AtomicUsize::new(1));
    let broker = FakeBroker::with(Manners::default(), move |publish, _| {
        let refuse = is_bad(publish)
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if refuse { Answer::Code(0x97) } else { Answer::Take }
    });
    let mut ledger = scene.ledger.clone();
    ledger.wrote("b", &scene.bad);
    let mut bridge = setup(scene.redis.port, broker.port).set("MQTT_MAX_INFLIGHT", 10).start();
    let tally = broker.wait_complete(&ledger);
    assert!(tally.out_of_order.len() <= 10, "{tally:#?}");
    wait_settled(&scene.redis, &scene.streams);
    assert!(scene.redis.letters(0, "b").is_empty());
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_held_entry_that_somebody_acknowledges_releases_its_stream() {
    let (redis, stream) = (Redis::start(), [Target::new(0, "s")]);
    let broker = FakeBroker::with(Manners::default(), |_, _| Answer::Code(0x87));
    let mut bridge = setup(redis.port, broker.port).start();
    let id = redis.client().add(b"s", &[(b"v", b"1")]).unwrap();
    bridge.wait_line("NotAuthorized");
    redis.ask(0, &["XACK", "s", "mqtt-group", &id]);
    bridge.wait_line("stream s is back");
    broker.script(|_, _| Answer::Take);
    broker.wait_complete(&write(&redis, &stream, 5)).check(0);
    bridge.stop();
    bridge.check_errors(&["NotAuthorized"]);
}

#[test]
fn a_hold_is_not_taken_back_for_what_was_delivered_before_it() {
    let (redis, stream) = (Redis::start(), [Target::new(0, "s")]);
    let mut ledger = write(&redis, &stream, 20);
    let bad = redis.client().add(b"s", &[(b"v", BAD.as_bytes())]).unwrap();
    ledger.wrote("s", &bad);
    let broker = FakeBroker::with(Manners::default(), |publish, _| match is_bad(publish) {
        true => Answer::Code(0x87),
        false => Answer::Take,
    });
    let mut bridge = setup(redis.port, broker.port).start();
    broker.wait_seen(24);
    bridge.wait_line("NotAuthorized");
    assert!(bridge.lines_with("stream s is back").is_empty(), "{:#?}", bridge.lines());
    broker.script(|_, _| Answer::Take);
    broker.wait_complete(&ledger).check(0);
    bridge.wait_line("stream s is back");
    assert_eq!(bridge.lines_with("NotAuthorized").len(), 1, "{:#?}", bridge.lines());
    bridge.stop();
    bridge.check_errors(&["NotAuthorized"]);
}

#[test]
fn a_broker_that_denies_and_hangs_up_is_understood() {
    let scene = Scene::write();
    // Mosquitto 2.0 with max_queued_messages 0 answers a denied PUBLISH and closes the connection.
    let broker = Mosquitto::with_acl_and("topic write redis/a\ntopic write redis/c\ntopic read #\n", 0);
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(scene.redis.port, broker.port).start();
    let others: Vec<_> = scene.streams.iter().filter(|stream| stream.key != "b").cloned().collect();
    wait_until("the others arrive", || arrived.count(), || arrived.count() >= 120);
    wait_settled(&scene.redis, &others);
    bridge.wait_line("NotAuthorized");
    let line = bridge.lines_with("stream b: held");
    assert_eq!(line.len(), 1, "{:#?}", bridge.lines());
    arrived.wait_complete(&write(&scene.redis, &others, 60));
    assert!(scene.redis.letters(0, "a").is_empty() && scene.redis.letters(0, "b").is_empty());
    bridge.stop();
    bridge.check_errors(&["NotAuthorized"]);
}

#[test]
fn a_receive_maximum_of_one_is_kept() {
    let scene = Scene::write();
    let manners = Manners { receive_max: Some(1), ..Manners::default() };
    let broker = FakeBroker::with(manners, |_, _| Answer::TakeAfter(Duration::from_millis(1)));
    let mut bridge = setup(scene.redis.port, broker.port).start();
    broker.wait_complete(&scene.ledger).check(0);
    assert_eq!(broker.most_outstanding(), 1);
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn a_session_taken_over_is_an_error_and_no_ping_pong() {
    let broker = Mosquitto::start();
    let (one, two) = (Redis::start(), Redis::start());
    let setup = |redis: &Redis| {
        setup(redis.port, broker.port)
            .set("STREAM_OWNERSHIP", "exclusive")
            .set("MQTT_CLIENT_ID", "the-same")
            .set("MQTT_BACKOFF_MAX", "3")
    };
    let first = setup(&one).start();
    first.wait_line("connected to the MQTT broker");
    let second = setup(&two).start();
    second.wait_line("connected to the MQTT broker");
    let line = first.wait_line("another client uses this MQTT_CLIENT_ID");
    assert!(line.level == "ERROR", "{line:?}");
    let connected = || broker.log().matches("New client connected").count();
    let before = connected();
    std::thread::sleep(Duration::from_secs(4));
    assert!(connected() - before <= 3, "{} connections in 4 s with a delay of 3 s", connected() - before);
}

#[test]
fn a_goodbye_of_session_taken_over_is_followed_by_the_full_delay() {
    let scene = Scene::write();
    let broker = FakeBroker::with(Manners::default(), |_, _| Answer::Disconnect(0x8E));
    let bridge = setup(scene.redis.port, broker.port).set("MQTT_BACKOFF_MAX", "2").start();
    bridge.wait_line("(0x8E)");
    std::thread::sleep(Duration::from_secs(3));
    assert!(broker.connections().0 <= 4, "{:?}", broker.connections());
    assert!(scene.redis.letters(0, "b").is_empty());
}
