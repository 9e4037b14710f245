//! A small PostgreSQL client for our own commands: each question is a `psql` of its own, so that this program needs no
//! library for it and judges a bridge by other code than the bridge's.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::services::postgres::{PASSWORD, USER, program};

/// The database in which everything of ours happens: the one that every server has.
pub(crate) const DATABASE: &str = "postgres";
/// Between two values of a row; a row ends with NUL, which no text of PostgreSQL's holds.
const BETWEEN_VALUES: &str = "\u{1f}";

/// A server of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Postgres {
    port: u16,
}

/// A server of ours for programs that take a URL. The password needs no escapes.
pub(crate) fn url(address: &str) -> String {
    format!("postgres://{USER}:{PASSWORD}@{address}/{DATABASE}")
}

/// One row's values as text; NULL is empty.
pub(crate) type Row = Vec<String>;

/// The rows of an answer as they come. Whoever does not read all of them ends the question.
pub(crate) struct Rows {
    psql: Child,
    output: BufReader<ChildStdout>,
}

impl Postgres {
    pub(crate) fn at(port: u16) -> Self {
        Self { port }
    }

    /// A question whose answer may be long.
    pub(crate) fn rows(self, sql: &str) -> Result<Rows> {
        let mut psql = Command::new(program("psql")?)
            .args(["-X", "-q", "-A", "-t", "-0", "-F", BETWEEN_VALUES, "-v", "ON_ERROR_STOP=1"])
            // With a cursor: otherwise psql holds all of the answer before it prints the first row.
            .args(["-v", "FETCH_COUNT=1000", "-c", sql])
            .env_clear()
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", DATABASE)
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let output = BufReader::new(psql.stdout.take().expect("piped"));
        Ok(Rows { psql, output })
    }

    /// A question whose answer is short, or a command.
    pub(crate) fn ask(self, sql: &str) -> Result<Vec<Row>> {
        self.rows(sql)?.collect()
    }

    /// The one number of the answer.
    pub(crate) fn number(self, sql: &str) -> Result<u64> {
        let rows = self.ask(sql)?;
        match rows.as_slice() {
            [row] if row.len() == 1 => {
                row[0].parse().with_context(|| format!("a number is expected, not {row:?}"))
            }
            _ => bail!("one row of one value is expected, not {rows:?}"),
        }
    }

    /// Whether a table is there.
    pub(crate) fn has(self, table: &str) -> Result<bool> {
        Ok(self.ask(&format!("SELECT 1 WHERE to_regclass('{table}') IS NOT NULL"))?.len() == 1)
    }
}

impl Rows {
    /// `None` at the end of the answer.
    fn read(&mut self) -> Result<Option<Row>> {
        let mut row = Vec::new();
        self.output.read_until(0, &mut row).context("read from psql")?;
        if row.pop_if(|last| *last == 0).is_some() {
            let row = String::from_utf8(row).context("psql prints UTF-8")?;
            return Ok(Some(row.split(BETWEEN_VALUES).map(str::to_owned).collect()));
        }
        let mut error = String::new();
        self.psql.stderr.as_mut().expect("piped").read_to_string(&mut error).context("read from psql")?;
        ensure!(self.psql.wait()?.success(), "psql: {}", error.trim_end());
        Ok(None)
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // Nothing happens to one that has ended.
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
