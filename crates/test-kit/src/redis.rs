//! A private `redis-server`, and a client for the test's own questions: one blocking connection per call.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::{LONG, end, free_port, signal, wait_for, wait_until};

/// One server. It ends with the value.
pub struct Redis {
    pub port: u16,
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
    suspended: AtomicBool,
    password: Option<&'static str>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(Vec<u8>),
    Number(i64),
    Nil,
    List(Vec<Reply>),
    Error(String),
}

impl Reply {
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn list(self) -> Vec<Reply> {
        match self {
            Self::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }
}

impl Redis {
    /// Keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&["--appendonly", "no"])
    }

    /// What it has answered survives `kill -9`.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn with(options: &[&str]) -> Self {
        Self::guarded("", None, options)
    }

    /// With a configuration file of its own, and a password of the user `default`.
    pub(crate) fn guarded(file: &str, password: Option<&'static str>, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("server.conf"), file).expect("a configuration file");
        let mut all: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        all.extend(password.into_iter().flat_map(|it| ["--requirepass", it]).map(str::to_owned));
        let suspended = AtomicBool::new(false);
        let mut redis = Self { port: free_port(), dir, options: all, child: None, suspended, password };
        redis.up();
        redis
    }

    /// Starts it (again): same port, same directory. Returns when it takes commands.
    pub fn up(&mut self) {
        self.up_loading();
        self.wait_loaded();
    }

    /// Waits until it takes commands.
    pub fn wait_loaded(&self) {
        let log = || std::fs::read_to_string(self.dir.path().join("log"));
        wait_for("redis-server answers", LONG, log, || match self.try_ask(&["PING"]) {
            Err(error) if !error.starts_with("NOAUTH") => None,
            _ => Some(()),
        });
    }

    /// Starts it (again): same port, same directory. It may still have its data to load.
    pub fn up_loading(&mut self) {
        *self.suspended.get_mut() = false;
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let child = Command::new("redis-server")
            .arg(self.dir.path().join("server.conf"))
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log twice"))
            .stdout(log)
            .spawn()
            .expect("redis-server starts: cargo xtask test installs it");
        self.child = Some(child);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        end(self.child.as_mut().expect("it runs"));
        self.child = None;
    }

    /// SIGTERM: it waits for its replicas before it goes, so what it has confirmed is not lost with it.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        child.wait().expect("it ends");
    }

    /// Whether it was started, and neither ended nor suspended.
    pub fn is_up(&self) -> bool {
        self.child.is_some() && !self.suspended.load(Ordering::Relaxed)
    }

    /// Suspends it, or lets it go on: it takes connections and answers nothing.
    pub fn suspend(&self, suspended: bool) {
        let pid = self.child.as_ref().expect("it runs").id();
        signal(pid, if suspended { "STOP" } else { "CONT" });
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    pub fn client(&self) -> Client {
        self.connect().expect("Redis takes connections")
    }

    fn connect(&self) -> std::io::Result<Client> {
        let mut client = Client::open(self.port)?;
        if let Some(password) = self.password {
            client.ask(&[b"AUTH", password.as_bytes()])?;
        }
        Ok(client)
    }

    /// One command in a database; an error reply is a panic.
    pub fn ask(&self, db: u16, words: &[&str]) -> Reply {
        let mut client = self.client();
        client.select(db);
        client.words(words).unwrap_or_else(|error| panic!("{words:?} at port {}: {error}", self.port))
    }

    /// The same in database 0, or what went wrong.
    pub fn try_ask(&self, words: &[&str]) -> Result<Reply, String> {
        self.connect().map_err(|error| error.to_string())?.words(words)
    }

    /// One command for a key whose slot is on its way to this node of a Cluster.
    pub fn ask_ahead(&self, words: &[&str]) -> Reply {
        let mut client = self.client();
        let reply = client.words(&["ASKING"]).and_then(|_| client.words(words));
        reply.unwrap_or_else(|error| panic!("{words:?} at port {}: {error}", self.port))
    }

    /// A field of INFO.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.try_ask(&["INFO"]).ok()?.text();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(str::to_owned)
    }

    /// Waits until each of its replicas has all that it has: what it lost then, it never had.
    pub fn wait_for_replicas(&self, replicas: usize) {
        let state = || self.ask(0, &["INFO", "replication"]).text();
        wait_until("the replicas are in step", state, || {
            let state = state();
            let offset = state.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            offset.is_some_and(|offset| {
                state.matches(&format!("state=online,offset={offset},")).count() == replicas
            })
        });
    }

    /// How many entries are pending in a stream's group, whoever read them; a missing stream or group has none.
    pub fn pending(&self, db: u16, key: &str, group: &str) -> i64 {
        let mut client = self.client();
        client.select(db);
        match client.ask(&[b"XPENDING", key.as_bytes(), group.as_bytes()]).expect("Redis answers") {
            Reply::List(parts) => match parts.first() {
                Some(Reply::Number(number)) => *number,
                other => panic!("XPENDING: {other:?}"),
            },
            Reply::Error(_) => 0,
            other => panic!("XPENDING: {other:?}"),
        }
    }

    /// How far a group has come with a stream: the last ID that it was handed and the stream's own (none without a group,
    /// or a stream), and how many entries are pending.
    pub fn progress(&self, db: u16, key: &str, group: &str) -> Progress {
        // In this order: what is pending counts only once all is read.
        let mut client = self.client();
        client.select(db);
        let mut list = |what: &[u8]| match client.ask(&[b"XINFO", what, key.as_bytes()]) {
            Ok(Reply::List(list)) => list,
            _ => Vec::new(),
        };
        let ours = |fields: &Vec<Reply>| named(fields, "name").as_deref() == Some(group);
        let delivered = list(b"GROUPS").into_iter().map(Reply::list).find(ours);
        Progress {
            delivered: delivered.and_then(|group| named(&group, "last-delivered-id")),
            newest: named(&list(b"STREAM"), "last-generated-id"),
            pending: self.pending(db, key, group),
        }
    }

    /// The dead letters of a stream: one map of fields each.
    pub fn letters(&self, db: u16, key: &str) -> Vec<Vec<(String, String)>> {
        let entries = self.ask(db, &["XRANGE", &format!("{key}:dead-letter"), "-", "+"]).list();
        let fields = |entry: Reply| {
            let fields = entry.list().swap_remove(1).list();
            fields.chunks(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
        };
        entries.into_iter().map(fields).collect()
    }

    /// Cuts every connection but the asking one. How many there were.
    pub fn cut_connections(&self) -> i64 {
        match self.ask(0, &["CLIENT", "KILL", "TYPE", "normal"]) {
            Reply::Number(number) => number,
            other => panic!("CLIENT KILL: {other:?}"),
        }
    }
}

/// See [`Redis::progress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub delivered: Option<String>,
    pub newest: Option<String>,
    pub pending: i64,
}

impl Progress {
    /// The group has read all of the stream and has nothing pending.
    pub fn is_settled(&self) -> bool {
        self.newest.is_some() && self.delivered == self.newest && self.pending == 0
    }
}

fn named(pairs: &[Reply], name: &str) -> Option<String> {
    pairs.chunks(2).find(|pair| pair[0].text() == name).map(|pair| pair[1].text())
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn select(&mut self, db: u16) {
        if db > 0 {
            let answer = self.ask(&[b"SELECT", db.to_string().as_bytes()]).expect("Redis answers");
            assert_eq!(answer, Reply::Text(b"OK".to_vec()));
        }
    }

    pub fn ask(&mut self, words: &[&[u8]]) -> std::io::Result<Reply> {
        self.send(words)?;
        self.reply()
    }

    fn words(&mut self, words: &[&str]) -> Result<Reply, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match self.ask(&words).map_err(|error| error.to_string())? {
            Reply::Error(error) => Err(error),
            reply => Ok(reply),
        }
    }

    /// Without waiting for the reply.
    pub fn send(&mut self, words: &[&[u8]]) -> std::io::Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)
    }

    pub fn reply(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().expect("a number");
        Ok(match kind {
            "+" => Reply::Text(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Number(number()),
            "$" if number() < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()).expect("a length") + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(bytes)
            }
            "*" if number() < 0 => Reply::Nil,
            "*" => Reply::List((0..number()).map(|_| self.reply()).collect::<Result<_, _>>()?),
            other => panic!("no reply: {other}"),
        })
    }

    /// XADD with the ID of the server's choice.
    pub fn add(&mut self, key: &[u8], fields: &[(&[u8], &[u8])]) -> Result<String, String> {
        let mut words: Vec<&[u8]> = vec![b"XADD", key, b"*"];
        words.extend(fields.iter().flat_map(|(field, value)| [*field, *value]));
        match self.ask(&words).map_err(|error| error.to_string())? {
            Reply::Error(error) => Err(error),
            id => Ok(id.text()),
        }
    }
}
