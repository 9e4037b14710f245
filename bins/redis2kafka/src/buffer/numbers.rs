//! What is counted of the buffer, and what is said of messages that are gone from it: ERROR, since a human must act, and at
//! most once a minute, since it may be all of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sync_core::record::EntryId;
use sync_core::telemetry::metrics::{Counter, Gauge, Metrics};
use tokio::time::Instant;

use super::keys::{MessageKey, Queue};

/// Between two words about lost messages.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What is counted.
#[derive(Clone)]
pub(crate) struct Numbers {
    unsynced: Gauge,
    pub(super) synced: Counter,
    pub(super) refused: Counter,
    lost: Counter,
    oldest: Gauge,
}

impl Numbers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            unsynced: metrics.gauge("buffer_unsynced", "Messages in the buffer that Kafka does not have"),
            synced: metrics.counter("buffer_synced", "Messages that went from the buffer to Kafka"),
            refused: metrics.counter("buffer_refused", "Messages in the buffer that Kafka refused for good"),
            lost: metrics.counter(
                "buffer_lost",
                "Messages that were gone from the buffer before Kafka had them: deleted, evicted, or lost with its data",
            ),
            oldest: metrics.gauge(
                "buffer_oldest_unsynced_seconds",
                "Age of the oldest message that this process has to send, by the time in its ID",
            ),
        }
    }

    /// How much waits there, and since when: ms since 1970.
    pub(super) fn waits(&self, unsynced: u64, oldest: Option<u64>) {
        self.unsynced.set(i64::try_from(unsynced).unwrap_or(i64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = oldest.map_or(Duration::ZERO, |ms| now.saturating_sub(Duration::from_millis(ms)));
        self.oldest.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }
}

/// What is gone and was not told yet.
pub(super) struct Losses {
    lost: Counter,
    untold: usize,
    example: Option<MessageKey>,
    told: Option<Instant>,
}

impl Losses {
    pub(super) fn new(numbers: &Numbers) -> Self {
        Self { lost: numbers.lost.clone(), untold: 0, example: None, told: None }
    }

    /// These messages are gone.
    pub(super) fn add(&mut self, queue: &Queue, ids: &[EntryId]) {
        let Some(&id) = ids.first() else { return };
        self.lost.inc_by(ids.len() as u64);
        self.untold += ids.len();
        self.example.get_or_insert_with(|| MessageKey { queue: queue.clone(), id });
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.tell();
        }
    }

    /// All that the buffer held is gone: so many, when it was looked at last.
    pub(super) fn everything(&mut self, messages: u64) {
        self.lost.inc_by(messages);
        tracing::error!(
            messages,
            "the buffer Redis has lost its data (FLUSHALL, or a restart without what was on disk), and with it messages that \
             Kafka did not have when it was looked at last. Where the streams still have them (STREAM_CLEANUP=ack), set the \
             consumer group back with XGROUP SETID; see that appendonly is on, and who may delete"
        );
    }

    /// When something is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = || self.told.map_or_else(Instant::now, |told| told + TELL_AGAIN);
        (self.untold > 0).then(due)
    }

    pub(super) fn tell(&mut self) {
        let Some(example) = self.example.take() else { return };
        tracing::error!(
            messages = std::mem::take(&mut self.untold),
            "messages are gone from the buffer Redis, and Kafka does not have them: {example} is one. Somebody deletes keys, or \
             its maxmemory-policy throws them away: set it to noeviction. Where the streams still have them \
             (STREAM_CLEANUP=ack), set the consumer group back with XGROUP SETID"
        );
        self.told = Some(Instant::now());
    }
}
