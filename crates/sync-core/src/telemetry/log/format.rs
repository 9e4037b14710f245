//! How one event becomes one line: the formats, and the escaping that keeps foreign text inside its line.
//!
//! Pure functions over a [`Line`]; where lines go, and which ones, is the parent's business.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chrono::{DateTime, Utc};
use tracing::Level;
use tracing::field::{Field, Visit};

use super::template::Template;

/// How log lines look.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// A template as Python's `logging` has it.
    Python(Template),
    /// `2026-01-02T03:04:05.678Z WARN  sync_core::lane: message key=value`
    Text,
    /// One JSON object per line.
    Json,
    /// Short, for a person at a terminal: `03:04:05 WARN  lane: message key=value`.
    Human {
        /// ANSI colours.
        colour: bool,
    },
}

/// The text is neither `text` nor `json` nor a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a log format is `text`, `json` or a template with %(message)s, %(asctime)s, %(levelname)s, %(name)s, …"
)]
pub struct FormatError;

impl LogFormat {
    /// LOG_FORMAT as it is written in the settings.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        match text.trim() {
            word if word.eq_ignore_ascii_case("text") => Ok(Self::Text),
            word if word.eq_ignore_ascii_case("json") => Ok(Self::Json),
            _ => Template::parse(text).map(Self::Python).ok_or(FormatError),
        }
    }

    /// The template that the bridges' descriptions name as their default.
    pub fn standard() -> Self {
        let template = Template::parse("%(asctime)s - %(name)s - %(levelname)s - %(message)s");
        Self::Python(template.expect("the template has attributes"))
    }

    /// The event as one line, line feed included.
    pub(super) fn render(&self, line: &Line<'_>) -> String {
        let mut out = String::with_capacity(160);
        let Line { time, level, target, .. } = line;
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Python(template) => {
                template.render(line, &mut out);
                Ok(())
            }
            Self::Text => {
                let time = time.format("%Y-%m-%dT%H:%M:%S%.3fZ");
                write!(out, "{time} {:<5} {}: {}", level.as_str(), escape(target), line.text())
            }
            Self::Json => {
                line.json(&mut out);
                Ok(())
            }
            Self::Human { colour } => {
                let (dim, tint, plain) =
                    if *colour { ("\x1b[2m", tint(*level), "\x1b[0m") } else { ("", "", "") };
                let part = escape(target.strip_prefix("sync_core::").unwrap_or(target));
                let time = time.format("%H:%M:%S");
                let level = level.as_str();
                write!(out, "{dim}{time}{plain} {tint}{level:<5}{plain} {dim}{part}:{plain} {}", line.text())
            }
        };
        out.push('\n');
        out
    }
}

fn tint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// One event, ready to be written.
pub(super) struct Line<'a> {
    pub(super) time: DateTime<Utc>,
    pub(super) level: Level,
    /// Rust path of the module that speaks.
    pub(super) target: &'a str,
    pub(super) file: Option<&'a str>,
    pub(super) line: Option<u32>,
    pub(super) thread: &'a str,
    pub(super) content: Content,
}

impl Line<'_> {
    /// The message and ` key=value` for each field, without anything that could end or disguise the line.
    pub(super) fn text(&self) -> String {
        let mut out = escape(&self.content.message).into_owned();
        for (name, value) in &self.content.fields {
            if !out.is_empty() {
                out.push(' ');
            }
            let _ = match value {
                Value::Text(text) => write!(out, "{name}={}", quote(text)),
                Value::Json(json) => write!(out, "{name}={json}"),
            };
        }
        out
    }

    fn json(&self, out: &mut String) {
        let mut object = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| object.insert(name.to_owned(), value);
        let time = self.time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        // serde_json's map is sorted by name, or by insertion where another crate asks for that: both are JSON.
        put("timestamp", time.into());
        put("level", self.level.as_str().into());
        put("target", self.target.into());
        put("message", self.content.message.as_str().into());
        for (name, value) in &self.content.fields {
            let taken = matches!(*name, "timestamp" | "level" | "target");
            let name = if taken { Cow::Owned(format!("{name}_")) } else { Cow::Borrowed(*name) };
            match value {
                Value::Text(text) => put(&name, text.as_str().into()),
                Value::Json(json) => put(&name, json.clone()),
            };
        }
        // JSON lets characters through that move a terminal's cursor; they can only stand inside strings.
        for c in serde_json::Value::Object(object).to_string().chars() {
            if disguises(c) {
                let _ = write!(out, "\\u{:04x}", c as u32);
            } else {
                out.push(c);
            }
        }
    }
}

/// What an event says: the message and the structured fields, in the order written.
#[derive(Default)]
pub(super) struct Content {
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// A field's value: numbers and truth values stay such in JSON.
pub(super) enum Value {
    Text(String),
    Json(serde_json::Value),
}

impl Content {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Content {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.put(field, Value::Json(number.into())),
            None => self.put(field, Value::Text(value.to_string())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Json(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Json(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Json(value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Text(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::Text(format!("{value:?}")));
    }
}

/// Whether a character could end the line, move a terminal's cursor or turn the reading direction.
fn disguises(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with everything that could end or disguise a line written as Rust would: `\n`, `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(disguises) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if disguises(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    }))
}

/// A field's value as it stands, or in double quotes where it would not be one word.
fn quote(text: &str) -> Cow<'_, str> {
    let one_word =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || disguises(c));
    if one_word {
        return Cow::Borrowed(text);
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{}\"", escape(&escaped)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn line() -> Line<'static> {
        let fields = vec![
            ("stream", Value::Text("db1:foo".into())),
            ("reason", Value::Text("went away".into())),
            ("attempt", Value::Json(3.into())),
            ("ok", Value::Json(false.into())),
        ];
        Line {
            time: DateTime::from_timestamp_micros(1_767_323_045_678_901).unwrap(),
            level: Level::WARN,
            target: "sync_core::lane",
            file: Some("crates/sync-core/src/lane.rs"),
            line: Some(42),
            thread: "worker",
            content: Content { message: "retrying".into(), fields },
        }
    }

    #[test]
    fn formats() {
        let check = |format: LogFormat, expected: &str| assert_eq!(format.render(&line()), expected);
        check(
            LogFormat::Text,
            "2026-01-02T03:04:05.678Z WARN  sync_core::lane: retrying stream=db1:foo reason=\"went away\" attempt=3 ok=false\n",
        );
        check(
            LogFormat::standard(),
            "2026-01-02 03:04:05,678 - sync_core.lane - WARNING - retrying stream=db1:foo reason=\"went away\" attempt=3 ok=false\n",
        );
        check(
            LogFormat::Human { colour: false },
            "03:04:05 WARN  lane: retrying stream=db1:foo reason=\"went away\" attempt=3 ok=false\n",
        );
        check(
            LogFormat::Human { colour: true },
            "\x1b[2m03:04:05\x1b[0m \x1b[33mWARN \x1b[0m \x1b[2mlane:\x1b[0m retrying stream=db1:foo reason=\"went away\" attempt=3 ok=false\n",
        );
    }

    #[test]
    fn json() {
        let mut line = line();
        line.content.fields.push(("level", Value::Text("a\"b".into())));
        let out = LogFormat::Json.render(&line);
        assert_eq!(out.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&out).unwrap(),
            serde_json::json!({
                "timestamp": "2026-01-02T03:04:05.678901Z", "level": "WARN", "target": "sync_core::lane",
                "message": "retrying", "stream": "db1:foo", "reason": "went away", "attempt": 3, "ok": false,
                "level_": "a\"b",
            })
        );
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let evil = "a\r\n2026 ERROR \x1b[2J\u{9b}1m\u{2028}\u{202e}b\0\t";
        for format in
            [LogFormat::Text, LogFormat::Json, LogFormat::standard(), LogFormat::Human { colour: false }]
        {
            let mut line = line();
            line.target = "evil\ntarget";
            line.content.message = evil.to_owned();
            line.content.fields = vec![("key", Value::Text(evil.to_owned()))];
            let out = format.render(&line);
            let body = out.strip_suffix('\n').unwrap();
            assert!(!body.contains(disguises), "{format:?}: {out:?}");
            if format == LogFormat::Json {
                let value: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!((value["message"].as_str(), value["key"].as_str()), (Some(evil), Some(evil)));
            }
        }
        assert_eq!(escape("a\nb\x1b"), r"a\nb\u{1b}");
    }

    #[test]
    fn values() {
        let check = |value: &str, expected: &str| assert_eq!(quote(value), expected);
        check("word", "word");
        check(r"C:\x", r"C:\x");
        check("", r#""""#);
        check("two words", r#""two words""#);
        check(r#"say "a\b""#, r#""say \"a\\b\"""#);
        check("a\nb", r#""a\nb""#);
    }

    #[test]
    fn parsing() {
        assert_eq!(LogFormat::parse("TEXT"), Ok(LogFormat::Text));
        assert_eq!(LogFormat::parse(" json "), Ok(LogFormat::Json));
        assert!(matches!(LogFormat::parse("%(message)s"), Ok(LogFormat::Python(_))));
        assert_eq!(LogFormat::parse("jsn"), Err(FormatError));
    }
}
