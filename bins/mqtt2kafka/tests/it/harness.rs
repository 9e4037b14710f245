//! The real binary between a broker and Kafka.

use std::fs;

use test_kit::bridge::{Bridge, Setup};
use test_kit::kafka::{Brokers, Record};
use test_kit::oracle::{Arrival, Ledger, Tally};
use test_kit::{LONG, unique, wait_for};

/// The binary with these settings (YAML below `mqtt` and `kafka`), and short delays.
pub(crate) fn setup(mqtt: &str, kafka: &str) -> Setup {
    let setup = Setup::of(env!("CARGO_BIN_EXE_mqtt2kafka")).unset("STREAM_DISCOVERY_INTERVAL");
    let conf = setup.dir().join("conf");
    fs::create_dir_all(&conf).expect("a directory");
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let settings = format!("mqtt:\n{}kafka:\n{}", indented(mqtt), indented(kafka));
    fs::write(conf.join("settings.yaml"), settings).expect("a file");
    setup
}

/// What stands below `mqtt` for a broker at this port, with short delays.
pub(crate) fn mqtt(port: u16, topics: &[&str], further: &str) -> String {
    let topics = serde_json::to_string(topics).expect("JSON");
    format!(
        "host: 127.0.0.1\nport: {port}\nclient_id: {}\ntopics: {topics}\nbackoff_base: 0.1\nbackoff_max: 0.5\n{further}",
        unique("bridge-")
    )
}

/// What stands below `kafka`: all messages go to one topic, by their MQTT topics.
pub(crate) fn kafka(brokers: &Brokers, topic: &str, further: &str) -> String {
    format!(
        "config:\n  bootstrap.servers: {}\ntopic: {topic}\ndead_letter_topic: {topic}.dead\nbackoff_base: 0.1\n\
         backoff_max: 0.5\n{further}",
        brokers.0
    )
}

/// What the topic holds, by MQTT topic and number.
pub(crate) fn arrivals(records: &[Record]) -> Vec<Arrival> {
    let arrival = |record: &Record| Arrival {
        stream: record.header("mqtt.topic").expect("the header mqtt.topic").to_owned(),
        id: (record.json()["n"].as_u64().expect("a number"), 0),
    };
    records.iter().map(arrival).collect()
}

/// Waits until the topic holds all that was published.
pub(crate) fn wait_complete(brokers: &Brokers, topic: &str, ledger: &Ledger, bridge: &Bridge) -> Tally {
    let wanted = i64::try_from(ledger.written()).expect("a small number");
    let state = || (brokers.held(topic), wanted, bridge.lines());
    wait_for("all that was published arrives", LONG * 3, state, || {
        // Repeats count as well: only once there is enough is it worth a look.
        if brokers.held(topic) < wanted {
            return None;
        }
        let tally = ledger.tally(&arrivals(&brokers.read(topic)));
        tally.complete().then_some(tally)
    })
}
