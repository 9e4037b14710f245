//! Keys that are not what they were: deleted, renamed, replaced, without their group, with names that are hard to
//! carry. The stream they are about waits or goes; the others do not notice.

use crate::harness::bridge::{Bridge, GROUP, Setup, setup};
use crate::harness::fake_broker::FakeBroker;
use crate::harness::oracle::{Arrival, Ledger};
use crate::harness::redis::{Redis, Reply};
use crate::harness::wait_until;
use crate::harness::writer::{Target, Writer, wait_settled, write};

/// A Redis, a broker, a bridge, and a stream `other` that goes on being written and must arrive whole.
struct Scene {
    redis: Redis,
    broker: FakeBroker,
    bridge: Bridge,
    other: Ledger,
}

const OTHER: &str = "other";

impl Scene {
    fn begin() -> Self {
        Self::with(Redis::start(), |setup| setup)
    }

    fn with(redis: Redis, set: impl FnOnce(Setup) -> Setup) -> Self {
        let broker = FakeBroker::start();
        let bridge = set(setup(redis.port, broker.port)).start();
        let mut scene = Self { redis, broker, bridge, other: Ledger::default() };
        scene.check_other();
        scene
    }

    /// The other stream is undisturbed.
    fn check_other(&mut self) {
        self.other.join(write(&self.redis, &[Target::new(0, OTHER)], 20));
        self.broker.wait_complete(&self.other).check(0);
    }

    fn add(&self, key: &str, id: &str) {
        self.redis.ask(0, &["XADD", key, id, "n", "1"]);
    }

    fn ids_of(&self, stream: &str) -> Vec<u64> {
        self.broker.arrivals().into_iter().filter(|a| a.stream == stream).map(|a| a.id.0).collect()
    }

    /// Waits until these IDs, and no others, have arrived of a stream, in this order.
    fn wait_ids(&self, stream: &str, ids: &[u64]) {
        let seen = || (self.ids_of(stream), self.bridge.lines());
        wait_until(&format!("{ids:?} of {stream}"), seen, || self.ids_of(stream).len() >= ids.len());
        assert_eq!(self.ids_of(stream), ids, "{:#?}", self.bridge.lines());
    }

    /// `key` exists and is read.
    fn reading(&self, key: &str) {
        self.add(key, "10-0");
        self.add(key, "11-0");
        self.wait_ids(key, &[10, 11]);
        wait_settled(&self.redis, &[Target::new(0, key)]);
    }

    fn end(mut self, errors: &[&str]) {
        self.check_other();
        wait_settled(&self.redis, &[Target::new(0, OTHER)]);
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

#[test]
fn a_deleted_stream_that_returns_is_read_from_its_beginning() {
    let mut scene = Scene::begin();
    scene.reading("s");
    scene.redis.ask(0, &["DEL", "s"]);
    scene.check_other();
    // Below what the stream counted to before.
    scene.add("s", "1-0");
    scene.add("s", "2-0");
    scene.wait_ids("s", &[10, 11, 1, 2]);
    wait_settled(&scene.redis, &[Target::new(0, "s")]);
    scene.end(&[]);
}

#[test]
fn a_stream_deleted_and_made_again_at_once_is_read_whole() {
    let scene = Scene::begin();
    scene.reading("s");
    for round in 0..10u64 {
        let mut client = scene.redis.client();
        // In one go: no look for streams happens in between.
        let first = format!("{}-0", 100 + round * 10);
        let second = format!("{}-0", 101 + round * 10);
        client.send(&[b"MULTI"]).unwrap();
        client.send(&[b"DEL", b"s"]).unwrap();
        client.send(&[b"XADD", b"s", first.as_bytes(), b"n", b"1"]).unwrap();
        client.send(&[b"XADD", b"s", second.as_bytes(), b"n", b"1"]).unwrap();
        client.send(&[b"EXEC"]).unwrap();
        (0..5).for_each(|_| drop(client.reply().unwrap()));
        let seen = || (scene.ids_of("s"), scene.bridge.lines());
        let last = 101 + round * 10;
        wait_until("both of the new stream", seen, || scene.ids_of("s").last() == Some(&last));
        assert!(scene.ids_of("s").contains(&(100 + round * 10)));
        wait_settled(&scene.redis, &[Target::new(0, "s")]);
    }
    scene.end(&[]);
}

#[test]
fn a_renamed_stream_goes_on_under_its_new_name() {
    let mut scene = Scene::begin();
    scene.reading("before");
    scene.redis.ask(0, &["RENAME", "before", "after"]);
    scene.check_other();
    scene.add("after", "12-0");
    // The group moved along with the key: what was delivered stays so.
    scene.wait_ids("after", &[12]);
    scene.add("before", "5-0");
    scene.wait_ids("before", &[10, 11, 5]);
    scene.end(&[]);
}

#[test]
fn a_key_replaced_by_another_type_is_left_alone_until_it_is_a_stream_again() {
    let mut scene = Scene::begin();
    scene.reading("s");
    scene.redis.ask(0, &["SET", "s", "a text"]);
    scene.check_other();
    scene.check_other();
    assert_eq!(scene.redis.ask(0, &["GET", "s"]).text(), "a text");
    scene.redis.ask(0, &["DEL", "s"]);
    scene.add("s", "1-0");
    scene.wait_ids("s", &[10, 11, 1]);
    scene.end(&[]);
}

#[test]
fn a_pattern_that_matches_other_types_reads_the_streams_only() {
    let mut scene = Scene::with(Redis::start(), |setup| setup.set("REDIS_STREAMS", "hash,list,absent"));
    scene.redis.ask(0, &["SET", "text", "x"]);
    scene.redis.ask(0, &["HSET", "hash", "a", "1"]);
    scene.redis.ask(0, &["RPUSH", "list", "1"]);
    scene.check_other();
    scene.bridge.wait_line("the key holds a hash");
    scene.bridge.wait_line("the key holds a list");
    scene.add("absent", "1-0");
    scene.wait_ids("absent", &[1]);
    scene.redis.ask(0, &["DEL", "list"]);
    scene.add("list", "1-0");
    scene.wait_ids("list", &[1]);
    scene.end(&[]);
}

#[test]
fn a_group_destroyed_while_it_runs_loses_nothing() {
    let scene = Scene::begin();
    let stream = [Target::new(0, "s")];
    let writer = Writer::start(scene.redis.port, &stream, 4_000, std::time::Duration::from_millis(10));
    for part in 1..=5 {
        writer.wait_written(part * 700);
        scene.redis.ask(0, &["XGROUP", "DESTROY", "s", GROUP]);
    }
    let ledger = writer.finish();
    let of_s = |arrivals: Vec<Arrival>| arrivals.into_iter().filter(|a| a.stream == "s").collect::<Vec<_>>();
    let tally = || ledger.tally(&of_s(scene.broker.arrivals()));
    wait_until("all of it arrives", tally, || tally().complete());
    tally().check(ledger.written());
    wait_settled(&scene.redis, &stream);
    scene.bridge.wait_line("the consumer group was gone");
    scene.end(&[]);
}

#[test]
fn a_group_destroyed_on_an_idle_stream_repeats_nothing() {
    let scene = Scene::begin();
    scene.reading("s");
    scene.redis.ask(0, &["XGROUP", "DESTROY", "s", GROUP]);
    scene.add("s", "12-0");
    scene.wait_ids("s", &[10, 11, 12]);
    scene.end(&[]);
}

#[test]
fn names_and_values_that_are_no_text_arrive_all_the_same() {
    let scene = Scene::begin();
    let mut client = scene.redis.client();
    let keys: [&[u8]; 5] = [b"", b"a::b", b"a+b#c%", b"db0:x", "gr\u{fc}n".as_bytes()];
    for key in keys {
        client.add(key, &[(b"f", b"\xff\x00\x01"), (b"\xfe", b""), (b"f", b"2")]).unwrap();
    }
    let seen = || (scene.broker.seen().len(), scene.bridge.lines());
    let hard = || scene.broker.seen().into_iter().filter(|s| s.arrival.stream != OTHER).collect::<Vec<_>>();
    wait_until("one message for each key", seen, || hard().len() >= keys.len());
    let mut topics: Vec<_> = hard().into_iter().map(|s| (s.publish.topic, s.arrival.stream)).collect();
    topics.sort();
    let expected = [
        ("redis/", ""),
        ("redis/a%2Bb%23c%25", "a+b#c%"),
        ("redis/a//b", "a::b"),
        ("redis/db0/db0/x", "db0:db0:x"),
        ("redis/gr\u{fc}n", "gr\u{fc}n"),
    ];
    assert_eq!(topics, expected.map(|(topic, stream)| (topic.to_owned(), stream.to_owned())));
    let payload: serde_json::Value = serde_json::from_slice(&hard()[0].publish.payload).unwrap();
    let fields = serde_json::json!({"$fields": [
        ["f", {"$base64": "/wAB"}], [{"$base64": "/g=="}, ""], ["f", 2],
    ]});
    assert_eq!(payload["data"], fields);
    scene.end(&[]);
}

#[test]
fn a_key_that_is_no_utf8_is_read_and_disturbs_nobody() {
    let mut scene = Scene::begin();
    scene.redis.client().add(b"\xff\xfe", &[(b"f", b"1")]).unwrap();
    scene.check_other();
    let seen = || (scene.broker.arrivals(), scene.bridge.lines());
    wait_until("its entry arrives", seen, || scene.ids_of("b64:__4").len() == 1);
    let topics: Vec<_> = scene.broker.seen().into_iter().map(|seen| seen.publish.topic).collect();
    assert!(topics.contains(&"redis/b64/__4".to_owned()), "{topics:?}");
    scene.end(&[]);
}

#[test]
fn redis_out_of_memory_holds_the_stream_whose_letter_it_does_not_take() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let setup = setup(redis.port, broker.port).set("MQTT_MAX_PACKET_SIZE", "2000");
    let mut client = redis.client();
    let mut ledger = write(&redis, &[Target::new(0, OTHER)], 20);
    for value in [b"1".as_slice(), &[b'x'; 4000], b"3"] {
        ledger.wrote("s", &client.add(b"s", &[(b"v", value)]).unwrap());
    }
    for key in ["s", OTHER] {
        redis.ask(0, &["XGROUP", "CREATE", key, GROUP, "0"]);
    }
    redis.ask(0, &["CONFIG", "SET", "maxmemory", "1"]);
    let mut bridge = setup.start();
    let line = bridge.wait_line("held: its dead letter cannot be written");
    assert!(line.text.contains("stream s") && line.text.contains("OOM"), "{line:?}");
    let seen = || broker.arrivals();
    // What was handed over together with the large one is not held up by it: that one goes to the dead letters.
    wait_until("the other stream", seen, || broker.arrivals().len() >= 22);
    let last = client.ask(&[b"XADD", b"s", b"*", b"v", b"4"]).unwrap();
    assert!(matches!(last, Reply::Error(_)), "Redis is out of memory: {last:?}");
    assert_eq!(redis.pending(0, "s", GROUP), 1);
    redis.ask(0, &["CONFIG", "SET", "maxmemory", "0"]);
    ledger.wrote("s", &client.add(b"s", &[(b"v", b"4")]).unwrap());
    wait_until("the fourth", seen, || broker.arrivals().len() == 23);
    wait_settled(&redis, &[Target::new(0, "s"), Target::new(0, OTHER)]);
    assert_eq!(redis.letters(0, "s").len(), 1);
    let tally = ledger.tally(&broker.arrivals());
    assert_eq!((tally.arrived, tally.duplicates, tally.out_of_order.len()), (23, 0, 0), "{tally:#?}");
    bridge.wait_line("stream s is back");
    let told = bridge.lines_with("held: its dead letter cannot be written");
    assert_eq!(told.len(), 1, "{:#?}", bridge.lines());
    bridge.stop();
    bridge.check_errors(&["held: its dead letter cannot be written"]);
}

#[test]
fn a_read_only_replica_is_told_apart_and_read_once_it_is_promoted() {
    let primary = Redis::start();
    let ledger = write(&primary, &[Target::new(0, "s")], 20);
    let port = primary.port.to_string();
    let replica = Redis::with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let synced = || replica.ask(0, &["EXISTS", "s"]).text();
    wait_until("the replica has the stream", synced, || synced() == "1");
    let broker = FakeBroker::start();
    let mut bridge = setup(replica.port, broker.port).start();
    bridge.wait_line("READONLY");
    replica.ask(0, &["REPLICAOF", "NO", "ONE"]);
    broker.wait_complete(&ledger).check(0);
    wait_settled(&replica, &[Target::new(0, "s")]);
    bridge.stop();
    bridge.check_errors(&["READONLY"]);
}
