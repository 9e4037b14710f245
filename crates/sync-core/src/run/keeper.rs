//! Keeping the sink connected while the bridge runs. When to try again is decided here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bridge::{Lost, Sink};
use crate::retry::Backoff;
use crate::settings::RetrySettings;
use crate::shutdown::Shutdown;
use crate::telemetry::health::{Health, Severity};

/// Keeps the sink connected: the only place that makes connections to it again.
pub(super) struct Keeper<S> {
    pub(super) sink: Arc<S>,
    pub(super) retry: RetrySettings,
    pub(super) health: Health,
    pub(super) stop: Shutdown,
}

impl<S: Sink> Keeper<S> {
    pub(super) async fn keep_connected(self, mut lost: BoxFuture<'static, Lost>, up: watch::Sender<bool>) {
        let destination = self.sink.destination();
        let mut backoff = Backoff::new(self.retry);
        loop {
            let since = Instant::now();
            let Lost { reason, by_conflict } = lost.await;
            let _ = up.send(false);
            if self.stop.is_requested() {
                return;
            }
            let severity = if by_conflict { Severity::Error } else { Severity::Warn };
            self.health.down(&destination, &reason, severity);
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
                lost = self.connect_again(&destination, delay, &mut backoff) => lost,
                () = self.stop.requested() => return,
            };
            self.health.up(&destination);
            let _ = up.send(true);
        }
    }

    async fn connect_again(
        &self,
        destination: &str,
        mut delay: Duration,
        backoff: &mut Backoff,
    ) -> BoxFuture<'static, Lost> {
        loop {
            sleep(delay).await;
            match self.sink.connect().await {
                Ok(lost) => return lost,
                Err(unreachable) => {
                    let severity = if unreachable.needs_human { Severity::Error } else { Severity::Warn };
                    self.health.down(destination, &unreachable.reason, severity);
                    delay = backoff.next_delay();
                }
            }
        }
    }
}
