//! The loop that keeps the delivery contract. One lane is one reading connection with the streams it reads and the
//! sink it delivers to; a stream belongs to one lane.
//!
//! **What happens to a record if the process dies on any line of this file:** from the moment Redis hands an entry
//! out until [`Lane::acknowledge`] has returned, it is pending in the consumer group, and whoever reads the stream
//! next begins with what is pending, in ID order. There is no other queue to lose it from: `waiting` and `flying`
//! are read-ahead, and dropping them loses nothing. So every doubt ends in [`Streams::restart`]: drop what waits,
//! let what is in flight settle, read what is pending, go on.
//!
//! A record's way: [`Lane::step_done`] admits it → [`Lane::hand_over`] gives it to the sink → [`Lane::settle`]
//! takes its fate → [`Lane::acknowledge`].

mod acknowledge;
mod cluster_read;
mod hold;
mod owned;
mod recovery;
mod source_step;
mod streams;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use fred::clients::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use self::owned::LAPSED;
pub(crate) use self::owned::{LetGo, Wanted};
use self::source_step::SourceStep;
use self::streams::Streams;
use crate::bridge::{Delivery, Fate, Group, Record, Sink};
use crate::budget::{Budget, Share};
use crate::cleaning::Cleaning;
use crate::lease::Lease;
use crate::rate_limit::RateLimiter;
use crate::record::{EntryId, StreamName};
use crate::redis::commands::Commands;
use crate::redis::connection::Connector;
use crate::redis::dead_letters::DeadLetters;
use crate::redis::ownership::Books;
use crate::redis::statistics::Statistics;
use crate::redis::{Fault, groups};
use crate::settings::{RetrySettings, StartId, StreamSettings};
use crate::shutdown::Shutdown;
use crate::telemetry::health::{Health, Severity};
use crate::telemetry::metrics::Metrics;

/// Groups handed to the sink and not settled: with one, a sink that confirms record by record idles while the last
/// confirmations of a group come in; a third gains nothing.
const IN_FLIGHT: usize = 2;
/// A group's bounds.
const GROUP_RECORDS: usize = 4000;
const GROUP_BYTES: usize = 8 << 20;

/// What all lanes of a process share.
pub(crate) struct Shared<S> {
    pub(crate) sink: Arc<S>,
    pub(crate) sink_up: watch::Receiver<bool>,
    pub(crate) connector: Connector,
    pub(crate) default_db: u16,
    pub(crate) settings: StreamSettings,
    pub(crate) redis_retry: RetrySettings,
    /// A connection for commands is pinged this often: one that is dead is then found before it is needed.
    pub(crate) health_check: Duration,
    pub(crate) sink_retry: RetrySettings,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) budget: Budget,
    pub(crate) limiter: RateLimiter,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) statistics: Statistics,
    /// What becomes of acknowledged entries.
    pub(crate) cleaning: Cleaning,
    pub(crate) stop: Shutdown,
    /// So many lanes read at once, or may: each sets aside its part of the read budget. More than SOURCE_REDIS_POOL_SIZE
    /// where more databases hold streams.
    pub(crate) lanes: AtomicUsize,
    /// SOURCE_REDIS_POOL_SIZE.
    pub(crate) pool_size: usize,
    /// Until when what is owned may be handed over.
    pub(crate) lease: Lease,
    /// Where the fences of reading connections are put up; `None` where there are none: with
    /// STREAM_OWNERSHIP=exclusive, and on a Cluster.
    pub(crate) books: Option<Books>,
    /// So many fences were made.
    pub(crate) fences: AtomicU64,
    /// A lane has let go of something.
    pub(crate) let_go: Notify,
}

impl<S> Shared<S> {
    /// How people and destinations know a stream.
    pub(crate) fn spell(&self, stream: &StreamName) -> String {
        let spelled = stream.spell(self.default_db);
        match &self.settings.source_name {
            Some(source) => format!("{source}{spelled}"),
            None => spelled,
        }
    }

    /// Where a new group begins. The streams that were there at the first start have theirs; on those that come later,
    /// and where a group was lost with its stream, `$` would skip what came since.
    fn start(&self) -> StartId {
        match self.settings.start_id {
            StartId::Latest => StartId::After(EntryId::default()),
            after => after,
        }
    }
}

/// A group at the sink.
struct Flight {
    group: Group,
    bytes: usize,
    since: Instant,
    delivery: Delivery,
}

/// See the module.
pub(crate) struct Lane<S> {
    shared: Arc<Shared<S>>,
    db: u16,
    /// For everything but reads of entries.
    commands: Commands,
    /// The same of the whole database, for statistics; reconnects by itself.
    client: Client,
    streams: Streams,
    /// Read, admitted, not handed over, in the order read.
    waiting: VecDeque<Record>,
    /// Handed over, oldest first.
    flying: VecDeque<Flight>,
    /// What `waiting` and `flying` occupy of the read budget.
    held_bytes: Share,
    waiting_bytes: usize,
    source: SourceStep,
    /// The name under which its streams are owned.
    member: Option<Arc<str>>,
    /// Of what it was last told to read.
    revision: u64,
    let_go: Arc<LetGo>,
    /// The lease ran out, and all was dropped that was not in flight.
    lapsed: bool,
    /// Redis answered last time.
    source_ok: bool,
    /// Filtered out since the last acknowledgement.
    skipped: Vec<(usize, EntryId)>,
    /// Settled, but the node of a Cluster that is to be told is away; and when it is told again.
    unacknowledged: Vec<groups::Settled>,
    acknowledge_at: Option<Instant>,
}

impl<S: Sink> Lane<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, db: u16, client: Client, let_go: Arc<LetGo>) -> Self {
        let block = match shared.connector.is_cluster() {
            // It polls.
            true => shared.settings.poll_interval,
            false => shared.settings.poll_interval.max(source_step::MIN_BLOCK),
        };
        Self {
            db,
            commands: Commands::new(&shared.connector, client.clone()),
            client,
            streams: Streams::new(shared.settings.batch_size, block),
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            held_bytes: shared.budget.nothing(),
            waiting_bytes: 0,
            source: SourceStep::new(shared.redis_retry),
            member: None,
            revision: 0,
            let_go,
            lapsed: false,
            source_ok: true,
            skipped: Vec::new(),
            unacknowledged: Vec::new(),
            acknowledge_at: None,
            shared,
        }
    }

    /// Reads and delivers the streams that `wanted` names, until a stop is requested and what is in flight has
    /// settled.
    pub(crate) async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        let mut sink_up = self.shared.sink_up.clone();
        let stop = self.shared.stop.clone();
        self.take_wanted(&wanted.borrow_and_update().clone());
        loop {
            self.look_at_the_lease();
            self.tell_what_is_let_go();
            let stopping = stop.is_requested();
            // One time for all that is decided in this turn: what is not due for one is in the future for the other.
            let now = Instant::now();
            if stopping {
                self.purge(|_, _| true);
                self.source.wake();
                self.source.give_up_connecting();
                if self.flying.is_empty() && !self.source.is_under_way() {
                    self.acknowledge_rest(now).await;
                    return;
                }
            } else if !self.lapsed {
                self.acknowledge_rest(now).await;
                self.hand_over(*sink_up.borrow_and_update());
                self.begin_step(now);
            }
            let wake_at = if self.lapsed { Some(now + LAPSED) } else { self.wake_at(now) };
            // What is settled comes first: it frees memory and lets the next group go. No branch drops an operation
            // that is under way: each polls a future that lives in `self`.
            tokio::select! {
                biased;
                (flight, fates) = next_settled(&mut self.flying), if !self.flying.is_empty() => {
                    self.settle(flight, fates).await;
                }
                done = self.source.done(), if self.source.is_under_way() => self.step_done(done).await,
                changed = wanted.changed(), if !stopping && changed_possible(&wanted) => {
                    if changed.is_ok() {
                        let wanted = wanted.borrow_and_update().clone();
                        self.take_wanted(&wanted);
                        self.source.wake();
                    }
                }
                _ = sink_up.changed(), if !stopping => {}
                () = stop.requested(), if !stopping => {}
                () = self.shared.budget.freed(), if !stopping && !self.lapsed && self.source.wants_budget() => {}
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if !stopping && wake_at.is_some() => {
                    self.source.wake();
                }
            }
        }
    }

    /// Hands what waits to the sink, oldest first.
    fn hand_over(&mut self, sink_up: bool) {
        while sink_up && self.flying.len() < IN_FLIGHT && !self.waiting.is_empty() {
            let (mut group, mut bytes) = (Vec::new(), 0);
            while group.len() < GROUP_RECORDS
                && bytes < GROUP_BYTES
                && let Some(record) = self.waiting.pop_front()
            {
                let slot = &mut self.streams[record.slot];
                slot.waiting -= 1;
                slot.in_flight += 1;
                bytes += record.entry.size();
                group.push(record);
            }
            self.waiting_bytes -= bytes;
            let group = Arc::new(group);
            let delivery = self.shared.sink.deliver(group.clone());
            self.flying.push_back(Flight { group, bytes, since: Instant::now(), delivery });
        }
    }

    /// Takes the fates of a group. When this returns, what was delivered is acknowledged, what was refused stands
    /// in the dead letters and is acknowledged, and each stream of which something came back is restarted.
    async fn settle(&mut self, flight: Flight, fates: Vec<Fate>) {
        let Flight { group, bytes, since, .. } = flight;
        let got_through = fates.contains(&Fate::Delivered);
        let alike = refused_alike(&fates);
        let mut settled = Vec::with_capacity(group.len());
        let mut released = Vec::new();
        for (record, fate) in group.iter().zip(fates) {
            let id = record.entry.id;
            let slot = &mut self.streams[record.slot];
            slot.in_flight -= 1;
            match fate {
                Fate::Delivered => {
                    record.stream.metrics.delivered.fetch_add(1, Relaxed);
                    slot.last_refusal = None;
                    slot.spare_backoff = None;
                    if slot.hold.is_some() {
                        released.push(record.slot);
                    }
                    settled.push((record.slot, id));
                }
                Fate::Refused(reason) => {
                    let again = alike || (!got_through && slot.last_refusal.as_ref() == Some(&reason));
                    self.refused(record, &reason, again, &mut settled).await;
                }
                Fate::Unfit(reason) => {
                    let attempts = slot.count_attempt(id);
                    self.bury(record, &reason, attempts, &mut settled).await;
                }
                Fate::Held(reason) => self.hold(record, &reason, true, &mut settled).await,
                Fate::Busy(reason) => self.hold(record, &reason, false, &mut settled).await,
                Fate::Shut(_) => self.shut_out(record),
                Fate::Unknown => self.give_back(record, Instant::now()),
            }
        }
        self.purge(|streams, record| streams.is_restarting(record.slot));
        self.held_bytes.resize(self.held_bytes.bytes() - bytes);
        self.shared.metrics.delivery_seconds(since.elapsed().as_secs_f64());
        if got_through {
            self.shared.metrics.delivered_now();
        }
        self.acknowledge(settled).await;
        for slot in released {
            // One that restarts was just held for a later record of the same group.
            if !self.streams.is_restarting(slot) {
                self.release(slot);
            }
        }
        self.forget_gone();
    }

    /// Drops what waits and matches. It stays pending in Redis.
    fn purge(&mut self, matches: impl Fn(&Streams, &Record) -> bool) {
        let mut freed = 0;
        let streams = &mut self.streams;
        self.waiting.retain(|record| {
            let dropped = matches(streams, record);
            if dropped {
                let slot = &mut streams[record.slot];
                slot.waiting -= 1;
                slot.unsettled(record.entry.id);
                freed += record.entry.size();
            }
            !dropped
        });
        self.waiting_bytes -= freed;
        self.held_bytes.resize(self.held_bytes.bytes() - freed);
    }

    /// Every stream is read again from what is pending: what Redis has answered last may not have arrived.
    fn restart_all(&mut self) {
        self.purge(|_, _| true);
        self.streams.restart_all();
    }

    /// Reads nothing more of the stream until then, and then what is pending first.
    fn restart(&mut self, slot: usize, not_before: Instant) {
        self.streams.restart(slot, not_before);
        if self.streams[slot].waiting > 0 {
            self.purge(|_, record| record.slot == slot);
        }
    }

    fn source_down(&mut self, fault: &Fault) {
        self.source_ok = false;
        match fault {
            Fault::Busy(reason) => {
                // Others say that it is not there, not that there is too much to do.
                if ["BUSY", "LOADING"].iter().any(|word| reason.starts_with(word)) {
                    self.shared.limiter.overloaded(reason);
                }
                self.shared.health.down("source Redis", reason, Severity::Warn);
            }
            Fault::Lost(reason) => self.shared.health.down("source Redis", reason, Severity::Warn),
            fault => {
                let part = format!("source Redis database {}", self.db);
                self.shared.health.down(&part, &fault.to_string(), Severity::Error);
            }
        }
    }

    fn source_is_up(&mut self) {
        let some_away = self.streams.are_some_lost() || !self.unacknowledged.is_empty();
        if some_away || std::mem::replace(&mut self.source_ok, true) {
            return;
        }
        self.shared.health.up("source Redis");
        self.shared.health.up(&format!("source Redis database {}", self.db));
    }

    /// When there will be something to ask for that nothing else would tell. What was due at `now` already waits for
    /// something else: for the step under way, unless that can be cut short, or for room.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.source.is_under_way() {
            let restart = self.streams.wake_at().filter(|_| self.source.can_be_woken());
            return restart.into_iter().chain(self.acknowledge_at).min();
        }
        [self.streams.wake_at_after(now), self.source.retry_at(), self.acknowledge_at]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}

fn changed_possible<T>(wanted: &watch::Receiver<T>) -> bool {
    wanted.has_changed().is_ok()
}

/// Several records, all refused for one reason: it is the destination that is wrong, not the records.
fn refused_alike(fates: &[Fate]) -> bool {
    matches!(fates, [first @ Fate::Refused(_), rest @ ..] if !rest.is_empty() && rest.iter().all(|fate| fate == first))
}

/// The fates of the oldest group. The group leaves the queue only when they are all there.
async fn next_settled(flying: &mut VecDeque<Flight>) -> (Flight, Vec<Fate>) {
    let fates = match flying.front_mut() {
        Some(flight) => (&mut flight.delivery).await,
        None => std::future::pending().await,
    };
    (flying.pop_front().expect("the front is still there"), fates)
}
