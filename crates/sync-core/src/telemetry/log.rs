//! Log lines: which events pass, and where they go (stderr, and a file when LOG_DIR is set).
//!
//! Spans are refused: every line says by itself what it is about. A line that cannot be written is dropped,
//! since a bridge whose stderr is gone has records to move all the same.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::settings::LogSettings;

#[cfg(test)]
pub(crate) mod capture;
mod format;
mod template;

pub use format::escape;
use format::{Content, Line};
pub use format::{FormatError, LogFormat};
pub use template::Template;

/// What decides how a process logs.
#[derive(Clone, Debug)]
pub struct LogSetup {
    /// LOG_LEVEL.
    pub level: LevelFilter,
    /// LOG_FORMAT; when unset, a short human format on a terminal and the standard template elsewhere.
    pub format: Option<LogFormat>,
    /// LOG_DIR: the lines also go to a new file in this directory.
    pub dir: Option<PathBuf>,
    /// The program's name: begins the log file's name, and its own crate's lines pass.
    pub program: &'static str,
    /// Further crates of this workspace (by crate name, with `_`) whose lines pass at every level.
    pub own_crates: &'static [&'static str],
}

impl LogSetup {
    /// As the settings have it, for a program of one crate.
    pub fn new(settings: &LogSettings, program: &'static str) -> Self {
        let LogSettings { level, format, dir } = settings.clone();
        Self { level: level.into(), format, dir, program, own_crates: &[] }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file could not be made.
    #[error("LOG_DIR {}: {source}", dir.display())]
    Directory {
        /// The directory as set.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another subscriber is installed: logging begins once per process.
    #[error("logging has been set up before")]
    Twice,
}

/// Changes the level of the running process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHandle {
    level: Arc<AtomicU8>,
    file: Option<PathBuf>,
}

impl LogHandle {
    /// From now on (LOG_LEVEL after a SIGHUP).
    pub fn set_level(&self, level: LevelFilter) {
        self.level.store(rank(level), Ordering::Relaxed);
        ::log::set_max_level(foreign_level(level));
        // Each call site remembers whether it is wanted.
        tracing::callsite::rebuild_interest_cache();
    }

    /// The log file of this start, when LOG_DIR is set.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// Begins logging for the whole process, once. From here on a panic is an ERROR line too.
pub fn install(setup: LogSetup) -> Result<LogHandle, LogError> {
    let format = setup.format.clone().unwrap_or_else(|| {
        if io::stderr().is_terminal() {
            // https://no-color.org: present and not empty, whatever its value.
            #[expect(clippy::disallowed_methods, reason = "a convention of terminals, not a setting of ours")]
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            LogFormat::Human { colour }
        } else {
            LogFormat::standard()
        }
    });
    let mut outputs = vec![Output::new(format, io::stderr())];
    let mut path = None;
    if let Some(dir) = setup.dir {
        let (file, name) = create_file(&dir, setup.program, Utc::now())
            .map_err(|source| LogError::Directory { dir, source })?;
        outputs.push(Output::new(setup.format.unwrap_or_else(LogFormat::standard), file));
        path = Some(name);
    }
    let mut own: Vec<String> = vec!["sync_core".to_owned(), setup.program.replace('-', "_")];
    own.extend(setup.own_crates.iter().map(|&name| name.to_owned()));
    let lines = Lines(Arc::new(Shared { level: Arc::new(AtomicU8::new(rank(setup.level))), own, outputs }));
    let handle = LogHandle { level: Arc::clone(&lines.0.level), file: path };
    ::log::set_boxed_logger(Box::new(lines.clone())).map_err(|_| LogError::Twice)?;
    ::log::set_max_level(foreign_level(setup.level));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))
        .map_err(|_| LogError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let said = panic.payload_as_str().unwrap_or("(no message)");
        match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => {
                tracing::error!(place, %backtrace, "panicked: {said}");
            }
            _ => tracing::error!(place, "panicked: {said}"),
        }
    }));
    Ok(handle)
}

/// A new file named by program and time; a number is added where two start in one second.
fn create_file(dir: &Path, program: &str, now: DateTime<Utc>) -> io::Result<(File, PathBuf)> {
    std::fs::create_dir_all(dir)?;
    let stem = format!("{program}-{}", now.format("%Y%m%dT%H%M%SZ"));
    let mut path = dir.join(format!("{stem}.log"));
    for number in 2.. {
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = dir.join(format!("{stem}-{number}.log"));
            }
            opened => return Ok((opened?, path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// 0 is off, 5 is TRACE.
fn rank(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

/// What crates that use the `log` facade are asked for: nothing, unless we debug.
fn foreign_level(level: LevelFilter) -> ::log::LevelFilter {
    match level.into_level() {
        Some(Level::DEBUG) => ::log::LevelFilter::Debug,
        Some(Level::TRACE) => ::log::LevelFilter::Trace,
        _ => ::log::LevelFilter::Off,
    }
}

/// The subscriber's layer, and the receiver of the `log` facade (the Redis and MQTT clients use that one).
#[derive(Clone)]
struct Lines(Arc<Shared>);

struct Shared {
    level: Arc<AtomicU8>,
    /// Names of this workspace's crates.
    own: Vec<String>,
    outputs: Vec<Output>,
}

struct Output {
    format: LogFormat,
    to: Mutex<Box<dyn Write + Send>>,
}

impl Output {
    fn new(format: LogFormat, to: impl Write + Send + 'static) -> Self {
        Self { format, to: Mutex::new(Box::new(to)) }
    }
}

impl Lines {
    /// Our own crates pass at the level that is set. Others pass only while we debug: what their failures mean
    /// for this process is said by our own line, once, and not once per attempt.
    fn passes(&self, level: Level, target: &str) -> bool {
        let set = self.0.level.load(Ordering::Relaxed);
        let own = || {
            let krate = target.split("::").next().unwrap_or(target);
            self.0.own.iter().any(|own| own == krate)
        };
        rank(level.into()) <= set && (set >= rank(LevelFilter::DEBUG) || own())
    }

    fn write(&self, line: &Line<'_>) {
        for output in &self.0.outputs {
            let text = output.format.render(line);
            // One write per line, so that lines of two processes on one stderr do not mix. A failure is dropped:
            // there is nowhere left to report it.
            let _ = output.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.passes(*metadata.level(), metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut content = Content::default();
        event.record(&mut content);
        self.write(&Line {
            time: Utc::now(),
            level: *metadata.level(),
            target: metadata.target(),
            file: metadata.file(),
            line: metadata.line(),
            thread: std::thread::current().name().unwrap_or("-"),
            content,
        });
    }
}

impl ::log::Log for Lines {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        self.passes(level_of(metadata.level()), metadata.target())
    }

    fn log(&self, record: &::log::Record<'_>) {
        if !::log::Log::enabled(self, record.metadata()) {
            return;
        }
        self.write(&Line {
            time: Utc::now(),
            level: level_of(record.level()),
            target: record.target(),
            file: record.file(),
            line: record.line(),
            thread: std::thread::current().name().unwrap_or("-"),
            content: Content { message: record.args().to_string(), fields: Vec::new() },
        });
    }

    fn flush(&self) {}
}

fn level_of(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::ERROR,
        ::log::Level::Warn => Level::WARN,
        ::log::Level::Info => Level::INFO,
        ::log::Level::Debug => Level::DEBUG,
        ::log::Level::Trace => Level::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::capture::{capture, lines};
    use super::*;

    #[test]
    fn fields_follow_the_message() {
        let log = capture(LevelFilter::INFO);
        let reason = "went away";
        tracing::warn!(stream = %"db1:a\nb", reason, attempt = 3_u32, at = -1, share = 0.5, ok = true, "retry {}", 7);
        tracing::info!(only = "fields");
        assert_eq!(
            log.take(),
            [
                r#"WARNING retry 7 stream="db1:a\nb" reason="went away" attempt=3 at=-1 share=0.5 ok=true"#,
                "INFO only=fields",
            ]
        );
    }

    #[test]
    fn who_passes() {
        let check = |set: LevelFilter, level: Level, target: &str, expected: bool| {
            let passes = lines(set, LogFormat::Text, io::sink()).passes(level, target);
            assert_eq!(passes, expected, "{level} of {target} at {set}");
        };
        check(LevelFilter::INFO, Level::INFO, "sync_core::lane", true);
        check(LevelFilter::INFO, Level::INFO, "sync_core", true);
        check(LevelFilter::INFO, Level::DEBUG, "sync_core", false);
        check(LevelFilter::WARN, Level::INFO, "sync_core", false);
        check(LevelFilter::INFO, Level::WARN, "fred::router", false);
        check(LevelFilter::INFO, Level::INFO, "sync_core_of_others", false);
        check(LevelFilter::DEBUG, Level::WARN, "fred::router", true);
        check(LevelFilter::DEBUG, Level::TRACE, "hyper", false);
        check(LevelFilter::TRACE, Level::TRACE, "hyper", true);
        check(LevelFilter::OFF, Level::ERROR, "sync_core", false);
    }

    #[test]
    fn the_log_facade_ends_in_the_same_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let lines = lines(
            LevelFilter::DEBUG,
            LogFormat::parse("%(levelname)s %(name)s %(message)s").unwrap(),
            File::create(&path).unwrap(),
        );
        let say = |level, target: &str| {
            let record =
                ::log::Record::builder().level(level).target(target).args(format_args!("two\nlines")).build();
            ::log::Log::log(&lines, &record);
        };
        say(::log::Level::Warn, "fred::router");
        say(::log::Level::Trace, "fred::router");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "WARNING fred.router two\\nlines\n");
    }

    #[test]
    fn a_closed_stderr_is_no_panic() {
        struct Closed(Arc<AtomicU8>);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0.fetch_add(1, Ordering::Relaxed);
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tried = Arc::new(AtomicU8::new(0));
        let lines = lines(LevelFilter::INFO, LogFormat::Json, Closed(Arc::clone(&tried)));
        let record = ::log::Record::builder().target("sync_core").args(format_args!("unheard")).build();
        ::log::Log::log(&lines, &record);
        ::log::Log::log(&lines, &record);
        assert_eq!(tried.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn one_file_per_start() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("made/when/missing");
        let now = DateTime::from_timestamp(1_767_323_045, 0).unwrap();
        let name = || create_file(&logs, "redis2x", now).unwrap().1.file_name().unwrap().to_owned();
        assert_eq!(name(), "redis2x-20260102T030405Z.log");
        assert_eq!(name(), "redis2x-20260102T030405Z-2.log");
        assert_eq!(name(), "redis2x-20260102T030405Z-3.log");
        let file = dir.path().join("a file");
        File::create(&file).unwrap();
        let source = create_file(&file, "redis2x", now).unwrap_err();
        let error = LogError::Directory { dir: file.clone(), source }.to_string();
        assert!(error.starts_with(&format!("LOG_DIR {}: ", file.display())), "{error}");
    }
}
