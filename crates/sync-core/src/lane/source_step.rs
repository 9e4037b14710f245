//! What a lane asks of its source, one thing at a time: to connect, to read a page of what is pending, to read new
//! entries. What came is admitted here; nothing is delivered or acknowledged here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::streams::{Asked, Step};
use super::{GROUP_BYTES, GROUP_RECORDS, Lane};
use crate::bridge::{Record, Sink};
use crate::budget::{READ_BUDGET, Share};
use crate::record::{Entry, EntryId};
use crate::redis::Fault;
use crate::redis::cluster::Cluster;
use crate::redis::connection::{Connection, Waker, key};
use crate::redis::ownership::Standing;
use crate::redis::reply::{self, Listed};
use crate::retry::Backoff;
use crate::settings::{Filter, RetrySettings};

/// A blocked read waits at least so long when nothing comes: waking costs the server more than waiting.
pub(super) const MIN_BLOCK: Duration = Duration::from_secs(1);

/// What a lane asked for and has not got yet. The reader travels with the question and comes back with the answer.
pub(super) struct SourceStep {
    reader: Option<Reader>,
    /// The fence of a lost connection: a read that was sent on it may still come to Redis until this is gone.
    stale_fence: Option<Bytes>,
    under_way: Option<BoxFuture<'static, Done>>,
    /// Set while a read blocks.
    waker: Option<Waker>,
    connecting: bool,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// The read budget had no room.
    starved: bool,
}

/// What a lane reads with.
pub(super) enum Reader {
    /// Ends with its connection.
    Server(Fenced),
    /// Makes connections to nodes anew, and reads so that it does not matter.
    Cluster(Box<Cluster>),
}

/// A reading connection, and what fences it.
pub(super) struct Fenced {
    connection: Connection,
    /// Under which member's name it reads, and its fence; `None` with STREAM_OWNERSHIP=exclusive.
    fence: Option<(Arc<str>, Bytes)>,
}

/// What came of a step.
pub(super) enum Done {
    Connected(Result<Standing<Reader>, Fault>),
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
            stale_fence: None,
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

    /// Whether no read that was ever sent can take an entry from now on.
    pub(super) fn is_at_rest(&self) -> bool {
        self.under_way.is_none() && self.stale_fence.is_none()
    }

    /// The last connection has not failed yet.
    pub(super) fn is_connected(&self) -> bool {
        self.reader.is_some()
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

impl Reader {
    fn fence(&self) -> Option<&(Arc<str>, Bytes)> {
        match self {
            Self::Server(reader) => reader.fence.as_ref(),
            Self::Cluster(_) => None,
        }
    }

    /// Whether this NOGROUP is about the fence.
    fn is_fenced_by(&self, reason: &str) -> bool {
        let fence = self.fence().and_then(|(_, fence)| std::str::from_utf8(fence).ok());
        fence.is_some_and(|fence| reason.contains(fence))
    }
}

impl<S: Sink> Lane<S> {
    /// Starts the next step if there is one to take and room for what it brings.
    pub(super) fn begin_step(&mut self, now: Instant) {
        let full = self.waiting.len() >= GROUP_RECORDS || self.waiting_bytes >= GROUP_BYTES;
        let early = self.source.retry_at.is_some_and(|at| at > now);
        // Who is no member reads nothing. The fence that it read behind goes with the next one that it puts up.
        let outside = self.shared.books.is_some() && self.member.is_none();
        if self.source.is_under_way() || full || early || outside {
            return;
        }
        self.source.retry_at = None;
        let reader = self.source.reader.take().filter(|reader| {
            let good = self.reads_as(reader);
            if !good {
                self.source.stale_fence = reader.fence().map(|(_, fence)| fence.clone());
            }
            good
        });
        let Some(reader) = reader else {
            self.source.connecting = true;
            self.source.under_way = Some(self.connect());
            return;
        };
        // Half of the budget is for reads under way, in equal parts; the other half for what was read.
        let largest = self.streams.largest_expected();
        let lanes = self.shared.lanes.load(Relaxed).max(1);
        let wanted = (READ_BUDGET / 2 / lanes).max(largest);
        let share = self.shared.budget.set_aside(wanted, largest);
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
                    let replies = reader.connection.claim_pending(&group, &consumer, &from, count).await;
                    Done::Recovered { reader: Reader::Server(reader), share, pages, count, replies }
                })
            }
            Step::Read { streams, count, block } => {
                // The fence comes first: where it is gone, Redis looks at nothing else.
                let fence = reader.fence.as_ref().map(|(_, fence)| key(fence));
                let keys = fence.into_iter().chain(streams.iter().map(key_of)).collect();
                self.source.waker = block.map(|_| reader.connection.waker());
                Box::pin(async move {
                    limiter.take().await;
                    let reply = reader.connection.read_new(&group, &consumer, keys, count, block).await;
                    Done::Read { reader: Reader::Server(reader), share, streams, reply }
                })
            }
        });
    }

    /// Whether the reader is of the membership under which this lane's streams are owned.
    fn reads_as(&self, reader: &Reader) -> bool {
        self.shared.books.is_none() || reader.fence().map(|(member, _)| member) == self.member.as_ref()
    }

    /// A new reading connection, and a fence for it; the fence of the one before goes.
    fn connect(&self) -> BoxFuture<'static, Done> {
        let (shared, db, before) = (self.shared.clone(), self.db, self.source.stale_fence.clone());
        let fence = self.shared.books.as_ref().zip(self.member.clone()).map(|(books, member)| {
            let number = self.shared.fences.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (books.clone(), books.fence(&member, number), member)
        });
        let connect = async move {
            if shared.connector.is_cluster() {
                let mut cluster = Cluster::new(shared.connector.clone());
                cluster.learn_owners().await?;
                return Ok(Standing::Member(Reader::Cluster(Box::new(cluster))));
            }
            let mut connection = shared.connector.connection(db).await?;
            let Some((books, fence, member)) = fence else {
                return Ok(Standing::Member(Reader::Server(Fenced { connection, fence: None })));
            };
            shared.limiter.spend(1);
            let open = connection
                .run(async |client| books.open_fence(&client, &member, db, &fence, before.as_ref()).await);
            Ok(match open.await? {
                Standing::Member(()) => {
                    Standing::Member(Reader::Server(Fenced { connection, fence: Some((member, fence)) }))
                }
                Standing::Fenced => Standing::Fenced,
            })
        };
        Box::pin(async move { Done::Connected(connect.await) })
    }

    /// Admits what a step brought: into `waiting`, or, filtered out, to be acknowledged at once.
    pub(super) async fn step_done(&mut self, done: Done) {
        match done {
            Done::Connected(Ok(Standing::Member(reader))) => {
                self.source.stale_fence = None;
                self.source.reader = Some(reader);
                // What an earlier connection was sent and never got is pending, and older than all new entries.
                self.restart_all();
                self.has_nothing_to_ask();
            }
            Done::Connected(Ok(Standing::Fenced)) => self.fenced(),
            Done::Connected(Err(fault)) => self.step_failed(None, &fault),
            Done::Recovered { reader, share, pages, count, replies } => match replies {
                Ok(replies) => {
                    self.source.reader = Some(reader);
                    self.step_worked();
                    drop(share);
                    self.pages_recovered(pages, count, replies).await;
                }
                Err(fault) => self.step_failed(Some(reader), &fault),
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
                    Err(Fault::NoGroup(reason)) if reader.is_fenced_by(&reason) => self.fenced(),
                    Err(Fault::NoGroup(_) | Fault::WrongType(_)) => {
                        self.source.reader = Some(reader);
                        self.restart_asked(&streams);
                    }
                    Err(fault) => self.step_failed(Some(reader), &fault),
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
    fn step_failed(&mut self, reader: Option<Reader>, fault: &Fault) {
        if let Some((_, fence)) = reader.as_ref().and_then(Reader::fence) {
            self.source.stale_fence = Some(fence.clone());
        }
        self.source.retry_at = Some(Instant::now() + self.source.backoff.next_delay());
        self.source_down(fault);
    }

    /// The fence is gone, so no read of this process takes anything, and nothing is wrong with the server. What to read
    /// from now on is told by whoever keeps the membership; if that stands, another fence is put up.
    fn fenced(&mut self) {
        self.source.stale_fence = None;
        self.source.retry_at = Some(Instant::now() + self.source.backoff.next_delay());
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
    /// Whether the entry is delivered.
    pub fn passes(&self, entry: &Entry) -> bool {
        entry.fields.iter().any(|(field, value)| *field == self.field && self.values.contains(value))
    }
}
