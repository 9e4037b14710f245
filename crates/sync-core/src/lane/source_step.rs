//! What a lane asks of its source, one thing at a time: to connect, to read a page of what is pending, to read new
//! entries. What came is admitted here; nothing is delivered or acknowledged here.

use std::time::Duration;

use fred::types::Value;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::cluster_read::Reader;
use super::streams::{Asked, Step};
use super::{GROUP_BYTES, GROUP_RECORDS, Lane};
use crate::bridge::{Record, Sink};
use crate::budget::{READ_BUDGET, Share};
use crate::record::{Entry, EntryId};
use crate::redis::Fault;
use crate::redis::connection::{Waker, key};
use crate::redis::reply::{self, Listed};
use crate::retry::Backoff;
use crate::settings::{Filter, RetrySettings};

/// A blocked read waits at least so long when nothing comes: waking costs the server more than waiting.
pub(super) const MIN_BLOCK: Duration = Duration::from_secs(1);

/// What a lane asked for and has not got yet. The reader travels with the question and comes back with the answer.
pub(super) struct SourceStep {
    reader: Option<Reader>,
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
    Connected(Result<Reader, Fault>),
    Recovered {
        reader: Reader,
        share: Share,
        pages: Vec<(Asked, EntryId)>,
        count: u32,
        replies: Result<Vec<Result<Value, Fault>>, Fault>,
    },
    Read {
        reader: Reader,
        share: Share,
        streams: Vec<Asked>,
        reply: Result<Value, Fault>,
    },
    /// From a Cluster: one reply for each stream.
    Polled {
        reader: Reader,
        share: Share,
        streams: Vec<Asked>,
        /// How long to rest if there was nothing.
        rest: Option<Duration>,
        replies: Vec<Result<Value, Fault>>,
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

    /// A blocked read is under way, and was not cut short yet.
    pub(super) fn can_be_woken(&self) -> bool {
        self.waker.is_some()
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
    pub(super) fn begin_step(&mut self, now: Instant) {
        let full = self.waiting.len() >= GROUP_RECORDS || self.waiting_bytes >= GROUP_BYTES;
        let early = self.source.retry_at.is_some_and(|at| at > now);
        if self.source.is_under_way() || full || early {
            return;
        }
        self.source.retry_at = None;
        let Some(reader) = self.source.reader.take() else {
            let (connector, db) = (self.shared.connector.clone(), self.db);
            self.source.connecting = true;
            self.source.under_way =
                Some(Box::pin(async move { Done::Connected(Reader::connect(connector, db).await) }));
            return;
        };
        // Half of the budget is for reads under way, in equal parts; the other half for what was read.
        let wanted = READ_BUDGET / 2 / self.shared.lanes;
        let share = self.shared.budget.set_aside(wanted);
        self.source.starved = share.is_none();
        let step = share.and_then(|share| Some((self.streams.next_step(share.bytes(), now)?, share)));
        let Some((step, share)) = step else {
            self.source.reader = Some(reader);
            return;
        };
        let mut reader = match reader {
            Reader::Server(reader) => reader,
            Reader::Cluster(cluster) => {
                self.source.under_way = Some(self.poll(cluster, share, step));
                return;
            }
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
                    Done::Recovered { reader: Reader::Server(reader), share, pages, count, replies }
                })
            }
            Step::Read { streams, count, block } => {
                let keys = streams.iter().map(key_of).collect();
                self.source.waker = block.map(|_| reader.waker());
                Box::pin(async move {
                    limiter.take().await;
                    let reply = reader.read_new(&group, &consumer, keys, count, block).await;
                    Done::Read { reader: Reader::Server(reader), share, streams, reply }
                })
            }
        });
    }

    /// Admits what a step brought: into `waiting`, or, filtered out, to be acknowledged at once.
    pub(super) async fn step_done(&mut self, done: Done) {
        match done {
            Done::Connected(Ok(reader)) => {
                self.source.reader = Some(reader);
                // What an earlier connection was sent and never got is pending, and older than all new entries.
                self.restart_all();
            }
            Done::Connected(Err(fault)) => self.step_failed(&fault),
            Done::Recovered { reader, share, pages, count, replies } => match replies {
                Ok(replies) => {
                    self.source.reader = Some(reader);
                    self.step_worked();
                    drop(share);
                    self.pages_recovered(pages, count, replies).await;
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
            Done::Polled { reader, share, streams, rest, replies } => {
                self.source.reader = Some(reader);
                self.step_worked();
                drop(share);
                self.admit_polled(&streams, replies, rest);
            }
        }
        let skipped = std::mem::take(&mut self.skipped);
        self.acknowledge(skipped).await;
    }

    fn step_worked(&mut self) {
        self.source.backoff.reset();
        self.source_is_up();
    }

    /// The reader is gone with its connection. Its last answer may be lost: the next connection begins with what is
    /// pending.
    fn step_failed(&mut self, fault: &Fault) {
        self.source.reader = None;
        self.source.retry_at = Some(Instant::now() + self.source.backoff.next_delay());
        self.source_down(fault);
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
            let slot = self.streams.slot_of(&key);
            if let Some(slot) = slot {
                self.streams[slot].stream.progress.saw(listed.iter().filter_map(Listed::id));
            }
            let at = slot.and_then(|slot| asked.binary_search_by_key(&slot, |a| a.slot).ok());
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
            self.streams[slot].had_nothing();
        }
    }

    pub(super) fn admit(&mut self, slot: usize, entries: Vec<Entry>) {
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
        if let Some(average) = bytes.checked_div(count) {
            self.streams.saw(slot, average);
        }
        self.waiting_bytes += kept;
        self.held_bytes.resize(self.held_bytes.bytes() + kept);
    }
}

impl Filter {
    /// Whether one of the entry's fields of this name has one of the values.
    fn passes(&self, entry: &Entry) -> bool {
        entry.fields.iter().any(|(field, value)| *field == self.field && self.values.contains(value))
    }
}
