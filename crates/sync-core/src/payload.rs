//! How an entry's fields become JSON text: the `data` of every destination that takes JSON. It owns the
//! encoding and its exactness; it names no destination and knows nothing of the text around `data`.
//!
//! # The shape, and how to read it back
//!
//! Every pair, in its order and byte for byte, can be had back from `data`:
//!
//! | `data` | is |
//! |---|---|
//! | `{"$fields": [[name, value], …]}` | these pairs; used when a name repeats, is no text, or is `$fields` or `$base64` |
//! | any other object | its members, in the order written |
//!
//! | a value or a name | is the bytes |
//! |---|---|
//! | a string | its text, in the source's encoding |
//! | `{"$base64": "…"}` | these (RFC 4648 §4, padded); used for what is no text in the encoding |
//! | anything else (values under [`ValueFormat::Json`] only) | the JSON text itself, as it stands |
//!
//! Under [`ValueFormat::Json`] a value is embedded as it stands when all of it, from its first byte to its last,
//! is one JSON (RFC 8259) number, boolean, object or array. It remains a string, which reads back exactly too,
//!
//! - when white space surrounds it, since a parser would drop that;
//! - when it is `null` or a JSON string;
//! - when it is an object with a member `$base64` or `$fields`, however spelled: these are ours. Deeper down they
//!   are the writer's own, and stay;
//! - when some parsers would refuse it, and the whole message with it: nested deeper than [`MAX_DEPTH`], a number
//!   longer than [`MAX_NUMBER`] characters, a `\ud800`-like escape without its other half (RFC 8259 §8.2).
//!
//! Members that repeat and numbers that no `f64` holds (`1e400`) are good JSON and are embedded.
//!
//! # Where the parsed value is kept
//!
//! Some destinations keep not this text but the value that it is, and print it again when they are asked, as
//! PostgreSQL's `jsonb` does (<https://www.postgresql.org/docs/current/datatype-json.html>).
//! [`Encoder::for_parsed_json`] writes for these, so that what is printed reads back by the tables above. Then
//!
//! - text that holds U+0000 is no text: such a name or value is `{"$base64": "…"}`;
//! - a value remains a string, besides the above, when it would not come back as it was: it holds, at any depth, a
//!   number with an exponent (`1e5` is printed `100000`) or a negative zero (`-0.0` is printed `0.0`), `\u0000`, or a
//!   name that repeats within its object, however spelled (the last one would be kept);
//! - where the order of members is content, an object is written as one only if its members stand in the order in
//!   which they are printed: shorter names first, in bytes of UTF-8, and those of one length bytewise. That goes for
//!   values at every depth, and for `data` itself, which is `$fields` otherwise.
//!
//! What comes back otherwise is no content: white space between tokens, how a string spells its characters (`\/`,
//! `\u0041`), and else the order of members.
//!
//! Text in another encoding than UTF-8 is text only if encoding it again gives the same bytes.

mod json;
mod parsed;

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE};

use self::json::KeptAsText;
use self::parsed::{KeptParsed, printed_order};
use crate::record::Entry;

pub use encoding_rs::Encoding;
pub use json::{MAX_DEPTH, MAX_NUMBER, write_json_string};

/// Marks bytes that are no text.
const BASE64_KEY: &str = "$base64";
/// Marks pairs that are no plain JSON object.
const FIELDS_KEY: &str = "$fields";

/// VALUE_FORMAT: what becomes of a value that is JSON already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueFormat {
    /// A number, boolean, object or array is embedded as it stands.
    #[default]
    Json,
    /// Every value is a string.
    Text,
}

/// Writes fields as JSON. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    format: ValueFormat,
    encoding: &'static Encoding,
    kept: Kept,
}

/// What the destination keeps.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Text,
    Parsed { ordered: bool },
}

impl Encoder {
    /// `encoding` says how the source's bytes are text (SOURCE_REDIS_ENCODING).
    pub fn new(format: ValueFormat, encoding: &'static Encoding) -> Self {
        Self { format, encoding, kept: Kept::Text }
    }

    /// For a destination that keeps the parsed value and prints it again: the module's page has the rules. `ordered`
    /// says whether the order of members, and of an entry's pairs, is content.
    #[must_use]
    pub fn for_parsed_json(self, ordered: bool) -> Self {
        Self { kept: Kept::Parsed { ordered }, ..self }
    }

    /// Appends an entry's fields as the JSON value that the module describes: an object, compact.
    pub fn write_data(&self, entry: &Entry, out: &mut Vec<u8>) {
        let start = out.len();
        if has_repeats(&entry.fields) || self.try_write_object(entry, out).is_none() {
            out.truncate(start);
            out.extend_from_slice(b"{\"$fields\":");
            self.write_pairs(entry, out);
            out.push(b'}');
        }
    }

    /// `None`, and something half written, when a name is no text or is one of ours, or the names are out of order.
    fn try_write_object(&self, entry: &Entry, out: &mut Vec<u8>) -> Option<()> {
        let ordered = matches!(self.kept, Kept::Parsed { ordered: true });
        let mut before: Option<Cow<'_, str>> = None;
        out.push(b'{');
        for (index, (name, value)) in entry.fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let name = self.text(name).filter(|name| name != FIELDS_KEY && name != BASE64_KEY)?;
            if ordered
                && before.is_some_and(|before| printed_order(before.as_bytes(), name.as_bytes()).is_ge())
            {
                return None;
            }
            write_json_string(out, &name);
            out.push(b':');
            self.write_value(value, out);
            before = Some(name);
        }
        out.push(b'}');
        Some(())
    }

    /// Appends an entry's fields as a list, `[[name, value], …]`, which holds whatever an entry holds.
    pub fn write_pairs(&self, entry: &Entry, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, (name, value)) in entry.fields.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b",[" } else { b"[" });
            self.write_name(name, out);
            out.push(b',');
            self.write_value(value, out);
            out.push(b']');
        }
        out.push(b']');
    }

    /// Appends one value: as it stands where it is JSON and the format embeds it, else a string or `$base64`.
    pub fn write_value(&self, value: &[u8], out: &mut Vec<u8>) {
        match self.text(value) {
            Some(text) if self.format == ValueFormat::Json && self.embeds(&text) => {
                out.extend_from_slice(text.as_bytes());
            }
            Some(text) => write_json_string(out, &text),
            None => write_base64(value, out),
        }
    }

    fn embeds(&self, text: &str) -> bool {
        match self.kept {
            Kept::Text => json::is_embeddable(text, &mut KeptAsText),
            Kept::Parsed { ordered } => json::is_embeddable(text, &mut KeptParsed::new(ordered)),
        }
    }

    /// A name is never embedded: it is a string or `$base64`.
    fn write_name(&self, name: &[u8], out: &mut Vec<u8>) {
        match self.text(name) {
            Some(text) => write_json_string(out, &text),
            None => write_base64(name, out),
        }
    }

    /// The text that these bytes are, if they can be had back from it.
    fn text<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        let text = self.decode(bytes)?;
        (matches!(self.kept, Kept::Text) || !text.contains('\0')).then_some(text)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        if self.encoding == UTF_8 {
            return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
        }
        let text = self.encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
        (encode(self.encoding, &text).as_deref() == Some(bytes)).then_some(text)
    }
}

/// Whether a name comes twice.
fn has_repeats(fields: &[(Bytes, Bytes)]) -> bool {
    /// Up to here comparing each with each costs less than hashing.
    const FEW: usize = 16;
    if fields.len() <= FEW {
        let repeats = |at: usize| fields[..at].iter().any(|(seen, _)| *seen == fields[at].0);
        return (1..fields.len()).any(repeats);
    }
    let mut seen = HashSet::with_capacity(fields.len());
    !fields.iter().all(|(name, _)| seen.insert(name))
}

/// The bytes of a text; `None` where the encoding lacks a character. UTF-16 is done by hand, because the
/// WHATWG standard, and so `encoding_rs`, has no encoder for it (<https://encoding.spec.whatwg.org/#output-encodings>).
fn encode<'a>(encoding: &'static Encoding, text: &'a str) -> Option<Cow<'a, [u8]>> {
    if encoding == UTF_16LE {
        return Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    }
    if encoding == UTF_16BE {
        return Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }
    let (bytes, _, has_unmappable) = encoding.encode(text);
    (!has_unmappable).then_some(bytes)
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"$base64\":\"");
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written =
        BASE64.encode_slice(bytes, &mut out[start..]).expect("four characters for each three bytes");
    debug_assert_eq!(start + written, out.len());
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
