//! A Redis, a database, and the real binary between them.

use test_kit::bridge::{Bridge, Setup};
use test_kit::postgres::{Database, Login, Postgres, Rows};
use test_kit::redis::Redis;
use test_kit::wait_until;

/// The group that entries are acknowledged in.
pub(crate) const GROUP: &str = "redis-pg-sync";

/// Where rows go.
pub(crate) trait Sql {
    /// Rows of texts.
    fn rows(&self, sql: &str) -> Rows;
    /// Host, port, user, password and database, as the bridge has them.
    fn settings(&self) -> [(&'static str, String); 5];

    /// One text.
    fn one(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert_eq!((rows.len(), rows.first().map(Vec::len)), (1, Some(1)), "{sql}: {rows:?}");
        rows.remove(0).remove(0)
    }

    fn count(&self, sql: &str) -> usize {
        self.one(&format!("SELECT count(*) FROM {sql}")).parse().unwrap()
    }
}

impl Sql for Database {
    fn rows(&self, sql: &str) -> Rows {
        self.ask(sql)
    }

    fn settings(&self) -> [(&'static str, String); 5] {
        settings(&self.login, &self.name)
    }
}

impl Sql for Postgres {
    fn rows(&self, sql: &str) -> Rows {
        self.ask(sql)
    }

    fn settings(&self) -> [(&'static str, String); 5] {
        settings(&self.login, "postgres")
    }
}

/// How the bridge is told of a database.
pub(crate) fn settings(login: &Login, database: &str) -> [(&'static str, String); 5] {
    [
        ("PG_HOST", login.host.clone()),
        ("PG_PORT", login.port.to_string()),
        ("PG_USER", login.user.clone()),
        ("PG_PASSWORD", login.password.clone()),
        ("PG_DATABASE", database.to_owned()),
    ]
}

/// redis2pg, alone, with short delays and as fast as it goes; streams only.
pub(crate) fn setup(source: &Redis, sql: &impl Sql) -> Setup {
    let setup = Setup::of(env!("CARGO_BIN_EXE_redis2pg"))
        .set("STREAM_OWNERSHIP", "exclusive")
        .set("REDIS_HOST", "127.0.0.1")
        .set("REDIS_PORT", source.port)
        .set("REDIS_RATE_LIMIT", 0)
        .set("REDIS_BACKOFF_BASE", "0.1")
        .set("REDIS_BACKOFF_MAX", "0.5")
        .set("PG_BACKOFF_BASE", "0.1")
        .set("PG_BACKOFF_MAX", "0.5")
        .set("KEY_VALUE_AUTO_DISCOVERY", "false");
    sql.settings().into_iter().fold(setup, |setup, (name, value)| setup.set(name, value))
}

/// The same, and key-values too, without a pause between passes.
pub(crate) fn with_key_values(source: &Redis, sql: &impl Sql) -> Setup {
    setup(source, sql).set("KEY_VALUE_AUTO_DISCOVERY", "true").set("SYNC_INTERVAL", "0.05")
}

/// A Redis, a database of the shared server, and a bridge between them.
pub(crate) struct Scene {
    pub(crate) source: Redis,
    pub(crate) sql: Database,
    pub(crate) bridge: Bridge,
}

impl Scene {
    pub(crate) fn begin(set: impl FnOnce(Setup) -> Setup) -> Self {
        Self::over(Redis::start(), Database::create(), set)
    }

    pub(crate) fn over(source: Redis, sql: Database, set: impl FnOnce(Setup) -> Setup) -> Self {
        let bridge = set(setup(&source, &sql)).start();
        Self { source, sql, bridge }
    }

    /// XADD at the source, in database 0.
    pub(crate) fn add(&self, key: &str, id: &str, fields: &[&str]) {
        let words: Vec<&str> = ["XADD", key, id].into_iter().chain(fields.iter().copied()).collect();
        self.source.ask(0, &words);
    }

    /// Waits until all of a stream is acknowledged.
    pub(crate) fn settled(&self, key: &str) {
        wait_settled(&self.source, &self.bridge, 0, key);
    }

    /// Stops the bridge; it must have logged no other error than these.
    pub(crate) fn end(mut self, errors: &[&str]) {
        self.bridge.stop();
        self.bridge.check_errors(errors);
    }
}

/// Waits until the group has read all of a stream and has nothing pending.
pub(crate) fn wait_settled(source: &Redis, bridge: &Bridge, db: u16, key: &str) {
    let progress = || source.progress(db, key, GROUP);
    wait_until("all is settled", || (key.to_owned(), progress(), bridge.lines()), || progress().is_settled());
}

/// The field of a letter.
pub(crate) fn field<'a>(letter: &'a [(String, String)], name: &str) -> &'a str {
    &letter.iter().find(|(field, _)| field == name).unwrap_or_else(|| panic!("{name}: {letter:?}")).1
}

/// A command of the operator: what it printed, and its exit code.
pub(crate) fn command(setup: &Setup, words: &[&str]) -> (String, Option<i32>, Bridge) {
    let setup = words.iter().fold(setup.clone(), |setup, word| setup.arg(word));
    let mut ran = setup.start();
    let (code, _) = ran.wait_exit();
    (ran.stdout(), code, ran)
}
