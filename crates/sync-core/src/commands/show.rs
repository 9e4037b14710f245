//! `dead-letters show`: the one place where a payload is printed, since somebody asked for it.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use super::dead_letters::{Letters, own};
use super::source::Source;
use super::{CommandError, Ended};
use crate::record::{EntryId, StreamName};
use crate::redis::dead_letters::Found;
use crate::telemetry::log::escape;

pub(super) async fn show(
    source: &mut Source,
    stream: &StreamName,
    ids: &[EntryId],
    limit: usize,
    json: bool,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let spelled = source.spell(stream);
    let (mut shown, mut more) = (0, false);
    let mut letters = Letters::of(stream);
    while !more && let Some(page) = letters.next_page(source).await? {
        let wanted = |found: &Found| ids.is_empty() || ids.contains(&found.entry.id);
        for found in page.into_iter().filter_map(|letter| own(source, letter)).filter(wanted) {
            if shown == limit {
                more = true;
                break;
            }
            shown += 1;
            match json {
                true => write_json(&spelled, &found, out)?,
                false => write_letter(&spelled, &found, out)?,
            }
        }
    }
    if !json && more {
        writeln!(out, "… and more: --limit says how many are shown")?;
    } else if !json && shown == 0 {
        let group = escape(&source.settings.group);
        writeln!(out, "no such dead letter of the consumer group {group} in {}", escape(&spelled))?;
    }
    Ok(Ended::Well)
}

fn write_letter(stream: &str, found: &Found, out: &mut impl Write) -> Result<(), CommandError> {
    writeln!(out, "{} entry {} (letter {})", escape(stream), found.entry.id, found.letter)?;
    let header = [
        ("reason", found.reason()),
        ("time", found.time()),
        ("attempts", found.attempts()),
        ("bridge", found.bridge()),
    ];
    for (name, value) in header {
        writeln!(out, "  {name:<9} {}", escape(value))?;
    }
    writeln!(out, "  fields")?;
    for (name, value) in &found.entry.fields {
        writeln!(out, "    {} = {}", as_text(name), as_text(value))?;
    }
    Ok(writeln!(out)?)
}

/// Text as it stands but for what would move the cursor, other bytes as base64.
fn as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape(text).into_owned(),
        Err(_) => format!("base64:{}", BASE64.encode(bytes)),
    }
}

/// A letter, one line each.
#[derive(Serialize)]
struct Letter<'a> {
    stream: &'a str,
    id: String,
    letter: String,
    bridge: &'a str,
    group: &'a str,
    reason: &'a str,
    time: &'a str,
    attempts: Value,
    fields: Vec<[Value; 2]>,
}

fn write_json(stream: &str, found: &Found, out: &mut impl Write) -> Result<(), CommandError> {
    let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "$base64": BASE64.encode(bytes) }),
    };
    let letter = Letter {
        stream,
        id: found.entry.id.to_string(),
        letter: found.letter.to_string(),
        bridge: found.bridge(),
        group: found.group(),
        reason: found.reason(),
        time: found.time(),
        attempts: found
            .attempts()
            .parse()
            .map_or_else(|_| json!(found.attempts()), |count: u64| json!(count)),
        fields: found.entry.fields.iter().map(|(name, text)| [value(name), value(text)]).collect(),
    };
    write_line(&letter, out)
}

/// One JSON object on a line of its own.
pub(super) fn write_line(object: &impl Serialize, out: &mut impl Write) -> Result<(), CommandError> {
    serde_json::to_writer(&mut *out, object).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}
