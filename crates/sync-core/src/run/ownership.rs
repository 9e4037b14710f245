//! This process's part in the streams of its consumer group: it joins the other replicas, keeps its lease, claims and
//! gives up buckets. What it owns is told to the dealer as a [`Portion`]; when nothing of what it gives up is read any
//! more, the dealer tells it ([`GivenUp`]). The work on whole databases, where there is any, is told the same, and says
//! itself what it has let go of. It never touches a record.
//!
//! `balance.rs` decides who should own what, `say.rs` tells people; the books themselves are in `redis/ownership.rs`. Why it is safe is told
//! in ARCHITECTURE.md, "One owner per stream".

mod balance;
mod portion;
mod process;
mod say;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::balance::Weights;
pub(crate) use self::portion::Portion;
use self::say::Numbers;
use super::{Bridge, Live, Parts, databases};
use crate::bridge::Sink;
use crate::lease::{self, Lease};
use crate::rate_limit::RateLimiter;
use crate::redis::Fault;
use crate::redis::connection::Connector;
use crate::redis::ownership::{
    Access, Books, Bucket, Joined, Member, OF_STREAMS, Standing, View, bucket_of_database,
};
use crate::redis::statistics::Statistics;
use crate::retry::Backoff;
use crate::settings::{Ownership as Mode, RetrySettings, StreamSettings};
use crate::shutdown::{Shutdown, Trigger};
use crate::telemetry::health::{Health, Severity};
use crate::telemetry::status::Status;

/// A member that was not heard of for so long is ended by the others, and what it owned is shared out.
const LEASE: Duration = Duration::from_secs(6);
/// Between two renewals.
const TICK: Duration = Duration::from_secs(1);
/// This much before the others may end this membership, this process hands over nothing more.
const MARGIN: Duration = Duration::from_secs(1);
/// What is in flight may take so long to settle before its stream is let go of all the same: it is delivered twice then.
const DRAIN: Duration = Duration::from_secs(5);
/// What a person can do who finds the books refused.
pub(super) const HINT: &str = ". Allow the keys redis-sync:* and the commands that README.md names for replicas, or set \
    STREAM_OWNERSHIP=exclusive where this process is alone";
/// The part of the process's health that this is.
const PART: &str = "ownership of streams";

/// Up to which revision of the [`Portion`] the lanes have let go of what it took from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// No read that names any of it can take an entry any more.
    pub(crate) unread: u64,
    /// And nothing of it is in flight.
    pub(crate) settled: u64,
}

/// See the module.
pub(super) struct Ownership {
    books: Books,
    access: Access,
    member: Member,
    retry: RetrySettings,
    limiter: RateLimiter,
    lease: Lease,
    health: Health,
    status: Status,
    statistics: Statistics,
    streams: StreamSettings,
    live: watch::Receiver<Live>,
    weights: watch::Receiver<Weights>,
    given_up: watch::Receiver<GivenUp>,
    /// What the work beside the streams is divided into, where there is any.
    beside: Option<Parts>,
    databases: watch::Receiver<BTreeSet<u16>>,
    databases_settled: watch::Receiver<u64>,
    portion: watch::Sender<Arc<Portion>>,
    leave: Shutdown,
    numbers: Numbers,
}

/// What the rest of the process has to do with it.
pub(super) struct Ends {
    pub(super) lease: Lease,
    /// For the fences of reading connections.
    pub(super) books: Option<Books>,
    pub(super) portion: watch::Receiver<Arc<Portion>>,
    pub(super) weights: watch::Sender<Weights>,
    pub(super) given_up: watch::Sender<GivenUp>,
    pub(super) databases: databases::Ends,
    pub(super) leave: Trigger,
}

/// Why this process does not become a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotJoined {
    #[error("{0}{hint}", hint = if .0.needs_human() { HINT } else { "" })]
    Fault(#[from] Fault),
    #[error("{0}")]
    Taken(String),
}

/// One membership, from joining until it ends.
pub(super) struct Term {
    name: Arc<str>,
    view: View,
    mine: BTreeSet<Bucket>,
    giving: BTreeMap<Bucket, Giving>,
    next_tick: Instant,
    /// The books answered last time: where they did not, nothing but the next tick asks them.
    answered: bool,
    /// Reported down, and not up since.
    down: bool,
}

/// A bucket on its way out.
struct Giving {
    /// The first portion without it.
    revision: u64,
    /// When it goes, settled or not. A database never does: what is late may undo what its next owner wrote.
    deadline: Option<Instant>,
}

impl Ownership {
    /// `None` where this process is alone: then it owns everything for ever.
    pub(super) fn new<S: Sink>(
        bridge: &Bridge<S>,
        connector: &Connector,
        statistics: &Statistics,
    ) -> (Option<Self>, Ends) {
        let beside = beside(bridge);
        let shared = bridge.streams.ownership == Mode::Shared && (bridge.streams.enabled || beside.is_some());
        let lease = if shared { Lease::none() } else { Lease::for_ever() };
        let portion = if shared { Portion::nothing(0) } else { Portion::all() };
        let (portion, owned) = watch::channel(Arc::new(portion));
        let (weights, streams) = watch::channel(Weights::new());
        let (given_up, let_go) = watch::channel(GivenUp::default());
        let (there_is, databases) = watch::channel(BTreeSet::new());
        let (settled, databases_settled) = watch::channel(0);
        let (leave, leaving) = Shutdown::manual();
        let books = Books::new(&bridge.streams.group, bridge.redis.db, LEASE);
        let ends = Ends {
            lease: lease.clone(),
            books: (shared && !connector.is_cluster()).then(|| books.clone()),
            databases: databases::Ends { portion: owned.clone(), lease: lease.clone(), there_is, settled },
            portion: owned,
            weights,
            given_up,
            leave,
        };
        let ownership = || Self {
            books,
            access: Access::new(connector, bridge.redis.db),
            member: member(bridge),
            retry: bridge.redis.retry,
            limiter: bridge.limiter.clone(),
            lease,
            health: bridge.health.clone(),
            status: bridge.status.clone(),
            statistics: statistics.clone(),
            streams: bridge.streams.clone(),
            live: bridge.live.clone(),
            weights: streams,
            given_up: let_go,
            beside,
            databases,
            databases_settled,
            portion,
            leave: leaving,
            numbers: Numbers::new(&bridge.metrics, beside),
        };
        (shared.then(ownership), ends)
    }

    /// Whether the books name no member, dead or alive. One attempt.
    pub(super) async fn nobody_was_here(&mut self) -> Result<bool, NotJoined> {
        self.limiter.spend(1);
        Ok(self.books.members(&mut self.access).await?.is_empty())
    }

    /// One attempt to become a member. `before` is the name that this process had.
    pub(super) async fn join(&mut self, before: Option<&str>) -> Result<Term, NotJoined> {
        let name: Arc<str> = process::new_name(&self.member.host).into();
        self.limiter.spend(2);
        let members = self.books.members(&mut self.access).await?;
        let sent = lease::now();
        let dead = self.dead_among(&members);
        match self.books.join(&mut self.access, &name, &self.member, before, &dead).await? {
            Joined::Yes => {}
            Joined::Taken(other) => return Err(NotJoined::Taken(self.taken_by(&other))),
        }
        for name in dead {
            self.say_dead(&name, members.get(&name));
        }
        if before.is_none() && self.books.may_be_evicted(&mut self.access).await {
            tracing::warn!(
                "maxmemory-policy of the source Redis is allkeys-…: it may evict streams, and the books of who reads which. \
                 Streams then change hands for no reason; volatile-… or noeviction spares both"
            );
        }
        self.lease.extend_to(sent + LEASE - MARGIN);
        Ok(Term {
            name,
            view: View::default(),
            mine: BTreeSet::new(),
            giving: BTreeMap::new(),
            next_tick: Instant::now(),
            answered: true,
            down: false,
        })
    }

    /// Keeps the membership, or joins again when it was lost, until told to leave.
    pub(super) async fn keep(mut self, mut term: Term) {
        let leave = self.leave.clone();
        loop {
            tracing::info!(
                member = %term.name,
                group = self.streams.group,
                "shares the streams of the consumer group with its other replicas"
            );
            self.publish(&term);
            let fenced = tokio::select! {
                () = self.serve(&mut term) => true,
                () = leave.requested() => false,
            };
            self.lease.end();
            if !fenced {
                return self.depart(term).await;
            }
            self.numbers.fenced.inc();
            let name = term.name.clone();
            term.mine.clear();
            term.giving.clear();
            self.publish_nothing();
            tracing::warn!(
                member = %name,
                "lost its streams (its lease ran out, an answer of the server was lost, or the server was replaced or emptied): \
                 it joins the other replicas again"
            );
            term = tokio::select! {
                term = self.join_again(&name) => term,
                () = leave.requested() => return,
            };
        }
    }

    async fn join_again(&mut self, before: &str) -> Term {
        let mut backoff = Backoff::new(self.retry);
        loop {
            match self.join(Some(before)).await {
                Ok(term) => {
                    self.health.forget(PART);
                    return term;
                }
                Err(reason) => {
                    let human = match &reason {
                        NotJoined::Taken(_) => true,
                        NotJoined::Fault(fault) => fault.needs_human(),
                    };
                    let severity = if human { Severity::Error } else { Severity::Warn };
                    self.health.down(PART, &format!("nothing is read: {reason}"), severity);
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Returns when this membership has ended.
    async fn serve(&mut self, term: &mut Term) {
        loop {
            let standing = tokio::select! {
                () = sleep_until(term.next_tick) => self.tick(term).await,
                Ok(()) = self.weights.changed() => self.balance(term).await,
                Ok(()) = self.databases.changed() => self.balance(term).await,
                Ok(()) = self.given_up.changed() => self.release(term).await,
                Ok(()) = self.databases_settled.changed() => self.release(term).await,
            };
            match standing {
                Ok(Standing::Member(())) => {}
                Ok(Standing::Fenced) => return,
                Err(fault) => self.failed(term, &fault),
            }
        }
    }

    fn failed(&self, term: &mut Term, fault: &Fault) {
        term.answered = false;
        term.next_tick = Instant::now() + TICK;
        tracing::debug!("ownership: {fault}");
        if !self.lease.holds() || fault.needs_human() {
            term.down = true;
            let severity = if fault.needs_human() { Severity::Error } else { Severity::Warn };
            self.health.down(PART, &format!("the lease cannot be renewed: {fault}"), severity);
        }
    }

    /// Renews the lease, and sees who is there.
    async fn tick(&mut self, term: &mut Term) -> Result<Standing<()>, Fault> {
        self.limiter.spend(1);
        self.member.reads = reads(&self.streams, &self.live.borrow(), self.beside);
        let sent = lease::now();
        term.next_tick = Instant::now() + TICK;
        let dead = self.dead_among(&term.view.members);
        let known = term.view.version;
        let answer = self.books.tick(&mut self.access, &term.name, &self.member, known, &dead).await?;
        let Standing::Member(changed) = answer else { return Ok(Standing::Fenced) };
        self.lease.extend_to(sent + LEASE - MARGIN);
        term.answered = true;
        if std::mem::take(&mut term.down) {
            self.health.up(PART);
            self.health.forget(PART);
        }
        if let Some(view) = changed {
            self.say_what_changed(&term.name, &term.view, &view);
            term.view = view;
            self.show(term);
        }
        match self.release(term).await? {
            Standing::Member(()) => self.balance(term).await,
            Standing::Fenced => Ok(Standing::Fenced),
        }
    }

    /// Claims what this member should have and nobody has; gives up what is too much.
    async fn balance(&mut self, term: &mut Term) -> Result<Standing<()>, Fault> {
        if term.view.version == 0 {
            // Not seen yet who is there: the first tick is due.
            return Ok(Standing::Member(()));
        }
        let weights = self.weights();
        let alike = term.view.members.values().all(|member| member.reads == self.member.reads);
        let giving = term.giving.keys().copied().collect();
        let moves = balance::moves(&term.name, &term.view, &weights, &term.mine, &giving, alike);
        let (mut changed, before) = (false, term.mine.len());
        if !moves.give_up.is_empty() {
            let revision = self.portion.borrow().revision + 1;
            let drained = Instant::now() + DRAIN;
            for bucket in &moves.give_up {
                term.mine.remove(bucket);
                let deadline = OF_STREAMS.contains(bucket).then_some(drained);
                term.giving.insert(*bucket, Giving { revision, deadline });
            }
            changed = true;
        }
        let mut fenced = false;
        if !moves.claim.is_empty() && term.answered {
            self.limiter.spend(1);
            match self.books.claim(&mut self.access, &term.name, &moves.claim).await {
                Ok(Standing::Member(claimed)) => {
                    changed |= !claimed.is_empty();
                    term.mine.extend(claimed);
                }
                Ok(Standing::Fenced) => fenced = true,
                Err(fault) => self.failed(term, &fault),
            }
        }
        if changed && !fenced {
            self.publish(term);
            self.say_what_is_owned(term, &weights, before);
        }
        self.count_what_is_owned(term, &weights);
        Ok(if fenced { Standing::Fenced } else { Standing::Member(()) })
    }

    /// Everything that may be owned.
    fn weights(&mut self) -> Weights {
        let mut weights = self.weights.borrow_and_update().clone();
        weights.extend(self.databases.borrow_and_update().iter().map(|db| (bucket_of_database(*db), 1)));
        weights
    }

    /// Lets go of what the lanes, and the work on whole databases, have given up.
    async fn release(&mut self, term: &mut Term) -> Result<Standing<()>, Fault> {
        let GivenUp { unread, settled } = *self.given_up.borrow_and_update();
        let databases_settled = *self.databases_settled.borrow_and_update();
        let now = Instant::now();
        let free = |giving: &Giving| match giving.deadline {
            Some(deadline) => unread >= giving.revision && (settled >= giving.revision || deadline <= now),
            None => databases_settled >= giving.revision,
        };
        let going: Vec<Bucket> =
            term.giving.iter().filter(|(_, giving)| free(giving)).map(|(bucket, _)| *bucket).collect();
        if going.is_empty() || !term.answered {
            return Ok(Standing::Member(()));
        }
        self.limiter.spend(1);
        let answer = match self.books.release(&mut self.access, &term.name, &going).await {
            // It may come to Redis later, when these buckets are this member's again: then it must find no member.
            Err(Fault::Lost(_)) => return Ok(Standing::Fenced),
            answer => answer?,
        };
        term.giving.retain(|bucket, _| !going.contains(bucket));
        term.view.owners.retain(|bucket, _| !going.contains(bucket));
        Ok(answer)
    }

    /// The others need not wait for the lease to run out.
    async fn depart(mut self, term: Term) {
        self.publish_nothing();
        match self.books.leave(&mut self.access, &term.name).await {
            Ok(()) => tracing::debug!(member = %term.name, "left the other replicas"),
            Err(fault) => {
                tracing::warn!("the other replicas take over within {} s: {fault}", LEASE.as_secs());
            }
        }
    }

    fn publish(&self, term: &Term) {
        self.portion.send_modify(|portion| {
            *portion = Arc::new(Portion::of(term.name.clone(), portion.revision + 1, term.mine.clone()));
        });
        self.show(term);
    }

    fn publish_nothing(&self) {
        self.portion.send_modify(|portion| *portion = Arc::new(Portion::nothing(portion.revision + 1)));
        self.numbers.nothing_is_owned();
        self.status.shared(None, Vec::new(), Default::default());
    }

    fn dead_among(&self, members: &BTreeMap<String, Member>) -> Vec<String> {
        let dead = members.iter().filter(|(_, member)| process::is_dead(member, &self.member.machine));
        dead.map(|(name, _)| name.clone()).collect()
    }
}

/// What all replicas of this bridge have in common, and what tells this process from the others.
fn member<S: Sink>(bridge: &Bridge<S>) -> Member {
    let pid = std::process::id();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Member {
        bridge: bridge.name.to_owned(),
        sink: bridge.sink.identity(),
        reads: reads(&bridge.streams, &bridge.live.borrow(), beside(bridge)),
        consumer: bridge.streams.consumer.clone(),
        host: host.trim().to_owned(),
        machine: process::machine(),
        pid,
        started: process::started(pid).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// What the work beside the streams is divided into, where there is any.
fn beside<S>(bridge: &Bridge<S>) -> Option<Parts> {
    bridge.beside.is_some().then_some(bridge.parts)
}

/// What says which streams, and whole databases or shards, there are to share.
fn reads(streams: &StreamSettings, live: &Live, beside: Option<Parts>) -> String {
    let mut text = String::new();
    let numbers = |dbs: &[u16]| dbs.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    match beside {
        Some(Parts::Databases) => text += &format!("all of databases {}; ", numbers(&live.dbs)),
        Some(Parts::Shards(count)) => text += &format!("{count} shards; "),
        None => {}
    }
    if !streams.enabled {
        return text;
    }
    if let Some(discovery) = &live.discovery {
        let patterns = |patterns: &[crate::pattern::Pattern]| {
            patterns.iter().map(crate::pattern::Pattern::as_str).collect::<Vec<_>>().join(",")
        };
        text += &format!(
            "{} in {} without {}",
            patterns(&discovery.patterns),
            numbers(&discovery.dbs),
            patterns(&discovery.exclude)
        );
    }
    for name in &streams.named {
        text += &format!(" {}", name.spell(0));
    }
    text
}
