//! A database of a test's own on the shared server: fresh, and gone with the value.

use super::psql::{Login, Rows};
use crate::unique;

/// One database. It is dropped with the value, whoever is still connected.
pub struct Database {
    pub name: String,
    /// The superuser's.
    pub login: Login,
    roles: Vec<String>,
}

impl Database {
    /// Empty, on the server that `cargo xtask test` has started.
    pub fn create() -> Self {
        let database = Self { name: unique("test"), login: Login::shared(), roles: Vec::new() };
        database.login.ask("postgres", &format!("CREATE DATABASE {}", database.name));
        database
    }

    pub fn ask(&self, sql: &str) -> Rows {
        self.login.ask(&self.name, sql)
    }

    pub fn try_ask(&self, sql: &str) -> Result<Rows, String> {
        self.login.try_ask(&self.name, sql)
    }

    /// The one value of the one row.
    pub fn one(&self, sql: &str) -> String {
        self.login.one(&self.name, sql)
    }

    /// A role that may log in, with a password and whatever else CREATE ROLE is told ("SUPERUSER", ""). It goes with the
    /// database, so it is to own nothing and be granted nothing elsewhere.
    pub fn role(&mut self, password: &str, options: &str) -> Login {
        let user = unique("role");
        self.ask(&format!("CREATE ROLE {user} LOGIN PASSWORD '{}' {options}", password.replace('\'', "''")));
        self.roles.push(user.clone());
        Login { user, password: password.to_owned(), ..self.login.clone() }
    }

    /// Ends every other connection to this database. How many there were.
    pub fn cut_connections(&self) -> usize {
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .len()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop_role = |role: &String| format!("DROP ROLE IF EXISTS {role}");
        let mut statements = vec![format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)];
        statements.extend(self.roles.iter().map(drop_role));
        for sql in statements {
            if let Err(error) = self.login.try_ask("postgres", &sql) {
                // No panic within a panic: the test has its own reason to fail, or none.
                eprintln!("{sql}: {error}");
            }
        }
    }
}
