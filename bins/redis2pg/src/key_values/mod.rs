//! Key-values: what stands in keys that are no streams, as rows of the key-value table. This file says when, and what to
//! do when a server is away; `pass.rs` is one pass over a database.
//!
//! A pass asks of every key only what it is and a checksum (`look.rs`), and reads what is not `known.rs`. Where Redis
//! tells which keys change (`changes.rs`), a pass is over those, and over all of them now and then. If the process dies
//! on any line, the next one begins with a pass over everything, and writes what differs.

mod changes;
mod known;
mod look;
mod pass;
mod read;
mod shape;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::InfoKind;
use futures_util::FutureExt as _;
use sync_core::redis::Fault as RedisFault;
use sync_core::redis::connection::Connection;
use sync_core::retry::Backoff;
use sync_core::run::{Beside, Databases, Tenure};
use sync_core::telemetry::health::Severity;
use sync_core::telemetry::metrics::{Counter, Gauge, Metrics};
use tokio::time::{Instant, sleep_until};

use self::changes::Changes;
use self::known::Known;
use self::pass::Pass;
use self::shape::Shape;
use self::store::{Clock, Spelling, Store};
use crate::postgres::fault::Fault;
use crate::settings::{KeyValueSettings, Settings};
use crate::sink::{Live, PgSink};

/// The part of the process's health that this is.
const PART: &str = "key-values";
/// Which primaries a Cluster has is asked this often.
const PRIMARIES: Duration = Duration::from_secs(30);
/// Between looks whether the sink is connected again.
const RECONNECTED: Duration = Duration::from_millis(500);
/// Between looks whether there is something to do.
const IDLE: Duration = Duration::from_secs(60);
/// What is another process's by now is told within this.
const HANDED_OVER: Duration = Duration::from_millis(200);

pub(crate) const WRITTEN: &str = "Rows of key-values written since they differed";
pub(crate) const LAST_PASS: &str = "When a pass was last finished";

/// The work on key-values, for a bridge to do beside its streams.
pub(crate) fn beside(sink: PgSink, settings: &Settings) -> Option<Beside> {
    let key_values = settings.key_values.clone()?;
    let shape = Shape::new(settings.text.value_format, settings.text.encoding);
    Some(Box::new(move |databases| {
        let numbers = Numbers::new(&databases.metrics);
        let work = KeyValues {
            databases,
            sink,
            settings: key_values,
            shape,
            numbers,
            redis: Vec::new(),
            connected: Instant::now(),
            changes: None,
            deaf_until: None,
            states: BTreeMap::new(),
            tenure: None,
        };
        Box::pin(async move {
            let health = work.databases.health.clone();
            if AssertUnwindSafe(work.run()).catch_unwind().await.is_err() {
                let reason =
                    "nothing is copied any more: the program has a defect, see the panic above; restart it";
                health.down(PART, reason, Severity::Error);
            }
        })
    }))
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("source Redis: {0}")]
    Redis(#[from] RedisFault),
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] Fault),
    /// The keeper of the sink says so.
    #[error("PostgreSQL is not connected")]
    Away,
    /// Another process has the database now, or this one is to stop.
    #[error("it is for another process to do")]
    Over,
}

impl Trouble {
    /// Other databases may well be copied.
    fn is_of_one_database(&self) -> bool {
        match self {
            Self::Redis(fault) => !matches!(fault, RedisFault::Lost(_) | RedisFault::Busy(_)),
            Self::Postgres(fault) => !matches!(fault, Fault::Lost(_) | Fault::Changed(_) | Fault::Busy(_)),
            Self::Away | Self::Over => false,
        }
    }
}

/// See the module.
struct KeyValues {
    databases: Databases,
    sink: PgSink,
    settings: KeyValueSettings,
    shape: Shape,
    numbers: Numbers,
    /// To each server that holds keys; none after one has failed.
    redis: Vec<Connection>,
    connected: Instant,
    changes: Option<Changes>,
    /// It may not listen; when that is asked again.
    deaf_until: Option<Instant>,
    states: BTreeMap<u16, State>,
    /// Under which the states came to be.
    tenure: Option<Tenure>,
}

/// Of one database.
struct State {
    known: Known,
    due: Instant,
    /// When all keys are looked at, whatever was heard.
    full_due: Instant,
    /// Rows may be there of keys that this process has never seen.
    table_unseen: bool,
    /// Types that are not copied, and were said so.
    said: BTreeSet<String>,
    /// A key whose row the table does not take as things stand, and why.
    held: Option<String>,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            known: Known::default(),
            due: now,
            full_due: now,
            table_unseen: true,
            said: BTreeSet::new(),
            held: None,
        }
    }

    /// A pass was not finished: what was heard and what was seen is used up, and what is left to do is found by looking
    /// at everything, in Redis and in the table.
    fn begin_anew(&mut self) {
        self.full_due = Instant::now();
        self.table_unseen = true;
    }

    /// Nothing is known of any key, and no row can be there without one.
    fn is_empty(&self, store: &Store) -> bool {
        self.known.len() == 0 && !(self.table_unseen && store.ends_rows())
    }
}

/// What is counted.
#[derive(Clone, Debug)]
struct Numbers {
    looked_at: Counter,
    written: Counter,
    ended: Counter,
    refused: Counter,
    passes: Counter,
    known: Gauge,
    last_pass: Gauge,
    pass_milliseconds: Gauge,
}

impl Numbers {
    fn new(metrics: &Metrics) -> Self {
        Self {
            looked_at: metrics.counter("key_values_looked_at", "Keys looked at, by all passes together"),
            written: metrics.counter("key_values_written", WRITTEN),
            ended: metrics.counter("key_values_ended", "Rows marked or deleted since their key was gone"),
            refused: metrics
                .counter("key_values_refused", "Values that no row can hold, each time they changed"),
            passes: metrics.counter("key_value_passes", "Passes finished, over one database each"),
            known: metrics.gauge("key_values_known", "Keys whose rows are known to be as they are"),
            last_pass: metrics.gauge("key_value_last_pass_timestamp_seconds", LAST_PASS),
            pass_milliseconds: metrics.gauge("key_value_pass_milliseconds", "How long the last pass took"),
        }
    }
}

impl KeyValues {
    /// Until a stop is requested.
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.databases.redis_retry);
        let stop = self.databases.stop.clone();
        loop {
            self.take_over();
            let done = self.round().await;
            if done.is_err() {
                // One that has ended is not to be asked again.
                self.redis.clear();
            }
            let wake = match done {
                Ok(()) => {
                    self.say_how_it_is();
                    backoff.reset();
                    self.states.values().map(|state| state.due).min()
                }
                Err(Trouble::Over) => Some(Instant::now() + HANDED_OVER),
                Err(trouble) => {
                    self.say(&trouble);
                    // While the sink is away nothing is asked of anybody, so it costs nothing to look often.
                    let delay = match trouble {
                        Trouble::Away | Trouble::Postgres(Fault::Lost(_) | Fault::Changed(_)) => RECONNECTED,
                        _ => backoff.next_delay(),
                    };
                    Some(Instant::now() + delay)
                }
            };
            self.numbers.known.set(self.states.values().map(|state| state.known.len() as i64).sum());
            tokio::select! {
                () = stop.requested() => return,
                () = self.databases.changed() => {}
                () = sleep_until(wake.unwrap_or_else(|| Instant::now() + IDLE)) => {}
            }
        }
    }

    /// Nothing is under way now: forgets what is another process's, and lets it have that.
    fn take_over(&mut self) {
        let owned = self.databases.owned();
        if self.tenure.as_ref().is_some_and(|tenure| tenure.remaining() == Some(Duration::ZERO)) {
            // Others may have written meanwhile.
            self.states.clear();
        }
        self.tenure = Some(self.databases.tenure());
        self.states.retain(|db, _| owned.contains(db));
        self.databases.settled();
        for db in owned {
            self.states.entry(db).or_insert_with(|| State::new(Instant::now()));
        }
    }

    /// After a round in which nothing failed.
    fn say_how_it_is(&self) {
        match self.states.values().find_map(|state| state.held.as_ref()) {
            Some(reason) => {
                let reason = format!("held, and tried again until it is taken: {reason}");
                self.databases.health.down(PART, &reason, Severity::Error);
            }
            None if self.states.is_empty() => {}
            None => self.databases.health.up(PART),
        }
    }

    fn say(&mut self, trouble: &Trouble) {
        let severity = match trouble {
            Trouble::Redis(fault) if fault.needs_human() => Severity::Error,
            Trouble::Postgres(fault) if fault.needs_human() => Severity::Error,
            _ => Severity::Warn,
        };
        match trouble {
            Trouble::Away | Trouble::Over => {}
            trouble => self.databases.health.down(PART, &format!("not copied now: {trouble}"), severity),
        }
    }

    /// A pass over each database that is due. One that fails does not keep the others waiting, unless its server is away.
    async fn round(&mut self) -> Result<(), Trouble> {
        let now = Instant::now();
        let due: Vec<u16> =
            self.states.iter().filter(|(_, state)| state.due <= now).map(|(db, _)| *db).collect();
        if due.is_empty() {
            return Ok(());
        }
        let live = self.sink.live().ok_or(Trouble::Away)?;
        let done = self.passes(&live, due).await;
        if let Err(Trouble::Postgres(Fault::Changed(reason))) = &done {
            // The table or the server is another one: to be connected to and looked at anew.
            live.pool.lose(reason);
            self.states.clear();
        }
        done
    }

    async fn passes(&mut self, live: &Live, due: Vec<u16>) -> Result<(), Trouble> {
        let Some(table) = &live.tables.key_values else { return Err(Trouble::Away) };
        let spelling = Spelling {
            by_db: table.unique_by_db,
            default_db: self.databases.default_db,
            prefix: self.settings.source_name.clone(),
        };
        let store = Store::new(table, self.settings.deletions, spelling);
        let clock = Clock::read(&mut *live.pool.line_up().loan().await?).await?;
        self.connect().await?;
        let occupied = self.occupied().await?;
        let mut first_trouble = Ok(());
        for db in due {
            let is_occupied = occupied.as_ref().is_none_or(|occupied| occupied.contains(&db));
            match self.pass(live, &store, clock, db, is_occupied).await {
                Ok(()) => {}
                Err(trouble) if trouble.is_of_one_database() => {
                    first_trouble = first_trouble.and(Err(trouble))
                }
                Err(trouble) => return Err(trouble),
            }
        }
        first_trouble
    }

    async fn pass(
        &mut self,
        live: &Live,
        store: &Store,
        clock: Clock,
        db: u16,
        is_occupied: bool,
    ) -> Result<(), Trouble> {
        let Some(state) = self.states.get_mut(&db) else { return Ok(()) };
        let begun = Instant::now();
        if !is_occupied {
            if state.is_empty(store) {
                state.due = begun + self.settings.interval;
                return Ok(());
            }
            // Of FLUSHDB nobody tells which keys went.
            state.full_due = begun;
        }
        let heard = self.changes.as_ref().and_then(|changes| changes.take(db));
        let changed = heard.filter(|_| begun < state.full_due);
        let is_full = changed.is_none();
        let pass = Pass {
            db,
            databases: &mut self.databases,
            pool: &live.pool,
            store,
            clock,
            settings: &self.settings,
            shape: self.shape,
            numbers: &self.numbers,
            state,
        };
        let done = pass.run(&mut self.redis, changed).await;
        let Some(state) = self.states.get_mut(&db) else { return done };
        let now = Instant::now();
        state.due = now + self.settings.interval;
        if done.is_err() {
            state.begin_anew();
            return done;
        }
        if is_full {
            state.full_due = now + self.settings.full_interval;
            tracing::debug!(database = db, keys = state.known.len(), took = ?begun.elapsed(), "looked at all keys");
        }
        self.numbers.passes.inc();
        self.numbers.pass_milliseconds.set(i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.numbers.last_pass.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// The databases that hold any key, where the server tells; a Cluster's nodes are all asked.
    async fn occupied(&mut self) -> Result<Option<BTreeSet<u16>>, Trouble> {
        let [server] = self.redis.as_mut_slice() else { return Ok(None) };
        self.databases.limiter.take().await;
        let ask = async |client: Client| match client.info::<String>(Some(InfoKind::Keyspace)).await {
            Ok(info) => Ok(Some(info)),
            Err(error) => match RedisFault::from(error) {
                RedisFault::Denied(_) => Ok(None),
                fault => Err(fault),
            },
        };
        let info = server.run(ask).await?;
        let number = |line: &str| line.strip_prefix("db")?.split_once(':')?.0.parse().ok();
        Ok(info.map(|info| info.lines().filter_map(number).collect()))
    }

    /// Connects to Redis where that is not so, and listens to what changes in all databases of this process.
    async fn connect(&mut self) -> Result<(), Trouble> {
        if self.databases.connector.is_cluster() && self.connected.elapsed() > PRIMARIES {
            self.redis.clear();
        }
        if self.redis.is_empty() {
            self.redis = self.databases.connector.connections(self.databases.default_db).await?;
            self.connected = Instant::now();
        }
        let Some(server) = self.redis.first_mut() else { return Ok(()) };
        let owned: BTreeSet<u16> = self.states.keys().copied().collect();
        let now = Instant::now();
        let looks_anew = self.states.values().any(|state| state.full_due <= now);
        // Whether the server still tells is asked when all keys are looked at anyway.
        let tells = match &self.changes {
            Some(changes) if !changes.hears(&owned) => false,
            Some(_) if looks_anew => changes::told(server).await?,
            Some(_) => true,
            None => false,
        };
        if !tells && self.deaf_until.is_none_or(|until| until <= now) {
            let heard = self.changes.take().is_some();
            match Changes::subscribe(&self.databases.connector, server, owned).await? {
                Ok(changes) => (self.changes, self.deaf_until) = (changes, None),
                Err(reason) => {
                    if self.deaf_until.is_none() {
                        tracing::warn!(
                            "Redis tells which keys change, and this user may not listen, so all keys are looked at each \
                             time: {reason}. Allow +psubscribe and, for each database N, the channels \
                             &__keyevent@N__:*, in these very words"
                        );
                    }
                    self.deaf_until = Some(now + self.settings.full_interval);
                }
            }
            if heard || self.changes.is_some() {
                self.states.values_mut().for_each(|state| state.full_due = now);
            }
        }
        Ok(())
    }
}
