//! The sink: a group is cut into batches, each of which gets a place among the batches of its streams and a place in
//! the line for a connection before `deliver` returns; what becomes of it is told in `streams/write.rs`.
//!
//! **Order.** Batches are written on several connections at once, and take effect in the order in which they were
//! handed over, as far as they have streams in common (`streams/order.rs`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Record, Sink, Unreachable};
use sync_core::telemetry::metrics::Metrics;

use crate::postgres::connection::{Connection, Connector, statement};
use crate::postgres::fault::Fault;
use crate::postgres::pool::{Loan, Pool, Turn};
use crate::postgres::settings::PostgresSettings;
use crate::schema::{self, Looked, Tables, Wanted, prepare};
use crate::settings::{Settings, TableSettings};
use crate::streams::order::{Order, Place};
use crate::streams::row::{RowEncoder, Rows, unfit};
use crate::streams::write::{Batch, Statements, fate};

/// Rows of one statement: half of what a group has. Two are written at once (`streams/order.rs`), and two more wait: while
/// a group's fates are told and acknowledged and the next one is handed over, the server has enough to do.
const BATCH_ROWS: usize = 2000;
/// What its entries should occupy in memory: half of a group, too.
const BATCH_BYTES: usize = 4 << 20;

pub(crate) const OPERATIONS: &str =
    "Statements sent to PostgreSQL, those that begin and end a transaction included";

/// PostgreSQL as a sink. Clones are the same.
#[derive(Clone)]
pub(crate) struct PgSink(Arc<Inner>);

struct Inner {
    postgres: PostgresSettings,
    tables: TableSettings,
    source_name: String,
    wanted: Wanted,
    connector: Connector,
    encoder: RowEncoder,
    order: Order,
    live: Mutex<Option<Live>>,
    /// Whether tables that are absent are made.
    makes: bool,
    /// What is missing and not needed was said.
    warned: AtomicBool,
}

/// The connections of the moment, and the tables as they were found.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) pool: Pool,
    pub(crate) tables: Arc<Tables>,
    statements: Option<Arc<Statements>>,
}

impl PgSink {
    /// Connects to nothing.
    pub(crate) fn new(settings: &Settings, metrics: &Metrics) -> Self {
        Self::with(settings, metrics, true)
    }

    /// To be looked at, and not to be written to.
    pub(crate) fn untouched(settings: &Settings) -> Self {
        Self::with(settings, &Metrics::default(), false)
    }

    fn with(settings: &Settings, metrics: &Metrics, makes: bool) -> Self {
        let operations = metrics.counter("postgres_operations", OPERATIONS);
        Self(Arc::new(Inner {
            connector: Connector::new(&settings.postgres, operations),
            postgres: settings.postgres.clone(),
            tables: settings.tables.clone(),
            source_name: settings.streams.source_name.clone().unwrap_or_default(),
            wanted: Wanted::by(settings),
            encoder: RowEncoder::new(settings),
            order: Order::default(),
            makes,
            live: Mutex::new(None),
            warned: AtomicBool::new(false),
        }))
    }

    /// The connections of the moment, if there are any.
    pub(crate) fn live(&self) -> Option<Live> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects once, and looks at the tables.
    async fn attempt(&self) -> Result<(Connection, Tables), Unreachable> {
        let asked =
            |fault: Fault| Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() };
        let mut connection = self.0.connector.connect().await.map_err(asked)?;
        takes_writes(&mut connection).await?;
        let Looked { tables, missing, absent } = match self.0.makes {
            true => prepare(&mut connection, &self.0.wanted).await?,
            false => schema::look(&mut connection, &self.0.wanted).await?,
        };
        if !absent.is_empty() {
            tracing::warn!("not there yet, and made at the start of the bridge: {}", absent.join(", "));
        }
        if !missing.is_empty() && !self.0.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "indexes are missing, without which people's queries take longer; they are not made on a table that is \
                 there: {}",
                missing.join(" ")
            );
        }
        Ok((connection, tables))
    }
}

/// After a failover this may be a standby, or have been made read-only.
async fn takes_writes(connection: &mut Connection) -> Result<(), Unreachable> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";
    let asked = |fault: Fault| Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() };
    let rows = connection.fetch(statement(sql)).await.map_err(asked)?;
    let answer = |at: usize| rows.first().and_then(|row| row.try_get::<bool, _>(at).ok()).unwrap_or_default();
    let read_only = rows.first().and_then(|row| row.try_get::<String, _>(1).ok()).unwrap_or_default();
    let reason = match (answer(0), read_only.as_str()) {
        (true, _) => "it is a standby, which takes no writes",
        (false, "on") => "it is read-only (default_transaction_read_only)",
        _ => return Ok(()),
    };
    Err(Unreachable { reason: reason.into(), needs_human: false })
}

impl Sink for PgSink {
    fn destination(&self) -> String {
        format!("PostgreSQL server at {}", self.0.postgres.address())
    }

    fn identity(&self) -> String {
        let TableSettings { schema, streams, key_values, .. } = &self.0.tables;
        let source = &self.0.source_name;
        format!("{} {schema}.{streams} {schema}.{key_values} {source}", self.0.postgres.address())
    }

    /// A row that is there is compared.
    fn repeats_are_harmless(&self) -> bool {
        true
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let (connection, tables) = self.attempt().await?;
        let PostgresSettings { pool_size, max_queries, .. } = self.0.postgres;
        let pool = Pool::new(self.0.connector.clone(), connection, pool_size, max_queries);
        let statements =
            tables.streams.as_ref().map(|table| Arc::new(Statements::new(table, &self.0.tables)));
        let live = Live { pool: pool.clone(), tables: Arc::new(tables), statements };
        *self.0.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        Ok(pool.lost().map(|reason| Lost { reason, by_conflict: false }).boxed())
    }

    fn deliver(&self, group: Group) -> Delivery {
        let mut fates = vec![Fate::Unknown; group.len()];
        let Some((pool, statements)) = self.live().and_then(|live| Some((live.pool, live.statements?)))
        else {
            return std::future::ready(fates).boxed();
        };
        for (record, fate) in group.iter().zip(&mut fates) {
            if let Some(reason) = unfit(&record.entry) {
                *fate = Fate::Unfit(reason);
            }
        }
        let writable: Vec<usize> = (0..group.len()).filter(|&at| fates[at] == Fate::Unknown).collect();
        let tasks: Vec<_> = batches(&group, &writable)
            .map(|places| {
                let streams: HashSet<_> = places.iter().map(|&at| group[at].stream.name.clone()).collect();
                let job = Job {
                    places: places.to_vec(),
                    group: group.clone(),
                    place: self.0.order.take_place(streams),
                    turn: pool.line_up(),
                    encoder: self.0.encoder,
                    statements: statements.clone(),
                };
                tokio::spawn(job.run())
            })
            .collect();
        async move {
            let mut places = Vec::with_capacity(tasks.len());
            for task in tasks {
                // A task that fails says nothing: unknown.
                let Ok((done, place)) = task.await else { continue };
                for (at, fate) in done {
                    fates[at] = fate;
                }
                places.push(place);
            }
            // They are given up when the lane has the fates: what it hands over until then knows of these batches.
            drop(places);
            fates
        }
        .boxed()
    }

    async fn disconnect(&self) {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(live) = live {
            live.pool.close().await;
        }
    }
}

/// Slices of about the same length, each within the bounds.
fn batches<'a>(group: &'a [Record], places: &'a [usize]) -> impl Iterator<Item = &'a [usize]> {
    let count = places.len().div_ceil(BATCH_ROWS).max(1);
    let most = places.len().div_ceil(count);
    let mut rest = places;
    std::iter::from_fn(move || {
        let (mut length, mut bytes) = (0, 0);
        while length < most.min(rest.len()) && bytes < BATCH_BYTES {
            bytes += group[rest[length]].entry.size();
            length += 1;
        }
        let (batch, after) = rest.split_at(length);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// A batch, from its place in line to its fates.
struct Job {
    group: Group,
    /// Of its records in the group.
    places: Vec<usize>,
    place: Place,
    turn: Turn,
    encoder: RowEncoder,
    statements: Arc<Statements>,
}

impl Job {
    /// What became of its records, by their places in the group.
    async fn run(self) -> (Vec<(usize, Fate)>, Place) {
        let Self { group, places, mut place, turn, encoder, statements } = self;
        let mut fates = vec![Fate::Unknown; group.len()];
        // No connection is idle while rows are made.
        let entries = places.iter().map(|&at| (at, group[at].stream.spelled.as_str(), &group[at].entry));
        let (rows, unfit) = Rows::of(entries, encoder);
        for (at, reason) in unfit {
            fates[at] = Fate::Unfit(reason);
        }
        place.may_begin().await;
        match turn.loan().await {
            Ok(loan) => write(&group, &rows, &statements, loan, &place, &mut fates).await,
            Err(fault) => rows.places.iter().for_each(|&at| fates[at] = fate(fault.clone())),
        }
        let is_done = |at: &usize| matches!(fates[*at], Fate::Delivered | Fate::Refused(_) | Fate::Unfit(_));
        let undone = places.iter().filter(|at| !is_done(at));
        place.done(undone.map(|&at| group[at].stream.name.clone()).collect());
        let fates = places.into_iter().map(|at| (at, std::mem::replace(&mut fates[at], Fate::Unknown)));
        (fates.collect(), place)
    }
}

async fn write(
    group: &[Record],
    rows: &Rows,
    statements: &Statements,
    mut loan: Loan,
    place: &Place,
    fates: &mut [Fate],
) {
    if rows.len() == 0 {
        return;
    }
    let mut batch = Batch { group, rows, statements, fates: &mut *fates };
    if let Err(fault) = batch.write(&mut loan, place).await {
        // Of several rows none has failed alone.
        let fault = match fault {
            Fault::Row(reason) if rows.len() > 1 => Fault::Held(reason),
            fault => fault,
        };
        rows.places.iter().for_each(|&at| fates[at] = fate(fault.clone()));
        give_up(loan, fault);
    }
}

/// After a fault that is about more than these rows.
fn give_up(loan: Loan, fault: Fault) {
    match fault {
        Fault::Changed(reason) => loan.pool().lose(&reason),
        // The connection is not used again; whether the server is still there shows when the next one is made.
        fault => tracing::debug!("a batch is not written: {fault}"),
    }
}
