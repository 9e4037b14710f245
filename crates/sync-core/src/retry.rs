//! The retry policy: exponential backoff with jitter. The `backoff` crate is used here and nowhere else; who
//! retries is the bridge (`bridge.rs`, `lane.rs`) and nobody below it.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::settings::RetrySettings;

/// The delays between attempts at one thing: `base`, doubled up to `cap`, each varied by half. Never ends.
#[derive(Debug)]
pub struct Backoff {
    delays: ExponentialBackoff,
    cap: Duration,
}

impl Backoff {
    /// Starts at `settings.base`.
    pub fn new(settings: RetrySettings) -> Self {
        let delays = ExponentialBackoff {
            current_interval: settings.base,
            initial_interval: settings.base,
            multiplier: 2.0,
            max_interval: settings.cap,
            // The crate's default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { delays, cap: settings.cap }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.delays.next_backoff().unwrap_or(self.cap).min(self.cap)
    }

    /// It worked: the next failure waits for `base` again.
    pub fn reset(&mut self) {
        self.delays.reset();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn grows_to_the_cap_and_never_ends(base in 1u64..5_000, factor in 1u64..50) {
            let (base, cap) = (Duration::from_millis(base), Duration::from_millis(base * factor));
            let mut backoff = Backoff::new(RetrySettings { max_retries: 5, base, cap });
            let first = backoff.next_delay();
            prop_assert!(first >= base / 2 && first <= cap.min(base * 3 / 2));
            for _ in 0..100 {
                prop_assert!(backoff.next_delay() <= cap);
            }
            prop_assert!(backoff.next_delay() >= cap / 2);
            backoff.reset();
            prop_assert!(backoff.next_delay() <= base * 3 / 2);
        }
    }
}
