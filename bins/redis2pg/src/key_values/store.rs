//! Key-values as rows: written only where they differ, marked or deleted when their key is gone. **Each statement is
//! fenced**: it writes nothing once the lease on the database has run out by PostgreSQL's clock, so that a process that
//! stood still cannot put an old value over a newer one of its successor.

use std::time::Duration;

use bytes::Bytes;
use sqlx::Row as _;
use sync_core::record::{StreamName, parse_key, spell_key};
use tokio::time::Instant;

use crate::postgres::connection::{Connection, statement};
use crate::postgres::fault::Fault;
use crate::schema::KeyValueTable;
use crate::settings::Deletions;

/// Rows of the table that are looked at together.
const PAGE: i64 = 5000;

/// How the table spells keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    /// Unique by database and key; else `dbN:key`, where N is not the default.
    pub(super) by_db: bool,
    pub(super) default_db: u16,
    /// SOURCE_NAME.
    pub(super) prefix: String,
}

impl Spelling {
    pub(super) fn of(&self, db: u16, key: &Bytes) -> String {
        let key = match self.by_db {
            true => spell_key(key),
            false => StreamName::new(db, key.clone()).spell(self.default_db),
        };
        format!("{}{key}", self.prefix)
    }

    /// The key of this database that is spelt so; `None` for another source's, or database's.
    fn read(&self, db: u16, spelled: &str) -> Option<Bytes> {
        let spelled = spelled.strip_prefix(&self.prefix)?;
        if self.by_db {
            return parse_key(spelled).ok();
        }
        let name = StreamName::parse(spelled, self.default_db).ok()?;
        (name.db == db).then_some(name.key)
    }
}

/// The statements, as the table is.
#[derive(Clone, Debug)]
pub(super) struct Store {
    write: String,
    end: Option<String>,
    list: String,
    pub(super) spelling: Spelling,
}

/// Until when statements may take effect, by PostgreSQL's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Microseconds since 1970 there, at least,
    there: i64,
    /// when it was this here.
    here: Instant,
}

impl Clock {
    /// Asks for the time.
    pub(super) async fn read(connection: &mut Connection) -> Result<Self, Fault> {
        let sql = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint";
        let rows = connection.fetch(statement(sql)).await?;
        // Later here than it was there: a deadline comes out too early, never too late.
        let here = Instant::now();
        let there = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        Ok(Self { there, here })
    }

    /// The moment, there, that is so far off; without one, never. `remaining` is asked after the time is: whatever stands
    /// still in between makes it earlier.
    pub(super) fn deadline<E>(
        &self,
        remaining: impl FnOnce() -> Result<Option<Duration>, E>,
    ) -> Result<Deadline, E> {
        let elapsed = self.here.elapsed();
        let Some(remaining) = remaining()? else { return Ok(Deadline(i64::MAX)) };
        let after = i64::try_from((elapsed + remaining).as_micros()).unwrap_or(i64::MAX);
        Ok(Deadline(self.there.saturating_add(after)))
    }
}

/// In microseconds since 1970, by PostgreSQL's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline(i64);

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It took effect on so many rows.
    Rows(u64),
    /// The lease was over.
    Fenced,
}

impl Store {
    pub(super) fn new(table: &KeyValueTable, deletions: Deletions, spelling: Spelling) -> Self {
        let KeyValueTable { name, unique_by_db, marks } = table;
        let unique = if *unique_by_db { "redis_db, redis_key" } else { "redis_key" };
        // Text tells 1.0 from 1.00, which JSONB takes for equal.
        let (unmark, or_marked) = match marks {
            true => (", deleted_at = NULL", " OR t.deleted_at IS NOT NULL"),
            false => ("", ""),
        };
        // Looked at for each row, once its lock is there (which may have been waited for), and at the end once more.
        let open = "(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint < $1";
        let answer = format!("SELECT (SELECT count(*) FROM done), {open}");
        let write = format!(
            r#"WITH done AS (
                INSERT INTO {name} AS t (redis_key, redis_value, redis_db, "timestamp")
                SELECT key, value::jsonb, $2, pg_catalog.now() FROM unnest($3::text[], $4::text[]) AS u(key, value)
                WHERE {open}
                ON CONFLICT ({unique}) DO UPDATE SET redis_value = EXCLUDED.redis_value, redis_db = EXCLUDED.redis_db,
                    "timestamp" = EXCLUDED."timestamp"{unmark}
                WHERE (t.redis_value::text IS DISTINCT FROM EXCLUDED.redis_value::text{or_marked}) AND {open}
                RETURNING 1) {answer}"#
        );
        let end = |change: &str| format!("WITH done AS ({change} AND {open} RETURNING 1) {answer}");
        let these = "t.redis_db = $2 AND t.redis_key = ANY($3::text[])";
        let end = match deletions {
            Deletions::Keep => None,
            Deletions::Delete => Some(end(&format!("DELETE FROM {name} AS t WHERE {these}"))),
            Deletions::Mark => Some(end(&format!(
                "UPDATE {name} AS t SET deleted_at = pg_catalog.now() WHERE {these} AND t.deleted_at IS NULL"
            ))),
        };
        let there = if *marks { " AND deleted_at IS NULL" } else { "" };
        let list = format!(
            "SELECT redis_key FROM {name} WHERE redis_db = $1 AND redis_key > $2{there} ORDER BY redis_key LIMIT {PAGE}"
        );
        Self { write, end, list, spelling }
    }

    /// Whether rows of gone keys are marked or deleted.
    pub(super) fn ends_rows(&self) -> bool {
        self.end.is_some()
    }

    /// Writes these values, spelled key and JSON, where they differ from what is there.
    pub(super) async fn write(
        &self,
        connection: &mut Connection,
        Deadline(deadline): Deadline,
        db: u16,
        rows: &[(String, String)],
    ) -> Result<Written, Fault> {
        let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
        let values: Vec<&str> = rows.iter().map(|(_, value)| value.as_str()).collect();
        let statement = statement(&self.write).bind(deadline).bind(i32::from(db)).bind(keys).bind(values);
        written(&connection.fetch(statement).await?)
    }

    /// Marks or deletes the rows of these keys.
    pub(super) async fn end(
        &self,
        connection: &mut Connection,
        Deadline(deadline): Deadline,
        db: u16,
        keys: &[Bytes],
    ) -> Result<Written, Fault> {
        let Some(sql) = &self.end else { return Ok(Written::Rows(0)) };
        let keys: Vec<String> = keys.iter().map(|key| self.spelling.of(db, key)).collect();
        let statement = statement(sql).bind(deadline).bind(i32::from(db)).bind(keys);
        written(&connection.fetch(statement).await?)
    }

    /// Keys of this database that have a row, after a spelling; and the last spelling, if there may be more.
    pub(super) async fn list(
        &self,
        connection: &mut Connection,
        db: u16,
        after: &str,
    ) -> Result<(Vec<Bytes>, Option<String>), Fault> {
        let rows = connection.fetch(statement(&self.list).bind(i32::from(db)).bind(after)).await?;
        let spelled: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let keys = spelled.iter().filter_map(|spelled| self.spelling.read(db, spelled)).collect();
        let full = i64::try_from(spelled.len()).is_ok_and(|rows| rows == PAGE);
        Ok((keys, spelled.into_iter().last().filter(|_| full)))
    }
}

fn written(rows: &[sqlx::postgres::PgRow]) -> Result<Written, Fault> {
    let Some(row) = rows.first() else { return Ok(Written::Fenced) };
    let count: i64 = row.try_get(0)?;
    let open: bool = row.try_get(1)?;
    Ok(if open { Written::Rows(count.unsigned_abs()) } else { Written::Fenced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelt_so_that_no_two_rows_meet() {
        let check = |by_db: bool, db: u16, key: &'static [u8], spelled: &str| {
            let spelling = Spelling { by_db, default_db: 0, prefix: "p:".into() };
            let key = Bytes::from_static(key);
            assert_eq!(spelling.of(db, &key), spelled);
            assert_eq!(spelling.read(db, spelled), Some(key));
        };
        check(true, 0, b"a", "p:a");
        check(true, 3, b"a", "p:a");
        check(true, 3, b"db1:a", "p:db1:a");
        check(true, 3, b"\xff", "p:b64:_w");
        check(false, 0, b"a", "p:a");
        check(false, 3, b"a", "p:db3:a");
        check(false, 0, b"db1:a", "p:db0:db1:a");
        let narrow = Spelling { by_db: false, default_db: 0, prefix: "p:".into() };
        assert_eq!(narrow.read(0, "p:db3:a"), None);
        assert_eq!(narrow.read(0, "q:a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_in_the_other_clocks_time() {
        let clock = Clock { there: 1_000_000, here: Instant::now() };
        tokio::time::advance(Duration::from_secs(2)).await;
        let deadline = |remaining| clock.deadline(|| Ok::<_, ()>(remaining));
        assert_eq!(deadline(Some(Duration::from_secs(3))), Ok(Deadline(6_000_000)));
        assert_eq!(deadline(Some(Duration::ZERO)), Ok(Deadline(3_000_000)));
        assert_eq!(deadline(None), Ok(Deadline(i64::MAX)));
    }
}
