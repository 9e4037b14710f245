//! Messages that are sent directly, for a device, and not read from a stream.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connector, ConnectorError};

use super::books::{Appended, Books};
use super::keys::{Kind, MessageKey, Queue};
use super::sink::LONGEST;
use super::stored::{self, Digest, Value};
use super::wake::Wake;
use crate::message;
use crate::settings::BufferSettings;

/// Stores messages; whoever sends what the buffer holds sends them to Kafka.
pub(crate) struct Direct {
    books: Books,
    wake: Wake,
    longest: usize,
    last: Mutex<EntryId>,
}

/// Why a message is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    /// Kafka would not be sent it.
    #[error("the message is {length} bytes long with its device, and KAFKA_MAX_REQUEST_SIZE is {most}")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        most: usize,
    },
    /// The buffer does not take it.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Direct {
    /// Into this buffer, messages that are no longer than that. Connects to nothing yet.
    pub(crate) fn of(settings: &BufferSettings, max_request_size: usize) -> Result<Self, ConnectorError> {
        let connector = Connector::to_target(settings.redis.clone())?;
        let books = Books::new(connector, settings, None);
        // Where the numbers begin is unlike in any two processes, so that no two want the same key.
        let seq = RandomState::new().build_hasher().finish() >> 1;
        let last = Mutex::new(EntryId { ms: 0, seq });
        Ok(Self { books, wake: Wake::default(), longest: max_request_size.min(LONGEST), last })
    }

    /// Stores a message, and returns its key once it stands in the buffer; while the buffer is away or full it is tried again,
    /// as often as TARGET_REDIS_MAX_RETRIES says. What is stored for one device after the other is sent in that order,
    /// whichever processes store it and whatever their clocks say. The topic is to be one that Kafka allows.
    pub(crate) async fn store(&self, topic: &str, device: &str, value: &[u8]) -> Result<String, NotStored> {
        let length = value.len() + device.len();
        if length > self.longest {
            return Err(NotStored::TooLong { length, most: self.longest });
        }
        let queue = Queue::new(Kind::Direct, topic, device);
        let digest = Digest::of_value(value);
        let timestamp = message::time(EntryId { ms: now(), seq: 0 });
        let mut text = Vec::with_capacity(value.len() + 2 * device.len() + 160);
        stored::write(&mut text, &digest, topic, device, timestamp, &[], Value::Bytes(value));
        let text = Bytes::from(text);
        let mut above = 0;
        loop {
            let key = MessageKey { queue: queue.clone(), id: self.next_id(above) };
            match self.books.append(self.wake.process(), &key, &digest, text.clone()).await? {
                Appended::Yes => return Ok(key.to_string()),
                Appended::Taken => {}
                // Somebody's clock is ahead of this one.
                Appended::Behind(last) => match last.ms.checked_add(1) {
                    Some(ms) => above = ms,
                    None => {
                        let reason =
                            format!("behind {queue}:{last}, which the buffer holds, there is no ID left");
                        return Err(Fault::Other(reason).into());
                    }
                },
            }
        }
    }

    /// By this moment's clock, if that does not go back, and no less than that; its second number is this process's alone.
    fn next_id(&self, above: u64) -> EntryId {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What was stored for other devices need not wait for the clock that this one's queue has seen.
        let ms = if above > 0 { above } else { last.ms.max(now()) };
        if above == 0 {
            last.ms = ms;
        }
        last.seq += 1;
        EntryId { ms, seq: last.seq }
    }
}

/// This moment, ms since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX)
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
        let direct = Direct::of(&target, 1000).unwrap();
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

    /// It was replaced since it was sent: Kafka has the other one, or has refused it.
    #[test]
    fn a_message_is_settled_only_with_its_own_digest() {
        let buffer = Redis::start();
        let inputs = Inputs::new::<&str, &str>([], "none")
            .set("TARGET_REDIS_HOST", "127.0.0.1")
            .set("TARGET_REDIS_PORT", &buffer.port.to_string());
        let target = Settings::load(&inputs).unwrap().settings.buffer.expect("it is set");
        let direct = Direct::of(&target, 1000).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = runtime.block_on(direct.store("t", "device", b"new")).unwrap();
        // As store.lua leaves it.
        buffer.ask(0, &["HSET", "replaced", &key, Digest::of_value(b"new").as_str()]);
        let key = MessageKey::parse(&key).unwrap();
        let settle = |settling: Settling| {
            runtime.block_on(direct.books.settle(&key.queue, &settling)).unwrap();
            runtime.block_on(direct.books.agree(1)).unwrap().unsynced
        };
        let synced = |value: &[u8]| Settling {
            synced: vec![(key.id, Digest::of_value(value))],
            ..Settling::default()
        };
        let refused = vec![(key.id, Some(Digest::of_value(b"old")), "{}".to_owned())];
        assert_eq!(settle(synced(b"old")), 1);
        assert_eq!(settle(Settling { refused, ..Settling::default() }), 1);
        assert_eq!(settle(Settling { lost: vec![key.id], ..Settling::default() }), 1, "it is there");
        // A key of a wrong kind: nothing leaves its queue.
        buffer.ask(0, &["SET", "refused", "x"]);
        let refused = vec![(key.id, None, "{}".to_owned())];
        let settling = Settling { refused, ..Settling::default() };
        assert!(runtime.block_on(direct.books.settle(&key.queue, &settling)).is_err());
        buffer.ask(0, &["DEL", "refused"]);
        assert_eq!(runtime.block_on(direct_read(&direct.books, &key.queue)).len(), 1);
        assert_eq!(settle(synced(b"new")), 0);
    }

    #[test]
    fn what_is_stored_later_is_sent_later_whatever_the_clocks_say() {
        let buffer = Redis::start();
        let inputs = Inputs::new::<&str, &str>([], "none")
            .set("TARGET_REDIS_HOST", "127.0.0.1")
            .set("TARGET_REDIS_PORT", &buffer.port.to_string());
        let target = Settings::load(&inputs).unwrap().settings.buffer.expect("it is set");
        let (ahead, other) = (Direct::of(&target, 1000).unwrap(), Direct::of(&target, 1000).unwrap());
        // Its clock is an hour ahead.
        ahead.last.lock().unwrap().ms = now() + 3_600_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = |direct: &Direct, value: &[u8]| runtime.block_on(direct.store("t", "d", value)).unwrap();
        let keys = [
            store(&ahead, b"x"),
            store(&other, b"x"),
            store(&other, b"x"),
            store(&ahead, b"x"),
            store(&other, b"x"),
        ];
        let queue = Queue::new(Kind::Direct, "t", "d");
        let read = runtime.block_on(direct_read(&ahead.books, &queue));
        assert_eq!(read, keys);
        // What another device's messages have is by this process's own clock.
        let key = runtime.block_on(other.store("t", "e", b"x")).unwrap();
        assert!(MessageKey::parse(&key).unwrap().id.ms <= now());
    }

    async fn direct_read(books: &Books, queue: &Queue) -> Vec<String> {
        let mut read = books.read(&[(queue.clone(), None)], 100, 1000, 100).await.unwrap();
        let messages = read.remove(0).messages.into_iter();
        messages.map(|(id, _)| MessageKey { queue: queue.clone(), id }.to_string()).collect()
    }
}
