//! Kafka as something that takes records in order: [`Kafka::deliver`] sends what it is handed and tells what became of
//! each record. It knows nothing of where they come from: [`Batch`] is what it asks.
//!
//! **Two producers.** Nearly all records go through one that sends many in a request and several requests at a time
//! (`session.rs`: *main*). It keeps their order for as long as nothing is refused: at the first batch that is, it is given
//! up as a whole (`enable.gapless.guarantee`), nothing behind that batch takes effect, and another one is made. What was in
//! the refused batch is then sent record by record through the second one (*solo*): only what is refused alone is refused.
//! Long records go that way too, and those to a topic that does not take any.
//!
//! **Order.** Records of one line (a stream) are sent in the order in which they were handed over, by one producer or the
//! other, never by both at a time (`lines.rs`), and the first one of a line by a new producer alone (`session.rs`:
//! *proven*). None is sent once an earlier one of its line has come back undone.

mod client;
mod deliver;
mod fault;
mod flight;
mod lines;
mod retention;
mod session;
mod topics;

pub use client::{Client, MOST_IN_FLIGHT, Mistake, Names, is_of_delivery, is_server, one_name};
pub use deliver::Kafka;

use std::sync::Arc;

use rdkafka::message::OwnedHeaders;

/// Records that are handed over together.
pub trait Batch: Send + Sync + 'static {
    /// Appends the value of the record at this place, and says the rest of it.
    fn record(&self, at: usize, value: &mut Vec<u8>) -> Head;

    /// About how long the record will be, in bytes.
    fn size(&self, at: usize) -> usize;
}

/// What a record is besides its value.
pub struct Head {
    /// Told with it.
    pub headers: OwnedHeaders,
    /// Milliseconds since 1970; `None` is the moment of sending.
    pub timestamp: Option<i64>,
    /// The value is null, whatever was appended: where a topic is compacted, what its key stood for is deleted.
    pub tombstone: bool,
}

/// Records of a batch that belong in one order, on one topic, with one key.
#[derive(Clone, Debug)]
pub struct Line {
    /// What tells it from other lines.
    pub name: Arc<str>,
    /// Where they go.
    pub topic: Arc<str>,
    /// Decides on the partition.
    pub key: bytes::Bytes,
    /// Their places in the batch, ascending.
    pub records: Vec<usize>,
}
