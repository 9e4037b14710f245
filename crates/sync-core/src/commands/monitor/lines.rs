//! The answer as lines: constant text and fields, as in a log, or JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::judge::{Health, Warning};
use super::look::{Look, Row, time_text};
use crate::commands::CommandError;

/// A line for each stream with a warning (`all`: for each), and one for the look.
pub(super) fn write(look: &Look, all: bool, out: &mut impl Write) -> io::Result<()> {
    let time = time_text(&look.time);
    let mut text = String::new();
    for row in look.streams.iter().filter(|row| all || row.health != Health::Ok) {
        let (level, words) = match row.health {
            Health::Ok => ("INFO", "stream is well"),
            Health::Warn => ("WARN", "stream needs attention"),
            Health::Critical => ("ERROR", "stream needs attention"),
        };
        line(&mut text, &time, level, words, &fields(row));
    }
    for problem in &look.problems {
        line(&mut text, &time, "WARN", "streams cannot be looked for", &format!(" reason={problem:?}"));
    }
    let totals = &look.totals;
    let words = format!(
        " streams={} ok={} warn={} critical={} length={} lag={} pending={} dead_letters={} took_ms={}",
        totals.streams,
        totals.ok,
        totals.warn,
        totals.critical,
        totals.length,
        totals.lag_text(),
        totals.pending,
        totals.dead_letters,
        look.took_ms
    );
    line(&mut text, &time, "INFO", "looked at the streams", &words);
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn fields(row: &Row) -> String {
    let mut text = format!(" stream={:?} health={}", row.stream, row.health.word());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let fields = [
        ("length", number(row.length)),
        ("first", row.first.clone()),
        ("last", row.last.clone()),
        ("lag", row.length.map(|_| row.lag.text())),
        ("pending", number(row.pending)),
        ("oldest_pending_s", row.oldest_pending.as_ref().map(|oldest| oldest.age().as_secs().to_string())),
        ("consumers", number(row.consumers)),
        ("dead_letters", number(row.dead_letters)),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            let _ = write!(text, " {name}={value}");
        }
    }
    for warning in &row.warnings {
        let _ = write!(text, " warning={:?}", Warning::text(warning));
    }
    text
}

fn line(text: &mut String, time: &str, level: &str, words: &str, fields: &str) {
    let _ = writeln!(text, "{time} {level:<5} {words}{fields}");
}

/// The source does not answer.
pub(super) fn write_away(time: DateTime<Utc>, error: &CommandError, out: &mut impl Write) -> io::Result<()> {
    let mut text = String::new();
    let reason = format!(" reason={:?}", error.to_string());
    line(&mut text, &time_text(&time), "WARN", "source does not answer, trying again", &reason);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// It does again.
pub(super) fn write_back(time: DateTime<Utc>, address: &str, out: &mut impl Write) -> io::Result<()> {
    let mut text = String::new();
    line(&mut text, &time_text(&time), "INFO", "source answers again", &format!(" address={address:?}"));
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The look, on one line.
pub(super) fn write_json(look: &Look, out: &mut impl Write) -> io::Result<()> {
    let mut text = serde_json::to_vec(look)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// In place of a look.
pub(super) fn write_json_error(
    time: DateTime<Utc>,
    error: &CommandError,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{}", json!({ "time": time_text(&time), "error": error.to_string() }))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::{look, row};
    use super::*;
    use crate::redis::Fault;
    use crate::redis::statistics::Lag;

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_constant_text_and_fields() {
        let look =
            look(vec![row("fine", Health::Ok, Lag::Exact(0)), row("db1:a b\n", Health::Warn, Lag::About(4))]);
        let numbers = "length=10 first=1-0 last=10-0";
        let bad = format!(
            "2023-11-14T22:13:20.005Z WARN  stream needs attention stream=\"db1:a b\\n\" health=WARN {numbers} lag=~4 \
             pending=2 oldest_pending_s=75 consumers=1 dead_letters=0 \
             warning=\"entry 5-1 is pending for 75 s (limit 60 s): see \\\"the log\\\"\"\n"
        );
        let well = format!(
            "2023-11-14T22:13:20.005Z INFO  stream is well stream=\"fine\" health=OK {numbers} lag=0 pending=2 \
             oldest_pending_s=75 consumers=1 dead_letters=0\n"
        );
        let summary = "2023-11-14T22:13:20.005Z INFO  looked at the streams streams=2 ok=1 warn=1 critical=0 length=20 \
                       lag=~4 pending=4 dead_letters=0 took_ms=7\n";
        assert_eq!(written(|out| write(&look, false, out)), format!("{bad}{summary}"));
        assert_eq!(written(|out| write(&look, true, out)), format!("{bad}{well}{summary}"));
    }

    #[test]
    fn a_look_is_one_json_object() {
        let look = look(vec![row("s", Health::Warn, Lag::About(4))]);
        let text = written(|out| write_json(&look, out));
        assert_eq!(text.matches('\n').count(), 1);
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let group =
            json!({"name": "g", "own": true, "consumers": 1, "pending": 2, "lag": 4, "lag_exact": false});
        let warning = json!({"kind": "unconfirmed", "health": "WARN", "what": "entry 5-1 is pending for 75 s",
            "limit": "limit 60 s", "action": "see \"the log\""});
        let stream = json!({"stream": "s", "health": "WARN", "length": 10, "first": "1-0", "last": "10-0", "lag": 4,
            "lag_exact": false, "pending": 2, "consumers": 1, "dead_letters": 0,
            "oldest_pending": {"id": "5-1", "age_ms": null, "pending_ms": 75_000, "deliveries": 3},
            "groups": [group], "warnings": [warning]});
        let totals = json!({"streams": 1, "ok": 0, "warn": 1, "critical": 0, "length": 10, "lag": 4, "lag_exact": false,
            "pending": 2, "dead_letters": 0});
        let expected = json!({"time": "2023-11-14T22:13:20.005Z", "source": "127.0.0.1:6379", "group": "g", "took_ms": 7,
            "totals": totals, "problems": [], "streams": [stream]});
        assert_eq!(found, expected);
    }

    #[test]
    fn that_the_source_is_away() {
        let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let error = CommandError::Source { address: "h:1".into(), fault: Fault::Lost("refused".into()) };
        let words = "cannot reach the source Redis at h:1: refused";
        assert_eq!(
            written(|out| write_away(time, &error, out)),
            format!(
                "2023-11-14T22:13:20.000Z WARN  source does not answer, trying again reason=\"{words}\"\n"
            )
        );
        assert_eq!(
            written(|out| write_json_error(time, &error, out)),
            format!("{{\"error\":\"{words}\",\"time\":\"2023-11-14T22:13:20.000Z\"}}\n")
        );
        assert_eq!(
            written(|out| write_back(time, "h:1", out)),
            "2023-11-14T22:13:20.000Z INFO  source answers again address=\"h:1\"\n"
        );
    }
}
