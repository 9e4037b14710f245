//! Messages that are sent directly, for a device, and not read from a stream.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connector, ConnectorError};

use super::books::Books;
use super::keys::{Kind, MessageKey, Queue};
use super::stored::{self, Digest, Value};
use super::wake::Wake;
use crate::message;
use crate::settings::BufferSettings;

/// Stores messages; whoever sends what the buffer holds sends them to Kafka.
pub(crate) struct Direct {
    books: Books,
    wake: Wake,
    last: Mutex<EntryId>,
}

impl Direct {
    /// Into this buffer. Connects to nothing yet.
    pub(crate) fn of(settings: &BufferSettings) -> Result<Self, ConnectorError> {
        let connector = Connector::to_target(settings.redis.clone())?;
        Ok(Self::new(Books::new(connector, settings, None)))
    }

    /// Connects to nothing yet.
    fn new(books: Books) -> Self {
        // Where the numbers begin is unlike in any two processes, so that two seldom want the same key.
        let seq = RandomState::new().build_hasher().finish() >> 1;
        Self { books, wake: Wake::default(), last: Mutex::new(EntryId { ms: 0, seq }) }
    }

    /// Stores a message, and returns its key once it stands in the buffer; waits while the buffer is away or full. What is
    /// stored for one device after the other is sent in that order. The topic is to be one that Kafka allows.
    pub(crate) async fn store(&self, topic: &str, device: &str, value: &[u8]) -> Result<String, Fault> {
        let queue = Queue::new(Kind::Direct, topic, device);
        let digest = Digest::of_value(value);
        loop {
            let key = MessageKey { queue: queue.clone(), id: self.next_id() };
            let mut text = Vec::with_capacity(value.len() + 2 * device.len() + 160);
            let timestamp = message::time(key.id);
            stored::write(&mut text, &digest, topic, device, timestamp, &[], Value::Bytes(value));
            // Another process may have had the same idea.
            if self.books.store(self.wake.process(), &key, &digest, text.into()).await? {
                return Ok(key.to_string());
            }
        }
    }

    /// Above all before it, and by this moment's clock, if that does not go back.
    fn next_id(&self) -> EntryId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = EntryId { ms: last.ms.max(now), seq: last.seq + 1 };
        *last
    }
}

#[cfg(test)]
mod tests {
    use kafka_producer::Kafka;
    use sync_core::program::BridgeSettings as _;
    use sync_core::settings::Inputs;
    use test_kit::kafka::Brokers;
    use test_kit::redis::Redis;

    use super::super::books::Settling;
    use super::super::run_dry;
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_is_sent_directly_arrives_in_order_whatever_it_is() {
        let (buffer, brokers) = (Redis::start(), Brokers::shared());
        let (topic, other) = (brokers.topic(1), brokers.topic(1));
        let inputs = Inputs::new::<&str, &str>([], "none")
            .set("TARGET_REDIS_HOST", "127.0.0.1")
            .set("TARGET_REDIS_PORT", &buffer.port.to_string())
            .set("KAFKA_BOOTSTRAP_SERVERS", &brokers.0);
        let settings = Settings::load(&inputs).unwrap().settings;
        let target = settings.buffer.clone().expect("it is set");
        let connector = Connector::to_target(target.redis.clone()).unwrap();
        let direct = Direct::new(Books::new(connector, &target, None));
        let values: [&[u8]; 5] = [b"{\"a\": 1}", b" text\n", b"\xff\x00", b"null", b""];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = |topic: &str, value| runtime.block_on(direct.store(topic, "device:7", value)).unwrap();
        let keys: Vec<_> = values.iter().map(|value| store(&topic, value)).collect();
        store(&other, b"1");
        assert!(keys.is_sorted() && keys[0].starts_with(&format!("direct:{topic}:device:7:")), "{keys:?}");
        let dry = |topic: Option<String>| {
            let kafka = Kafka::new(&settings.kafka.client, None);
            runtime.block_on(run_dry(&target, settings.kafka.retry, kafka, topic)).unwrap()
        };
        assert_eq!(dry(Some(topic.clone())), 5);
        assert_eq!(dry(None), 1);
        assert_eq!(dry(None), 0);
        let (of_topic, of_other) = (brokers.read(&topic), brokers.read(&other));
        let found: Vec<_> = of_topic.iter().map(|record| &record.value[..]).collect();
        assert_eq!(found, values);
        assert!(of_topic.iter().all(|record| record.key.as_deref() == Some("device:7")));
        assert_eq!(of_other.len(), 1);
    }

    /// It was replaced since it was sent: Kafka has the other one.
    #[test]
    fn a_message_is_marked_only_with_its_own_digest() {
        let buffer = Redis::start();
        let inputs = Inputs::new::<&str, &str>([], "none")
            .set("TARGET_REDIS_HOST", "127.0.0.1")
            .set("TARGET_REDIS_PORT", &buffer.port.to_string());
        let target = Settings::load(&inputs).unwrap().settings.buffer.expect("it is set");
        let direct = Direct::of(&target).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = runtime.block_on(direct.store("t", "device", b"new")).unwrap();
        let key = MessageKey::parse(&key).unwrap();
        let settle = |value: &[u8]| {
            let settling = Settling { synced: vec![(key.id, Digest::of_value(value))], refused: Vec::new() };
            runtime.block_on(direct.books.settle(&key.queue, &settling)).unwrap();
            runtime.block_on(direct.books.unsynced()).unwrap()
        };
        assert_eq!(settle(b"old"), 1);
        assert_eq!(settle(b"new"), 0);
    }
}
