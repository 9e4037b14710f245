//! Reading what is pending: what each page means for its stream, and what to do where there is no group to read.

use std::sync::atomic::Ordering::Relaxed;

use fred::types::Value;
use tokio::time::Instant;

use super::Lane;
use super::streams::Asked;
use crate::bridge::Sink;
use crate::record::{Entry, EntryId};
use crate::redis::Fault;
use crate::redis::reply::{self, Listed, Page};
use crate::settings::StartId;
use crate::telemetry::health::Severity;

impl<S: Sink> Lane<S> {
    /// The pages of one step, each for its stream.
    pub(super) async fn pages_recovered(
        &mut self,
        pages: Vec<(Asked, EntryId)>,
        count: u32,
        replies: Vec<Result<Value, Fault>>,
    ) {
        let mut without_group = Vec::new();
        for ((asked, from), reply) in pages.into_iter().zip(replies) {
            let page = match reply {
                Ok(reply) => reply::claimed(reply).map_err(|error| Fault::Other(error.to_string())),
                Err(fault) => Err(fault),
            };
            if !self.streams.is_current(asked) {
                // Restarted meanwhile: the entries come again. What Redis found deleted does not.
                if let Ok(page) = page {
                    self.count_deleted(asked.slot, &page.deleted);
                }
                continue;
            }
            self.streams.answered(asked.slot);
            match page {
                Ok(page) => self.page_recovered(asked.slot, from, count, page).await,
                Err(Fault::NoGroup(_)) if self.is_at_rest(asked.slot) => without_group.push(asked.slot),
                // Gone while earlier pages are still on their way: it is made again once it is known which of them
                // were settled.
                Err(Fault::NoGroup(_)) => self.restart(asked.slot, Instant::now()),
                Err(fault) => self.page_failed(asked.slot, fault),
            }
        }
        if !without_group.is_empty() {
            self.take_up_groups(without_group).await;
        }
    }

    async fn page_recovered(&mut self, slot: usize, from: EntryId, count: u32, page: Page) {
        let Page { next, listed, mut deleted, delivered } = page;
        let nameless = listed.contains(&Listed::Nameless);
        let mut entries = Vec::with_capacity(listed.len());
        for listed in listed {
            match listed {
                Listed::Entry(entry) => entries.push(entry),
                Listed::Deleted(id) => deleted.push(id),
                Listed::Nameless => {}
            }
        }
        if nameless {
            self.find_nameless(slot, from, count, &entries, &mut deleted).await;
        }
        self.count_deleted(slot, &deleted);
        let ids = entries.iter().map(|entry| entry.id).chain(deleted.iter().copied());
        self.streams[slot].stream.progress.saw(ids);
        let state = &mut self.streams[slot];
        state.had_group = true;
        state.warned = false;
        state.first_unsettled = None;
        state.last_delivered = delivered.unwrap_or_default();
        let last = entries.last().map(|entry| entry.id);
        let next = match (&state.hold, last) {
            (Some(_), Some(last)) => {
                Some(next.unwrap_or(EntryId { ms: last.ms, seq: last.seq.saturating_add(1) }))
            }
            (Some(_), None) if next.is_none() => {
                // What was refused is no longer pending: somebody acknowledged or deleted it.
                self.release(slot);
                next
            }
            _ => next,
        };
        let state = &mut self.streams[slot];
        if state.hold.is_none() && std::mem::take(&mut state.reported_down) {
            self.shared.health.up(&format!("stream {}", state.stream.spelled));
        }
        self.streams.recovered(slot, next);
        self.admit(slot, entries);
    }

    /// Redis before 7.0: the IDs of what is pending but deleted, so that they can be acknowledged.
    async fn find_nameless(
        &mut self,
        slot: usize,
        from: EntryId,
        count: u32,
        listed: &[Entry],
        deleted: &mut Vec<EntryId>,
    ) {
        let listed: Vec<_> = listed.iter().map(|entry| entry.id).collect();
        let key = self.streams[slot].stream.name.key.clone();
        let (group, consumer) = (&self.shared.settings.group, &self.shared.settings.consumer);
        // Where this fails they stay pending, and are found again at the next restart.
        if let Ok(ids) = self.commands.pending_beyond(&key, group, consumer, from, count, &listed).await {
            self.skipped.extend(ids.iter().map(|id| (slot, *id)));
            deleted.extend(ids);
        }
    }

    fn count_deleted(&self, slot: usize, deleted: &[EntryId]) {
        let (Some(first), Some(last)) = (deleted.first(), deleted.last()) else { return };
        let Some(stream) = self.streams.stream(slot) else { return };
        stream.metrics.lost_deleted.fetch_add(deleted.len() as u64, Relaxed);
        tracing::warn!(
            stream = stream.spelled, count = deleted.len(), %first, %last,
            "lost at the source: entries were deleted or trimmed after they were read and before they were delivered"
        );
    }

    /// Redis did not say what there is of this stream.
    pub(super) fn page_failed(&mut self, slot: usize, fault: Fault) {
        let state = &mut self.streams[slot];
        let spelled = state.stream.spelled.clone();
        match fault {
            Fault::WrongType(_) => {
                if !std::mem::replace(&mut state.warned, true) {
                    tracing::warn!(stream = spelled, "not read: the key holds another type than a stream");
                }
                self.restart(slot, Instant::now() + self.shared.settings.discovery_interval);
            }
            Fault::Lost(_) | Fault::Busy(_) => {
                self.streams.lost(slot);
                self.source_down(&fault);
                self.restart(slot, Instant::now() + self.shared.redis_retry.base);
            }
            fault => self.not_readable(slot, &format!("not read: {fault}")),
        }
    }

    fn is_at_rest(&self, slot: usize) -> bool {
        self.streams[slot].in_flight == 0 && self.streams[slot].waiting == 0
    }

    /// A human must act; it is tried again at the longest delay.
    fn not_readable(&mut self, slot: usize, reason: &str) {
        let state = &mut self.streams[slot];
        state.reported_down = true;
        self.shared.health.down(&format!("stream {}", state.stream.spelled), reason, Severity::Error);
        self.restart(slot, Instant::now() + self.shared.redis_retry.cap);
    }

    /// These have no group: new streams, or somebody destroyed the group or the stream.
    async fn take_up_groups(&mut self, slots: Vec<usize>) {
        let group = self.shared.settings.group.clone();
        let again = Instant::now() + self.shared.settings.discovery_interval;
        let mut starts = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let state = &mut self.streams[slot];
            if self.shared.settings.auto_create_groups {
                starts.push(self.start_of(slot).await);
            } else {
                if !std::mem::replace(&mut state.warned, true) {
                    let stream = &state.stream.spelled;
                    tracing::warn!(
                        stream,
                        group,
                        "not read: it has no such consumer group, and STREAM_AUTO_CREATE_CONSUMER_GROUPS is false"
                    );
                }
                self.restart(slot, again);
            }
        }
        if starts.is_empty() {
            return;
        }
        let key_of = |slot: &usize| self.streams[*slot].stream.name.key.clone();
        let wanted: Vec<_> = slots.iter().map(key_of).zip(starts.iter().copied()).collect();
        self.shared.limiter.spend(1);
        let created = match self.commands.create(&wanted, &group).await {
            Ok(created) => created,
            Err(fault) => {
                self.source_down(&fault);
                let retry = Instant::now() + self.shared.redis_retry.base;
                slots.into_iter().for_each(|slot| self.restart(slot, retry));
                return;
            }
        };
        let mut new = 0;
        for ((slot, start), created) in slots.into_iter().zip(starts).zip(created) {
            let state = &mut self.streams[slot];
            let stream = &state.stream.spelled;
            match created {
                Ok(made) => {
                    if made && state.had_group {
                        tracing::warn!(
                            stream,
                            group,
                            %start,
                            "the consumer group was gone (destroyed, or the stream was deleted): created again"
                        );
                    } else if made {
                        tracing::debug!(stream, group, %start, "created the consumer group");
                        new += 1;
                    }
                    state.had_group = true;
                    state.last_settled = None;
                    self.restart(slot, Instant::now());
                }
                // The key is gone: discovery drops it, or finds it again.
                Err(Fault::NoGroup(_)) => self.restart(slot, again),
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => self.page_failed(slot, fault),
                Err(fault) => {
                    self.not_readable(slot, &format!("not read: its group cannot be created: {fault}"))
                }
            }
        }
        if new > 0 {
            tracing::info!(
                group,
                streams = new,
                database = self.db,
                "created the consumer group on new streams"
            );
        }
    }

    /// Where a missing group begins. Going on where we were is right only in the stream that we were in: one made
    /// anew may count from below, and is read from the start.
    async fn start_of(&mut self, slot: usize) -> StartId {
        let state = &self.streams[slot];
        if !state.had_group || self.shared.sink.repeats_are_harmless() {
            return self.shared.start();
        }
        let (witness, after) = match (state.first_unsettled, state.last_settled) {
            (Some(unsettled), _) => (unsettled, unsettled.previous()),
            (None, Some(settled)) => (settled, settled),
            (None, None) => return self.shared.start(),
        };
        let key = state.stream.name.key.clone();
        match self.commands.holds(&key, witness).await {
            Ok(true) => StartId::After(after),
            // Where Redis does not say, reading too much is the safe side.
            Ok(false) | Err(_) => self.shared.start(),
        }
    }
}
