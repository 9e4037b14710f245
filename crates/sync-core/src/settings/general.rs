//! The settings that every bridge has whatever its source and sink, as typed values, and how they are read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::reader::{Given, Reader};
use super::rules::{self, Ruled};
use super::shared::*;

/// What every bridge has.
#[derive(Clone, Debug)]
pub struct GeneralSettings {
    /// Where the log goes and what it looks like.
    pub log: LogSettings,
    /// Metrics, health checks and status page; `None` is off.
    pub admin_addr: Option<SocketAddr>,
    /// How long a stop waits for what is in flight.
    pub shutdown_timeout: Duration,
    /// With more streams than this, metrics give totals and the worst streams only.
    pub metrics_per_stream: usize,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important level that is logged; CRITICAL is `ERROR`, of which there is no higher.
    pub level: Level,
    /// What a line looks like.
    pub format: LogFormat,
    /// Whether somebody set LOG_FORMAT: on a terminal the default gives way to a short format for people.
    pub format_is_set: bool,
    /// A file per start in this directory, beside standard error.
    pub dir: Option<PathBuf>,
}

/// What a line of the log looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A template of Python's `logging`, such as `%(asctime)s - %(levelname)s - %(message)s`.
    Python(String),
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How field values appear in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFormat {
    /// JSON numbers, booleans, objects and arrays as they are, anything else as a string.
    Json,
    /// Every value as a string.
    Text,
}

/// How bytes become text in JSON: for bridges that write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSettings {
    /// SOURCE_REDIS_ENCODING.
    pub encoding: &'static encoding_rs::Encoding,
    /// VALUE_FORMAT.
    pub value_format: ValueFormat,
}

impl GeneralSettings {
    /// The settings of the general group.
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            log: LogSettings::read(reader),
            admin_addr: reader.value(&ADMIN_ADDR, rules::listen_address),
            shutdown_timeout: reader.value(&SHUTDOWN_TIMEOUT, rules::seconds(0.0..=3600.0)),
            metrics_per_stream: reader.value(&METRICS_PER_STREAM, rules::integer(0..=1_000_000)),
        }
    }
}

impl LogSettings {
    fn read(reader: &mut Reader) -> Self {
        let levels = [
            ("TRACE", Level::TRACE),
            ("DEBUG", Level::DEBUG),
            ("INFO", Level::INFO),
            ("WARNING", Level::WARN),
            ("ERROR", Level::ERROR),
            ("CRITICAL", Level::ERROR),
            ("WARN", Level::WARN),
        ];
        Self {
            level: reader.value(&LOG_LEVEL, rules::one_of(&levels)),
            format: reader.value(&LOG_FORMAT, log_format),
            format_is_set: reader.is_set(&LOG_FORMAT),
            dir: reader.optional(&LOG_DIR, rules::path),
        }
    }
}

fn log_format(given: &Given<'_>) -> Ruled<LogFormat> {
    match given.text {
        text if text.eq_ignore_ascii_case("text") => Ok(LogFormat::Text),
        text if text.eq_ignore_ascii_case("json") => Ok(LogFormat::Json),
        text if text.contains("%(message)") => Ok(LogFormat::Python(text.to_owned())),
        _ => Err("must be text, json or a template with %(message)s".to_owned()),
    }
}

impl TextSettings {
    /// SOURCE_REDIS_ENCODING and VALUE_FORMAT.
    pub fn read(reader: &mut Reader) -> Self {
        let formats = [("json", ValueFormat::Json), ("text", ValueFormat::Text)];
        Self {
            encoding: reader.value(&SOURCE_REDIS_ENCODING, rules::encoding),
            value_format: reader.value(&VALUE_FORMAT, rules::one_of(&formats)),
        }
    }
}
