//! From the buffer to Kafka. Queues that have something are read from their heads, and what is read is sent in batches
//! (`batch.rs`). Up to two batches of a queue are under way: the second begins behind what the first has. Once something
//! of a queue came back, nothing more of it is read until all of it has landed, and then from its head.
//!
//! **Order.** Whoever sends a queue reads a run without gaps from its head, and hands it over in order. So first arrivals
//! are in order also while two processes send the same queue for a moment, since one of them stood still: ARCHITECTURE.md,
//! "The buffer of redis2kafka".

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use kafka_producer::Kafka;
use sync_core::bridge::Fate;
use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::retry::Backoff;
use sync_core::settings::RetrySettings;
use sync_core::telemetry::health::{Health, Severity};
use sync_core::telemetry::metrics::{Counter, Gauge, Metrics};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::batch::{Landed, Part, send};
use super::books::{Books, Read, Seen};
use super::keys::{Queue, SHARDS};
use super::wake::Wake;

/// A batch's bounds.
const MOST: usize = 4000;
const BYTES: usize = 8 << 20;
/// Queues that are read at once.
const QUEUES: usize = 500;
/// Of each of several that are read at once, at least so much.
const SHARE: usize = 100;
/// Batches under way.
const BATCHES: usize = 4;
/// Batches under way with messages of one queue.
const BATCHES_OF_A_QUEUE: u8 = 2;

/// What is counted.
#[derive(Clone)]
pub(crate) struct Numbers {
    unsynced: Gauge,
    synced: Counter,
    refused: Counter,
    oldest: Gauge,
}

/// So often what Kafka does not confirm is sent again by who sends what there is, and no more.
const PATIENCE: u32 = 5;

/// See the module.
pub(crate) struct Drain {
    books: Books,
    kafka: Kafka,
    up: watch::Receiver<bool>,
    wake: Wake,
    interval: Duration,
    retry: RetrySettings,
    health: Health,
    numbers: Numbers,
    mine: Mine,
    queues: HashMap<Queue, State>,
    /// To be read, in this order.
    ready: VecDeque<Queue>,
    reading: Option<BoxFuture<'static, Reading>>,
    looking: Option<BoxFuture<'static, Result<(Seen, u64), Fault>>>,
    next_look: Instant,
    under_way: FuturesUnordered<BoxFuture<'static, Vec<Part>>>,
    settling: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Topics of which queues are held.
    held: HashMap<String, HashSet<Queue>>,
    /// Why something came back last.
    last_reason: Option<String>,
    /// Nothing more is read.
    ending: bool,
}

/// Which queues it sends.
#[derive(Clone, Default)]
struct Mine {
    /// Of these shards,
    shards: BTreeSet<u16>,
    /// and, where it is for one, of this topic.
    topic: Option<String>,
}

impl Mine {
    fn holds(&self, queue: &Queue) -> bool {
        self.shards.contains(&queue.shard())
            && self.topic.as_deref().is_none_or(|topic| queue.topic() == topic)
    }
}

/// What was asked, and the answer.
type Reading = (Vec<(Queue, Option<EntryId>)>, Result<Vec<Read>, Fault>);

/// A queue that has something, or had a moment ago.
struct State {
    /// Being read, or in batches that have not landed.
    under_way: u8,
    /// What was handed over last of it, while that is under way.
    after: Option<EntryId>,
    /// There may be something behind that.
    more: bool,
    /// It stands among those that are ready.
    ready: bool,
    /// Something came back.
    back: bool,
    /// As long as nothing of it gets through.
    backoff: Option<Backoff>,
    not_before: Option<Instant>,
}

impl Numbers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            unsynced: metrics.gauge("buffer_unsynced", "Messages in the buffer that Kafka does not have"),
            synced: metrics.counter("buffer_synced", "Messages that went from the buffer to Kafka"),
            refused: metrics.counter("buffer_refused", "Messages in the buffer that Kafka refused for good"),
            oldest: metrics.gauge(
                "buffer_oldest_unsynced_seconds",
                "Age of the oldest message that this process has to send, by the time in its ID",
            ),
        }
    }
}

impl Drain {
    pub(crate) fn new(
        books: Books,
        kafka: Kafka,
        up: watch::Receiver<bool>,
        wake: Wake,
        (interval, retry): (Duration, RetrySettings),
        health: Health,
        numbers: Numbers,
    ) -> Self {
        Self {
            books,
            kafka,
            up,
            wake,
            interval,
            retry,
            health,
            numbers,
            mine: Mine::default(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            reading: None,
            looking: None,
            next_look: Instant::now(),
            under_way: FuturesUnordered::new(),
            settling: FuturesUnordered::new(),
            held: HashMap::new(),
            last_reason: None,
            ending: false,
        }
    }

    /// Sends these shards from now on, and no others.
    pub(super) fn set_shards(&mut self, shards: BTreeSet<u16>) {
        if !shards.is_subset(&self.mine.shards) {
            self.look_at_once();
        }
        self.mine.shards = shards;
        let mine = &self.mine;
        self.ready.retain(|queue| mine.holds(queue));
        for (queue, state) in &mut self.queues {
            if !mine.holds(queue) {
                (state.ready, state.more) = (false, false);
            }
        }
        self.queues.retain(|queue, state| state.under_way > 0 || mine.holds(queue));
        for queues in self.held.values_mut() {
            queues.retain(|queue| mine.holds(queue));
        }
        self.tell_what_is_held();
    }

    /// Whether nothing is under way of other shards than those that it sends.
    pub(super) fn is_settled(&self) -> bool {
        let elsewhere = |(queue, state): (&Queue, &State)| state.under_way > 0 && !self.mine.holds(queue);
        !self.queues.iter().any(elsewhere)
    }

    /// Looks for queues without waiting for its time.
    pub(super) fn look_at_once(&mut self) {
        self.next_look = Instant::now();
    }

    /// Sends all that there is of a topic, or of all, and returns how many messages Kafka got. Ends early where Kafka goes
    /// away, or takes nothing of what is left: it says why.
    pub(super) async fn run_dry(&mut self, topic: Option<String>) -> (u64, Result<(), String>) {
        self.mine.topic = topic;
        self.set_shards((0..SHARDS).collect());
        let before = self.numbers.synced.get();
        let (mut looked, mut idle, mut settled) = (false, 0, before);
        let ended = loop {
            self.turn().await;
            looked |= self.looking.is_none() && self.next_look > Instant::now();
            let mut left = self.queues.values().filter(|state| state.under_way > 0 || state.more);
            let busy = !self.under_way.is_empty() || !self.settling.is_empty() || self.reading.is_some();
            if !*self.up.borrow() {
                break Err("Kafka is away".to_owned());
            } else if looked && !busy && left.all(|state| state.not_before.is_some()) {
                if !self.queues.values().any(|state| state.more) {
                    break Ok(());
                }
                if let Some(reason) = self.last_reason.take() {
                    break Err(reason);
                }
                // What was refused among others is sent again alone, when its queue has waited.
                let now = self.numbers.synced.get() + self.numbers.refused.get();
                idle = if now > settled { 0 } else { idle + 1 };
                settled = now;
                if idle > PATIENCE {
                    break Err("Kafka did not confirm what was sent".to_owned());
                }
                let waits = self.queues.values().filter_map(|state| state.not_before).min();
                until(waits).await;
            }
        };
        self.end().await;
        (self.numbers.synced.get() - before, ended)
    }

    /// One thing that happens. May be dropped at any time.
    pub(super) async fn turn(&mut self) {
        self.begin();
        let woken = self.queues.values().filter_map(|state| state.not_before).min();
        let next_look = self.looking.is_none().then_some(self.next_look);
        let up = *self.up.borrow_and_update();
        tokio::select! {
            Some(parts) = self.under_way.next(), if !self.under_way.is_empty() => self.has_fates(parts),
            Some(landed) = self.settling.next(), if !self.settling.is_empty() => self.landed(landed),
            reading = ended(&mut self.reading) => self.has_read(reading),
            seen = ended(&mut self.looking) => self.has_looked(seen),
            queues = self.wake.taken(), if !self.ending => {
                for queue in queues {
                    if self.mine.holds(&queue) {
                        self.has_something(queue);
                    }
                }
            }
            () = until(woken), if up => {
                let now = Instant::now();
                let over = |state: &State| state.not_before.is_some_and(|instant| instant <= now);
                let over: Vec<Queue> =
                    self.queues.iter().filter(|(_, state)| over(state)).map(|(queue, _)| queue.clone()).collect();
                for queue in over {
                    if let Some(state) = self.queues.get_mut(&queue) {
                        state.not_before = None;
                    }
                    self.consider(&queue);
                }
            }
            () = until(next_look), if !self.ending => self.look(),
            Ok(()) = self.up.changed() => {}
        }
    }

    /// Reads nothing more; returns once all that is under way has landed. What Kafka, being away, does not confirm is not
    /// waited for.
    pub(super) async fn end(&mut self) {
        self.ending = true;
        while !self.under_way.is_empty() || !self.settling.is_empty() || self.reading.is_some() {
            if !*self.up.borrow() {
                self.kafka.disconnect().await;
            }
            self.turn().await;
        }
        self.kafka.disconnect().await;
    }

    /// Begins to read, if there is something to read and room for it.
    fn begin(&mut self) {
        let room = self.under_way.len() < BATCHES && *self.up.borrow() && !self.ending;
        if self.ready.is_empty() || self.reading.is_some() || !room {
            return;
        }
        let asked: Vec<_> = self.ready.drain(..self.ready.len().min(QUEUES)).collect();
        let share = (MOST / asked.len()).max(SHARE);
        let mut queues = Vec::with_capacity(asked.len());
        for queue in asked {
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            (state.ready, state.more) = (false, false);
            state.under_way += 1;
            queues.push((queue, state.after));
        }
        let books = self.books.clone();
        let reading = async move {
            let read = books.read(&queues, MOST, BYTES, share).await;
            (queues, read)
        };
        self.reading = Some(reading.boxed());
    }

    fn has_read(&mut self, (queues, read): Reading) {
        let mut read = match read {
            Ok(read) => read.into_iter(),
            Err(fault) => {
                for (queue, _) in queues {
                    self.landed(Landed {
                        queue,
                        synced: 0,
                        refused: None,
                        back: Some(Fate::Held(format!("the buffer cannot be read: {fault}"))),
                    });
                }
                return;
            }
        };
        let mut batch = Vec::new();
        for (queue, _) in queues {
            let state = self.queues.get_mut(&queue).expect("what is under way is there");
            let read = read.next();
            // Something of it came back, or it is another's to send, while it was being read: what was read is not sent.
            let wanted = !state.back && !self.ending && self.mine.holds(&queue);
            match read {
                Some(Read { more, messages, error: None }) if wanted => {
                    state.more |= more;
                    match messages.last() {
                        Some((last, _)) => {
                            state.after = Some(*last);
                            batch.push((queue.clone(), messages));
                        }
                        None => self.lands(&queue),
                    }
                }
                Some(Read { error: Some(error), .. }) => self.landed(Landed {
                    queue: queue.clone(),
                    synced: 0,
                    refused: None,
                    back: Some(Fate::Held(format!("the buffer cannot be read: {error}"))),
                }),
                // It was not its turn.
                _ => {
                    state.more = true;
                    self.lands(&queue);
                }
            }
            self.consider(&queue);
        }
        if !batch.is_empty() {
            self.under_way.push(send(&self.kafka, batch).boxed());
        }
    }

    /// Before anything else is handed over, what came back is known to have come back.
    fn has_fates(&mut self, parts: Vec<Part>) {
        for part in parts {
            if part.back.is_some() {
                self.queues.get_mut(&part.queue).expect("what is under way is there").back = true;
            }
            self.settling.push(part.settle(self.books.clone()).boxed());
        }
    }

    fn landed(&mut self, landed: Landed) {
        let Landed { queue, synced, refused, back } = landed;
        self.numbers.synced.inc_by(synced as u64);
        if let Some((count, why)) = refused {
            self.numbers.refused.inc_by(count as u64);
            tracing::warn!(
                queue = queue.as_str(),
                messages = count,
                "Kafka refuses messages for good; they stay in the buffer, see `buffer list --refused`: {why}"
            );
        }
        let state = self.queues.get_mut(&queue).expect("what is under way is there");
        if synced > 0 {
            state.backoff = None;
        }
        if let Some(fate) = &back {
            state.back = true;
            state.more = true;
            let backoff = state.backoff.get_or_insert_with(|| Backoff::new(self.retry));
            state.not_before = Some(Instant::now() + backoff.next_delay());
            self.hold(&queue, fate);
        } else if synced > 0 {
            self.release(&queue);
        }
        self.lands(&queue);
        self.consider(&queue);
    }

    /// One thing less is under way of it.
    fn lands(&mut self, queue: &Queue) {
        let state = self.queues.get_mut(queue).expect("what is under way is there");
        state.under_way -= 1;
        if state.under_way == 0 {
            (state.after, state.back) = (None, false);
        }
    }

    fn has_something(&mut self, queue: Queue) {
        let state = self.queues.entry(queue.clone()).or_insert_with(|| State {
            under_way: 0,
            after: None,
            more: false,
            ready: false,
            back: false,
            backoff: None,
            not_before: None,
        });
        state.more = true;
        self.consider(&queue);
    }

    /// Makes it ready, if there is something to read and nothing against it; forgets it, if there is nothing left.
    fn consider(&mut self, queue: &Queue) {
        let Some(state) = self.queues.get_mut(queue) else { return };
        let mine = self.mine.holds(queue);
        let may = mine && !state.ready && !state.back && state.not_before.is_none();
        if may && state.more && state.under_way < BATCHES_OF_A_QUEUE {
            state.ready = true;
            self.ready.push_back(queue.clone());
        } else if state.under_way == 0 && (!mine || !state.more && !state.ready) {
            self.queues.remove(queue);
            self.release(queue);
        }
    }

    /// Says that a topic takes nothing, once.
    fn hold(&mut self, queue: &Queue, fate: &Fate) {
        let (reason, severity) = match fate {
            Fate::Held(reason) => (reason, Severity::Error),
            Fate::Busy(reason) => (reason, Severity::Warn),
            // That Kafka is away is told by the keeper.
            _ => return,
        };
        self.last_reason = Some(reason.clone());
        self.held.entry(queue.topic().to_owned()).or_default().insert(queue.clone());
        self.health.down(&part(queue.topic()), reason, severity);
    }

    /// And that it takes something again, once nothing of it is held.
    fn release(&mut self, queue: &Queue) {
        if let Some(queues) = self.held.get_mut(queue.topic()) {
            queues.remove(queue);
            self.tell_what_is_held();
        }
    }

    fn tell_what_is_held(&mut self) {
        let health = &self.health;
        self.held.retain(|topic, queues| {
            if queues.is_empty() {
                health.up(&part(topic));
                health.forget(&part(topic));
            }
            !queues.is_empty()
        });
    }

    /// Begins to look for queues.
    fn look(&mut self) {
        self.next_look = Instant::now() + self.interval;
        let (books, mine) = (self.books.clone(), self.mine.clone());
        let looking = async move {
            let seen = books.look(|queue| mine.holds(queue)).await?;
            Ok((seen, books.unsynced().await?))
        };
        self.looking = Some(looking.boxed());
    }

    fn has_looked(&mut self, seen: Result<(Seen, u64), Fault>) {
        let (Seen { queues, oldest }, unsynced) = match seen {
            Ok(seen) => seen,
            Err(fault) => return tracing::warn!("cannot look for what waits in the buffer: {fault}"),
        };
        self.numbers.unsynced.set(i64::try_from(unsynced).unwrap_or(i64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = oldest.map_or(Duration::ZERO, |ms| now.saturating_sub(Duration::from_millis(ms)));
        self.numbers.oldest.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        for queue in queues {
            if self.mine.holds(&queue) {
                self.has_something(queue);
            }
        }
    }
}

/// The part of the process's health that a topic is.
fn part(topic: &str) -> String {
    format!("topic {topic} (what waits for it in the buffer)")
}

/// What the future in this place comes to; then there is none any more. May be dropped at any time.
async fn ended<T>(place: &mut Option<BoxFuture<'static, T>>) -> T {
    match place {
        Some(future) => {
            let value = future.await;
            *place = None;
            value
        }
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
