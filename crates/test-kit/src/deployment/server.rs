//! One `redis-server` process, whatever its part in a deployment, and the ways to ask it.

use std::fmt::Debug;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Generous: a busy machine is no failure.
const LONG: Duration = Duration::from_secs(60);
/// What a Cluster's node adds to its port for the bus.
const BUS: u16 = 10_000;

/// A process. It ends with the value.
#[derive(Debug)]
pub struct Server {
    /// On 127.0.0.1.
    pub port: u16,
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
    suspended: bool,
    password: Option<String>,
}

impl Server {
    /// With these options after the port, the address and the directory.
    pub fn start(options: &[&str]) -> Self {
        Self::with("", None, options)
    }

    /// The same with a configuration file of its own, and with `requirepass`.
    pub(crate) fn with(file: &str, password: Option<&str>, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut all: Vec<String> = Vec::new();
        if !file.is_empty() {
            let path = dir.path().join("server.conf");
            std::fs::write(&path, file).expect("a configuration file");
            all.push(path.display().to_string());
        }
        all.extend(options.iter().map(|option| (*option).to_owned()));
        all.extend(password.into_iter().flat_map(|it| ["--requirepass".to_owned(), it.to_owned()]));
        let password = password.map(str::to_owned);
        let mut server =
            Self { port: free_port(), dir, options: all, child: None, suspended: false, password };
        server.up();
        server
    }

    /// Starts it, the first time or again: same port, same directory.
    pub fn up(&mut self) {
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let (files, options): (Vec<_>, Vec<_>) =
            self.options.iter().partition(|option| option.ends_with(".conf"));
        let child = Command::new("redis-server")
            .args(files)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(self.dir.path())
            .args(options)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log twice"))
            .stdout(log)
            .spawn()
            .expect("redis-server starts: cargo xtask test installs it");
        self.child = Some(child);
        let log = || std::fs::read_to_string(self.dir.path().join("log"));
        wait_for("redis-server answers", log, || {
            (self.try_ask(&["PING"]).ok()?.trim() == "PONG").then_some(())
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it was started, and neither killed nor suspended.
    pub fn is_up(&self) -> bool {
        self.child.is_some() && !self.suspended
    }

    /// Suspends it, or lets it go on: it takes connections and answers nothing.
    pub fn suspend(&mut self, suspended: bool) {
        let pid = self.child.as_ref().expect("it runs").id();
        crate::signal(pid, if suspended { "STOP" } else { "CONT" });
        self.suspended = suspended;
    }

    /// One command by `redis-cli`, and what that prints; an error reply is a panic.
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?} at port {}: {error}", self.port))
    }

    /// The same, or what went wrong.
    pub fn try_ask(&self, words: &[&str]) -> Result<String, String> {
        let port = self.port.to_string();
        let mut arguments = vec!["-e", "-p", &port];
        arguments.extend(self.password.iter().flat_map(|it| ["--no-auth-warning", "-a", it]));
        redis_cli(&[&arguments, words].concat())
    }

    /// One command for a key whose slot is on its way to this node.
    pub fn ask_ahead(&self, command: &str) -> String {
        let port = self.port.to_string();
        let script = format!("printf 'ASKING\\n{command}\\n' | redis-cli -e -p {port}");
        let output = Command::new("sh").args(["-c", &script]).output().expect("a shell runs");
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A field of INFO.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.try_ask(&["INFO"]).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }

    /// Waits until each of its replicas has all that it has: what it lost then, it never had.
    pub fn wait_for_replicas(&self, replicas: usize) {
        let state = || self.try_ask(&["INFO", "replication"]);
        wait_for("the replicas are in step", state, || {
            let offset = self.info("master_repl_offset")?;
            let online = format!("state=online,offset={offset},");
            let behind = |at: usize| !self.info(&format!("slave{at}")).is_some_and(|it| it.contains(&online));
            (!(0..replicas).any(behind)).then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `redis-cli` prints, or what it complains of.
pub(crate) fn redis_cli(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("redis-cli").args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli runs: cargo xtask test installs it");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr) + &text(&output.stdout)),
    }
}

/// Polls until `look` finds something. `state` is what the panic shows when it never does.
pub fn wait_for<T, S: Debug>(what: &str, state: impl Fn() -> S, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}\nseen: {:#?}", state());
        sleep(Duration::from_millis(20));
    }
}

/// A loopback port that nobody listens on, nor on the one that its bus would have; both are below the range of outgoing
/// connections' own ports, so that a server that is down for a while finds them free again.
fn free_port() -> u16 {
    const FIRST: u32 = 11_000;
    const SPAN: u32 = 9_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = std::process::id().wrapping_mul(397).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + at % SPAN).expect("below 65536");
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + BUS) {
            return port;
        }
    }
}
