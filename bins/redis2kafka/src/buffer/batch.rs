//! One batch from the buffer to Kafka: messages of some queues, from their being read until they are settled.
//!
//! What is handed over, and what came back, is told at once, and settling follows: the buffer may take its time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_producer::{Batch, Head, Kafka, Line};
use rdkafka::message::{Header, OwnedHeaders};
use sync_core::bridge::Fate;
use sync_core::record::EntryId;

use super::books::{Books, Settling};
use super::keys::Queue;
use super::stored::{Digest, Stored};
use crate::message::{BRIDGE, BRIDGE_IS};

/// Messages that are sent together.
struct Messages(Vec<Stored>);

/// What became of the messages of one queue.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) queue: Queue,
    pub(super) synced: usize,
    /// How many, and why the last of them.
    pub(super) refused: Option<(usize, String)>,
    /// Were gone from the buffer.
    pub(super) lost: Vec<EntryId>,
    /// What the first one met that goes on waiting.
    pub(super) back: Option<Fate>,
}

/// A queue's part in a batch, with its fates.
pub(super) struct Part {
    pub(super) queue: Queue,
    /// What the first one met that goes on waiting.
    pub(super) back: Option<Fate>,
    settling: Settling,
    why: Option<String>,
}

/// What was read of a queue.
pub(super) struct Portion {
    pub(super) queue: Queue,
    /// In order.
    pub(super) messages: Vec<(EntryId, Bytes)>,
    /// What is gone, and Kafka does not have it.
    pub(super) lost: Vec<EntryId>,
}

/// The same, before it has any.
struct Sent {
    queue: Queue,
    /// With what each is marked, in order.
    messages: Vec<(EntryId, Digest)>,
    /// Where it begins in the batch.
    from: usize,
    /// What is no message.
    settling: Settling,
}

/// Hands messages over to Kafka, in order, before it returns; the future tells what became of them. As soon as it does,
/// whatever is handed over next knows nothing of these: what must not follow them must not be handed over.
pub(super) fn send(kafka: &Kafka, read: Vec<Portion>) -> impl Future<Output = Vec<Part>> + Send + 'static {
    let (mut batch, mut lines, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for Portion { queue, messages: found, lost } in read {
        let from = batch.len();
        let mut settling = Settling { lost, ..Settling::default() };
        let mut messages = Vec::with_capacity(found.len());
        for (id, bytes) in found {
            match Stored::read(&bytes) {
                Ok(stored) => {
                    messages.push((id, stored.digest));
                    batch.push(stored);
                }
                Err(reason) => {
                    settling.refused.push((id, None, because(&format!("it is no message: {reason}"))));
                }
            }
        }
        if !messages.is_empty() {
            lines.push(Line {
                name: queue.shared().clone(),
                topic: queue.topic().into(),
                key: Bytes::copy_from_slice(queue.name().as_bytes()),
                records: (from..batch.len()).collect(),
            });
        }
        sent.push(Sent { queue, messages, from, settling });
    }
    let count = batch.len();
    let delivery = (count > 0).then(|| kafka.deliver(Arc::new(Messages(batch)), count, lines));
    async move {
        let fates = match delivery {
            Some(delivery) => delivery.await,
            None => Vec::new(),
        };
        sent.into_iter().map(|sent| sent.has(&fates)).collect()
    }
}

impl Sent {
    fn has(self, fates: &[Fate]) -> Part {
        let Self { queue, messages, from, mut settling } = self;
        if let Some(reason) = refused_alike(&fates[from..][..messages.len()]) {
            return Part { queue, back: Some(Fate::Held(reason)), settling, why: None };
        }
        let (mut back, mut why) = (None, None);
        for ((id, digest), fate) in messages.into_iter().zip(&fates[from..]) {
            match fate {
                Fate::Delivered => settling.synced.push((id, digest)),
                Fate::Refused(reason) | Fate::Unfit(reason) => {
                    settling.refused.push((id, Some(digest), because(reason)));
                    why = Some(reason.clone());
                }
                Fate::Held(_) | Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown => {
                    // What says more counts: those behind the one that came back are unknown.
                    if matches!(back, None | Some(Fate::Unknown)) {
                        back = Some(fate.clone());
                    }
                }
            }
        }
        Part { queue, back, settling, why }
    }
}

/// Several messages, all refused for one reason: it is the topic that is wrong, not the messages.
fn refused_alike(fates: &[Fate]) -> Option<String> {
    match fates {
        [Fate::Refused(reason), rest @ ..] if !rest.is_empty() => {
            rest.iter().all(|fate| *fate == fates[0]).then(|| reason.clone())
        }
        _ => None,
    }
}

impl Part {
    /// Marks what Kafka has, and what it will never have.
    pub(super) async fn settle(self, books: Books) -> Landed {
        let Self { queue, mut back, mut settling, why } = self;
        let (mut synced, mut refused) = (settling.synced.len(), settling.refused.len());
        if !settling.is_empty()
            && let Err(fault) = books.settle(&queue, &settling).await
        {
            (synced, refused) = (0, 0);
            settling.lost.clear();
            back = Some(Fate::Held(format!("what was sent cannot be marked as synced: {fault}")));
        }
        let why = why.unwrap_or_else(|| "it is no message".into());
        let refused = (refused > 0).then_some((refused, why));
        Landed { queue, synced, refused, lost: settling.lost, back }
    }

    /// The reason, where it is one message that was refused, and nothing else: it may be the topic that is wrong.
    pub(super) fn refused_alone(&self) -> Option<&str> {
        let Settling { synced, refused, .. } = &self.settling;
        let alone =
            self.back.is_none() && synced.is_empty() && matches!(refused.as_slice(), [(_, Some(_), _)]);
        self.why.as_deref().filter(|_| alone)
    }

    /// It waits instead.
    pub(super) fn waits(&mut self) {
        self.settling.refused.clear();
        self.back = self.why.take().map(Fate::Held);
    }
}

/// What stands in the hash of refused messages.
fn because(reason: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    serde_json::json!({ "reason": reason, "at": u64::try_from(now).unwrap_or(u64::MAX) }).to_string()
}

impl Batch for Messages {
    fn record(&self, at: usize, value: &mut Vec<u8>) -> Head {
        let Stored { headers: named, timestamp, value: stored, .. } = &self.0[at];
        value.extend_from_slice(stored);
        let mut headers = OwnedHeaders::new_with_capacity(named.len() + 1);
        for (name, value) in named {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        headers = headers.insert(Header { key: BRIDGE, value: Some(BRIDGE_IS) });
        Head { headers, timestamp: *timestamp, tombstone: false }
    }

    fn size(&self, at: usize) -> usize {
        let Stored { headers, value, .. } = &self.0[at];
        value.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_batch_refused_alike_is_the_topics_fault() {
        let refused = |reason: &str| Fate::Refused(reason.to_owned());
        assert_eq!(refused_alike(&[refused("a"), refused("a")]).as_deref(), Some("a"));
        for fates in [
            vec![refused("a")],
            vec![refused("a"), refused("b")],
            vec![refused("a"), Fate::Delivered],
            vec![Fate::Unfit("a".into()), Fate::Unfit("a".into())],
            vec![],
        ] {
            assert_eq!(refused_alike(&fates), None, "{fates:?}");
        }
    }
}
