//! Keeping a destination connected while the bridge runs. When to try again is decided here and nowhere else.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bridge::{Lost, Unreachable};
use crate::retry::Backoff;
use crate::settings::RetrySettings;
use crate::shutdown::Shutdown;
use crate::telemetry::health::{Health, Severity};

/// Keeps one destination connected: nobody else makes connections to it again.
pub struct Keeper {
    /// What it is, for people.
    pub destination: String,
    /// When to try again.
    pub retry: RetrySettings,
    /// Is told each change.
    pub health: Health,
    /// No connection is made after this.
    pub stop: Shutdown,
}

/// One attempt at a connection, and what resolves when that is lost.
type Attempt = Result<BoxFuture<'static, Lost>, Unreachable>;

impl Keeper {
    /// Connects for the first time too, for as long as that takes, and keeps the destination connected then.
    pub async fn connect_and_keep<F: Future<Output = Attempt>>(
        self,
        connect: impl Fn() -> F,
        up: watch::Sender<bool>,
    ) {
        let mut backoff = Backoff::new(self.retry);
        let lost = tokio::select! {
            lost = self.connect_again(&connect, Duration::ZERO, &mut backoff) => lost,
            () = self.stop.requested() => return,
        };
        self.health.up(&self.destination);
        let _ = up.send(true);
        self.keep_connected(connect, lost, up).await;
    }

    /// Keeps it connected. `lost` belongs to the connection that there is.
    pub async fn keep_connected<F: Future<Output = Attempt>>(
        self,
        connect: impl Fn() -> F,
        mut lost: BoxFuture<'static, Lost>,
        up: watch::Sender<bool>,
    ) {
        let mut backoff = Backoff::new(self.retry);
        loop {
            let since = Instant::now();
            let Lost { reason, by_conflict } = lost.await;
            let _ = up.send(false);
            if self.stop.is_requested() {
                return;
            }
            let severity = if by_conflict { Severity::Error } else { Severity::Warn };
            self.health.down(&self.destination, &reason, severity);
            // A connection that lasted is followed by an attempt at once; one that did not is no reason to hurry.
            let delay = if by_conflict {
                self.retry.cap
            } else if since.elapsed() >= self.retry.cap {
                backoff.reset();
                Duration::ZERO
            } else {
                backoff.next_delay()
            };
            // Nothing is handed over once a stop is requested: a new connection would only be waited for.
            lost = tokio::select! {
                lost = self.connect_again(&connect, delay, &mut backoff) => lost,
                () = self.stop.requested() => return,
            };
            self.health.up(&self.destination);
            let _ = up.send(true);
        }
    }

    async fn connect_again<F: Future<Output = Attempt>>(
        &self,
        connect: &impl Fn() -> F,
        mut delay: Duration,
        backoff: &mut Backoff,
    ) -> BoxFuture<'static, Lost> {
        loop {
            sleep(delay).await;
            match connect().await {
                Ok(lost) => return lost,
                Err(unreachable) => {
                    let severity = if unreachable.needs_human { Severity::Error } else { Severity::Warn };
                    self.health.down(&self.destination, &unreachable.reason, severity);
                    delay = backoff.next_delay();
                }
            }
        }
    }
}
