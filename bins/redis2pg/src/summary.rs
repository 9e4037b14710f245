//! A line of the log with what was done so far: the eight numbers of the description, which are metrics as well.

use std::time::Duration;

use sync_core::shutdown::Shutdown;
use sync_core::telemetry::health::Health;
use sync_core::telemetry::metrics::{Counter, Gauge, Metrics};
use tokio::time::sleep;

const EVERY: Duration = Duration::from_secs(60);

/// Where the numbers come from.
pub(crate) struct Summary {
    metrics: Metrics,
    health: Health,
    key_values: Counter,
    postgres: Counter,
    discovered: Gauge,
    last_pass: Gauge,
}

/// Each is a metric under the name in parentheses.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    /// Entries confirmed (`redis_sync_all_entries_delivered_total`).
    messages: u64,
    /// Rows of key-values written (`redis_sync_key_values_written_total`).
    key_values: u64,
    /// `redis_sync_redis_operations_total`
    redis: u64,
    /// `redis_sync_postgres_operations_total`
    postgres: u64,
    /// `redis_sync_streams_discovered`
    streams: i64,
    /// `redis_sync_errors_total`
    errors: u64,
    /// Deliveries that came back and were tried again (`redis_sync_all_entries_retried_total`).
    retries: u64,
    /// The later of `redis_sync_last_delivery_timestamp_seconds` and
    /// `redis_sync_key_value_last_pass_timestamp_seconds`; 0 is never.
    last_sync: f64,
}

impl Summary {
    pub(crate) fn new(metrics: &Metrics, health: &Health) -> Self {
        Self {
            key_values: metrics.counter("key_values_written", crate::key_values::WRITTEN),
            postgres: metrics.counter("postgres_operations", crate::sink::OPERATIONS),
            discovered: metrics
                .gauge("streams_discovered", sync_core::telemetry::metrics::STREAMS_DISCOVERED),
            last_pass: metrics.gauge("key_value_last_pass_timestamp_seconds", crate::key_values::LAST_PASS),
            metrics: metrics.clone(),
            health: health.clone(),
        }
    }

    /// A line each minute in which something was done, and one at the stop.
    pub(crate) async fn tell(self, stop: Shutdown) {
        let mut before = self.numbers();
        loop {
            let stopped = tokio::select! {
                () = sleep(EVERY) => false,
                () = stop.requested() => true,
            };
            let now = self.numbers();
            if now.work() != before.work() || stopped {
                now.tell();
            }
            before = now;
            if stopped {
                return;
            }
        }
    }

    fn numbers(&self) -> Numbers {
        let totals = self.metrics.totals();
        Numbers {
            messages: totals.delivered,
            key_values: self.key_values.get(),
            redis: self.metrics.redis_operations(),
            postgres: self.postgres.get(),
            streams: self.discovered.get(),
            errors: self.health.failures(),
            retries: totals.retried,
            last_sync: self.metrics.last_delivery().unwrap_or_default().max(self.last_pass.get() as f64),
        }
    }
}

impl Numbers {
    /// What is worth a line when it changes: asking whether there is something to do is not.
    fn work(self) -> (u64, u64, u64, u64) {
        (self.messages, self.key_values, self.errors, self.retries)
    }

    fn tell(self) {
        let Self { messages, key_values, redis, postgres, streams, errors, retries, last_sync } = self;
        let last_sync = match chrono::DateTime::from_timestamp_millis((last_sync * 1e3) as i64) {
            Some(time) if last_sync > 0.0 => time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            _ => "never".to_owned(),
        };
        tracing::info!(
            messages_processed = messages,
            key_values_processed = key_values,
            redis_operations = redis,
            postgres_operations = postgres,
            streams_discovered = streams,
            errors,
            retries,
            last_sync,
            "so far"
        );
    }
}
