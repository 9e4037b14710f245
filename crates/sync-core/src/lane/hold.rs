//! What becomes of a record that the destination did not take, and of its stream: it is dead-lettered, comes back, or its
//! stream is held until the destination takes it again. Nothing is acknowledged here.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Lane;
use super::streams::{Hold, set_held};
use crate::bridge::{Record, Sink};
use crate::record::EntryId;
use crate::redis::dead_letters::Letter;
use crate::retry::Backoff;
use crate::settings::RetrySettings;
use crate::telemetry::health::Severity;

/// A stream's dead letters are told of this often at most: a line for each of thousands would hide everything else.
const LETTERS_EVERY: Duration = Duration::from_secs(10);

impl<S: Sink> Lane<S> {
    /// A record is poison only if it is refused alone, and not even then if the destination refuses its stream's
    /// records one after the other for that reason and takes nothing in between: then it is the destination that is
    /// wrong. The stream is held, and they are tried, and buried, one at a time and ever more slowly.
    pub(super) async fn refused(
        &mut self,
        record: &Record,
        reason: &str,
        again: bool,
        settled: &mut Vec<(usize, EntryId)>,
    ) {
        let slot = &mut self.streams[record.slot];
        if slot.hold.is_none() && again {
            return self.hold(record, reason, true, settled).await;
        }
        slot.last_refusal = Some(reason.to_owned());
        let delay = slot.hold.as_mut().map(|hold| hold.backoff.next_delay());
        let attempts = slot.count_attempt(record.entry.id);
        self.bury(record, reason, attempts, settled).await;
        if let Some(delay) = delay
            && !self.streams.is_restarting(record.slot)
        {
            self.streams.restart(record.slot, Instant::now() + delay);
        }
    }

    /// The record stays pending; its stream is read again from what is pending, once all in flight has settled.
    pub(super) fn give_back(&mut self, record: &Record, not_before: Instant) {
        let slot = &mut self.streams[record.slot];
        slot.unsettled(record.entry.id);
        slot.stream.metrics.retried.fetch_add(1, Relaxed);
        if !self.streams.is_restarting(record.slot) {
            self.streams.restart(record.slot, not_before);
        }
    }

    /// The destination said no, but not to these bytes: the stream waits, and is tried again one record at a time.
    pub(super) async fn hold(
        &mut self,
        record: &Record,
        reason: &str,
        needs_human: bool,
        settled: &mut Vec<(usize, EntryId)>,
    ) {
        if self.streams.is_restarting(record.slot) {
            // An earlier record of the stream came back: that one decides.
            return self.give_back(record, Instant::now());
        }
        let max = self.shared.settings.max_deliveries;
        let attempts = self.streams[record.slot].count_attempt(record.entry.id);
        if max > 0 && attempts >= max {
            return self.bury(record, reason, attempts, settled).await;
        }
        let reason = format!("held, and tried again until it is taken: {reason}");
        self.hold_back(record, &reason, needs_human, self.shared.sink_retry);
    }

    pub(super) fn hold_back(
        &mut self,
        record: &Record,
        reason: &str,
        needs_human: bool,
        retry: RetrySettings,
    ) {
        let severity = if needs_human { Severity::Error } else { Severity::Warn };
        self.shared.health.down(&format!("stream {}", record.stream.spelled), reason, severity);
        self.wait(record, retry).told = true;
    }

    /// The destination takes nothing at all for now, and tells that itself: the stream waits without a word.
    pub(super) fn shut_out(&mut self, record: &Record) {
        if self.streams.is_restarting(record.slot) {
            return self.give_back(record, Instant::now());
        }
        self.wait(record, self.shared.sink_retry);
    }

    fn wait(&mut self, record: &Record, retry: RetrySettings) -> &mut Hold {
        let slot = &mut self.streams[record.slot];
        let backoff = slot.spare_backoff.take().unwrap_or_else(|| Backoff::new(retry));
        let hold = slot.hold.get_or_insert(Hold { backoff, told: false });
        let delay = hold.backoff.next_delay();
        set_held(slot, true);
        self.give_back(record, Instant::now() + delay);
        self.streams[record.slot].hold.as_mut().expect("it has just been set")
    }

    /// The destination takes the stream again, or nothing is left of what it did not take.
    pub(super) fn release(&mut self, slot: usize) {
        let slot = &mut self.streams[slot];
        if let Some(hold) = slot.hold.take() {
            set_held(slot, false);
            let told = std::mem::take(&mut slot.reported_down) || hold.told;
            // The next refusal for the same reason goes on where this one ended.
            slot.spare_backoff = slot.last_refusal.is_some().then_some(hold.backoff);
            if told {
                self.shared.health.up(&format!("stream {}", slot.stream.spelled));
            }
        }
    }

    /// Puts the record into the dead-letter stream. Where that cannot be done, its stream is held.
    pub(super) async fn bury(
        &mut self,
        record: &Record,
        reason: &str,
        attempts: u32,
        settled: &mut Vec<(usize, EntryId)>,
    ) {
        let letter = Letter {
            stream: &record.stream.name.key,
            spelled: &record.stream.spelled,
            entry: &record.entry,
            reason,
            attempts,
        };
        self.shared.limiter.spend(1);
        match self.commands.bury(&self.shared.dead_letters, &letter).await {
            Ok(()) => {
                record.stream.metrics.dead_lettered.fetch_add(1, Relaxed);
                self.say_buried(record, reason);
                settled.push((record.slot, record.entry.id));
            }
            Err(fault) => {
                let reason = format!("held: its dead letter cannot be written: {fault}");
                self.hold_back(record, &reason, fault.needs_human(), self.shared.redis_retry);
            }
        }
    }

    fn say_buried(&mut self, record: &Record, reason: &str) {
        let (slot, now) = (&mut self.streams[record.slot], Instant::now());
        slot.letters_unsaid += 1;
        if slot.letters_said.is_some_and(|at| now.duration_since(at) < LETTERS_EVERY) {
            return;
        }
        slot.letters_said = Some(now);
        let (stream, id) = (&record.stream.spelled, record.entry.id);
        match std::mem::take(&mut slot.letters_unsaid) {
            1 => tracing::warn!(stream, %id, reason, "dead-lettered an entry"),
            count => tracing::warn!(stream, %id, reason, count, "dead-lettered entries, the last of them"),
        }
    }
}
