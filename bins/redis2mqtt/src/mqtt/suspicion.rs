//! What outlives a session: whom to suspect when the broker hangs up without a word, as it must under 3.1.1.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sync_core::bridge::Record;
use sync_core::record::EntryId;
use tokio::time::Instant;

/// A broker that hangs up twice within this time, with nothing under way, has given the session to somebody else.
const QUIET: Duration = Duration::from_secs(120);
/// After so many lost connections with the same record first in line, it is refused.
pub(super) const LOSSES: u32 = 3;

/// Cheap to clone; one per sink.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspicion(Arc<Mutex<Suspects>>);

#[derive(Debug, Default)]
struct Suspects {
    /// The record that stood first among the unconfirmed when connections were lost.
    record: Option<Suspect>,
    /// When the broker hung up last with nothing under way.
    hung_up: Option<Instant>,
}

#[derive(Debug)]
struct Suspect {
    stream: String,
    id: EntryId,
    losses: u32,
}

impl Suspicion {
    fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn losses(&self, record: &Record) -> u32 {
        let suspects = self.suspects();
        let it = suspects.record.as_ref();
        it.filter(|s| s.id == record.entry.id && s.stream == record.stream.spelled).map_or(0, |s| s.losses)
    }

    /// One more connection was lost with this record first; how many it makes.
    pub(super) fn lost(&self, record: &Record) -> u32 {
        let losses = self.losses(record) + 1;
        self.set(record, losses);
        losses
    }

    pub(super) fn set(&self, record: &Record, losses: u32) {
        let suspect = Suspect { stream: record.stream.spelled.clone(), id: record.entry.id, losses };
        self.suspects().record = Some(suspect);
    }

    pub(super) fn cleared(&self, record: &Record) {
        if self.losses(record) > 0 {
            self.suspects().record = None;
        }
    }

    /// Whether the broker did so a short time ago, and was there all the while.
    pub(super) fn hung_up_again(&self) -> bool {
        let last = self.suspects().hung_up.replace(Instant::now());
        last.is_some_and(|last| last.elapsed() < QUIET)
    }

    /// The broker cannot be reached: that is why it hung up.
    pub(crate) fn broker_is_away(&self) {
        self.suspects().hung_up = None;
    }
}
