//! What a value of each type is in JSON. Pure.
//!
//! | type | `redis_value` |
//! |---|---|
//! | string | its value, as a field's value of a stream entry |
//! | hash | `{"field": value, …}`, or `{"$fields": [[field, value], …]}` where a name is no text |
//! | list | `[value, …]`, in its order |
//! | set | `[value, …]`, in the order of their bytes |
//! | sorted set | `[[member, score], …]`, in its order; a score is a number, or a string where JSONB could not keep it |

use bytes::Bytes;
use sync_core::payload::{Encoder, Encoding, ValueFormat};
use sync_core::record::{Entry, EntryId};

/// Writes values. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    values: Encoder,
    scores: Encoder,
}

impl Shape {
    pub(super) fn new(format: ValueFormat, encoding: &'static Encoding) -> Self {
        Self {
            values: Encoder::new(format, encoding).for_parsed_json(false),
            scores: Encoder::new(ValueFormat::Json, encoding).for_parsed_json(false),
        }
    }

    pub(super) fn string(&self, value: &[u8], out: &mut Vec<u8>) {
        self.values.write_value(value, out);
    }

    /// In the order of their names, since Redis has none.
    pub(super) fn hash(&self, mut fields: Vec<(Bytes, Bytes)>, out: &mut Vec<u8>) {
        fields.sort();
        fields.dedup_by(|later, earlier| later.0 == earlier.0);
        self.values.write_data(&Entry { id: EntryId::default(), fields }, out);
    }

    pub(super) fn list(&self, values: &[Bytes], out: &mut Vec<u8>) {
        out.push(b'[');
        self.list_items(values, out);
        out.push(b']');
    }

    /// Without the brackets.
    pub(super) fn list_items(&self, values: &[Bytes], out: &mut Vec<u8>) {
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.values.write_value(value, out);
        }
    }

    pub(super) fn set(&self, mut members: Vec<Bytes>, out: &mut Vec<u8>) {
        members.sort();
        members.dedup();
        self.list(&members, out);
    }

    pub(super) fn sorted_set(&self, members: &[(Bytes, Bytes)], out: &mut Vec<u8>) {
        out.push(b'[');
        self.sorted_set_items(members, out);
        out.push(b']');
    }

    /// Without the brackets.
    pub(super) fn sorted_set_items(&self, members: &[(Bytes, Bytes)], out: &mut Vec<u8>) {
        for (at, (member, score)) in members.iter().enumerate() {
            out.extend_from_slice(if at > 0 { b",[" } else { b"[" });
            self.values.write_value(member, out);
            out.push(b',');
            self.scores.write_value(score, out);
            out.push(b']');
        }
    }
}

#[cfg(test)]
mod tests {
    use sync_core::settings::ValueFormat;

    use super::*;

    fn written(write: impl FnOnce(&Shape, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&Shape::new(ValueFormat::Json, encoding()), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn encoding() -> &'static Encoding {
        Encoding::for_label(b"utf-8").unwrap()
    }

    fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (name.into(), value.into())
    }

    #[test]
    fn each_type() {
        assert_eq!(written(|shape, out| shape.string(b"21.5", out)), "21.5");
        assert_eq!(written(|shape, out| shape.string(b"on", out)), r#""on""#);
        assert_eq!(written(|shape, out| shape.string(b"a\0", out)), r#"{"$base64":"YQA="}"#);
        let hash = vec![pair("state", "on"), pair("level", "7"), pair("level", "7")];
        assert_eq!(written(|shape, out| shape.hash(hash, out)), r#"{"level":7,"state":"on"}"#);
        let hash = vec![(Bytes::from_static(b"\xff"), Bytes::from("1"))];
        assert_eq!(written(|shape, out| shape.hash(hash, out)), r#"{"$fields":[[{"$base64":"/w=="},1]]}"#);
        let list = ["b".into(), "a".into(), "b".into()];
        assert_eq!(written(|shape, out| shape.list(&list, out)), r#"["b","a","b"]"#);
        let set = vec!["b".into(), "a".into(), "b".into()];
        assert_eq!(written(|shape, out| shape.set(set, out)), r#"["a","b"]"#);
        let scores = [pair("z", "-inf"), pair("y", "0.5"), pair("x", "1e+20")];
        let expected = r#"[["z","-inf"],["y",0.5],["x","1e+20"]]"#;
        assert_eq!(written(|shape, out| shape.sorted_set(&scores, out)), expected);
    }
}
