//! The contract between what reads and what delivers: [`Sink`], [`Fate`], and the words they use. The loop that
//! keeps the contract is in `lane`; which lanes there are is decided in `run.rs`.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::record::{Entry, StreamName};
use crate::redis::statistics::Progress;
use crate::telemetry::metrics::StreamMetrics;

/// One stream of the source, as long as this process reads it.
#[derive(Debug)]
pub struct Stream {
    /// Database and key.
    pub name: StreamName,
    /// How people and destinations know it: [`StreamName::spell`], behind SOURCE_NAME where that is set.
    pub spelled: String,
    /// Its counters.
    pub metrics: Arc<StreamMetrics>,
    /// What the group was handed of it.
    pub progress: Progress,
}

/// One entry on its way: pending in the consumer group from the moment it is read until it is acknowledged.
#[derive(Debug)]
pub struct Record {
    /// Where it came from.
    pub stream: Arc<Stream>,
    /// What it is.
    pub entry: Entry,
    /// The lane's slot of the stream.
    pub(crate) slot: usize,
}

/// Records handed to a sink at once: of any number of streams, in ID order within each.
pub type Group = Arc<Vec<Record>>;

/// What became of a record at the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The destination confirmed it, as its own configuration defines confirmed.
    Delivered,
    /// The record's own size or name cannot be sent there: known without asking. It goes to the dead letters.
    Unfit(String),
    /// The destination answered that this record's bytes, size or name will never be accepted. It goes to the
    /// dead letters, unless a whole group of several is refused alike: then its stream is held.
    Refused(String),
    /// The destination answered that it does not take records like this one as things stand: permission, quota
    /// for good, a missing table. A human must act; the stream is held and tried again.
    Held(String),
    /// The destination answered: not now. Tried again after backoff.
    Busy(String),
    /// The destination as a whole takes nothing for now, which the sink tells itself, once, and not stream by stream. Tried
    /// again after backoff, and never dead-lettered for it.
    Shut(String),
    /// Silence, a lost connection, or not sent at all. Tried again as soon as the destination is reachable.
    Unknown,
}

/// One fate for each record of the group, in the group's order.
pub type Delivery = BoxFuture<'static, Vec<Fate>>;

/// Where records go. One value serves every lane of the process.
///
/// **Order.** [`Sink::deliver`] is called in the order in which records must arrive, also while earlier groups are
/// under way; up to two per lane are. What it does before returning must fix that order. A later record of a
/// stream must not take effect after an earlier one of the same stream came back as anything but delivered,
/// refused or unfit. A destination that confirms records one by one may let those already on the wire take effect:
/// at most its window; that is the reordering that its documentation names.
///
/// **Duplicates.** What comes back as [`Fate::Busy`], [`Fate::Shut`], [`Fate::Held`] or [`Fate::Unknown`] is delivered again:
/// also a record that did arrive, when its confirmation was lost.
///
/// **Who retries.** Not the sink: it makes one attempt, says what happened, and never sleeps. It need not bound
/// how long it waits for a confirmation, only notice a dead connection.
pub trait Sink: Send + Sync + 'static {
    /// What it is, for people: `MQTT broker localhost:1883`.
    fn destination(&self) -> String;

    /// What is the same in every replica of one bridge, and in no other bridge: where records go, in full.
    fn identity(&self) -> String;

    /// Whether an entry that is delivered once more changes nothing at the destination, or is found to be another one than
    /// what is there. A stream whose group was lost is then read from its start: a stream made anew cannot be told for
    /// certain from one that only lost its group.
    fn repeats_are_harmless(&self) -> bool {
        false
    }

    /// One attempt to reach the destination. Called at start, and again each time a connection ended. The future
    /// inside the result resolves when this connection is lost; by then every delivery handed over has a fate.
    fn connect(&self) -> impl Future<Output = Result<BoxFuture<'static, Lost>, Unreachable>> + Send;

    /// Hands a group over. Without a connection every fate is [`Fate::Unknown`].
    fn deliver(&self, group: Group) -> Delivery;

    /// Called once, after the last group has settled: a last word to the destination. It ends the connection.
    fn disconnect(&self) -> impl Future<Output = ()> + Send;
}

/// Why a connection to the destination ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// For the log.
    pub reason: String,
    /// A human must act (another client took the session over, or this one may not do what it is to do): ERROR, and the longest delay before the next
    /// attempt.
    pub by_conflict: bool,
}

/// The destination could not be reached, or said no: a clear line that names the place and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    /// For the log, and for the exit line at start.
    pub reason: String,
    /// A human must act: wrong password, certificate not trusted.
    pub needs_human: bool,
}
