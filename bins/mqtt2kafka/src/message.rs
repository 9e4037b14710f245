//! One MQTT message on its way, and the Kafka records that it comes to. It owns their shape and sends nothing.
//!
//! | part | is |
//! |---|---|
//! | key | as the mapping says: the MQTT topic, where no rule says otherwise |
//! | value | the payload, or the JSON made of it (`value.rs`); null for an empty payload |
//! | header `mqtt.topic`, `mqtt.qos` | as it was published, and as it was delivered here |
//! | header `mqtt.retain`, `mqtt.dup` | `true` or `false`, as the broker sent them |
//! | header `mqtt.payload` | `raw`, where the value is not JSON |
//! | header `mqtt.content-type`, `mqtt.response-topic`, `mqtt.correlation-data` | MQTT 5, where the message has them |
//! | other headers | MQTT 5 user properties, in order; those that begin with `mqtt.` behind `mqtt.user.` |
//! | time | the payload's own (`mqtt.timestamp_attribute`), or that of sending |
//!
//! A dead letter has the message's own bytes for a value, the MQTT topic for a key, and besides the headers above
//! `mqtt.error.reason`, `mqtt.error.kafka-topic`, `mqtt.error.time` (RFC 3339) and `mqtt.error.bridge`; one that is longer
//! than a record may be is cut into several records, in order, with the header `mqtt.error.part` (`2/3`). Where MQTT 5
//! properties are too long for headers, they stand before the payload, as MQTT 5, 2.2.2 codes them; the header
//! `mqtt.error.property-bytes` says how long they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use kafka_producer::{Batch, Head, Line};
use mqtt_client::{Properties, Property};
use rdkafka::message::{Header, OwnedHeaders};
use rumqttc::QoS;
use tokio::time::Instant;

use crate::route::Route;

/// What a message occupies besides its bytes, about.
const OVERHEAD: usize = 384;
/// What a letter's key and headers take of its longest size, about.
const HEADERS: usize = 4096;
/// Longer properties are no headers of a letter.
const PROPERTIES: usize = HEADERS / 4;
const LONGEST_REASON: usize = 500;
/// A dead letter is not cut into smaller parts than that.
const SMALLEST_PART: usize = 1000;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Counts what this process has received.
    pub(crate) number: u64,
    /// Counts its connections to the broker: on which of them this one came.
    pub(crate) connection: u64,
    pub(crate) route: Arc<Route>,
    /// As received.
    pub(crate) payload: Bytes,
    /// As it goes to Kafka; `None` is null.
    pub(crate) value: Option<Bytes>,
    /// The value is not JSON.
    pub(crate) raw: bool,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) properties: Properties,
    pub(crate) received: Instant,
    /// It goes to the dead-letter topic.
    pub(crate) letter: Option<Letter>,
}

/// Why a message goes to the dead-letter topic.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) reason: String,
    pub(crate) time: DateTime<Utc>,
    /// Bytes of the payload in a record.
    pub(crate) part: usize,
}

impl Message {
    /// One that came first, at QoS 1, for tests.
    #[cfg(test)]
    pub(crate) fn of(payload: Bytes, properties: Properties) -> Self {
        Self {
            number: 0,
            connection: 1,
            route: Route::to("topic"),
            value: Some(payload.clone()),
            payload,
            raw: false,
            timestamp: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            properties,
            received: Instant::now(),
            letter: None,
        }
    }

    /// Bytes that it occupies, about.
    pub(crate) fn weight(&self) -> usize {
        let value = self.value.as_ref().filter(|value| value.as_ptr() != self.payload.as_ptr());
        OVERHEAD + self.payload.len() + self.properties.as_bytes().len() + value.map_or(0, Bytes::len)
    }

    /// Whether it is lost to the broker when the connection is: it has nothing to be acknowledged.
    pub(crate) fn is_unacknowledged(&self) -> bool {
        self.qos == QoS::AtMostOnce
    }

    /// It is to go to the dead-letter topic, in records of at most so many bytes.
    pub(crate) fn refuse(&mut self, mut reason: String, record: usize) {
        // Where a structure is nested, so are the words about it.
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        let part = record.saturating_sub(HEADERS).max(SMALLEST_PART);
        self.letter = Some(Letter { reason, time: Utc::now(), part });
    }

    /// A record of its letter was refused: cuts it into smaller ones. `false` where they are small enough.
    pub(crate) fn cut(&mut self) -> bool {
        let length = self.inline_properties().len() + self.payload.len();
        let Some(letter) = self.letter.as_mut().filter(|letter| letter.part > SMALLEST_PART) else {
            return false;
        };
        // The first cut is one that has an effect.
        letter.part = (letter.part.min(length) / 2).max(SMALLEST_PART);
        true
    }

    /// How many records it comes to.
    fn records(&self) -> usize {
        let length = self.inline_properties().len() + self.payload.len();
        self.letter.as_ref().map_or(1, |letter| length.div_ceil(letter.part).max(1))
    }

    /// What stands before the payload in a letter.
    fn inline_properties(&self) -> &[u8] {
        let properties = self.properties.as_bytes();
        if self.letter.is_some() && properties.len() > PROPERTIES { properties } else { &[] }
    }

    fn write(&self, part: usize, value: &mut Vec<u8>) -> Head {
        let Some(letter) = &self.letter else {
            if let Some(bytes) = &self.value {
                value.extend_from_slice(bytes);
            }
            let headers = self.headers(0);
            return Head { headers, timestamp: self.timestamp, tombstone: self.value.is_none() };
        };
        let properties = self.inline_properties();
        for (bytes, at) in [(properties, 0), (&self.payload[..], properties.len())] {
            let place = |of: usize| of.saturating_sub(at).min(bytes.len());
            value.extend_from_slice(&bytes[place(part * letter.part)..place((part + 1) * letter.part)]);
        }
        let time = letter.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = self
            .headers(6)
            .insert(text("mqtt.error.reason", &letter.reason))
            .insert(text("mqtt.error.kafka-topic", self.route.target.as_deref().unwrap_or("")))
            .insert(text("mqtt.error.time", &time))
            .insert(text("mqtt.error.bridge", BRIDGE));
        if !properties.is_empty() {
            headers = headers.insert(text("mqtt.error.property-bytes", &properties.len().to_string()));
        }
        let records = self.records();
        if records > 1 {
            headers = headers.insert(text("mqtt.error.part", &format!("{}/{records}", part + 1)));
        }
        Head { headers, timestamp: None, tombstone: false }
    }

    fn headers(&self, further: usize) -> OwnedHeaders {
        let qos = match self.qos {
            QoS::AtMostOnce => "0",
            QoS::AtLeastOnce => "1",
            QoS::ExactlyOnce => "2",
        };
        let switch = |on: bool| if on { "true" } else { "false" };
        let mut headers = OwnedHeaders::new_with_capacity(5 + further)
            .insert(bytes("mqtt.topic", &self.route.bytes))
            .insert(text("mqtt.qos", qos))
            .insert(text("mqtt.retain", switch(self.retain)))
            .insert(text("mqtt.dup", switch(self.dup)));
        if self.raw {
            headers = headers.insert(text("mqtt.payload", "raw"));
        }
        if !self.inline_properties().is_empty() {
            return headers;
        }
        for property in self.properties.iter() {
            headers = match property {
                Property::ContentType(of) => headers.insert(bytes("mqtt.content-type", of)),
                Property::ResponseTopic(topic) => headers.insert(bytes("mqtt.response-topic", topic)),
                Property::CorrelationData(data) => headers.insert(bytes("mqtt.correlation-data", data)),
                Property::User(name, value) => headers.insert(bytes(&name_of(name), value)),
                _ => headers,
            };
        }
        headers
    }
}

const BRIDGE: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What a user property is called as a header: not what a header of ours is. MQTT forbids NUL in it, and the client library
/// cannot have it.
fn name_of(name: &[u8]) -> Cow<'_, str> {
    let name = String::from_utf8_lossy(name);
    if name.starts_with("mqtt.") || name.contains('\0') {
        format!("mqtt.user.{}", name.replace('\0', "%00")).into()
    } else {
        name
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

fn bytes<'a>(key: &'a str, value: &'a [u8]) -> Header<'a, &'a [u8]> {
    Header { key, value: Some(value) }
}

/// Messages that are handed over together, as records.
#[derive(Debug)]
pub(crate) struct Records {
    messages: Vec<Message>,
    /// By the record's place: its message, and which part of it.
    parts: Vec<(u32, u32)>,
}

impl Records {
    /// Says of which order each record is: those of one Kafka topic and key are.
    pub(crate) fn of(messages: Vec<Message>, dead_letters: &Arc<str>) -> (Self, Vec<Line>) {
        let mut parts = Vec::with_capacity(messages.len());
        let mut lines = Lines::default();
        for (index, message) in messages.iter().enumerate() {
            let records = message.records();
            let line = lines.of(message, dead_letters);
            for part in 0..records {
                line.records.push(parts.len());
                parts.push((to_u32(index), to_u32(part)));
            }
        }
        (Self { messages, parts }, lines.lines)
    }

    /// How many records.
    pub(crate) fn count(&self) -> usize {
        self.parts.len()
    }

    /// The messages, and how many records each comes to.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Message, usize)> {
        self.messages.iter().map(|message| (message, message.records()))
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("a batch is bounded")
}

impl Batch for Records {
    fn record(&self, at: usize, value: &mut Vec<u8>) -> Head {
        let (message, part) = self.parts[at];
        self.messages[message as usize].write(part as usize, value)
    }

    fn size(&self, at: usize) -> usize {
        let message = &self.messages[self.parts[at].0 as usize];
        match &message.letter {
            None => message.value.as_ref().map_or(0, Bytes::len),
            Some(letter) => letter.part.min(message.inline_properties().len() + message.payload.len()),
        }
    }
}

/// The lines of a batch, found again by their routes.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    known: HashMap<(*const Route, bool), usize>,
    last: Option<((*const Route, bool), usize)>,
}

impl Lines {
    fn of(&mut self, message: &Message, dead_letters: &Arc<str>) -> &mut Line {
        let route = &message.route;
        let is_letter = message.letter.is_some();
        let wanted = (Arc::as_ptr(route), is_letter);
        let index = match self.last {
            Some((last, index)) if last == wanted => index,
            _ => *self.known.entry(wanted).or_insert_with(|| {
                let target =
                    if is_letter { dead_letters } else { route.target.as_ref().unwrap_or(dead_letters) };
                let name = if is_letter { &route.letters } else { &route.line };
                self.lines.push(Line {
                    name: name.clone(),
                    topic: target.clone(),
                    key: if is_letter { route.bytes.clone() } else { route.key.clone() },
                    records: Vec::new(),
                });
                self.lines.len() - 1
            }),
        };
        self.last = Some((wanted, index));
        &mut self.lines[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many user properties of 1,000 bytes and some.
    fn properties(count: usize) -> Properties {
        let one = [&[38, 0, 4][..], b"name", &[0x03, 0xE8], &[b'u'; 1000]].concat();
        let all = one.repeat(count);
        let length = [0, 7, 14].map(|shift| (all.len() >> shift & 0x7F) as u8);
        let length = [length[0] | 0x80, length[1] | 0x80, length[2]];
        Properties::take(&mut Bytes::from([&length[..], &all].concat())).unwrap()
    }

    fn letter(count: usize, payload: usize, record: usize) -> Message {
        let mut message = Message::of(Bytes::from(vec![b'p'; payload]), properties(count));
        message.refuse("no".into(), record);
        message
    }

    /// The values of its records.
    fn values(message: &Message) -> Vec<Vec<u8>> {
        let value = |part| {
            let mut value = Vec::new();
            message.write(part, &mut value);
            value
        };
        (0..message.records()).map(value).collect()
    }

    #[test]
    fn a_letter_is_whole_whatever_its_parts() {
        for (properties, payload, record, records) in [
            (0, 0, 1 << 20, 1),
            (0, 5000, 1 << 20, 1),
            (1, 5000, 1 << 20, 1),
            (0, 5000, 6096, 3),
            (3, 5000, 6096, 5),
            (3, 0, 1, 4),
            (70, 10, 1 << 20, 1),
        ] {
            let message = letter(properties, payload, record);
            let values = values(&message);
            assert_eq!(values.len(), records, "{properties} {payload} {record}");
            let expected = [message.inline_properties(), &message.payload].concat();
            assert_eq!(values.concat(), expected, "{properties} {payload} {record}");
            assert!(values.iter().all(|value| value.len() <= record.max(SMALLEST_PART)));
        }
    }

    #[test]
    fn a_letter_is_cut_until_it_cannot_be() {
        let mut message = letter(0, 10_000, 1 << 20);
        let mut records = vec![message.records()];
        while message.cut() {
            records.push(message.records());
            assert_eq!(values(&message).concat(), message.payload);
        }
        assert_eq!(records, [1, 2, 4, 8, 10]);
    }

    #[test]
    fn a_user_property_is_not_taken_for_a_header_of_ours() {
        for (name, header) in [
            ("a", "a"),
            ("mqtt.topic", "mqtt.user.mqtt.topic"),
            ("mqtt.user.x", "mqtt.user.mqtt.user.x"),
            ("a\0b", "mqtt.user.a%00b"),
        ] {
            assert_eq!(name_of(name.as_bytes()), header);
        }
    }
}
