//! What a lane is to read, and what it tells once it has let go of the rest: another process may have it then. Why that
//! keeps each stream with one reader is told in ARCHITECTURE.md, "One owner per stream".

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use super::Lane;
use crate::bridge::{Sink, Stream};
use crate::record::StreamName;
use crate::redis::statistics::Progress;

/// How often a lease that ran out is looked at.
pub(super) const LAPSED: Duration = Duration::from_millis(500);

/// What a lane is to read.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Of the portion that this comes from.
    pub(crate) revision: u64,
    /// Under which name; another one than before means that somebody else may have read since.
    pub(crate) member: Option<Arc<str>>,
    /// In the lane's database.
    pub(crate) streams: Arc<BTreeSet<Bytes>>,
}

/// Up to which revision of what it was to read a lane has let go of everything else.
#[derive(Debug, Default)]
pub(crate) struct LetGo {
    /// No read can take an entry of it any more.
    pub(crate) unread: AtomicU64,
    /// And nothing of it is in flight.
    pub(crate) settled: AtomicU64,
}

impl<S: Sink> Lane<S> {
    /// Past its end others may own these streams: nothing more of them is handed over, and once it is good again each
    /// is read from what is pending.
    pub(super) fn look_at_the_lease(&mut self) {
        let holds = self.shared.lease.holds();
        if !holds && !self.lapsed {
            self.restart_all();
            self.source.wake();
        }
        self.lapsed = !holds;
    }

    /// What was taken away from this lane may go to another process as soon as nothing here can read it any more.
    pub(super) fn tell_what_is_let_go(&self) {
        let (LetGo { unread, settled }, revision) = (&*self.let_go, self.revision);
        let mut told = false;
        if self.source.is_at_rest() {
            told |= unread.swap(revision, Relaxed) != revision;
        }
        if unread.load(Relaxed) == revision && !self.streams.are_leaving() {
            told |= settled.swap(revision, Relaxed) != revision;
        }
        if told {
            self.shared.let_go.notify_one();
        }
    }

    /// Lets go of streams that left and have settled.
    pub(super) fn forget_gone(&mut self) {
        for stream in self.streams.sweep() {
            self.shared.statistics.remove(&stream);
            self.shared.metrics.forget(&stream.spelled);
            self.shared.health.forget(&format!("stream {}", stream.spelled));
        }
        self.has_nothing_to_ask();
    }

    /// A lane without streams asks nothing, so nothing else would tell that its source is back.
    pub(super) fn has_nothing_to_ask(&mut self) {
        if self.streams.len() == 0 && self.source.is_connected() {
            self.source_is_up();
        }
    }

    pub(super) fn take_wanted(&mut self, wanted: &Wanted) {
        let Wanted { revision, member, streams: wanted } = wanted;
        self.revision = *revision;
        if self.member != *member {
            self.member = member.clone();
            self.restart_all();
        }
        let gone: Vec<Bytes> = self.streams.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        for key in gone {
            if let Some(slot) = self.streams.remove(&key) {
                tracing::debug!(stream = self.streams[slot].stream.spelled, "stream is no longer read");
                self.purge(|_, record| record.slot == slot);
            }
        }
        self.forget_gone();
        for key in wanted.iter() {
            if self.streams.has_returned(key) {
                continue;
            }
            let name = StreamName::new(self.db, key.clone());
            let spelled = self.shared.spell(&name);
            let metrics = self.shared.metrics.stream(&spelled);
            let stream = Arc::new(Stream { name, spelled, metrics, progress: Progress::default() });
            tracing::debug!(stream = stream.spelled, "stream is read from now on");
            self.shared.statistics.add(&self.client, stream.clone());
            self.streams.add(stream);
        }
        tracing::debug!(db = self.db, streams = self.streams.len(), "streams of a lane");
    }
}
