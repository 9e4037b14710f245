//! What a record looks like on MQTT: its topic and its payload. It owns both shapes and sends nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use sync_core::payload::Encoder;
use sync_core::record::Entry;

/// The longest text that MQTT can carry, in bytes: its length is two bytes (MQTT 5 §1.5.4, 3.1.1 §1.5.3).
const MAX_TOPIC: usize = 65_535;

/// Why a stream has no topic, or a text cannot begin one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicError {
    /// The stream's name is too long once encoded.
    #[error("the topic would be {0} bytes long, and MQTT allows 65535")]
    TooLong(usize),
    /// Every topic would be refused.
    #[error("must not hold {0:?}")]
    Forbidden(char),
}

/// The topic of a stream: `base`, `/`, and the stream's name as [`StreamName::spell`] has it, with `:` as `/`.
///
/// Of the name, what a topic must not hold (`+`, `#` and NUL, MQTT 5 §4.7.1 and §4.7.3) is percent-encoded, byte by
/// byte of its UTF-8, in capitals: `+` is `%2B`. So are control characters and Unicode's non-characters,
/// on which brokers close the connection (§1.5.4 lets them), and `%`, so that two names share a topic only
/// where they differ in nothing but `:` against `/`. `base` is taken as it is: [`check_base`] is for the settings.
///
/// [`StreamName::spell`]: sync_core::record::StreamName::spell
pub(crate) fn topic(base: &str, spelled: &str) -> Result<String, TopicError> {
    let mut topic = String::with_capacity(base.len() + 1 + spelled.len());
    topic.push_str(base);
    topic.push('/');
    for c in spelled.chars() {
        match c {
            ':' => topic.push('/'),
            c if matches!(c, '%' | '+' | '#') || is_unwelcome(c) => push_encoded(&mut topic, c),
            c => topic.push(c),
        }
    }
    if topic.len() > MAX_TOPIC { Err(TopicError::TooLong(topic.len())) } else { Ok(topic) }
}

fn push_encoded(topic: &mut String, c: char) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        topic.push('%');
        topic.push(HEX[usize::from(byte >> 4)].into());
        topic.push(HEX[usize::from(byte & 15)].into());
    }
}

/// Whether a text can stand before the streams' names in a topic: MQTT_BASE_TOPIC.
pub(crate) fn check_base(base: &str) -> Result<(), TopicError> {
    match base.chars().find(|&c| matches!(c, '+' | '#') || is_unwelcome(c)) {
        Some(c) => Err(TopicError::Forbidden(c)),
        None if base.len() >= MAX_TOPIC => Err(TopicError::TooLong(base.len() + 1)),
        None => Ok(()),
    }
}

/// MQTT 5 §1.5.4: U+0000 must not be in a text; U+0001 to U+001F, U+007F to U+009F and the non-characters should not.
fn is_unwelcome(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe
}

/// Appends a record's payload:
/// `{"stream":"device:1","id":"1651234567890-0","data":{…},"timestamp":"2023-05-01T12:34:56.789012"}`.
///
/// `stream` is the spelled stream name as a JSON string, quotes included (`payload::write_json_string`, once per
/// stream). `timestamp` is the moment of publishing, as [`Clock::at`] writes it.
pub(crate) fn write_payload(
    out: &mut Vec<u8>,
    encoder: Encoder,
    stream: &[u8],
    entry: &Entry,
    timestamp: &Timestamp,
) {
    // Reserved once: names, values and what surrounds a pair, as if nothing needed an escape.
    let pairs: usize = entry.fields.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    out.reserve(stream.len() + pairs + 128);
    out.extend_from_slice(b"{\"stream\":");
    out.extend_from_slice(stream);
    out.extend_from_slice(b",\"id\":\"");
    entry.id.write_to(out);
    out.extend_from_slice(b"\",\"data\":");
    encoder.write_data(entry, out);
    out.extend_from_slice(b",\"timestamp\":\"");
    out.extend_from_slice(timestamp);
    out.extend_from_slice(b"\"}");
}

/// `YYYY-MM-DDTHH:MM:SS.ffffff`, UTC, in ASCII.
pub(crate) type Timestamp = [u8; 26];

/// Formats times, most of them of the second it formatted last: then only six digits change.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    second: u64,
    text: Timestamp,
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000000" }
    }
}

impl Clock {
    /// The system's time now.
    pub(crate) fn now(&mut self) -> &Timestamp {
        self.at(SystemTime::now())
    }

    /// This time, cut to microseconds. A time before 1970 is 1970, one after 9999 the last moment of 9999.
    pub(crate) fn at(&mut self, time: SystemTime) -> &Timestamp {
        const LAST: u64 = 253_402_300_799;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (second, mut micros) = match since.as_secs() {
            second @ 0..=LAST => (second, since.subsec_micros()),
            _ => (LAST, 999_999),
        };
        if second != self.second {
            let time = DateTime::from_timestamp(second.cast_signed(), 0).expect("the year is below 10000");
            let text = time.format("%Y-%m-%dT%H:%M:%S.").to_string();
            self.text[..20].copy_from_slice(text.as_bytes());
            self.second = second;
        }
        for digit in self.text[20..].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        &self.text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
