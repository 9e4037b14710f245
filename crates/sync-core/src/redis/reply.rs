//! Redis' replies as entries. Parsed by hand: the client's typed replies lose field order, repeated names, or the
//! whole batch when one entry was deleted.

use bytes::Bytes;
use fred::types::Value;

use crate::record::{Entry, EntryId};

/// A reply that is not what the command's documentation promises.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected reply from Redis: {0}")]
pub(crate) struct Malformed(&'static str);

/// One element of a reply that lists entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// An entry.
    Entry(Entry),
    /// It is pending but no longer in the stream.
    Deleted(EntryId),
    /// The same, from XAUTOCLAIM before Redis 7.0, which keeps back the ID and leaves it pending.
    Nameless,
}

impl Listed {
    /// Its ID, where it has one.
    pub(crate) fn id(&self) -> Option<EntryId> {
        match self {
            Self::Entry(entry) => Some(entry.id),
            Self::Deleted(id) => Some(*id),
            Self::Nameless => None,
        }
    }

    /// The entry, if it is one.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Deleted(_) | Self::Nameless => None,
        }
    }
}

/// XREADGROUP: `[[key, [entry…]]…]`, or nil when nothing arrived in time.
pub(crate) fn streams(reply: Value) -> Result<Vec<(Bytes, Vec<Listed>)>, Malformed> {
    let streams = match reply {
        Value::Null => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(Malformed("streams are no array")),
    };
    let stream = |stream| match pair(stream) {
        Some((key, listed)) => Ok((key.into_bytes().ok_or(Malformed("a key is no text"))?, entries(listed)?)),
        None => Err(Malformed("a stream is no pair")),
    };
    streams.into_iter().map(stream).collect()
}

/// `[[id, [field, value, …]]…]`.
pub(crate) fn entries(reply: Value) -> Result<Vec<Listed>, Malformed> {
    let Value::Array(entries) = reply else { return Err(Malformed("entries are no array")) };
    entries.into_iter().map(entry).collect()
}

fn entry(entry: Value) -> Result<Listed, Malformed> {
    if entry.is_null() {
        return Ok(Listed::Nameless);
    }
    let (id, fields) = pair(entry).ok_or(Malformed("an entry is no pair"))?;
    let id = entry_id(id)?;
    let fields = match fields {
        Value::Null => return Ok(Listed::Deleted(id)),
        Value::Array(fields) => fields,
        _ => return Err(Malformed("fields are no array")),
    };
    if fields.len() % 2 != 0 {
        return Err(Malformed("a field has no value"));
    }
    let mut pairs = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        let (Some(field), Some(value)) = (bytes(field), bytes(value)) else {
            return Err(Malformed("a field or value is no text"));
        };
        pairs.push((field, value));
    }
    Ok(Listed::Entry(Entry { id, fields: pairs }))
}

/// What XAUTOCLAIM answers.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<EntryId>,
    /// The entries claimed.
    pub(crate) listed: Vec<Listed>,
    /// What was pending but is deleted, and is pending no longer (Redis 7.0 and later).
    pub(crate) deleted: Vec<EntryId>,
    /// The last entry that the group was handed: only on a Cluster, and with the last page.
    pub(crate) delivered: Option<EntryId>,
}

/// XAUTOCLAIM: cursor, entries, deleted IDs; from a Cluster also the last delivered ID.
pub(crate) fn claimed(reply: Value) -> Result<Page, Malformed> {
    let Value::Array(parts) = reply else { return Err(Malformed("XAUTOCLAIM's answer is no array")) };
    let mut parts = parts.into_iter();
    let (Some(cursor), Some(listed)) = (parts.next(), parts.next()) else {
        return Err(Malformed("XAUTOCLAIM's answer lacks a part"));
    };
    let cursor = Some(entry_id(cursor)?).filter(|cursor| *cursor != EntryId::default());
    let deleted = match parts.next() {
        Some(Value::Array(ids)) => ids.into_iter().map(entry_id).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let delivered = parts.next().map(entry_id).transpose()?;
    Ok(Page { next: cursor, listed: entries(listed)?, deleted, delivered })
}

pub(crate) fn entry_id(value: Value) -> Result<EntryId, Malformed> {
    let text = value.as_bytes().and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or(Malformed("an entry ID is not two numbers"))
}

fn pair(value: Value) -> Option<(Value, Value)> {
    match value {
        Value::Array(mut parts) if parts.len() == 2 => {
            let second = parts.pop()?;
            Some((parts.pop()?, second))
        }
        _ => None,
    }
}

/// The bytes of a string reply, without copying.
pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(text.into_inner()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// One value of a reply that lists names and values in turn, as the XINFO commands do.
pub(crate) fn field(map: Value, name: &str) -> Option<Value> {
    let mut parts = match map {
        Value::Array(parts) => parts.into_iter(),
        Value::Map(map) => {
            return map
                .inner()
                .into_iter()
                .find(|(key, _)| key.as_bytes() == name.as_bytes())
                .map(|(_, value)| value);
        }
        _ => return None,
    };
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        if key.as_bytes() == Some(name.as_bytes()) {
            return Some(value);
        }
    }
    None
}

/// The names and values of one XINFO answer.
pub(crate) struct Fields(Vec<(Value, Value)>);

impl Fields {
    pub(crate) fn of(reply: Value) -> Self {
        match reply {
            Value::Array(parts) => {
                let mut pairs = Vec::with_capacity(parts.len() / 2);
                let mut parts = parts.into_iter();
                while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    pairs.push((name, value));
                }
                Self(pairs)
            }
            Value::Map(map) => Self(
                map.inner()
                    .into_iter()
                    .map(|(name, value)| (Value::Bytes(name.into_bytes()), value))
                    .collect(),
            ),
            _ => Self(Vec::new()),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_bytes() == Some(name.as_bytes())).map(|(_, value)| value)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key.as_bytes() == Some(name.as_bytes()))?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.as_u64()
    }

    pub(crate) fn id(&mut self, name: &str) -> Option<EntryId> {
        entry_id(self.take(name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn array<const N: usize>(values: [Value; N]) -> Value {
        Value::Array(values.into())
    }

    #[test]
    fn order_repeats_and_bytes_are_kept() {
        let fields = ["b", "1", "a", "2", "b", "3"].map(text);
        let reply = array([array([text("s"), array([array([text("5-1"), array(fields)])])])]);
        let mut parsed = streams(reply).expect("well formed");
        let (key, listed) = parsed.remove(0);
        assert_eq!(key, "s");
        let Listed::Entry(entry) = &listed[0] else { panic!("an entry") };
        assert_eq!(entry.id, EntryId { ms: 5, seq: 1 });
        let pairs: Vec<_> = entry.fields.iter().map(|(f, v)| (f.as_ref(), v.as_ref())).collect();
        assert_eq!(pairs, [(b"b".as_ref(), b"1".as_ref()), (b"a", b"2"), (b"b", b"3")]);
    }

    #[test]
    fn a_deleted_entry_does_not_spoil_its_batch() {
        let live = || array([text("2-0"), array([text("f"), text("v")])]);
        let reply = array([text("0-0"), array([live()]), array([text("1-0"), text("3-0")])]);
        let Page { next, listed, deleted, .. } = claimed(reply).expect("well formed");
        assert_eq!((next, listed.len()), (None, 1));
        assert_eq!(deleted, [EntryId { ms: 1, seq: 0 }, EntryId { ms: 3, seq: 0 }]);
        let before_7 = array([text("7-7"), array([Value::Null, live(), array([text("4-0"), Value::Null])])]);
        let Page { next, listed, deleted, .. } = claimed(before_7).expect("well formed");
        assert_eq!((next, listed.len(), deleted.len()), (Some(EntryId { ms: 7, seq: 7 }), 3, 0));
        assert_eq!(listed[0], Listed::Nameless);
        assert_eq!(listed[2], Listed::Deleted(EntryId { ms: 4, seq: 0 }));
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(streams(Value::Null), Ok(Vec::new()));
        assert!(streams(text("x")).is_err());
        assert!(streams(array([array([text("s"), array([text("1-1")])])])).is_err());
        assert!(entries(array([array([text("1-1"), array([text("lonely")])])])).is_err());
        assert!(entry_id(text("1-x")).is_err());
    }
}
