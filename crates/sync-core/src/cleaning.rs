//! STREAM_CLEANUP in one process: whether entries are deleted as they are acknowledged, what was deleted, and what was
//! said of a server that does not permit it. Speaks to no server.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::cleanup::Deleted;
use crate::settings::Cleanup;
use crate::telemetry::metrics::{Counter, Metrics};

/// Where Redis has refused to delete, entries are only acknowledged for so long, and then it is tried again: somebody may
/// have permitted it.
const REFUSED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Cleaning {
    how: Cleanup,
    /// Where nothing is ever deleted it is not shown.
    deleted: Option<Counter>,
    refused_until: Mutex<Option<Instant>>,
    /// It was said that Redis refuses.
    said: AtomicBool,
}

impl Cleaning {
    pub(crate) fn new(how: Cleanup, metrics: &Metrics) -> Self {
        let counter =
            || metrics.counter("cleaned_up_entries", "Entries that clean-up deleted from source streams");
        Self {
            how,
            deleted: (how != Cleanup::Ack).then(counter),
            refused_until: Mutex::new(None),
            said: AtomicBool::new(false),
        }
    }

    /// Whether streams are swept.
    pub(crate) fn sweeps(&self) -> bool {
        self.how != Cleanup::Ack
    }

    /// Whether what is acknowledged now is to be deleted with it.
    pub(crate) fn deletes_now(&self) -> bool {
        if self.how != Cleanup::Delete {
            return false;
        }
        let mut until = self.refused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until.filter(|until| *until > Instant::now());
        until.is_none()
    }

    /// This went with an acknowledgement, or with a sweep.
    pub(crate) fn deleted(&self, deleted: Deleted) {
        let Deleted { entries, problem } = deleted;
        if let Some(counter) = &self.deleted {
            counter.inc_by(entries);
        }
        if let Some(problem) = problem {
            self.refused(&problem);
        }
    }

    /// Redis does not delete, in its words; what there was to acknowledge is acknowledged all the same.
    pub(crate) fn refused(&self, words: &str) {
        *self.refused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REFUSED);
        if !self.said.swap(true, Relaxed) {
            tracing::warn!(
                "acknowledged entries are not deleted as STREAM_CLEANUP says, and stay in their streams: {words}; the \
                 Redis user needs EVAL, EVALSHA, XINFO GROUPS, XPENDING, XLEN, XRANGE, XTRIM and XDEL"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::telemetry::log::capture::capture;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_said_once_and_tried_again_later() {
        let log = capture(LevelFilter::INFO);
        let cleaning = Cleaning::new(Cleanup::Delete, &Metrics::default());
        assert!(cleaning.deletes_now());
        for _ in 0..2 {
            cleaning.deleted(Deleted { entries: 0, problem: Some("may not (XTRIM)".into()) });
            assert!(!cleaning.deletes_now());
            tokio::time::advance(REFUSED).await;
            assert!(cleaning.deletes_now());
        }
        let lines = log.take();
        assert!(
            matches!(&lines[..], [line] if line.starts_with("WARNING") && line.contains("(XTRIM)")),
            "{lines:?}"
        );
    }

    #[test]
    fn what_is_not_wanted_is_not_done_and_not_shown() {
        let shown = |how| {
            let metrics = Metrics::default();
            let cleaning = Cleaning::new(how, &metrics);
            let shown = metrics.expose(&Default::default()).contains("cleaned_up_entries");
            (cleaning.sweeps(), cleaning.deletes_now(), shown)
        };
        assert_eq!(shown(Cleanup::Ack), (false, false, false));
        assert_eq!(shown(Cleanup::Trim), (true, false, true));
        assert_eq!(shown(Cleanup::Delete), (true, true, true));
    }
}
