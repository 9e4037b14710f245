//! The keys of the buffer: made here, taken apart here, and nowhere else.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `message:TOPIC:STREAM:ID` | string | an entry of a stream ([`super::stored`]); ID is the entry's |
//! | `direct:TOPIC:DEVICE:ID` | string | a message that was sent directly; ID is `MS-UNIQUE` |
//! | `synced:MESSAGEKEY` | string | the digest of the message that Kafka has under that key |
//! | `unsynced_keys_set` | set | the keys of all messages that Kafka does not have and that will be sent |
//! | `unsynced:QUEUE` | sorted set | the same of one queue, in order: each ID as two numbers of 20 digits, with the score 0 |
//! | `unsynced_queues` | set | the queues that have any |
//! | `refused` | hash | message key → why Kafka will never take it, in JSON |
//! | `replaced` | hash | message key → digest of the message that took the place of one that Kafka has, until Kafka has it, too |
//! | `buffer_since` | string | when the buffer was looked at first: it is gone with all else if the server loses its data |
//! | `rebuild:QUEUE`, `rebuild_queues` | as above | what a search for lost messages has found so far |
//!
//! A queue is what belongs in one order: a message key without its ID. A topic has no colon (Kafka allows none), an ID has
//! none either, and what lies between may have any: so a key is taken apart at the first colon after the topic and at the
//! last one of all.

use std::fmt;
use std::sync::Arc;

use sync_core::record::EntryId;

/// Before the queue, whose messages it has in order.
pub(super) const UNSYNCED: &str = "unsynced:";
/// All unsynced messages.
pub(super) const UNSYNCED_KEYS: &str = "unsynced_keys_set";
/// All queues that have any.
pub(super) const QUEUES: &str = "unsynced_queues";
/// What Kafka will never take.
pub(super) const REFUSED: &str = "refused";

/// Into how many shards the queues are divided, each of which one replica sends.
pub(crate) const SHARDS: u16 = 16;

/// Where messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Entries of a stream.
    Stream,
    /// Sent directly, for a device.
    Direct,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Stream => "message:",
            Self::Direct => "direct:",
        }
    }
}

/// What belongs in one order: a stream, or a device, on a topic. Its text is `message:TOPIC:STREAM` or
/// `direct:TOPIC:DEVICE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Queue(Arc<str>);

impl Queue {
    pub(crate) fn new(kind: Kind, topic: &str, name: &str) -> Self {
        debug_assert!(!topic.contains(':'), "Kafka allows no colon in a topic");
        Self(format!("{}{topic}:{name}", kind.prefix()).into())
    }

    /// The inverse of [`Queue::as_str`]; `None` where the text is no queue's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        split(text).map(|_| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.parts().0
    }

    pub(crate) fn topic(&self) -> &str {
        self.parts().1
    }

    /// The stream, as it is spelled, or the device. It is the key of its records, too.
    pub(crate) fn name(&self) -> &str {
        self.parts().2
    }

    /// Which shard it belongs to. The same in every version: replicas of two versions share them during an update.
    pub(crate) fn shard(&self) -> u16 {
        crc16::State::<crc16::XMODEM>::calculate(self.0.as_bytes()) % SHARDS
    }

    fn parts(&self) -> (Kind, &str, &str) {
        split(&self.0).expect("a queue is made of its parts")
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn split(text: &str) -> Option<(Kind, &str, &str)> {
    let kind = [Kind::Stream, Kind::Direct].into_iter().find(|kind| text.starts_with(kind.prefix()))?;
    let (topic, name) = text[kind.prefix().len()..].split_once(':')?;
    (!topic.is_empty()).then_some((kind, topic, name))
}

/// A message's key: its queue, a colon and its ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageKey {
    pub(crate) queue: Queue,
    pub(crate) id: EntryId,
}

impl MessageKey {
    /// The inverse of its text; `None` where the text is none that was made here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (queue, id) = text.rsplit_once(':')?;
        let key = Self { queue: Queue::parse(queue)?, id: id.parse().ok()? };
        // `01-1` is no ID as it is written.
        (key.id.to_string() == id).then_some(key)
    }

    /// What stands in `unsynced:QUEUE`: sorted as text, IDs are in order.
    pub(crate) fn member(&self) -> String {
        member(self.id)
    }
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.queue, self.id)
    }
}

/// An ID as a text that sorts as IDs do.
pub(crate) fn member(EntryId { ms, seq }: EntryId) -> String {
    format!("{ms:020}-{seq:020}")
}

/// The inverse of [`member`].
pub(crate) fn id_of(member: &str) -> Option<EntryId> {
    let (ms, seq) = member.split_once('-')?;
    Some(EntryId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Stream), Just(Kind::Direct)]
    }

    proptest! {
        #[test]
        fn keys_are_taken_apart_as_they_were_made(
            kind in kinds(),
            topic in "[a-zA-Z0-9._-]{1,20}",
            name in prop_oneof![".{0,20}", "[a:]{0,8}", "db[0-9]:.{0,5}"],
            ms: u64,
            seq: u64,
        ) {
            let queue = Queue::new(kind, &topic, &name);
            prop_assert_eq!((queue.kind(), queue.topic(), queue.name()), (kind, &*topic, &*name));
            prop_assert_eq!(Queue::parse(queue.as_str()), Some(queue.clone()));
            prop_assert!(queue.shard() < SHARDS);
            let key = MessageKey { queue, id: EntryId { ms, seq } };
            prop_assert_eq!(MessageKey::parse(&key.to_string()), Some(key.clone()));
            prop_assert_eq!(id_of(&key.member()), Some(key.id));
        }

        #[test]
        fn two_messages_have_two_keys(
            one in (kinds(), "[ab.]{1,3}", "[ab:]{0,4}", 0u64..3, 0u64..3),
            other in (kinds(), "[ab.]{1,3}", "[ab:]{0,4}", 0u64..3, 0u64..3),
        ) {
            let key = |(kind, topic, name, ms, seq): &(Kind, String, String, u64, u64)| {
                MessageKey { queue: Queue::new(*kind, topic, name), id: EntryId { ms: *ms, seq: *seq } }.to_string()
            };
            prop_assert_eq!(key(&one) == key(&other), one == other);
        }

        #[test]
        fn members_sort_as_ids(a: (u64, u64), b: (u64, u64)) {
            let id = |(ms, seq)| EntryId { ms, seq };
            prop_assert_eq!(member(id(a)).cmp(&member(id(b))), id(a).cmp(&id(b)));
        }
    }

    #[test]
    fn what_is_no_key() {
        for text in [
            "",
            "message:",
            "message:t",
            "message:t:1-0",
            "message::s:1-0",
            "x:t:s:1-0",
            "message:t:s:01-0",
            "message:t:s:1",
        ] {
            assert_eq!(MessageKey::parse(text), None, "{text}");
        }
    }
}
