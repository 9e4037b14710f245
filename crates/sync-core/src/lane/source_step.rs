//! What a lane asks of its source, one thing at a time: to connect, to read a page of what is pending, to read new
//! entries. What came is admitted here; nothing is delivered or acknowledged here.

use std::time::Duration;

use fred::types::Value;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::streams::{Asked, Step};
use super::{GROUP_BYTES, GROUP_RECORDS, Lane};
use crate::bridge::{Record, Sink};
use crate::budget::{READ_BUDGET, Share};
use crate::record::{Entry, EntryId};
use crate::redis::connection::{Connection, Waker, key};
use crate::redis::reply::{self, Listed};
use crate::redis::{Fault, groups};
use crate::retry::Backoff;
use crate::settings::{Filter, RetrySettings, StartId};
use crate::telemetry::health::Severity;

/// A blocked read waits at least so long when nothing comes: waking costs the server more than waiting.
pub(super) const MIN_BLOCK: Duration = Duration::from_secs(1);

/// What a lane asked for and has not got yet. The reader travels with the question and comes back with the answer.
pub(super) struct SourceStep {
    reader: Option<Connection>,
    under_way: Option<BoxFuture<'static, Done>>,
    /// Set while a read blocks.
    waker: Option<Waker>,
    connecting: bool,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// The read budget had no room.
    starved: bool,
}

/// What came of a step.
pub(super) enum Done {
    Connected(Result<Connection, Fault>),
    Recovered {
        reader: Connection,
        share: Share,
        pages: Vec<(Asked, EntryId)>,
        count: u32,
        replies: Result<Vec<Result<Value, Fault>>, Fault>,
    },
    Read {
        reader: Connection,
        share: Share,
        streams: Vec<Asked>,
        reply: Result<Value, Fault>,
    },
}

impl SourceStep {
    pub(super) fn new(retry: RetrySettings) -> Self {
        Self {
            reader: None,
            under_way: None,
            waker: None,
            connecting: false,
            backoff: Backoff::new(retry),
            retry_at: None,
            starved: false,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn wants_budget(&self) -> bool {
        self.starved
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.under_way.is_none())
    }

    /// Ends a blocked read early; it then returns as if its time were over. Connecting is given up by a stop only.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A connection that is only being made holds no entries: it may be dropped.
    pub(super) fn give_up_connecting(&mut self) {
        if self.connecting {
            self.under_way = None;
            self.connecting = false;
        }
    }

    /// Resolves when the step is done. May be dropped and called again.
    pub(super) async fn done(&mut self) -> Done {
        let done = match &mut self.under_way {
            Some(step) => step.await,
            None => std::future::pending().await,
        };
        self.under_way = None;
        self.waker = None;
        self.connecting = false;
        done
    }
}

impl<S: Sink> Lane<S> {
    /// Starts the next step if there is one to take and room for what it brings.
    pub(super) fn begin_step(&mut self) {
        let full = self.waiting.len() >= GROUP_RECORDS || self.waiting_bytes >= GROUP_BYTES;
        let early = self.source.retry_at.is_some_and(|at| at > Instant::now());
        if self.source.is_under_way() || full || early {
            return;
        }
        self.source.retry_at = None;
        let Some(mut reader) = self.source.reader.take() else {
            let (connector, db) = (self.shared.connector.clone(), self.db);
            self.source.connecting = true;
            self.source.under_way =
                Some(Box::pin(async move { Done::Connected(connector.connection(db).await) }));
            return;
        };
        // Half of the budget is for reads under way, in equal parts; the other half for what was read.
        let wanted = READ_BUDGET / 2 / self.shared.lanes;
        let share = self.shared.budget.set_aside(wanted);
        self.source.starved = share.is_none();
        let step =
            share.and_then(|share| Some((self.streams.next_step(share.bytes(), Instant::now())?, share)));
        let Some((step, share)) = step else {
            self.source.reader = Some(reader);
            return;
        };
        let (limiter, group) = (self.shared.limiter.clone(), self.shared.settings.group.clone());
        let consumer = self.shared.settings.consumer.clone();
        let key_of = |asked: &Asked| key(&self.streams[asked.slot].stream.name.key);
        self.source.under_way = Some(match step {
            Step::Recover { pages, count } => {
                let from =
                    pages.iter().map(|(asked, from)| (key_of(asked), from.to_string())).collect::<Vec<_>>();
                Box::pin(async move {
                    limiter.take().await;
                    let replies = reader.claim_pending(&group, &consumer, &from, count).await;
                    Done::Recovered { reader, share, pages, count, replies }
                })
            }
            Step::Read { streams, count, block } => {
                let keys = streams.iter().map(key_of).collect();
                self.source.waker = block.map(|_| reader.waker());
                Box::pin(async move {
                    limiter.take().await;
                    let reply = reader.read_new(&group, &consumer, keys, count, block).await;
                    Done::Read { reader, share, streams, reply }
                })
            }
        });
    }

    /// Admits what a step brought: into `waiting`, or, filtered out, to be acknowledged at once.
    pub(super) async fn step_done(&mut self, done: Done) {
        match done {
            Done::Connected(Ok(reader)) => {
                self.source.reader = Some(reader);
                // Whatever an earlier connection had read and lost is pending.
                self.restart_all();
            }
            Done::Connected(Err(fault)) => self.step_failed(&fault),
            Done::Recovered { reader, share, pages, count, replies } => match replies {
                Ok(replies) => {
                    self.source.reader = Some(reader);
                    self.step_worked();
                    drop(share);
                    for ((asked, from), reply) in pages.into_iter().zip(replies) {
                        if self.streams.is_current(asked) {
                            self.page_recovered(asked.slot, from, count, reply).await;
                        }
                    }
                }
                Err(fault) => self.step_failed(&fault),
            },
            Done::Read { reader, share, streams, reply } => {
                drop(share);
                match reply
                    .and_then(|reply| reply::streams(reply).map_err(|error| Fault::Other(error.to_string())))
                {
                    Ok(read) => {
                        self.source.reader = Some(reader);
                        self.step_worked();
                        self.admit_read(&streams, read);
                    }
                    // Nothing was read, or nothing that any stream but the named one could have lost.
                    Err(Fault::Unblocked(_)) => self.source.reader = Some(reader),
                    Err(Fault::NoGroup(_) | Fault::WrongType(_)) => {
                        self.source.reader = Some(reader);
                        self.restart_asked(&streams);
                    }
                    Err(fault) => self.step_failed(&fault),
                }
            }
        }
        let skipped = std::mem::take(&mut self.skipped);
        self.acknowledge(skipped).await;
    }

    fn step_worked(&mut self) {
        self.source.backoff.reset();
        self.source_is_up();
    }

    /// The reader is gone with its connection. Its last answer may be lost, so all streams begin again.
    fn step_failed(&mut self, fault: &Fault) {
        self.source.reader = None;
        self.source.retry_at = Some(Instant::now() + self.source.backoff.next_delay());
        self.source_down(fault);
        self.restart_all();
    }

    /// One of these keys has no group, or is no stream: reading what is pending tells which.
    fn restart_asked(&mut self, streams: &[Asked]) {
        for asked in
            streams.iter().filter(|asked| self.streams.is_current(**asked)).copied().collect::<Vec<_>>()
        {
            self.streams.restart(asked.slot, Instant::now());
        }
        self.purge(|streams, record| streams.is_restarting(record.slot));
    }

    fn admit_read(&mut self, asked: &[Asked], read: Vec<(bytes::Bytes, Vec<Listed>)>) {
        let mut had_entries = vec![false; asked.len()];
        for (key, listed) in read {
            let at = self
                .streams
                .slot_of(&key)
                .and_then(|slot| asked.binary_search_by_key(&slot, |a| a.slot).ok());
            // A stream that was restarted while this read was under way: the entries are pending and come again.
            let Some(at) = at.filter(|at| self.streams.is_current(asked[*at])) else { continue };
            had_entries[at] = true;
            let entries = listed.into_iter().filter_map(|listed| match listed {
                Listed::Entry(entry) => Some(entry),
                Listed::Deleted(_) | Listed::Nameless => None,
            });
            self.admit(asked[at].slot, entries.collect());
        }
        let current = asked.iter().zip(&had_entries).filter(|(asked, _)| self.streams.is_current(**asked));
        let (hot, cold): (Vec<_>, Vec<_>) = current.partition(|(_, had)| **had);
        let cold: Vec<usize> = cold.into_iter().map(|(asked, _)| asked.slot).collect();
        self.streams.had_entries(hot.into_iter().map(|(asked, _)| asked.slot).collect());
        for slot in cold {
            self.streams[slot].saw(0, 0);
        }
    }

    fn admit(&mut self, slot: usize, entries: Vec<Entry>) {
        let (count, mut bytes, mut kept) = (entries.len(), 0, 0);
        let stream = self.streams[slot].stream.clone();
        stream.metrics.read.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        for entry in entries {
            let size = entry.size();
            bytes += size;
            if self.shared.settings.filter.as_ref().is_some_and(|filter| !filter.passes(&entry)) {
                stream.metrics.filtered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.skipped.push((slot, entry.id));
                continue;
            }
            kept += size;
            self.streams[slot].waiting += 1;
            self.waiting.push_back(Record { stream: stream.clone(), entry, slot });
        }
        self.streams[slot].saw(count, bytes);
        self.waiting_bytes += kept;
        self.held_bytes.resize(self.held_bytes.bytes() + kept);
    }

    /// One page of what was pending on one stream.
    async fn page_recovered(&mut self, slot: usize, from: EntryId, count: u32, reply: Result<Value, Fault>) {
        let page = match reply {
            Ok(reply) => reply::claimed(reply).map_err(|error| Fault::Other(error.to_string())),
            Err(fault) => Err(fault),
        };
        let (next, listed, mut deleted) = match page {
            Ok(page) => page,
            Err(fault) => return self.page_failed(slot, fault).await,
        };
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
        let state = &mut self.streams[slot];
        state.had_group = true;
        state.warned = false;
        state.first_unsettled = None;
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
        if let Ok(ids) =
            groups::pending_beyond(&self.commands, &key, group, consumer, from, count, &listed).await
        {
            self.skipped.extend(ids.iter().map(|id| (slot, *id)));
            deleted.extend(ids);
        }
    }

    fn count_deleted(&self, slot: usize, deleted: &[EntryId]) {
        let (Some(first), Some(last)) = (deleted.first(), deleted.last()) else { return };
        let stream = &self.streams[slot].stream;
        stream.metrics.lost_deleted.fetch_add(deleted.len() as u64, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(
            stream = stream.spelled, count = deleted.len(), %first, %last,
            "lost at the source: entries were deleted or trimmed after they were read and before they were delivered"
        );
    }

    async fn page_failed(&mut self, slot: usize, fault: Fault) {
        let again = Instant::now() + self.shared.settings.discovery_interval;
        let retry = Instant::now() + self.shared.redis_retry.base;
        let spelled = self.streams[slot].stream.spelled.clone();
        match fault {
            Fault::NoGroup(_) => self.take_up_group(slot, again, retry).await,
            Fault::WrongType(_) => {
                if !std::mem::replace(&mut self.streams[slot].warned, true) {
                    tracing::warn!(stream = spelled, "not read: the key holds another type than a stream");
                }
                self.streams.restart(slot, again);
            }
            Fault::Lost(_) | Fault::Busy(_) => {
                self.source_down(&fault);
                self.streams.restart(slot, retry);
            }
            Fault::Denied(reason) | Fault::Other(reason) | Fault::Unblocked(reason) => {
                self.streams[slot].reported_down = true;
                self.shared.health.down(
                    &format!("stream {spelled}"),
                    &format!("not read: {reason}"),
                    Severity::Error,
                );
                self.streams.restart(slot, Instant::now() + self.shared.redis_retry.cap);
            }
        }
    }

    /// The group is missing: a new stream, or somebody destroyed the group or the stream.
    async fn take_up_group(&mut self, slot: usize, again: Instant, retry: Instant) {
        let (group, state) = (self.shared.settings.group.clone(), &mut self.streams[slot]);
        let (stream, spelled) = (state.stream.clone(), state.stream.spelled.as_str().to_owned());
        if !self.shared.settings.auto_create_groups {
            if !std::mem::replace(&mut state.warned, true) {
                tracing::warn!(
                    stream = spelled,
                    group,
                    "not read: it has no such consumer group, and STREAM_AUTO_CREATE_CONSUMER_GROUPS is false"
                );
            }
            return self.streams.restart(slot, again);
        }
        let start = match (state.had_group, state.first_unsettled, state.last_settled) {
            (false, ..) => Ok(self.shared.start_of(&stream.name)),
            (true, Some(unsettled), _) => {
                self.after_if_held(&stream.name.key, unsettled, unsettled.previous()).await
            }
            (true, None, Some(settled)) => self.after_if_held(&stream.name.key, settled, settled).await,
            (true, None, None) => Ok(self.shared.start_again()),
        };
        let created = match start {
            Ok(start) => {
                groups::create(&self.commands, &stream.name.key, &group, start).await.map(|new| (new, start))
            }
            Err(fault) => Err(fault),
        };
        let state = &mut self.streams[slot];
        match created {
            Ok((new, start)) => {
                if new && state.had_group {
                    tracing::warn!(
                        stream = spelled,
                        group,
                        ?start,
                        "the consumer group was gone (destroyed, or the stream was deleted): created again"
                    );
                } else if new {
                    tracing::info!(stream = spelled, group, ?start, "created the consumer group");
                }
                state.had_group = true;
                state.last_settled = None;
                self.streams.restart(slot, Instant::now());
            }
            // The key is gone: discovery drops it, or finds it again.
            Err(Fault::NoGroup(_)) => self.streams.restart(slot, again),
            Err(fault) if fault.needs_human() || matches!(fault, Fault::Busy(_)) => {
                let reason = format!("not read: its consumer group cannot be created: {fault}");
                state.reported_down = true;
                self.shared.health.down(&format!("stream {spelled}"), &reason, Severity::Error);
                self.streams.restart(slot, Instant::now() + self.shared.redis_retry.cap);
            }
            Err(fault) => {
                self.source_down(&fault);
                self.streams.restart(slot, retry);
            }
        }
    }

    /// Going on where we were is right only in the stream that we were in; a stream made anew may count from
    /// below, and is read from the start.
    async fn after_if_held(
        &mut self,
        key: &bytes::Bytes,
        witness: EntryId,
        after: EntryId,
    ) -> Result<StartId, Fault> {
        Ok(match groups::holds(&self.commands, key, witness).await? {
            true => StartId::After(after),
            false => self.shared.start_again(),
        })
    }
}

impl Filter {
    /// Whether one of the entry's fields of this name has one of the values.
    fn passes(&self, entry: &Entry) -> bool {
        entry.fields.iter().any(|(field, value)| *field == self.field && self.values.contains(value))
    }
}
