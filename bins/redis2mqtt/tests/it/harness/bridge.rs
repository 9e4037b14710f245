//! The real binary, its environment, and what it logs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{LONG, end, signal, wait_for};

/// The group that entries are acknowledged in.
pub(crate) const GROUP: &str = "mqtt-group";

/// How a bridge is started: nothing of the test's own environment reaches it.
#[derive(Clone)]
pub(crate) struct Setup {
    env: BTreeMap<String, String>,
    args: Vec<String>,
    dir: Arc<TempDir>,
}

impl Setup {
    /// Nothing set, in an empty working directory.
    pub(crate) fn bare() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        Self { env: BTreeMap::new(), args: Vec::new(), dir }
            .set("LOG_FORMAT", "json")
            .set("ADMIN_ADDR", "off")
            .set("STREAM_DISCOVERY_INTERVAL", "0.2")
            .set("REDIS_RETRY_INTERVAL", "0.1")
            .set("SOURCE_REDIS_BACKOFF_MAX", "0.5")
            .set("MQTT_BACKOFF_BASE", "0.1")
            .set("MQTT_BACKOFF_MAX", "0.5")
    }

    /// From a Redis to a broker on loopback.
    pub(crate) fn new(redis: u16, broker: u16) -> Self {
        Self::bare()
            .set("REDIS_HOST", "127.0.0.1")
            .set("REDIS_PORT", redis)
            .set("MQTT_BROKER_HOST", "127.0.0.1")
            .set("MQTT_BROKER_PORT", broker)
    }

    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    pub(crate) fn unset(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Its working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn start(&self) -> Bridge {
        let mut child = Command::new(env!("CARGO_BIN_EXE_redis2mqtt"))
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
pub(crate) struct Line {
    /// Empty when the line is no JSON.
    pub(crate) level: String,
    /// The message and all fields.
    pub(crate) text: String,
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
pub(crate) struct Bridge {
    child: Child,
    log: Arc<Mutex<Vec<Line>>>,
    reader: Option<JoinHandle<()>>,
    _dir: Arc<TempDir>,
}

impl Bridge {
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.log.lock().expect("no panic").clone()
    }

    /// The lines that hold this text.
    pub(crate) fn lines_with(&self, part: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.text.contains(part)).collect()
    }

    /// Waits for a line that holds this text.
    pub(crate) fn wait_line(&self, part: &str) -> Line {
        let look = || self.lines_with(part).into_iter().next();
        wait_for(&format!("the log says {part:?}"), LONG, || self.lines(), look)
    }

    /// Waits until both sides are connected.
    pub(crate) fn wait_connected(&self) {
        self.wait_line("connected to the MQTT broker");
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        end(&mut self.child);
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// The exit code and how long it took from now.
    pub(crate) fn wait_exit(&mut self) -> (Option<i32>, Duration) {
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
    pub(crate) fn stop(&mut self) -> Duration {
        self.signal("TERM");
        let (code, took) = self.wait_exit();
        assert_eq!(code, Some(0), "{:#?}", self.lines());
        assert!(took < Duration::from_secs(9), "stopping took {took:?}");
        took
    }

    /// What it printed; after its end.
    pub(crate) fn stdout(&mut self) -> String {
        let mut text = String::new();
        let _ = self.child.stdout.as_mut().expect("piped").read_to_string(&mut text);
        text
    }

    /// ERROR lines, and lines that are not of the log's making, are those that hold one of these texts, and no others.
    pub(crate) fn check_errors(&self, expected: &[&str]) {
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
