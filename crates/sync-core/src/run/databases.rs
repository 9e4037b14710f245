//! Which whole databases are this process's, for work beside the streams. Replicas share them out as they share out
//! streams: each database has one owner (ARCHITECTURE.md, "One owner per stream"). It decides nothing, and knows
//! nothing of the work. Where the bridge divides its work into shards of something else (`Parts::Shards`), a shard's
//! number stands wherever a database's does here.
//!
//! The work goes like this:
//!
//! ```text
//! let stop = databases.stop.clone();
//! loop {
//!     let owned = databases.owned();
//!     // end what is under way of others than these, and begin what is new
//!     databases.settled();
//!     select! { () = databases.changed() => {}, () = stop.requested() => break }
//! }
//! // end all that is under way
//! ```
//!
//! Nothing fences a write at the destination but the work itself. Before each, and as long as it may take, it must see
//! that enough of the lease [remains](Tenure::remaining): whoever lost its lease may find its databases taken over.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Live;
use super::ownership::Portion;
use crate::lane::Shared;
use crate::lease::Lease;
use crate::rate_limit::RateLimiter;
use crate::redis::connection::Connector;
use crate::redis::ownership::LAST_DATABASE;
use crate::redis::{Fault, discovery};
use crate::retry::Backoff;
use crate::settings::RetrySettings;
use crate::shutdown::Shutdown;
use crate::telemetry::health::{Health, Severity};
use crate::telemetry::metrics::Metrics;

/// The part of the process's health that this is.
const PART: &str = "databases";

/// What ties the work to who owns what.
pub(super) struct Ends {
    pub(super) portion: watch::Receiver<Arc<Portion>>,
    pub(super) lease: Lease,
    /// Databases that there are to work on.
    pub(super) there_is: watch::Sender<BTreeSet<u16>>,
    /// Up to which revision of the portion the work has let go of what it took.
    pub(super) settled: watch::Sender<u64>,
}

/// The databases (or shards) of this process, and what the work on them needs.
pub struct Databases {
    /// To the source.
    pub connector: Connector,
    /// Streams and keys named without `dbN:` are there.
    pub default_db: u16,
    /// Every command to the source is counted by it.
    pub limiter: RateLimiter,
    /// The process's.
    pub health: Health,
    /// The process's.
    pub metrics: Metrics,
    /// When to stop.
    pub stop: Shutdown,
    /// Connecting to the source again.
    pub redis_retry: RetrySettings,
    there_is: watch::Receiver<BTreeSet<u16>>,
    portion: watch::Receiver<Arc<Portion>>,
    settled: watch::Sender<u64>,
    /// What `owned` said last, and as of which revision.
    told: BTreeSet<u16>,
    seen: u64,
    tenure: Tenure,
}

impl Databases {
    pub(super) fn new<S>(ends: Ends, shared: &Shared<S>) -> (Self, ThereIs) {
        let Ends { portion, lease, there_is, settled } = ends;
        let look = ThereIs {
            connector: shared.connector.clone(),
            default_db: shared.default_db,
            limiter: shared.limiter.clone(),
            health: shared.health.clone(),
            retry: shared.redis_retry,
            stop: shared.stop.clone(),
            streams_enabled: shared.settings.enabled,
            tell: there_is,
        };
        let databases = Self {
            connector: shared.connector.clone(),
            default_db: shared.default_db,
            limiter: shared.limiter.clone(),
            health: shared.health.clone(),
            metrics: shared.metrics.clone(),
            stop: shared.stop.clone(),
            redis_retry: shared.redis_retry,
            there_is: look.tell.subscribe(),
            tenure: Tenure { member: None, lease, portion: portion.clone() },
            portion,
            settled,
            told: BTreeSet::new(),
            seen: 0,
        };
        (databases, look)
    }

    /// The databases that are this process's now: of SOURCE_REDIS_DB_SEARCH_RANGE, those that the server has (or the
    /// shards). None at
    /// once when the other replicas have taken over, or when this one has left them. A lease that ran out unnoticed
    /// changes nothing here: only [`Databases::remaining`] tells.
    pub fn owned(&mut self) -> BTreeSet<u16> {
        let portion = self.portion.borrow_and_update().clone();
        self.told = self.within(&portion);
        self.seen = portion.revision;
        self.tenure.member = portion.member.clone();
        self.told.clone()
    }

    /// Returns once [`Databases::owned`] has another answer than it gave last. May be dropped at any time: no change is
    /// lost.
    pub async fn changed(&mut self) {
        while self.within(&self.portion.borrow()) == self.told {
            tokio::select! {
                Ok(()) = self.portion.changed() => {}
                Ok(()) = self.there_is.changed() => {}
                else => pending().await,
            }
        }
    }

    /// Says that nothing is under way of any database that [`Databases::owned`] did not name when it was asked last.
    /// Until it is said, no other replica gets what this one is to give up, however long that takes. To be said after
    /// each change, also by who had nothing to end.
    pub fn settled(&self) {
        self.settled.send_if_modified(|before| std::mem::replace(before, self.seen) != self.seen);
    }

    /// How long the lease still holds under which [`Databases::owned`] gave its last answer: see [`Tenure::remaining`].
    pub fn remaining(&self) -> Option<Duration> {
        self.tenure.remaining()
    }

    /// The same for parts of the work that do not have this value.
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    fn within(&self, portion: &Portion) -> BTreeSet<u16> {
        portion.databases().unwrap_or_else(|| self.there_is.borrow().clone())
    }
}

/// One membership of this process among the replicas, for whoever writes what only an owner may. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenure {
    member: Option<Arc<str>>,
    lease: Lease,
    portion: watch::Receiver<Arc<Portion>>,
}

impl Tenure {
    /// How long what was owned under it cannot become another's, by the clock that goes on while the machine sleeps.
    /// `None` is for ever: this process is alone. Zero once the lease ran out, and for good once the membership has
    /// ended, also where this process has become a member again: others may have worked on the databases meanwhile.
    pub fn remaining(&self) -> Option<Duration> {
        let portion = self.portion.borrow();
        match (&self.member, &portion.member) {
            _ if portion.is_all() => self.lease.remaining(),
            (Some(then), Some(now)) if then == now => self.lease.remaining(),
            _ => Some(Duration::ZERO),
        }
    }
}

/// Finds out which databases there are to work on, and follows the settings.
pub(super) struct ThereIs {
    connector: Connector,
    default_db: u16,
    limiter: RateLimiter,
    health: Health,
    retry: RetrySettings,
    stop: Shutdown,
    streams_enabled: bool,
    tell: watch::Sender<BTreeSet<u16>>,
}

impl ThereIs {
    /// They are shards of something, always as many.
    pub(super) fn are(self, count: u16) {
        self.tell.send_replace((0..count.min(LAST_DATABASE + 1)).collect());
    }

    /// Until a stop is requested.
    pub(super) async fn tell(self, mut live: watch::Receiver<Live>) {
        let stop = self.stop.clone();
        tokio::select! {
            () = self.follow(&mut live) => {}
            () = stop.requested() => {}
        }
    }

    async fn follow(&self, live: &mut watch::Receiver<Live>) {
        let count = self.count().await;
        loop {
            let settings = live.borrow_and_update().clone();
            let (there, beyond) = existing(&settings.dbs, count, self.connector.is_cluster());
            let said_by_search = self.streams_enabled && settings.discovery.is_some();
            if !beyond.is_empty() && !said_by_search {
                tracing::warn!("{beyond:?} of SOURCE_REDIS_DB_SEARCH_RANGE are no databases of the server");
            }
            self.tell.send_if_modified(|before| {
                let changed = *before != there;
                *before = there;
                changed
            });
            if live.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// How many databases the server has, where it says so. It never has more or fewer.
    async fn count(&self) -> Option<u32> {
        let mut backoff = Backoff::new(self.retry);
        loop {
            match self.ask().await {
                Ok(count) => {
                    self.health.forget(PART);
                    return count;
                }
                Err(fault) => {
                    let severity = if fault.needs_human() { Severity::Error } else { Severity::Warn };
                    self.health.down(PART, &format!("not known yet: {fault}"), severity);
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn ask(&self) -> Result<Option<u32>, Fault> {
        self.limiter.spend(1);
        let ask = async |client: Client| Ok(discovery::databases(&client).await);
        self.connector.connection(self.default_db).await?.run(ask).await
    }
}

/// Those of the range that are there, and those that are not. `count` is how many the server has, if it says so.
fn existing(range: &[u16], count: Option<u32>, is_cluster: bool) -> (BTreeSet<u16>, Vec<u16>) {
    if is_cluster {
        return (BTreeSet::from([0]), Vec::new());
    }
    let is_there = |db: &u16| *db <= LAST_DATABASE && count.is_none_or(|count| u32::from(*db) < count);
    let beyond = range.iter().copied().filter(|db| !is_there(db)).collect();
    (range.iter().copied().filter(is_there).collect(), beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use crate::redis::ownership::bucket_of_database;
    use crate::settings::RedisSettings;

    const RETRY: RetrySettings =
        RetrySettings { max_retries: 1, base: Duration::from_secs(1), cap: Duration::from_secs(1) };

    /// To nowhere.
    fn databases(ends: &Ends) -> Databases {
        let settings = RedisSettings {
            url: None,
            host: String::new(),
            port: 0,
            username: None,
            password: None,
            tls: None,
            db: 0,
            pool_size: 1,
            retry: RETRY,
            health_check_interval: Duration::from_secs(1),
        };
        let (portion, lease) = (ends.portion.clone(), ends.lease.clone());
        Databases {
            connector: Connector::new(settings).expect("nothing to be read"),
            default_db: 0,
            limiter: RateLimiter::new(0),
            health: Health::default(),
            metrics: Metrics::default(),
            stop: Shutdown::manual().1,
            redis_retry: RETRY,
            there_is: ends.there_is.subscribe(),
            tenure: Tenure { member: None, lease, portion: portion.clone() },
            portion,
            settled: ends.settled.clone(),
            told: BTreeSet::new(),
            seen: 0,
        }
    }

    fn ends(portion: Portion, lease: Lease) -> (watch::Sender<Arc<Portion>>, Ends) {
        let (tell, portion) = watch::channel(Arc::new(portion));
        let there_is = watch::channel(BTreeSet::new()).0;
        (tell, Ends { portion, lease, there_is, settled: watch::channel(0).0 })
    }

    /// As a `select!` does in which another branch is ready: it is looked at once, and dropped.
    fn has_changed(databases: &mut Databases) -> bool {
        let changed = pin!(databases.changed());
        changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn portion(member: &str, revision: u64, dbs: &[u16]) -> Arc<Portion> {
        // Beside a part of the streams.
        let buckets = dbs.iter().map(|db| bucket_of_database(*db)).chain([7, 1023]);
        Arc::new(Portion::of(member.into(), revision, buckets.collect()))
    }

    #[test]
    fn what_is_owned_and_what_is_let_go_of() {
        let (tell, ends) = ends(Portion::nothing(0), Lease::none());
        let mut databases = databases(&ends);
        let settled = ends.settled.subscribe();
        assert!(databases.owned().is_empty() && !has_changed(&mut databases));
        // That there are some makes none this process's.
        ends.there_is.send_replace([1, 2, 3].into());
        assert!(!has_changed(&mut databases));
        tell.send_replace(portion("a", 1, &[1, 2]));
        assert!(has_changed(&mut databases) && has_changed(&mut databases), "until it is asked what");
        databases.settled();
        assert_eq!(*settled.borrow(), 0, "it has not asked yet");
        assert_eq!(databases.owned(), [1, 2].into());
        databases.settled();
        assert_eq!(*settled.borrow(), 1);
        // Only streams moved.
        tell.send_replace(portion("a", 2, &[1, 2]));
        assert!(!has_changed(&mut databases));
        tell.send_replace(portion("a", 3, &[2, 255]));
        assert_eq!(databases.owned(), [2, 255].into());
        tell.send_replace(portion("a", 4, &[255]));
        databases.settled();
        assert_eq!(*settled.borrow(), 3, "it does not know of the last change yet");
        assert!(has_changed(&mut databases));
        tell.send_replace(Arc::new(Portion::nothing(5)));
        assert!(databases.owned().is_empty());
        drop(tell);
        assert!(!has_changed(&mut databases) && databases.owned().is_empty());
    }

    #[test]
    fn alone_it_owns_all_that_there_is_for_ever() {
        let (tell, ends) = ends(Portion::all(), Lease::for_ever());
        drop(tell);
        let mut databases = databases(&ends);
        assert!(databases.owned().is_empty() && !has_changed(&mut databases));
        ends.there_is.send_replace([1, 2].into());
        assert!(has_changed(&mut databases));
        assert_eq!(databases.owned(), [1, 2].into());
        assert!(!has_changed(&mut databases));
        assert_eq!((databases.remaining(), databases.tenure().remaining()), (None, None));
    }

    #[test]
    fn a_tenure_ends_with_its_membership() {
        let lease = Lease::none();
        let (tell, ends) = ends(Portion::nothing(0), lease.clone());
        let mut databases = databases(&ends);
        let holds = |remaining: Option<Duration>| !remaining.expect("not for ever").is_zero();
        let extend = || lease.extend_to(crate::lease::now() + Duration::from_secs(60));
        assert!(!holds(databases.remaining()));
        // It has joined, and owns nothing yet.
        extend();
        databases.owned();
        assert!(!holds(databases.remaining()));
        tell.send_replace(portion("a", 1, &[1]));
        assert!(!holds(databases.remaining()), "nobody has been told");
        databases.owned();
        let first = databases.tenure();
        assert!(holds(databases.remaining()) && holds(first.remaining()));
        // What is given up may be finished.
        tell.send_replace(portion("a", 2, &[]));
        assert!(holds(databases.remaining()) && holds(first.remaining()));
        lease.end();
        assert!(!holds(databases.remaining()) && !holds(first.remaining()));
        tell.send_replace(Arc::new(Portion::nothing(3)));
        extend();
        tell.send_replace(portion("b", 4, &[1]));
        assert!(!holds(databases.remaining()), "another may have had it since");
        databases.owned();
        assert!(holds(databases.remaining()) && holds(databases.tenure().remaining()));
        assert!(!holds(first.remaining()));
    }

    #[test]
    fn which_databases_there_are() {
        let check = |range: &[u16], count, is_cluster, there: &[u16], beyond: &[u16]| {
            let expected = (there.iter().copied().collect(), beyond.to_vec());
            assert_eq!(existing(range, count, is_cluster), expected);
        };
        check(&[0, 3, 5], Some(16), false, &[0, 3, 5], &[]);
        check(&[0, 15, 16, 300], Some(16), false, &[0, 15], &[16, 300]);
        // A server that does not say.
        check(&[0, 200, 256], None, false, &[0, 200], &[256]);
        check(&[2, 3], Some(1), true, &[0], &[]);
    }
}
