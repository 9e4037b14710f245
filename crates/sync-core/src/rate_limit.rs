//! How many operations per second this process asks of one Redis: REDIS_RATE_LIMIT as a token bucket that lowers
//! itself while the server shows overload.
//!
//! One operation is one request sent; a pipeline or a script counts once. Reads and scans wait for their turn
//! ([`RateLimiter::take`]); what finishes work (acknowledgements, dead letters, ownership, pings) never waits but
//! counts ([`RateLimiter::spend`]). It refuses to know what a request is, and times none itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Queue, Notify};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

mod overload;
#[cfg(test)]
mod tests;

use overload::{Change, Overload};

/// Cheap to clone; the clones share one bucket.
#[derive(Clone, Debug)]
pub struct RateLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Those who wait for a token, in the order in which they came: the first one holds the lock.
    queue: Queue<()>,
    /// The rate was set anew: the first one in the queue looks again.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Operations per second; `None` is unlimited.
    setting: Option<f64>,
    /// What may be sent at once. Below zero after `spend`.
    tokens: f64,
    refilled: Instant,
    usage: Usage,
    overload: Overload,
}

/// Operations sent lately, limited or not.
#[derive(Debug)]
struct Usage {
    since: Instant,
    operations: f64,
    /// Per second, over the last full second or longer.
    before: f64,
    /// All that were ever sent.
    total: u64,
}

impl RateLimiter {
    /// At most so many operations per second, in bursts of a tenth of a second's worth; 0 is unlimited.
    pub fn new(per_second: u32) -> Self {
        let now = Instant::now();
        let mut state = State {
            setting: setting(per_second),
            tokens: 0.0,
            refilled: now,
            usage: Usage { since: now, operations: 0.0, before: 0.0, total: 0 },
            overload: Overload::new(now),
        };
        state.tokens = state.rate().map_or(0.0, burst);
        Self(Arc::new(Inner { state: Mutex::new(state), queue: Queue::default(), changed: Notify::new() }))
    }

    /// Waits for the turn of one operation: first come, first served. Dropping the future costs nothing.
    pub async fn take(&self) {
        // Without a limit there is no queue to stand in.
        let unlimited = self.step(|state, now| state.rate().is_none() && state.try_take(now).is_ok());
        if !unlimited {
            self.wait_for_turn().await;
        }
    }

    async fn wait_for_turn(&self) {
        let _turn = self.0.queue.lock().await;
        loop {
            let changed = self.0.changed.notified();
            match self.step(State::try_take) {
                Ok(()) => return,
                Err(wait) => tokio::select! {
                    () = sleep(wait) => {}
                    () = changed => {}
                },
            }
        }
    }

    /// Counts operations that do not wait. What they take beyond the bucket is owed by the reads that follow, up
    /// to one second's worth.
    pub fn spend(&self, operations: u32) {
        self.step(|state, now| state.spend(f64::from(operations), now));
    }

    /// Operations sent so far, limited or not.
    pub fn operations(&self) -> u64 {
        self.step(|state, _| state.usage.total)
    }

    /// REDIS_RATE_LIMIT from now on; 0 is unlimited. Slowed down, it stays so until the server has recovered.
    pub fn set_rate(&self, per_second: u32) {
        self.step(|state, now| {
            state.refill(now);
            state.setting = setting(per_second);
            state.overload.set_full(state.setting);
            if let Some(rate) = state.rate() {
                state.tokens = state.tokens.clamp(-rate, burst(rate));
            }
        });
        self.0.changed.notify_waiters();
    }

    /// A request took this long from sending to its answer. Feed it requests of about constant cost (PING, an
    /// acknowledgement, a step of SCAN): a blocking read waits for data, and a large one for the network, and
    /// neither says that the server is overloaded.
    pub fn observe(&self, round_trip: Duration) {
        let change = self.step(|state, now| {
            let reason = state.overload.observe(round_trip, now)?;
            state.slow_down(&reason, now)
        });
        report(change);
    }

    /// The server said so itself (BUSY, LOADING).
    pub fn overloaded(&self, reason: &str) {
        let change = self.step(|state, now| state.slow_down(reason, now));
        report(change);
    }

    /// Operations per second allowed at present; `None` while there is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.step(|state, _| state.rate())
    }

    /// Brings the bucket up to the present, then does something with it.
    fn step<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state();
        let now = Instant::now();
        state.refill(now);
        let change = state.overload.recover(now);
        let result = act(&mut state, now);
        drop(state);
        report(change);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn setting(per_second: u32) -> Option<f64> {
    (per_second > 0).then(|| f64::from(per_second))
}

/// How much may be sent at once after a pause.
fn burst(rate: f64) -> f64 {
    (rate / 10.0).max(1.0)
}

fn report(change: Option<Change>) {
    match change {
        Some(Change::Slower { from, to, reason }) => {
            warn!(
                "Redis is overloaded ({reason}): slowing down from {from:.0} operations per second to {to:.0} or less"
            );
        }
        Some(Change::Recovered { limit: Some(limit) }) => {
            info!("Redis has recovered: back to {limit:.0} operations per second");
        }
        Some(Change::Recovered { limit: None }) => info!("Redis has recovered: no limit any more"),
        None => {}
    }
}

impl State {
    fn rate(&self) -> Option<f64> {
        self.overload.rate().or(self.setting)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        if let Some(rate) = self.rate() {
            self.tokens = (self.tokens + elapsed * rate).min(burst(rate));
        }
    }

    /// Takes a token, or says how long it takes until there is one.
    fn try_take(&mut self, now: Instant) -> Result<(), Duration> {
        /// Sums of binary fractions miss a whole number by less than this.
        const ONE: f64 = 1.0 - 1e-6;
        if let Some(rate) = self.rate() {
            if self.tokens < ONE {
                return Err(Duration::from_secs_f64((1.0 - self.tokens) / rate));
            }
            self.tokens -= 1.0;
        }
        self.usage.add(1.0, now);
        Ok(())
    }

    fn spend(&mut self, operations: f64, now: Instant) {
        if let Some(rate) = self.rate() {
            self.tokens = (self.tokens - operations).max(-rate);
        }
        self.usage.add(operations, now);
    }

    fn slow_down(&mut self, reason: &str, now: Instant) -> Option<Change> {
        let from = self.setting.unwrap_or_else(|| self.usage.per_second(now));
        let was_limited = self.rate().is_some();
        let change = self.overload.slow_down(from, self.setting, reason, now);
        if let Some(rate) = self.rate() {
            let tokens = if was_limited { self.tokens } else { 0.0 };
            self.tokens = tokens.clamp(-rate, burst(rate));
        }
        change
    }
}

impl Usage {
    fn add(&mut self, operations: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        if elapsed >= 1.0 {
            self.before = self.operations / elapsed;
            (self.since, self.operations) = (now, 0.0);
        }
        self.operations += operations;
        self.total += operations as u64;
    }

    /// Of the last full second, or of the present one where that has seen more.
    fn per_second(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64().max(1.0);
        self.before.max(self.operations / elapsed).max(1.0)
    }
}
