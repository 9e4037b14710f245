//! A private PostgreSQL that may be stopped, killed and suspended. `database` is for tests that can share one.

mod database;
mod processes;
mod psql;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{LONG, free_port, shared, signal, wait_for};
pub use database::Database;
pub use psql::{Login, NULL, Rows};

/// One server, with the shared one's superuser and password. It ends with the value.
pub struct Postgres {
    pub login: Login,
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// With the settings that PostgreSQL comes with: what it has confirmed survives everything.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more settings: `name=value` each.
    pub fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let template = shared("TEST_POSTGRES_TEMPLATE");
        let copied = Command::new("cp").arg("--archive").arg(&template).arg(dir.path().join("data")).status();
        assert!(copied.is_ok_and(|status| status.success()), "copy {template}");
        let login = Login { host: "127.0.0.1".to_owned(), port: free_port(), ..Login::shared() };
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut postgres = Self { login, dir, options, child: None };
        postgres.up();
        postgres
    }

    pub fn host(&self) -> &str {
        &self.login.host
    }

    pub fn port(&self) -> u16 {
        self.login.port
    }

    /// Starts it (again): same port, same directory. Returns when it takes queries, with whatever it had to recover.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let port = format!("port={}", self.login.port);
        // Shared memory in files of its own: what a killed server leaves behind goes with its directory.
        let own =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "dynamic_shared_memory_type=mmap"];
        let settings = own.into_iter().chain([port.as_str()]).chain(self.options.iter().map(String::as_str));
        let child = command(&psql::program("postgres"), self.dir.path(), &self.data())
            .arg("-D")
            .arg(self.data())
            .args(settings.flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log twice"))
            .stdout(log)
            .spawn()
            .expect("postgres starts: cargo xtask test installs it");
        let pid = child.id();
        let child = self.child.insert(child);
        let log = || fs::read_to_string(self.dir.path().join("log"));
        let data = self.dir.path().join("data");
        wait_for("postgres is ready", LONG, log, || {
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "postgres ended at once: {}", log().unwrap_or_default());
            is_ready(&data, pid).then_some(())
        });
    }

    /// SIGINT: transactions under way are rolled back, everybody is disconnected, and all is written down.
    pub fn stop_fast(&mut self) {
        self.end("INT");
    }

    /// SIGQUIT: everybody is cut off, nothing is written down; it recovers at its next start.
    pub fn stop_immediate(&mut self) {
        self.end("QUIT");
    }

    /// `kill -9` of the first process, which ends nobody's transaction: the others notice by and by, may well finish what
    /// they are at, and this returns when they are gone.
    pub fn kill(&mut self) {
        let pid = self.pid();
        // So that no process comes after they are counted.
        signal(pid, "STOP");
        let children = processes::children(pid);
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("it ends");
        processes::wait_until_gone(&children);
    }

    /// Whether it was started and has not ended.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Suspends all its processes, or lets them go on: it takes connections and says nothing on any of them.
    pub fn suspend(&self, suspended: bool) {
        let pid = self.pid();
        let name = if suspended { "STOP" } else { "CONT" };
        // The first one first: it starts no other meanwhile.
        signal(pid, name);
        processes::signal_all(&processes::children(pid), name);
    }

    /// Suspends the first process alone, or lets it go on: who is connected is served, whoever comes new waits.
    pub fn suspend_arrivals(&self, suspended: bool) {
        signal(self.pid(), if suspended { "STOP" } else { "CONT" });
    }

    /// One or more statements in a database; an error is a panic.
    pub fn ask_in(&self, database: &str, sql: &str) -> Rows {
        self.login.ask(database, sql)
    }

    /// The same in the database `postgres`.
    pub fn ask(&self, sql: &str) -> Rows {
        self.ask_in("postgres", sql)
    }

    /// The same, or what went wrong.
    pub fn try_ask(&self, sql: &str) -> Result<Rows, String> {
        self.login.try_ask("postgres", sql)
    }

    /// The one value of the one row.
    pub fn one(&self, sql: &str) -> String {
        self.login.one("postgres", sql)
    }

    /// Ends the clients' connections for which a condition on `pg_stat_activity` holds. How many there were.
    pub fn terminate_backends(&self, condition: &str) -> usize {
        self.ask(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND ({condition})"
        ))
        .len()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn end(&mut self, name: &str) {
        let pid = self.pid();
        signal(pid, name);
        let mut child = self.child.take().expect("it runs");
        child.wait().expect("it ends");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // Whatever is suspended has to go on, to end. SIGQUIT leaves nothing behind in the system, as SIGKILL does.
            let pid = child.id();
            processes::signal_all(&processes::children(pid), "CONT");
            processes::signal_all(&[pid], "CONT");
            processes::signal_all(&[pid], "QUIT");
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        processes::remove_shared_memory(&self.data());
    }
}

/// PostgreSQL refuses to run as root; then `cargo xtask` has made the template another user's, and as that user its
/// copies are served. The one privilege that it keeps lets it into directories that are closed to it.
fn command(program: &Path, ours: &Path, data: &Path) -> Command {
    let owner = |path: &Path| fs::metadata(path).map(|it| (it.uid(), it.gid())).expect("an owner");
    let (uid, gid) = owner(data);
    if uid == owner(ours).0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"])
        .args(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--"])
        .arg(program);
    command
}

/// What `pg_ctl start` looks at, too: the first line is the server's process, the eighth its state.
fn is_ready(data: &Path, pid: u32) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}
