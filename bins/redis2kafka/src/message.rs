//! What an entry looks like on Kafka: value, key, headers and time. It owns the shape and sends nothing.
//!
//! | part | is |
//! |---|---|
//! | key | the stream's name, as people write it (`key` or `dbN:key`, behind SOURCE_NAME) |
//! | value | `{"stream":"…","id":"…","data":{…}}`, compact; `data` as in `sync_core::payload` |
//! | header `redis.stream` | the stream's name |
//! | header `redis.entry_id` | the entry's ID |
//! | header `bridge` | `redis2kafka` and its version |
//! | time | the one in the entry's ID, or that of sending (KAFKA_TIMESTAMP) |
//!
//! Nothing in the value depends on when or by whom it was sent: an entry that is delivered twice is the same twice.

use kafka_producer::Head;
use rdkafka::message::{Header, OwnedHeaders};
use sync_core::payload::Encoder;
use sync_core::record::{Entry, EntryId};

use crate::kafka_settings::TimestampOf;

/// The header that tells which stream a record came from.
pub(crate) const STREAM: &str = "redis.stream";
/// The header that tells which entry a record is.
pub(crate) const ENTRY_ID: &str = "redis.entry_id";
/// The header that tells who sent it.
pub(crate) const BRIDGE: &str = "bridge";
/// What it says.
pub(crate) const BRIDGE_IS: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// Appends an entry's value. `stream` is the spelled name as a JSON string, quotes included.
pub(crate) fn write_value(out: &mut Vec<u8>, encoder: Encoder, stream: &[u8], entry: &Entry) {
    // Reserved once: names, values and what surrounds a pair, as if nothing needed an escape.
    let pairs: usize = entry.fields.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    out.reserve(stream.len() + pairs + 64);
    out.extend_from_slice(b"{\"stream\":");
    out.extend_from_slice(stream);
    out.extend_from_slice(b",\"id\":\"");
    entry.id.write_to(out);
    out.extend_from_slice(b"\",\"data\":");
    encoder.write_data(entry, out);
    out.push(b'}');
}

/// What an entry's record is besides its value.
pub(crate) fn head(stream: &str, id: EntryId, timestamp: TimestampOf) -> Head {
    let mut text = Vec::with_capacity(24);
    id.write_to(&mut text);
    let headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: STREAM, value: Some(stream) })
        .insert(Header { key: ENTRY_ID, value: Some(&text) })
        .insert(Header { key: BRIDGE, value: Some(BRIDGE_IS) });
    Head { headers, timestamp: self::timestamp(id, timestamp), tombstone: false }
}

/// The time that its record bears; `None` is that of sending.
pub(crate) fn timestamp(id: EntryId, timestamp: TimestampOf) -> Option<i64> {
    match timestamp {
        TimestampOf::Entry => time(id),
        TimestampOf::Sending => None,
    }
}

/// The time in an ID, where Kafka can hold it. (It takes 0 for none, and what is above as a signed number.)
pub(crate) fn time(id: EntryId) -> Option<i64> {
    i64::try_from(id.ms).ok().filter(|&ms| ms > 0)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;
    use sync_core::payload::{ValueFormat, write_json_string};

    use super::*;

    #[test]
    fn an_entry_as_a_record() {
        let encoder = Encoder::new(ValueFormat::Json, encoding());
        let id = EntryId { ms: 1_651_234_567_890, seq: 3 };
        let fields = vec![("temp".into(), "21.50".into()), ("unit".into(), "°C".into())];
        let mut stream = Vec::new();
        write_json_string(&mut stream, "db2:a\"b");
        let mut value = Vec::new();
        write_value(&mut value, encoder, &stream, &Entry { id, fields });
        let value = String::from_utf8(value).expect("is text");
        assert_eq!(
            value,
            r#"{"stream":"db2:a\"b","id":"1651234567890-3","data":{"temp":21.50,"unit":"°C"}}"#
        );
        let Head { headers, timestamp, .. } = head("db2:a\"b", id, TimestampOf::Entry);
        let headers: Vec<_> =
            headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect();
        assert_eq!(
            headers,
            [
                ("redis.stream", &b"db2:a\"b"[..]),
                ("redis.entry_id", b"1651234567890-3"),
                ("bridge", BRIDGE_IS.as_bytes())
            ]
        );
        assert_eq!(timestamp, Some(1_651_234_567_890));
    }

    #[test]
    fn times_that_kafka_cannot_hold() {
        assert_eq!(time(EntryId { ms: 0, seq: 1 }), None);
        assert_eq!(time(EntryId { ms: u64::MAX, seq: 1 }), None);
        assert_eq!(time(EntryId { ms: 1, seq: 0 }), Some(1));
        assert_eq!(head("s", EntryId { ms: 1, seq: 0 }, TimestampOf::Sending).timestamp, None);
    }

    fn encoding() -> &'static sync_core::payload::Encoding {
        sync_core::payload::Encoding::for_label(b"utf-8").expect("is known")
    }
}
