//! Against a real Kafka: what the bridges' own tests do not come to.

use std::sync::Arc;

use kafka_producer::{Batch, Client, Head, Kafka, Line, Names};
use rdkafka::message::OwnedHeaders;
use sync_core::bridge::Fate;
use test_kit::kafka::Brokers;

const NAMES: Names = Names { max_request_size: "max", time: "the time", time_of_sending: "do" };

/// A value, none (although something is appended), and an empty one.
struct Three {
    /// Each in a request of its own, as long ones are.
    long: bool,
}

impl Batch for Three {
    fn record(&self, at: usize, value: &mut Vec<u8>) -> Head {
        value.extend_from_slice([&b"value"[..], b"not sent", b""][at]);
        Head { headers: OwnedHeaders::new(), timestamp: None, tombstone: at == 1 }
    }

    fn size(&self, _: usize) -> usize {
        if self.long { 1_000_000 } else { 10 }
    }
}

#[test]
fn a_tombstone_has_no_value_and_an_empty_value_is_one() {
    let brokers = Brokers::shared();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for long in [false, true] {
        let topic = brokers.topic(1);
        let client = Client::from_pairs([("metadata.broker.list", brokers.0.as_str())], NAMES);
        let kafka = Kafka::new(&client.expect("no mistake"), None);
        let fates = runtime.block_on(async {
            let _lost = kafka.connect().await.expect("brokers");
            let (name, records) = ("line".into(), vec![0, 1, 2]);
            let line = Line { name, topic: topic.as_str().into(), key: "key".into(), records };
            let fates = kafka.deliver(Arc::new(Three { long }), 3, vec![line]).await;
            kafka.disconnect().await;
            fates
        });
        assert_eq!(fates, [Fate::Delivered, Fate::Delivered, Fate::Delivered]);
        let records = brokers.read(&topic);
        let values: Vec<_> = records.iter().map(|record| (&record.value[..], record.tombstone)).collect();
        assert_eq!(values, [(&b"value"[..], false), (b"", true), (b"", false)]);
        assert!(records.iter().all(|record| record.key.as_deref() == Some("key")), "{records:?}");
    }
}
