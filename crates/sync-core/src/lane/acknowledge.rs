//! Telling Redis what is settled: the last step of an entry, and the only place where one is acknowledged.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::Lane;
use crate::bridge::Sink;
use crate::record::EntryId;
use crate::redis::commands::Acknowledged;
use crate::redis::groups;
use crate::retry::Backoff;

/// Up to so many IDs, an XACK takes the time of its round trip.
const SMALL_ACKNOWLEDGEMENT: usize = 16;

impl<S: Sink> Lane<S> {
    /// Acknowledges in Redis: one XACK (or script call, which deletes too) per stream, in one round trip, repeated until
    /// Redis has answered. Nothing else of the lane goes on meanwhile; what is at the sink does. On a Cluster the lane
    /// goes on, and what a node did not answer is repeated later.
    pub(super) async fn acknowledge(&mut self, mut settled: Vec<(usize, EntryId)>) {
        if settled.is_empty() {
            return;
        }
        // A group's records stand stream by stream in long runs; sorting keeps the order of IDs.
        settled.sort_by_key(|(slot, _)| *slot);
        let mut by_stream: Vec<groups::Settled> = Vec::new();
        for run in settled.chunk_by(|(a, _), (b, _)| a == b) {
            let slot = &mut self.streams[run[0].0];
            for (_, id) in run {
                slot.settled(*id);
            }
            slot.stream.metrics.acknowledged.fetch_add(run.len() as u64, Relaxed);
            by_stream.push((slot.stream.name.key.clone(), run.iter().map(|(_, id)| *id).collect()));
        }
        self.send_acknowledgements(by_stream).await;
    }

    /// What could not be acknowledged before, once it is due, or when the lane stops.
    pub(super) async fn acknowledge_rest(&mut self, now: Instant) {
        let due = self.shared.stop.is_requested() || self.acknowledge_at.is_some_and(|at| at <= now);
        if due && !self.unacknowledged.is_empty() {
            self.acknowledge_at = None;
            let rest = std::mem::take(&mut self.unacknowledged);
            self.send_acknowledgements(rest).await;
        }
    }

    async fn send_acknowledgements(&mut self, mut by_stream: Vec<groups::Settled>) {
        let mut backoff = Backoff::new(self.shared.redis_retry);
        loop {
            self.shared.limiter.spend(1);
            let asked = Instant::now();
            let small = by_stream.iter().map(|(_, ids)| ids.len()).sum::<usize>() <= SMALL_ACKNOWLEDGEMENT;
            let delete = self.shared.cleaning.deletes_now();
            let Acknowledged { deleted, left } =
                self.commands.acknowledge(&self.shared.settings.group, by_stream, delete).await;
            self.shared.cleaning.deleted(deleted);
            let Some((left, fault)) = left else {
                // How long a small request takes says how loaded Redis is; a large one says how large it is.
                if small {
                    self.shared.limiter.observe(asked.elapsed());
                }
                self.source_is_up();
                return;
            };
            by_stream = left;
            if delete && fault.needs_human() {
                // XACK alone may be permitted.
                self.shared.cleaning.refused(&fault.to_string());
                continue;
            }
            self.source_down(&fault);
            if self.commands.fail_by_node() && !self.shared.stop.is_requested() {
                // Other nodes' streams need not wait. If theirs are read again before this gets through, what
                // was delivered is delivered again.
                self.unacknowledged.append(&mut by_stream);
                self.acknowledge_at = Some(Instant::now() + self.shared.redis_retry.base);
                return;
            }
            if fault.needs_human() && self.shared.stop.is_requested() {
                tracing::error!("delivered and not acknowledged, so delivered again: {fault}");
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}
