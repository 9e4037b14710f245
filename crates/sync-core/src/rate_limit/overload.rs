//! Whether the server shows overload, and how far that lowers the rate.
//!
//! Pure state and arithmetic: the bucket gives the time and says what happened.

use std::time::Duration;

use tokio::time::Instant;

/// So many round trips are looked at together,
const WINDOW: usize = 64;
/// not before there are so many of them,
const ENOUGH: usize = 8;
/// and no more often than this.
const EVERY: Duration = Duration::from_millis(250);
/// A median above so many times the baseline is overload,
const TIMES: f64 = 5.0;
/// unless it is below this many microseconds: the jitter of a fast server says nothing.
const UNREMARKABLE: f64 = 2000.0;
/// The baseline follows a slower median in this time, and a faster one at once: a server that has moved away
/// for good becomes usual after some minutes.
const ADAPTS_IN: f64 = 600.0;

/// One step down or up at most so often.
const STEP: Duration = Duration::from_secs(1);
const DOWN: f64 = 0.5;
const UP: f64 = 1.1;
/// The lowest rate is this share of the full one, and at least one a second.
const FLOOR: f64 = 0.01;

/// What happened to the rate.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// It was full and is lowered.
    Slower { from: f64, to: f64, reason: String },
    /// It is full again.
    Recovered {
        /// The setting; `None` is unlimited.
        limit: Option<f64>,
    },
}

#[derive(Debug)]
pub(super) struct Overload {
    /// Set while the rate is lowered.
    lowered: Option<Lowered>,
    /// Round trips in microseconds, the oldest overwritten first.
    recent: Vec<f64>,
    next: usize,
    judged: Instant,
    /// Median round trip of this server when it is well, in microseconds.
    baseline: Option<f64>,
}

#[derive(Debug)]
struct Lowered {
    rate: f64,
    /// Where recovery ends.
    full: f64,
    /// The setting; `None` is unlimited.
    limit: Option<f64>,
    /// When it was last lowered.
    stepped: Instant,
    /// When it grows next.
    grows: Instant,
}

impl Overload {
    pub(super) fn new(now: Instant) -> Self {
        Self { lowered: None, recent: Vec::with_capacity(WINDOW), next: 0, judged: now, baseline: None }
    }

    /// The lowered rate.
    pub(super) fn rate(&self) -> Option<f64> {
        self.lowered.as_ref().map(|lowered| lowered.rate)
    }

    /// Takes a round trip in; the reason when the recent ones show overload.
    pub(super) fn observe(&mut self, round_trip: Duration, now: Instant) -> Option<String> {
        let sample = round_trip.as_secs_f64() * 1e6;
        if self.recent.len() < WINDOW {
            self.recent.push(sample);
        } else {
            self.recent[self.next % WINDOW] = sample;
            self.next += 1;
        }
        let passed = now.saturating_duration_since(self.judged);
        if self.recent.len() < ENOUGH || passed < EVERY {
            return None;
        }
        self.judged = now;
        let mut sorted = self.recent.clone();
        let (_, median, _) = sorted.select_nth_unstable_by(self.recent.len() / 2, f64::total_cmp);
        let median = *median;
        let baseline = *self.baseline.get_or_insert(median);
        self.baseline = Some(if median < baseline {
            median
        } else {
            // After a long silence, one look does not outweigh what was known.
            baseline + (median - baseline) * (passed.as_secs_f64().min(60.0) / ADAPTS_IN)
        });
        let overload = median > UNREMARKABLE && median > TIMES * baseline;
        overload
            .then(|| format!("median round trip {:.1} ms, usually {:.1} ms", median / 1e3, baseline / 1e3))
    }

    /// Lowers the rate, at most once per [`STEP`]: from `full` at first.
    pub(super) fn slow_down(
        &mut self,
        full: f64,
        limit: Option<f64>,
        reason: &str,
        now: Instant,
    ) -> Option<Change> {
        let floor = |full: f64| (full * FLOOR).max(1.0).min(full);
        let change = match &mut self.lowered {
            Some(lowered) => {
                lowered.grows = now + STEP;
                if now < lowered.stepped + STEP {
                    return None;
                }
                lowered.rate = (lowered.rate * DOWN).max(floor(lowered.full));
                lowered.stepped = now;
                None
            }
            None => {
                let rate = (full * DOWN).max(floor(full));
                self.lowered = Some(Lowered { rate, full, limit, stepped: now, grows: now + STEP });
                Some(Change::Slower { from: full, to: rate, reason: reason.to_owned() })
            }
        };
        // What was measured before says nothing about the lower rate.
        self.recent.clear();
        self.next = 0;
        change
    }

    /// Lets the rate grow by what is due.
    pub(super) fn recover(&mut self, now: Instant) -> Option<Change> {
        let lowered = self.lowered.as_mut().filter(|lowered| lowered.grows <= now)?;
        while lowered.rate < lowered.full && lowered.grows <= now {
            lowered.rate *= UP;
            lowered.grows += STEP;
        }
        if lowered.rate < lowered.full {
            return None;
        }
        let limit = lowered.limit;
        self.lowered = None;
        Some(Change::Recovered { limit })
    }

    /// The setting has changed.
    pub(super) fn set_full(&mut self, limit: Option<f64>) {
        if let Some(lowered) = &mut self.lowered {
            lowered.limit = limit;
            lowered.full = limit.unwrap_or(lowered.full);
            lowered.rate = lowered.rate.min(lowered.full);
        }
    }
}
