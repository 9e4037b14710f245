//! Which keys there are, and what each is: asked by the page, without values, so that a value is only read when it may
//! have changed.

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use sync_core::redis::Fault;

const LOOK: &str = concat!(include_str!("prelude.lua"), include_str!("look.lua"));
const VALUES: &str = concat!(include_str!("prelude.lua"), include_str!("values.lua"));
/// Keys of one page: the server looks at so many in some milliseconds.
pub(super) const PAGE: usize = 1000;
/// In bytes: what is larger is read in pieces.
pub(super) const SMALL: u64 = 64 << 10;

/// The types whose values are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Hash,
    List,
    Set,
    SortedSet,
}

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Gone,
    /// A stream is no key-value: its entries are copied.
    Stream,
    /// A type that is not copied, by name.
    Other(String),
    Small {
        kind: Kind,
        bytes: u64,
        digest: u64,
    },
    Big {
        kind: Kind,
        bytes: u64,
    },
}

/// Where a search for keys has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor(String);

impl Cursor {
    pub(super) fn start() -> Self {
        Self("0".into())
    }

    /// It has been everywhere.
    fn is_end(&self) -> bool {
        self.0 == "0"
    }
}

/// A page of a search: keys that the glob lets through, and where it goes on, if it does.
pub(super) type Page = (Vec<Bytes>, Option<Cursor>);

/// The next page of keys, and what stands at those of the page before: one round trip.
pub(super) async fn scan_and_look(
    client: &Client,
    cursor: Option<&Cursor>,
    glob: &str,
    keys: &[Bytes],
) -> Result<(Option<Page>, Vec<Look>), Fault> {
    let pipeline = client.pipeline();
    if !keys.is_empty() {
        let _: () = pipeline.custom(fred::cmd!("EVAL", blocking: false), arguments(LOOK, keys)).await?;
    }
    if let Some(Cursor(cursor)) = cursor {
        let arguments =
            vec![cursor.as_str().into(), "MATCH".into(), glob.into(), "COUNT".into(), PAGE.to_string()];
        let _: () = pipeline.custom(fred::cmd!("SCAN", blocking: false), arguments).await?;
    }
    let replies: Vec<Value> = pipeline.try_all::<Value>().await.into_iter().collect::<Result<_, _>>()?;
    let mut replies = replies.into_iter();
    let looks = if keys.is_empty() { Vec::new() } else { looks(replies.next(), keys.len())? };
    let page = cursor.map(|_| page(replies.next())).transpose()?;
    Ok((page, looks))
}

fn arguments(script: &'static str, keys: &[Bytes]) -> Vec<Value> {
    let first = [Value::from_static_str(script), "0".into(), SMALL.to_string().into()];
    first.into_iter().chain(keys.iter().map(|key| Value::Bytes(key.clone()))).collect()
}

/// What stands at these keys.
pub(super) async fn look(client: &Client, keys: &[Bytes]) -> Result<Vec<Look>, Fault> {
    Ok(scan_and_look(client, None, "*", keys).await?.1)
}

/// A small value with what it looked like at the same moment: its elements as the command that reads them lists them.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) digest: u64,
    pub(super) elements: Vec<Bytes>,
}

/// The values of these keys; `None` where there is none, or where it is large by now.
pub(super) async fn values(client: &Client, keys: &[Bytes]) -> Result<Vec<Option<Found>>, Fault> {
    let reply: Value = client.custom(fred::cmd!("EVAL", blocking: false), arguments(VALUES, keys)).await?;
    Ok(listed(Some(reply), keys.len())?.into_iter().map(found).collect())
}

fn found(one: Value) -> Option<Found> {
    let mut parts = one.into_array().into_iter();
    let words = parts.next()?.into_bytes()?;
    let at = words.iter().position(|byte| *byte == b' ')?;
    let digest = <[u8; 8]>::try_from(&words[at + 1..]).ok()?;
    let elements: Vec<Bytes> = parts.next()?.into_array().into_iter().filter_map(Value::into_bytes).collect();
    Some(Found { kind: kind_of(&words[..at])?, digest: u64::from_le_bytes(digest), elements })
}

fn page(reply: Option<Value>) -> Result<Page, Fault> {
    let unexpected = || Fault::Other("SCAN's answer is not a cursor and a list".into());
    let Some(Value::Array(mut parts)) = reply else { return Err(unexpected()) };
    let (Some(Value::Array(keys)), Some(cursor)) = (parts.pop(), parts.pop()) else {
        return Err(unexpected());
    };
    let cursor = Cursor(cursor.into_string().ok_or_else(unexpected)?);
    let keys = keys.into_iter().filter_map(Value::into_bytes).collect();
    Ok((keys, Some(cursor).filter(|cursor| !cursor.is_end())))
}

fn looks(reply: Option<Value>, keys: usize) -> Result<Vec<Look>, Fault> {
    let listed = listed(reply, keys)?;
    Ok(listed.into_iter().map(|one| read(&one.into_bytes().unwrap_or_default())).collect())
}

fn listed(reply: Option<Value>, keys: usize) -> Result<Vec<Value>, Fault> {
    match reply {
        Some(Value::Array(listed)) if listed.len() == keys => Ok(listed),
        _ => Err(Fault::Other("a script of ours was answered in an unexpected way".into())),
    }
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"string" => Kind::String,
        b"hash" => Kind::Hash,
        b"list" => Kind::List,
        b"set" => Kind::Set,
        b"zset" => Kind::SortedSet,
        _ => return None,
    })
}

fn read(words: &[u8]) -> Look {
    let mut words = words.splitn(3, |byte| *byte == b' ');
    let name = words.next().unwrap_or_default();
    let Some(kind) = kind_of(name) else {
        return match name {
            b"" => Look::Gone,
            b"stream" => Look::Stream,
            other => Look::Other(String::from_utf8_lossy(other).into_owned()),
        };
    };
    let bytes =
        words.next().and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or_default();
    match words.next().map(<[u8; 8]>::try_from) {
        Some(Ok(digest)) => Look::Small { kind, bytes, digest: u64::from_le_bytes(digest) },
        _ => Look::Big { kind, bytes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_words() {
        assert_eq!(read(b""), Look::Gone);
        assert_eq!(read(b"stream"), Look::Stream);
        assert_eq!(read(b"ReJSON-RL"), Look::Other("ReJSON-RL".into()));
        assert_eq!(read(b"zset 99999999"), Look::Big { kind: Kind::SortedSet, bytes: 99_999_999 });
        let digest = u64::from_le_bytes(*b"ab d\0\xffgh");
        assert_eq!(read(b"hash 72 ab d\0\xffgh"), Look::Small { kind: Kind::Hash, bytes: 72, digest });
    }
}
