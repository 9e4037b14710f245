//! A message as it stands in the buffer: one JSON object in one string.
//!
//! ```json
//! {"digest":"5f0c…","topic":"events","key":"device:7","timestamp":1651234567890,
//!  "headers":[["redis.stream","device:7"],["redis.entry_id","1651234567890-3"]],"value":{…}}
//! ```
//!
//! | member | is |
//! |---|---|
//! | `digest` | 16 digits that tell what the message is of: the same for an entry with the same fields, whatever version and settings have written it. It stands first, where the scripts look for it |
//! | `topic`, `key` | of the record |
//! | `timestamp` | of the record, ms since 1970; `null` is the moment of sending |
//! | `headers` | names and values, in order. Who sends it adds `bridge` |
//! | `value` | the record's value where it is JSON, byte for byte |
//! | `text` | instead, where it is other text |
//! | `base64` | instead, where it is no text |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};
use sync_core::payload::write_json_string;
use sync_core::record::Entry;

/// What tells a message from another one under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest([u8; Self::LENGTH]);

/// Where a stored message has its digest, first and last byte: after `{"digest":"`.
pub(super) const DIGEST_AT: (usize, usize) = (11, 26);

impl Digest {
    const LENGTH: usize = 16;

    /// Of an entry's fields, in their order.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let mut sum = Sha1::new();
        for (name, value) in &entry.fields {
            for bytes in [name, value] {
                sum.update((bytes.len() as u64).to_le_bytes());
                sum.update(bytes);
            }
        }
        Self::finish(sum)
    }

    /// Of a value.
    pub(crate) fn of_value(value: &[u8]) -> Self {
        Self::finish(Sha1::new().chain_update(value))
    }

    fn finish(sum: Sha1) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let sum = sum.finalize();
        let mut digits = [0; Self::LENGTH];
        for (at, byte) in sum.iter().take(Self::LENGTH / 2).enumerate() {
            digits[2 * at] = DIGITS[usize::from(byte >> 4)];
            digits[2 * at + 1] = DIGITS[usize::from(byte & 15)];
        }
        Self(digits)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("these are digits")
    }

    fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }
}

/// A value, and what kind it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// JSON without blanks around it.
    Json(&'a [u8]),
    /// Whatever it is.
    Bytes(&'a [u8]),
}

/// Writes a message. `value` is asked to append itself only once: it may be long.
pub(crate) fn write(
    out: &mut Vec<u8>,
    digest: &Digest,
    topic: &str,
    key: &str,
    timestamp: Option<i64>,
    headers: &[(&str, &str)],
    value: Value<'_>,
) {
    out.extend_from_slice(b"{\"digest\":\"");
    debug_assert_eq!(out.len(), DIGEST_AT.0, "the scripts look there");
    out.extend_from_slice(digest.as_str().as_bytes());
    out.extend_from_slice(b"\",\"topic\":");
    write_json_string(out, topic);
    out.extend_from_slice(b",\"key\":");
    write_json_string(out, key);
    out.extend_from_slice(b",\"timestamp\":");
    match timestamp {
        Some(timestamp) => out.extend_from_slice(timestamp.to_string().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"headers\":[");
    for (at, (name, value)) in headers.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",[" } else { b"[" });
        write_json_string(out, name);
        out.push(b',');
        write_json_string(out, value);
        out.push(b']');
    }
    out.extend_from_slice(b"],");
    let value = match value {
        Value::Bytes(bytes) if is_json(bytes) => Value::Json(bytes),
        value => value,
    };
    match value {
        Value::Json(json) => {
            out.extend_from_slice(b"\"value\":");
            out.extend_from_slice(json);
        }
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.extend_from_slice(b"\"text\":");
                write_json_string(out, text);
            }
            Err(_) => {
                out.extend_from_slice(b"\"base64\":\"");
                out.extend_from_slice(BASE64.encode(bytes).as_bytes());
                out.push(b'"');
            }
        },
    }
    out.push(b'}');
}

/// Whether it may stand in JSON as it is, and be found there again byte for byte: blanks around it would not be.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok_and(|raw| raw.get().len() == bytes.len())
}

/// A message out of the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Vec<(String, String)>,
    /// Of the record.
    pub(crate) value: Bytes,
}

#[derive(Deserialize)]
struct Members<'a> {
    digest: String,
    timestamp: Option<i64>,
    headers: Vec<(String, String)>,
    /// `null` is a value, too.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Stored {
    /// The inverse of [`write`]; else why it is no message.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, String> {
        let Members { digest, timestamp, headers, value, text, base64 } =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let value = match (value, text, base64) {
            (Some(json), None, None) => bytes.slice_ref(json.get().as_bytes()),
            (None, Some(text), None) => text.into(),
            (None, None, Some(base64)) => BASE64.decode(base64).map_err(|error| error.to_string())?.into(),
            _ => return Err("it has not one of value, text and base64".into()),
        };
        let digest = Digest::parse(&digest).ok_or("its digest does not have 16 digits")?;
        Ok(Self { digest, timestamp, headers, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sync_core::record::EntryId;

    use super::*;

    fn written(value: &[u8], headers: &[(&str, &str)], timestamp: Option<i64>) -> Bytes {
        let mut out = Vec::new();
        let digest = Digest::of_value(value);
        write(&mut out, &digest, "topic", "k\"ey", timestamp, headers, Value::Bytes(value));
        assert_eq!(&out[DIGEST_AT.0..=DIGEST_AT.1], digest.as_str().as_bytes());
        out.into()
    }

    proptest! {
        #[test]
        fn every_value_comes_back_byte_for_byte(
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                ".{0,20}".prop_map(String::into_bytes),
                "[ \n]?(\\{ ?\"a\": 1\\}|-?1.50|null|true|\\[\\]|\"x\\\\u0000\")[ \n]?".prop_map(String::into_bytes),
            ],
            headers in proptest::collection::vec((".{0,5}", ".{0,5}"), 0..3),
            timestamp in proptest::option::of(1i64..),
        ) {
            let given: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let stored = Stored::read(&written(&value, &given, timestamp)).expect("is a message");
            prop_assert_eq!(&stored.value[..], &value[..]);
            prop_assert_eq!(stored, Stored { digest: Digest::of_value(&value), timestamp, headers, value: value.into() });
        }
    }

    #[test]
    fn what_is_json_stands_there_as_it_is() {
        let text =
            |value: &[u8]| String::from_utf8(written(value, &[("a", "b")], None).to_vec()).expect("is text");
        let start = r#"","topic":"topic","key":"k\"ey","timestamp":null,"headers":[["a","b"]],"#;
        for (value, end) in [
            (&b"{\"n\": 1.50}"[..], r#""value":{"n": 1.50}}"#),
            (b"1 ", r#""text":"1 "}"#),
            (b"", r#""text":""}"#),
            (b"\xff", r#""base64":"/w=="}"#),
        ] {
            assert_eq!(text(value)[DIGEST_AT.1 + 1..], format!("{start}{end}"));
        }
    }

    #[test]
    fn what_is_no_message() {
        for bytes in [&b""[..], b"{}", b"[1]", br#"{"digest":"1","timestamp":null,"headers":[],"text":""}"#] {
            assert!(Stored::read(&Bytes::from_static(bytes)).is_err());
        }
    }

    #[test]
    fn a_digest_is_of_the_fields_alone() {
        let entry = |ms, fields: &[(&str, &str)]| Entry {
            id: EntryId { ms, seq: 0 },
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned().into()))
                .collect(),
        };
        let digest = |entry: Entry| Digest::of_entry(&entry).as_str().to_owned();
        assert_eq!(digest(entry(1, &[("a", "b")])), digest(entry(2, &[("a", "b")])));
        assert_ne!(digest(entry(1, &[("a", "b")])), digest(entry(1, &[("ab", "")])));
        assert_ne!(digest(entry(1, &[("a", "b")])), digest(entry(1, &[("a", "b"), ("a", "b")])));
    }
}
