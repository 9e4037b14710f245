//! The test's own questions to a PostgreSQL, each asked with a `psql` of its own: by other code than a bridge's.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::shared;

/// Values as text; NULL is [`NULL`].
pub type Rows = Vec<Vec<String>>;

/// How NULL is told from empty text.
pub const NULL: &str = "\\N";

/// Between two values of a row: unlike anything that a test stores. A row ends with NUL, which no text of PostgreSQL's
/// holds.
const BETWEEN_VALUES: &str = "\u{1f}|\u{1f}";

/// Where a server is, and as whom to ask it.
#[derive(Clone, Debug)]
pub struct Login {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl Login {
    /// The shared server's superuser.
    pub fn shared() -> Self {
        Self {
            host: shared("TEST_POSTGRES_HOST"),
            port: shared("TEST_POSTGRES_PORT").parse().expect("a port"),
            user: shared("TEST_POSTGRES_USER"),
            password: shared("TEST_POSTGRES_PASSWORD"),
        }
    }

    /// The rows, or what psql says instead. Several statements are one transaction.
    pub fn try_ask(&self, database: &str, sql: &str) -> Result<Rows, String> {
        let output = Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-0", "-F", BETWEEN_VALUES, "-P", &format!("null={NULL}")])
            .args(["-v", "ON_ERROR_STOP=1", "-c", sql])
            .env_clear()
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", database)
            // A suspended server takes the connection, and says nothing.
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::null())
            .output()
            .expect("psql starts: cargo xtask test installs it");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned());
        }
        Ok(rows(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The rows; an error is a panic.
    pub fn ask(&self, database: &str, sql: &str) -> Rows {
        self.try_ask(database, sql).unwrap_or_else(|error| panic!("{sql}\nat port {}: {error}", self.port))
    }

    /// The one value of the one row.
    pub fn one(&self, database: &str, sql: &str) -> String {
        let mut rows = self.ask(database, sql);
        match (rows.pop(), rows.is_empty()) {
            (Some(mut row), true) if row.len() == 1 => row.remove(0),
            (last, _) => panic!("{sql}\nis no single value, but ends with {last:?}"),
        }
    }
}

/// One of PostgreSQL's programs: Debian keeps them where PATH does not lead.
pub(super) fn program(name: &str) -> PathBuf {
    PathBuf::from(shared("TEST_POSTGRES_PROGRAMS")).join(name)
}

fn rows(output: &str) -> Rows {
    let values = |row: &str| row.split(BETWEEN_VALUES).map(str::to_owned).collect();
    output.split_terminator('\0').map(values).collect()
}
