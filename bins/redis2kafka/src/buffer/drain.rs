//! From the buffer to Kafka. Queues that have something are read from their heads, and what is read is sent in batches
//! (`batch.rs`). Up to two batches of a queue are under way: the second begins behind what the first has. Once something
//! of a queue came back, nothing more of it is read until all of it has landed, and then from its head.
//!
//! **Order.** Whoever sends a queue reads a run without gaps from its head, and hands it over in order. So first arrivals
//! are in order also while two processes send the same queue for a moment, since one of them stood still: ARCHITECTURE.md,
//! "The buffer of redis2kafka".

pub(super) mod dry;
mod look;
mod queue;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

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
use sync_core::telemetry::health::Health;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::queue::{Mine, State};
use super::batch::{Landed, Part, Portion, send};
use super::books::{Books, Read, Seen, Standing};
use super::held::Held;
use super::intake::Intake;
use super::keys::Queue;
use super::numbers::{Losses, Numbers};
use super::turns::Turns;
use super::vigil::Vigil;
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

/// See the module.
pub(crate) struct Drain {
    books: Books,
    kafka: Kafka,
    up: watch::Receiver<bool>,
    wake: Wake,
    intake: Intake,
    interval: Duration,
    retry: RetrySettings,
    health: Health,
    numbers: Numbers,
    losses: Losses,
    mine: Mine,
    queues: HashMap<Queue, State>,
    /// To be read.
    ready: Turns,
    reading: Option<BoxFuture<'static, Reading>>,
    looking: Option<BoxFuture<'static, Result<(Seen, Standing), Fault>>>,
    next_look: Instant,
    /// How the last look ended.
    looked: Option<Result<(), String>>,
    /// Until one does not fail.
    look_backoff: Backoff,
    vigil: Vigil,
    under_way: FuturesUnordered<BoxFuture<'static, Vec<Part>>>,
    settling: FuturesUnordered<BoxFuture<'static, Landed>>,
    held: Held,
    /// Nothing more is read.
    ending: bool,
}

/// What was asked, and the answer.
type Reading = (Vec<(Queue, Option<EntryId>)>, Result<Vec<Read>, Fault>);

impl Drain {
    pub(crate) fn new(
        books: Books,
        kafka: Kafka,
        up: watch::Receiver<bool>,
        (wake, intake): (Wake, Intake),
        (interval, retry): (Duration, RetrySettings),
        health: Health,
        numbers: Numbers,
    ) -> Self {
        Self {
            books,
            kafka,
            up,
            wake,
            intake,
            interval,
            retry,
            held: Held::new(health.clone()),
            health,
            losses: Losses::new(&numbers),
            numbers,
            mine: Mine::default(),
            queues: HashMap::new(),
            ready: Turns::default(),
            reading: None,
            looking: None,
            next_look: Instant::now(),
            looked: None,
            look_backoff: Backoff::new(retry),
            vigil: Vigil::default(),
            under_way: FuturesUnordered::new(),
            settling: FuturesUnordered::new(),
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
        self.held.retain(|queue| mine.holds(queue));
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

    /// Whether the books do not agree with each other, so that messages may be in no queue.
    pub(super) fn disagrees(&mut self) -> bool {
        std::mem::take(&mut self.vigil.disagrees)
    }

    /// When the first of those that wait may be read again.
    fn wakes_at(&self) -> Option<Instant> {
        self.queues.values().filter_map(|state| state.not_before).min()
    }

    /// One thing that happens. May be dropped at any time.
    pub(super) async fn turn(&mut self) {
        self.begin();
        let woken = self.wakes_at();
        let to_tell = self.losses.due();
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
            () = self.intake.refused(), if !self.ending => self.look_at_once(),
            () = until(to_tell) => self.losses.tell(),
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
        let asked = self.ready.take(QUEUES);
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
                        lost: Vec::new(),
                        back: Some(Fate::Held(format!("the buffer cannot be read: {fault}"))),
                    });
                }
                return;
            }
        };
        let (mut batch, mut passed_over) = (Vec::new(), Vec::new());
        for (queue, _) in queues {
            let state = self.queues.get_mut(&queue).expect("what is under way is there");
            // Something of it came back, or it is another's to send, while it was being read: what was read is not sent.
            let wanted = !state.back && !self.ending && self.mine.holds(&queue);
            match read.next() {
                Some(Read { more, messages, lost, error: None }) if wanted => {
                    state.more |= more;
                    if let (Some((first, _)), Some((last, _))) = (messages.first(), messages.last()) {
                        state.after = Some(*last);
                        state.firsts.push_back(*first);
                    }
                    if messages.is_empty() && lost.is_empty() {
                        self.lands(&queue);
                    } else {
                        batch.push(Portion { queue: queue.clone(), messages, lost });
                    }
                }
                Some(Read { error: Some(error), .. }) => self.landed(Landed {
                    queue: queue.clone(),
                    synced: 0,
                    refused: None,
                    lost: Vec::new(),
                    back: Some(Fate::Held(format!("{queue} cannot be read from the buffer: {error}"))),
                }),
                Some(_) => {
                    state.more = true;
                    self.lands(&queue);
                }
                // The batch was full before it was its turn.
                None => {
                    state.more = true;
                    self.lands(&queue);
                    if self.may_be_read(&queue) {
                        self.queues.get_mut(&queue).expect("it may be read").ready = true;
                        passed_over.push(queue);
                        continue;
                    }
                }
            }
            self.consider(&queue);
        }
        self.ready.give_back(passed_over);
        if !batch.is_empty() {
            self.under_way.push(send(&self.kafka, batch).boxed());
        }
    }

    /// Before anything else is handed over, what came back is known to have come back.
    fn has_fates(&mut self, parts: Vec<Part>) {
        for mut part in parts {
            let state = self.queues.get_mut(&part.queue).expect("what is under way is there");
            if let Some(reason) = part.refused_alone() {
                // Two in a row, for one reason: it may be the topic that is wrong. It waits, once, and is told.
                if state.last_refusal.as_deref() == Some(reason) && !self.held.holds(&part.queue) {
                    part.waits();
                } else {
                    state.last_refusal = Some(reason.to_owned());
                }
            }
            state.back |= part.back.is_some();
            self.settling.push(part.settle(self.books.clone()).boxed());
        }
    }

    fn landed(&mut self, landed: Landed) {
        let Landed { queue, synced, refused, lost, back } = landed;
        self.losses.add(&queue, &lost);
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
            (state.backoff, state.last_refusal) = (None, None);
        }
        if let Some(fate) = &back {
            state.back = true;
            state.more = true;
            let backoff = state.backoff.get_or_insert_with(|| Backoff::new(self.retry));
            state.not_before = Some(Instant::now() + backoff.next_delay());
            self.held.hold(&queue, fate);
        } else if synced > 0 {
            self.held.release(&queue);
        }
        self.lands(&queue);
        self.consider(&queue);
    }

    /// One thing less is under way of it.
    fn lands(&mut self, queue: &Queue) {
        let state = self.queues.get_mut(queue).expect("what is under way is there");
        state.lands();
    }

    fn has_something(&mut self, queue: Queue) {
        let state = self.queues.entry(queue.clone()).or_default();
        state.more = true;
        self.consider(&queue);
    }

    fn may_be_read(&self, queue: &Queue) -> bool {
        self.mine.holds(queue) && self.queues.get(queue).is_some_and(State::may_be_read)
    }

    /// Makes it ready, if there is something to read and nothing against it; forgets it, if there is nothing left.
    fn consider(&mut self, queue: &Queue) {
        let may = self.may_be_read(queue);
        let Some(state) = self.queues.get_mut(queue) else { return };
        if may {
            state.ready = true;
            self.ready.join(queue.clone());
        } else if state.under_way == 0 && (!self.mine.holds(queue) || !state.more && !state.ready) {
            // One message came, and was refused: what comes next tells more.
            if state.last_refusal.is_none() || !self.mine.holds(queue) {
                self.queues.remove(queue);
            }
            self.held.release(queue);
        }
    }
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
