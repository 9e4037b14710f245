//! The settings that every bridge has whatever its source and sink, as typed values, and how they are read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::reader::{Given, Reader};
use super::rules::{self, Ruled};
use super::shared::*;
use super::table::Setting;
pub use crate::payload::ValueFormat;
use crate::telemetry::log::LogFormat;

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
    /// Between two looks of `monitor`.
    pub monitor_interval: Duration,
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// The least important level that is logged; CRITICAL is `ERROR`, of which there is no higher.
    pub level: Level,
    /// What a line looks like; `None` when nobody set it: a terminal then gets a short format for people.
    pub format: Option<LogFormat>,
    /// A file per start in this directory, beside standard error.
    pub dir: Option<PathBuf>,
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
            metrics_per_stream: where_known(reader, &METRICS_PER_STREAM, rules::integer(0..=1_000_000)),
            monitor_interval: where_known(reader, &MONITOR_INTERVAL, rules::seconds(0.1..=86400.0)),
        }
    }
}

/// A bridge that reads no streams has nothing to set there.
fn where_known<T: Default>(
    reader: &mut Reader,
    setting: &Setting,
    rule: impl Fn(&Given<'_>) -> Ruled<T>,
) -> T {
    if reader.has(setting) { reader.value(setting, rule) } else { T::default() }
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
            format: Some(reader.value(&LOG_FORMAT, log_format)).filter(|_| reader.is_set(&LOG_FORMAT)),
            dir: reader.optional(&LOG_DIR, rules::path),
        }
    }
}

fn log_format(given: &Given<'_>) -> Ruled<LogFormat> {
    let format = LogFormat::parse(given.text).ok();
    let says_what_happened =
        |format: &LogFormat| !matches!(format, LogFormat::Python(_)) || given.text.contains("%(message)");
    format
        .filter(says_what_happened)
        .ok_or_else(|| "must be text, json or a template with %(message)s".to_owned())
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
