//! One batch: written with one statement; what was skipped is compared; what fails is taken apart until each row that
//! cannot be written stands alone. **A fate of delivered is given only after the commit.** If the process dies before
//! that, nothing was written, or it was and is not acknowledged: it is delivered again, and found to be there.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Row as _;
use sync_core::bridge::{Fate, Record};
use sync_core::record::{EntryId, StreamName};
use tokio::time::timeout;

use super::order::Place;
use super::row::Rows;
use crate::postgres::connection::{Connection, statement};
use crate::postgres::fault::Fault;
use crate::schema::StreamTable;
use crate::settings::TableSettings;

/// The statements, as the table is.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    insert: String,
    compare: String,
    overwrite: bool,
}

/// How the table stands to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has the row.
    Same,
    /// It has a row of this stream and ID, with other data.
    Differs,
    Absent,
}

impl Statements {
    pub(crate) fn new(table: &StreamTable, settings: &TableSettings) -> Self {
        let StreamTable { name, unique_with_time, time_type } = table;
        let (key, same_time) = match unique_with_time {
            true => (
                r#"stream_key, message_id, "timestamp""#,
                format!(r#" AND t."timestamp" = u.time::{time_type}"#),
            ),
            false => ("stream_key, message_id", String::new()),
        };
        // A row that is as it should be is not written again. Text tells 1.0 from 1.00, which JSONB takes for equal.
        let conflict = match settings.overwrite {
            false => "NOTHING".to_owned(),
            true => r#"UPDATE SET data = EXCLUDED.data, "timestamp" = EXCLUDED."timestamp"
                WHERE t.data::text IS DISTINCT FROM EXCLUDED.data::text"#
                .to_owned(),
        };
        let rows = "unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])";
        Self {
            insert: format!(
                r#"INSERT INTO {name} AS t (stream_key, message_id, data, "timestamp")
                SELECT stream, id, data::jsonb, time FROM {rows} AS u(stream, id, data, time)
                ON CONFLICT ({key}) DO {conflict}"#
            ),
            compare: format!(
                r#"SELECT CASE WHEN t.data IS NULL THEN 0 WHEN t.data::text = u.data::jsonb::text THEN 1 ELSE 2 END
                FROM {rows} WITH ORDINALITY AS u(stream, id, data, time, place)
                LEFT JOIN {name} t ON t.stream_key = u.stream AND t.message_id = u.id{same_time}
                ORDER BY u.place"#
            ),
            overwrite: settings.overwrite,
        }
    }

    async fn insert(&self, connection: &mut Connection, rows: &Rows, of: &[usize]) -> Result<u64, Fault> {
        connection.execute(bind(&self.insert, rows, of)).await
    }

    /// How the table stands to each of these rows.
    pub(crate) async fn compare(
        &self,
        connection: &mut Connection,
        rows: &Rows,
        of: &[usize],
    ) -> Result<Vec<Standing>, Fault> {
        let answers = connection.fetch(bind(&self.compare, rows, of)).await?;
        let standing = |row: &sqlx::postgres::PgRow| {
            Ok(match row.try_get::<i32, _>(0)? {
                0 => Standing::Absent,
                1 => Standing::Same,
                _ => Standing::Differs,
            })
        };
        let standings: Vec<_> = answers.iter().map(standing).collect::<Result<_, sqlx::Error>>()?;
        match standings.len() == of.len() {
            true => Ok(standings),
            false => Err(Fault::Held(format!("{} rows compared to {} answers", of.len(), standings.len()))),
        }
    }
}

fn bind<'q>(sql: &'q str, rows: &'q Rows, of: &[usize]) -> crate::postgres::connection::Statement<'q> {
    let pick = |texts: &'q [String]| of.iter().map(|&at| texts[at].as_str()).collect::<Vec<&str>>();
    let data: Vec<&str> = of.iter().map(|&at| rows.data(at)).collect();
    let times: Vec<_> = of.iter().map(|&at| rows.times[at]).collect();
    statement(sql).bind(pick(&rows.streams)).bind(pick(&rows.ids)).bind(data).bind(times)
}

/// A constraint that is checked at the end would fail a whole batch at its commit, whichever row it is about.
const BEGIN: &str = "BEGIN; SET CONSTRAINTS ALL IMMEDIATE";
const BEGIN_AGAIN: &str = "ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE";
/// A batch that is written waits for its turn for so long, then lets go of its rows and writes them again after that.
const LOCKS_HELD: Duration = Duration::from_secs(1);

/// Whether a batch that is written may commit.
enum Turn {
    Took,
    /// One before it left something undone.
    Never,
    /// It was waited for long enough.
    Late,
}

/// What came of a statement that is no fault of the server's, or of several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// The rows are in the table, or conflicts.
    Written,
    /// The one row failed.
    Refused,
}

/// The first half on top.
fn halves(part: &[usize]) -> impl Iterator<Item = &[usize]> {
    let (first, second) = part.split_at(part.len().div_ceil(2));
    [second, first].into_iter().filter(|half| !half.is_empty())
}

/// A batch on its way.
pub(crate) struct Batch<'a> {
    pub(crate) group: &'a [Record],
    pub(crate) rows: &'a Rows,
    pub(crate) statements: &'a Statements,
    /// One for each record of the group.
    pub(crate) fates: &'a mut [Fate],
}

impl Batch<'_> {
    /// Writes it, in its place. On a fault nothing of it has taken effect, or (lost) nobody knows.
    pub(crate) async fn write(&mut self, connection: &mut Connection, place: &Place) -> Result<(), Fault> {
        let (all, twins) = self.distinct();
        self.write_distinct(connection, place, &all).await?;
        for (left_out, last) in twins {
            // Where the last one cannot be written, the one before it is the last, next time.
            if self.fates[self.rows.places[last]] == Fate::Delivered {
                self.fates[self.rows.places[left_out]] = Fate::Delivered;
            }
        }
        Ok(())
    }

    async fn write_distinct(
        &mut self,
        connection: &mut Connection,
        place: &Place,
        all: &[usize],
    ) -> Result<(), Fault> {
        if place.must_wait() {
            connection.simple(BEGIN).await?;
            match self.within(connection, place, all).await {
                Ok(Turn::Took) => return connection.commit().await.inspect_err(|_| self.forget()),
                Ok(Turn::Never) => {
                    self.forget();
                    return connection.rollback().await;
                }
                Ok(Turn::Late) => {
                    self.forget();
                    connection.rollback().await?;
                }
                Err(fault) => {
                    self.forget();
                    if !matches!(fault, Fault::Lost(_)) {
                        connection.rollback().await?;
                    }
                    return Err(fault);
                }
            }
        }
        // Whatever was handed over before has an answer, or is waited for without a lock: one statement is enough, and
        // takes effect by itself. (One row that a trigger keeps out shows only afterwards.)
        if !place.may_take_effect().await {
            return Ok(());
        }
        match self.attempt(connection, all).await {
            Err(Fault::Row(_) | Fault::Rule(_)) => {}
            done => return done.map(drop),
        }
        self.forget();
        connection.simple(BEGIN).await?;
        connection.simple("SAVEPOINT batch").await?;
        match self.apart(connection, all).await {
            Ok(()) => connection.commit().await.inspect_err(|_| self.forget()),
            Err(fault) => {
                self.forget();
                if !matches!(fault, Fault::Lost(_)) {
                    connection.rollback().await?;
                }
                Err(fault)
            }
        }
    }

    /// The rows to write. Of those with one stream and ID the last one counts, where it may overwrite: one statement
    /// cannot write a row twice. The others are left out, and share its fate. (Where it may not, all are tried, and
    /// those that differ from the first are found to.)
    fn distinct(&self) -> (Vec<usize>, Vec<(usize, usize)>) {
        let all = 0..self.rows.len();
        if !self.statements.overwrite {
            return (all.collect(), Vec::new());
        }
        let mut last: HashMap<(&StreamName, EntryId), usize> = HashMap::with_capacity(all.len());
        for at in all.clone() {
            last.insert(self.identity(at), at);
        }
        let (kept, left_out): (Vec<usize>, Vec<usize>) = all.partition(|at| last[&self.identity(*at)] == *at);
        let twins = left_out.into_iter().map(|at| (at, last[&self.identity(at)])).collect();
        (kept, twins)
    }

    fn identity(&self, at: usize) -> (&StreamName, EntryId) {
        let record = &self.group[self.rows.places[at]];
        (&record.stream.name, record.entry.id)
    }

    /// Inside a transaction: all at once, or apart (savepoints are only made when they are needed); then waits for its
    /// turn to commit.
    async fn within(
        &mut self,
        connection: &mut Connection,
        place: &Place,
        all: &[usize],
    ) -> Result<Turn, Fault> {
        match self.attempt(connection, all).await {
            Ok(Attempt::Written) => {}
            Ok(Attempt::Refused) => connection.simple(BEGIN_AGAIN).await?,
            Err(Fault::Row(_) | Fault::Rule(_)) => {
                self.forget();
                connection.simple(BEGIN_AGAIN).await?;
                connection.simple("SAVEPOINT batch").await?;
                self.apart(connection, all).await?;
            }
            Err(fault) => return Err(fault),
        }
        // It holds locks, which the one before may want: a trigger may write to a row that is the same for both. The
        // server sees no deadlock in that.
        Ok(match timeout(LOCKS_HELD, place.may_take_effect()).await {
            Ok(true) => Turn::Took,
            Ok(false) => Turn::Never,
            Err(_) => Turn::Late,
        })
    }

    /// Halves, in order, until those that cannot be written stand alone. Of a stream whose row is held, no later one
    /// is written.
    async fn apart(&mut self, connection: &mut Connection, all: &[usize]) -> Result<(), Fault> {
        let mut parts: Vec<&[usize]> = halves(all).collect();
        let mut held: HashSet<StreamName> = HashSet::new();
        while let Some(part) = parts.pop() {
            let left: Vec<usize> =
                part.iter().copied().filter(|&at| !held.contains(self.identity(at).0)).collect();
            if left.is_empty() {
                continue;
            }
            match self.attempt(connection, &left).await {
                Ok(Attempt::Written) => connection.simple("RELEASE batch; SAVEPOINT batch").await?,
                Ok(Attempt::Refused) => {
                    connection.simple("ROLLBACK TO batch").await?;
                    if matches!(self.fates[self.rows.places[left[0]]], Fate::Held(_)) {
                        held.insert(self.identity(left[0]).0.clone());
                    }
                }
                Err(Fault::Row(_) | Fault::Rule(_)) => {
                    connection.simple("ROLLBACK TO batch").await?;
                    parts.extend(halves(part));
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// One statement for these rows, and what became of each. One that fails alone has its fate; where there are
    /// several, who it was is not known.
    async fn attempt(&mut self, connection: &mut Connection, of: &[usize]) -> Result<Attempt, Fault> {
        match self.put(connection, of).await {
            Ok(()) => Ok(Attempt::Written),
            Err(fault @ (Fault::Row(_) | Fault::Rule(_))) if let [alone] = of => {
                self.settle(*alone, fate(fault));
                Ok(Attempt::Refused)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn put(&mut self, connection: &mut Connection, of: &[usize]) -> Result<(), Fault> {
        let written = self.statements.insert(connection, self.rows, of).await?;
        if written == of.len() as u64 {
            for &at in of {
                self.settle(at, Fate::Delivered);
            }
            return Ok(());
        }
        // Some were there. (Or a trigger or policy keeps them out: which of them shows when each is written alone.)
        let standings = self.statements.compare(connection, self.rows, of).await?;
        let is_kept_out = |standing: &Standing| match standing {
            Standing::Same => false,
            Standing::Differs => self.statements.overwrite,
            Standing::Absent => true,
        };
        if standings.iter().any(is_kept_out) {
            return Err(Fault::Rule(KEPT_OUT.to_owned()));
        }
        for (&at, standing) in of.iter().zip(standings) {
            let fate = match standing {
                Standing::Differs => Fate::Unfit(CONFLICT.to_owned()),
                // None is absent any more, see above.
                Standing::Same | Standing::Absent => Fate::Delivered,
            };
            self.settle(at, fate);
        }
        Ok(())
    }

    fn settle(&mut self, at: usize, fate: Fate) {
        self.fates[self.rows.places[at]] = fate;
    }

    /// Nothing of it has taken effect.
    fn forget(&mut self) {
        for &place in &self.rows.places {
            self.fates[place] = Fate::Unknown;
        }
    }
}

const CONFLICT: &str = "conflict: the table has a row of this stream and ID with other data";
const KEPT_OUT: &str =
    "the table was given the row and does not have it as given: a trigger, a rule or a policy keeps it out";

/// What a row's fault means for its record.
pub(crate) fn fate(fault: Fault) -> Fate {
    match fault {
        Fault::Row(reason) => Fate::Refused(reason),
        Fault::Busy(reason) => Fate::Busy(reason),
        Fault::Rule(reason) | Fault::Held(reason) => Fate::Held(reason),
        Fault::Lost(_) | Fault::Again(_) | Fault::Changed(_) => Fate::Unknown,
    }
}
