//! The real binary, its environment, and what it logs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{LONG, end, signal, wait_for};

/// How a bridge is started: nothing of the test's own environment reaches it.
#[derive(Clone)]
pub struct Setup {
    binary: &'static str,
    env: BTreeMap<String, String>,
    args: Vec<String>,
    dir: Arc<TempDir>,
}

impl Setup {
    /// This binary with nothing set but what suits a test: a log to read, no admin page, short intervals.
    pub fn of(binary: &'static str) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        Self { binary, env: BTreeMap::new(), args: Vec::new(), dir }
            .set("LOG_FORMAT", "json")
            .set("ADMIN_ADDR", "off")
            .set("STREAM_DISCOVERY_INTERVAL", "0.2")
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&self) -> Bridge {
        let mut child = Command::new(self.binary)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let lines = log.clone();
        let reader = std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                lines.lock().expect("no panic").push(Line::read(&String::from_utf8_lossy(&line)));
            }
        });
        Bridge { child, log, reader: Some(reader), _dir: self.dir.clone() }
    }
}

/// One line of the log.
#[derive(Clone)]
pub struct Line {
    /// Empty when the line is no JSON.
    pub level: String,
    /// The message and all fields.
    pub text: String,
}

impl Line {
    fn read(line: &str) -> Self {
        let Ok(serde_json::Value::Object(mut object)) = serde_json::from_str(line) else {
            return Self { level: String::new(), text: line.to_owned() };
        };
        let mut take = |name| match object.remove(name) {
            Some(serde_json::Value::String(text)) => text,
            _ => String::new(),
        };
        let (level, mut text) = (take("level"), take("message"));
        let time = take("timestamp");
        for (name, value) in object.iter().filter(|(name, _)| *name != "target") {
            text += &format!(" {name}={value}");
        }
        if std::env::var_os("TEST_TIMES").is_some() {
            text = format!("{time} {text}");
        }
        Self { level, text }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.level, self.text)
    }
}

/// A bridge that runs, or did. It ends with the value.
pub struct Bridge {
    child: Child,
    log: Arc<Mutex<Vec<Line>>>,
    reader: Option<JoinHandle<()>>,
    _dir: Arc<TempDir>,
}

impl Bridge {
    pub fn lines(&self) -> Vec<Line> {
        self.log.lock().expect("no panic").clone()
    }

    /// The lines that hold this text.
    pub fn lines_with(&self, part: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.text.contains(part)).collect()
    }

    /// Waits for a line that holds this text.
    pub fn wait_line(&self, part: &str) -> Line {
        let look = || self.lines_with(part).into_iter().next();
        wait_for(&format!("the log says {part:?}"), LONG, || self.lines(), look)
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The most memory that it has had so far, in KB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says so");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// The exit code and how long it took from now.
    pub fn wait_exit(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let log = self.log.clone();
        let child = &mut self.child;
        let status = wait_for(
            "the bridge ends",
            LONG,
            || log.lock().expect("no panic").clone(),
            || child.try_wait().expect("our child"),
        );
        let took = begun.elapsed();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        (status.code(), took)
    }

    /// SIGTERM; it must end with 0 within SHUTDOWN_TIMEOUT.
    pub fn stop(&mut self) -> Duration {
        self.signal("TERM");
        let (code, took) = self.wait_exit();
        assert_eq!(code, Some(0), "{:#?}", self.lines());
        assert!(took < Duration::from_secs(9), "stopping took {took:?}");
        took
    }

    /// What it printed; after its end.
    pub fn stdout(&mut self) -> String {
        let mut text = String::new();
        let _ = self.child.stdout.as_mut().expect("piped").read_to_string(&mut text);
        text
    }

    /// ERROR lines, and lines that are not of the log's making, are those that hold one of these texts, and no others.
    pub fn check_errors(&self, expected: &[&str]) {
        let unexpected: Vec<Line> = self
            .lines()
            .into_iter()
            .filter(|line| line.level == "ERROR" || line.level.is_empty())
            .filter(|line| !expected.iter().any(|part| line.text.contains(part)))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}\nthe whole log: {:#?}", self.lines());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            let lines = self.lines();
            let last = lines.len().saturating_sub(40);
            eprintln!("the bridge's last lines: {:#?}", &lines[last..]);
        }
    }
}
