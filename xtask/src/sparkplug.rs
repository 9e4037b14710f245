//! Sparkplug B payloads, and the JSON that mqtt2kafka makes of them. The protobuf is written by hand
//! (<https://protobuf.dev/programming-guides/encoding/>), so that the bridge's reader is judged by other code.
//! <https://sparkplug.eclipse.org/specification/>, 3.0, chapter 6

use std::fmt::Write as _;

/// One message of an edge node, or of a device of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Payload<'a> {
    /// Milliseconds since 1970; that of all its metrics, too.
    pub(crate) timestamp: u64,
    pub(crate) seq: u8,
    pub(crate) metrics: Vec<Metric<'a>>,
    /// A birth tells the names and data types of its metrics. What follows has their aliases alone.
    pub(crate) birth: bool,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric<'a> {
    pub(crate) name: &'a str,
    /// Some come in births only, and have none.
    pub(crate) alias: Option<u64>,
    pub(crate) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Int64(i64),
    Double(f64),
    Boolean(bool),
}

impl Value {
    fn datatype(self) -> u64 {
        match self {
            Self::Int64(_) => 4,
            Self::Double(_) => 10,
            Self::Boolean(_) => 11,
        }
    }
}

/// Wire types of protobuf.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;

impl Payload<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_integer(&mut out, 1, self.timestamp);
        for metric in &self.metrics {
            let mut part = Vec::new();
            if self.birth {
                put_bytes(&mut part, 1, metric.name.as_bytes());
            }
            if let Some(alias) = metric.alias {
                put_integer(&mut part, 2, alias);
            }
            put_integer(&mut part, 3, self.timestamp);
            if self.birth {
                put_integer(&mut part, 4, metric.value.datatype());
            }
            match metric.value {
                // Negative numbers are carried as their two's complement.
                Value::Int64(value) => put_integer(&mut part, 11, value as u64),
                Value::Double(value) => {
                    put_varint(&mut part, 13 << 3 | EIGHT_BYTES);
                    part.extend_from_slice(&value.to_le_bytes());
                }
                Value::Boolean(value) => put_integer(&mut part, 14, value.into()),
            }
            put_bytes(&mut out, 2, &part);
        }
        put_integer(&mut out, 3, self.seq.into());
        out
    }

    /// What arrives: every metric has its name.
    pub(crate) fn json(&self) -> String {
        let mut json = format!("{{\"timestamp\":{},\"metrics\":[", self.timestamp);
        for (number, Metric { name, alias, value }) in self.metrics.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(json, "{comma}{{\"name\":\"{name}\"");
            let _ = alias.map(|alias| write!(json, ",\"alias\":{alias}"));
            let _ = write!(json, ",\"timestamp\":{}", self.timestamp);
            let _ = self.birth.then(|| write!(json, ",\"datatype\":{}", value.datatype()));
            let _ = match value {
                Value::Int64(value) => write!(json, ",\"value\":{value}}}"),
                Value::Double(value) => write!(json, ",\"value\":{value:?}}}"),
                Value::Boolean(value) => write!(json, ",\"value\":{value}}}"),
            };
        }
        let _ = write!(json, "],\"seq\":{}}}", self.seq);
        json
    }
}

fn put_integer(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3 | VARINT);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | LENGTH);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_has_names_and_what_follows_has_aliases() {
        let metrics = vec![
            Metric { name: "t", alias: Some(300), value: Value::Double(1.5) },
            Metric { name: "n", alias: None, value: Value::Int64(-1) },
        ];
        let birth = Payload { timestamp: 1, seq: 0, metrics, birth: true };
        assert_eq!(
            birth.json(),
            "{\"timestamp\":1,\"metrics\":[\
             {\"name\":\"t\",\"alias\":300,\"timestamp\":1,\"datatype\":10,\"value\":1.5},\
             {\"name\":\"n\",\"timestamp\":1,\"datatype\":4,\"value\":-1}],\"seq\":0}"
        );
        let data = Payload { seq: 255, metrics: birth.metrics[..1].to_vec(), birth: false, ..birth };
        assert_eq!(
            data.encode(),
            // timestamp, metric (alias, timestamp, double), seq
            [8, 1, 18, 14, 16, 172, 2, 24, 1, 105, 0, 0, 0, 0, 0, 0, 248, 63, 24, 255, 1]
        );
        assert_eq!(
            data.json(),
            "{\"timestamp\":1,\"metrics\":[{\"name\":\"t\",\"alias\":300,\"timestamp\":1,\"value\":1.5}],\"seq\":255}"
        );
    }
}
