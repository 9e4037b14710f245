//! Somebody's hand, or a server that throws things away, in the buffer: what is gone is told, and what is not goes on.

use test_kit::bridge::Setup;
use test_kit::kafka::Kafka;
use test_kit::redis::{Redis, Reply};
use test_kit::wait_until;

use crate::buffer::{buffered, get, unsynced, wait_synced};
use crate::harness::{ids, setup, wait_settled};

/// A bridge that has stored three entries of each of two streams, while Kafka is away.
struct Scene {
    source: Redis,
    buffer: Redis,
    kafka: Kafka,
    topic: String,
    setup: Setup,
    bridge: test_kit::bridge::Bridge,
}

impl Scene {
    fn begin() -> Self {
        let mut kafka = Kafka::start();
        let brokers = kafka.brokers();
        let topic = brokers.topic(1);
        kafka.stop();
        let (source, buffer) = (Redis::start(), Redis::durable());
        let setup = buffered(setup(&source, &brokers, &topic), &buffer).set("ADMIN_ADDR", "127.0.0.1:0");
        let bridge = setup.start();
        let scene = Self { source, buffer, kafka, topic, setup, bridge };
        for stream in ["a", "b"] {
            scene.store(stream, 1);
        }
        scene
    }

    fn store(&self, stream: &str, from: u64) {
        for number in from..from + 3 {
            self.source.ask(0, &["XADD", stream, &format!("{number}-0"), "n", "x"]);
        }
        wait_settled(&self.source, &self.bridge, 0, stream);
    }

    fn key(&self, stream: &str, id: &str) -> String {
        format!("message:{}:{stream}:{id}", self.topic)
    }

    /// What a number on the metrics page is.
    fn metric(&self, name: &str) -> Option<f64> {
        let line = self.bridge.wait_line("Status and metrics are at");
        let address = line.text.split("127.0.0.1:").nth(1).unwrap();
        let port = address.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        get(port, "/metrics").lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn arrived(&self, stream: &str, count: usize) -> Vec<String> {
        ids(&self.kafka.brokers().wait_records(&self.topic, count), stream)
    }

    fn end(mut self, errors: &[&str]) {
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

#[test]
fn a_message_that_is_gone_is_told_and_the_rest_is_sent() {
    let mut scene = Scene::begin();
    scene.buffer.ask(0, &["DEL", &scene.key("a", "2-0"), &scene.key("b", "1-0"), &scene.key("b", "2-0")]);
    scene.kafka.up();
    wait_synced(&scene.buffer, &scene.bridge);
    assert_eq!(scene.arrived("a", 3), ["1-0", "3-0"]);
    assert_eq!(scene.arrived("b", 3), ["3-0"]);
    wait_until(
        "it is counted",
        || scene.bridge.lines(),
        || scene.metric("redis_sync_buffer_lost_total") == Some(3.0),
    );
    let told = scene.bridge.wait_line("are gone from the buffer Redis");
    assert!(told.text.contains("set it to noeviction"), "{}", told.text);
    assert_eq!(scene.bridge.lines_with("are gone from the buffer Redis").len(), 1);
    scene.end(&["are gone from the buffer Redis"]);
}

#[test]
fn a_buffer_that_has_lost_all_is_told() {
    let scene = Scene::begin();
    let waiting = || scene.metric("redis_sync_buffer_unsynced");
    wait_until("it was looked at", || scene.bridge.lines(), || waiting() == Some(6.0));
    scene.buffer.ask(0, &["FLUSHALL"]);
    scene.bridge.wait_line("the buffer Redis has lost its data");
    assert_eq!(scene.metric("redis_sync_buffer_lost_total"), Some(6.0));
    scene.end(&["the buffer Redis has lost its data"]);
}

#[test]
fn a_queue_that_is_gone_is_made_again_without_a_restart() {
    let mut scene = Scene::begin();
    scene.buffer.ask(0, &["DEL", &format!("unsynced:message:{}:a", scene.topic)]);
    scene.bridge.wait_line("the buffer had messages in no queue");
    scene.buffer.ask(0, &["DEL", "unsynced_queues"]);
    wait_until(
        "it is mended",
        || scene.bridge.lines(),
        || scene.buffer.ask(0, &["SCARD", "unsynced_queues"]) == Reply::Number(2),
    );
    scene.kafka.up();
    wait_synced(&scene.buffer, &scene.bridge);
    for stream in ["a", "b"] {
        assert_eq!(scene.arrived(stream, 6), ["1-0", "2-0", "3-0"]);
    }
    scene.end(&[]);
}

#[test]
fn one_key_of_a_wrong_kind_keeps_only_its_own_queue() {
    let mut scene = Scene::begin();
    scene.bridge.stop();
    let other = format!("message:{}:other", scene.topic);
    scene.buffer.ask(0, &["SET", &format!("unsynced:{other}"), "x"]);
    scene.buffer.ask(0, &["SADD", "unsynced_queues", &other]);
    // Neither can be looked through for lost messages yet.
    scene.buffer.ask(0, &["SET", "rebuild_queues", "x"]);
    scene.buffer.ask(0, &["DEL", &format!("unsynced:message:{}:a", scene.topic)]);
    scene.kafka.up();
    scene.bridge = scene.setup.start();
    assert_eq!(scene.arrived("b", 3), ["1-0", "2-0", "3-0"]);
    scene.bridge.wait_line(&format!("(unsynced:{other})"));
    scene.bridge.wait_line("cannot look through the buffer for messages in no queue");
    let (code, _) = scene.setup.clone().arg("sync").start().wait_exit();
    assert_eq!(code, Some(1), "something stays there");
    scene.buffer.ask(0, &["DEL", "rebuild_queues"]);
    assert_eq!(scene.arrived("a", 6), ["1-0", "2-0", "3-0"]);
    assert_eq!(unsynced(&scene.buffer), 0);
    scene.end(&["WRONGTYPE", "cannot look through the buffer"]);
}

#[test]
fn a_sync_that_cannot_look_says_so() {
    let mut scene = Scene::begin();
    scene.bridge.stop();
    scene.kafka.up();
    scene.buffer.ask(0, &["SET", "unsynced_queues", "x"]);
    let mut command = scene.setup.clone().arg("sync").start();
    assert_eq!(command.wait_exit().0, Some(1));
    assert!(!command.lines_with("cannot look for what waits there").is_empty(), "{:?}", command.lines());
}

#[test]
fn a_list_that_is_not_whole_says_so() {
    let mut scene = Scene::begin();
    scene.bridge.stop();
    let refused: Vec<_> = (1..=3).map(|number| scene.key("c", &format!("{number}-0"))).collect();
    for key in &refused {
        scene.buffer.ask(0, &["HSET", "refused", key, r#"{"reason":"x","at":1}"#]);
    }
    let list = |arguments: &[&str]| {
        let setup = arguments
            .iter()
            .fold(scene.setup.clone().arg("buffer").arg("list"), |setup, argument| setup.arg(argument));
        let mut command = setup.start();
        assert_eq!(command.wait_exit().0, Some(0));
        (command.stdout().lines().count(), command.lines_with("there are more than these").len())
    };
    assert_eq!(list(&[]), (6, 0));
    assert_eq!(list(&["--limit", "6"]), (6, 0));
    assert_eq!(list(&["--limit", "5"]), (5, 1));
    assert_eq!(list(&["--limit", "3"]), (3, 1));
    assert_eq!(list(&["--refused", "--limit", "3"]), (3, 0));
    assert_eq!(list(&["--refused", "--limit", "2"]), (2, 1));
}
