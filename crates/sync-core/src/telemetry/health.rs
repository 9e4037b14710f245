//! Whether this process can do its work: each part (a server, a held stream) is up or down.
//!
//! It says so once per change, and answers `/readyz`. It refuses to decide anything: nobody waits on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// Cheap to clone; every part of the process reports here and `/readyz` reads it.
///
/// Parts are named as a person would: `source Redis`, `stream db1:foo`.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    started: AtomicBool,
    /// Failures reported, each one of an outage.
    failures: AtomicU64,
    /// Name to what is wrong with it; `None` while it works.
    parts: Mutex<BTreeMap<String, Option<Outage>>>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    reason: String,
    /// The loudest so far: what has been logged in this outage; `None` is nothing.
    severity: Option<Severity>,
}

/// How loudly a part's failure is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Degraded: it mends itself when the server returns.
    Warn,
    /// A human must act.
    Error,
}

impl Health {
    /// A part works again (or for the first time). Logs INFO once per change.
    pub fn up(&self, part: &str) {
        let mut parts = self.parts();
        // The usual call, after every success, finds the part up and allocates nothing.
        let before = match parts.get_mut(part) {
            Some(None) => return,
            Some(outage) => outage.take(),
            None => parts.insert(part.to_owned(), None).flatten(),
        };
        drop(parts);
        match before {
            Some(Outage { severity: None, .. }) | None => info!("{part} is up"),
            Some(outage) => info!("{part} is back after {}", spell(outage.since.elapsed())),
        }
    }

    /// A part is not there yet, and nothing is wrong with that so far: nothing is logged, but the process is not ready.
    pub fn awaited(&self, part: &str) {
        let outage = Outage { since: Instant::now(), reason: "not connected yet".to_owned(), severity: None };
        self.parts().insert(part.to_owned(), Some(outage));
    }

    /// A part does not work. Logs WARN (or ERROR when a human must act) once per outage, and once more if the
    /// severity rises; a repeated or changed reason is not logged above DEBUG. `/readyz` has the latest reason.
    pub fn down(&self, part: &str, reason: &str, severity: Severity) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        let mut parts = self.parts();
        let loud = match parts.get_mut(part) {
            Some(Some(outage)) => {
                let rises = Some(severity) > outage.severity;
                outage.severity = outage.severity.max(Some(severity));
                reason.clone_into(&mut outage.reason);
                rises
            }
            _ => {
                let outage =
                    Outage { since: Instant::now(), reason: reason.to_owned(), severity: Some(severity) };
                parts.insert(part.to_owned(), Some(outage));
                true
            }
        };
        drop(parts);
        match (loud, severity) {
            (false, _) => debug!("{part}: {reason}"),
            (true, Severity::Warn) => warn!("{part}: {reason}"),
            (true, Severity::Error) => error!("{part}: {reason}"),
        }
    }

    /// Failures reported so far, each one of an outage.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// A part is gone (a stream that vanished, a lane that ended): it counts neither as up nor as down.
    pub fn forget(&self, part: &str) {
        self.parts().remove(part);
    }

    /// The process has connected and reads: until then it is not ready, whatever its parts say.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    /// Whether every part works; else what is wrong, one `part: reason` each, in the order of their names.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        if !self.0.started.load(Ordering::Relaxed) {
            reasons.push("the process is starting".to_owned());
        }
        reasons.extend(self.parts().iter().filter_map(|(part, outage)| {
            let outage = outage.as_ref()?;
            Some(format!("{part}: {}", outage.reason))
        }));
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Option<Outage>>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration as a person says it: `340 ms`, `12 s`, `3 min 5 s`, `2 h 0 min`.
fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::telemetry::log::capture::capture;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_change() {
        let log = capture(LevelFilter::INFO);
        let health = Health::default();
        health.up("source Redis");
        health.up("source Redis");
        assert_eq!(log.take(), ["INFO source Redis is up"]);

        health.down("source Redis", "connection refused", Severity::Warn);
        health.down("source Redis", "connection refused", Severity::Warn);
        health.down("source Redis", "timed out", Severity::Warn);
        assert_eq!(log.take(), ["WARNING source Redis: connection refused"]);

        health.down("source Redis", "wrong password", Severity::Error);
        health.down("source Redis", "timed out", Severity::Warn);
        health.down("source Redis", "wrong password", Severity::Error);
        assert_eq!(log.take(), ["ERROR source Redis: wrong password"]);

        advance(Duration::from_millis(12_400)).await;
        health.up("source Redis");
        health.up("source Redis");
        assert_eq!(log.take(), ["INFO source Redis is back after 12 s"]);

        health.down("source Redis", "again", Severity::Warn);
        assert_eq!(log.take(), ["WARNING source Redis: again"]);
    }

    #[test]
    fn what_is_awaited_is_not_ready_and_not_logged() {
        let log = capture(LevelFilter::INFO);
        let health = Health::default();
        health.started();
        health.awaited("Kafka");
        health.awaited("another");
        assert_eq!(
            health.ready(),
            Err(vec!["Kafka: not connected yet".into(), "another: not connected yet".into()])
        );
        health.up("another");
        health.down("Kafka", "refused", Severity::Warn);
        assert_eq!(log.take(), ["INFO another is up", "WARNING Kafka: refused"]);
        health.up("Kafka");
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn repeated_failures_show_at_debug() {
        let log = capture(LevelFilter::DEBUG);
        let health = Health::default();
        health.down("stream a", "one", Severity::Error);
        health.down("stream a", "two", Severity::Warn);
        assert_eq!(log.take(), ["ERROR stream a: one", "DEBUG stream a: two"]);
    }

    #[test]
    fn readiness() {
        let health = Health::default();
        let reasons = |expected: &[&str]| {
            assert_eq!(health.ready().err().unwrap_or_default(), expected);
        };
        reasons(&["the process is starting"]);
        health.down("stream b", "no permission", Severity::Error);
        health.up("source Redis");
        reasons(&["the process is starting", "stream b: no permission"]);
        health.started();
        reasons(&["stream b: no permission"]);
        health.down("broker", "refused", Severity::Warn);
        health.down("broker", "timed out", Severity::Warn);
        reasons(&["broker: timed out", "stream b: no permission"]);
        health.forget("stream b");
        health.up("broker");
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn durations() {
        let check = |ms: u64, expected: &str| assert_eq!(spell(Duration::from_millis(ms)), expected);
        check(340, "340 ms");
        check(12_900, "12 s");
        check(185_000, "3 min 5 s");
        check(7_230_000, "2 h 0 min");
    }
}
