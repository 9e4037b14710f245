//! Consumer groups: acknowledging, creating, and putting right what a group lost.

use std::collections::BTreeSet;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::streams::XID;
use fred::types::{Key, Value};

use super::connection::key;
use super::{Fault, reply};
use crate::record::EntryId;
use crate::settings::StartId;

/// The IDs of one stream that are settled.
pub(crate) type Settled = (Bytes, Vec<EntryId>);

/// One XACK per stream, all in one round trip. May be repeated: what is acknowledged stays so. A key that is gone
/// or holds another type has nothing left to acknowledge.
pub(crate) async fn acknowledge(
    client: &Client,
    group: &str,
    settled: &[&Settled],
) -> Result<Vec<Result<(), Fault>>, Fault> {
    let pipeline = client.pipeline();
    for (stream, ids) in settled {
        let ids: Vec<XID> = ids.iter().map(|id| XID::Manual(id_text(*id))).collect();
        let _: () = pipeline.xack(key(stream), group, ids).await?;
    }
    let replies = pipeline.try_all::<Value>().await;
    let missing = replies.len() != settled.len();
    let mut results = Vec::with_capacity(settled.len());
    for reply in replies {
        match reply.map_err(Fault::from) {
            Ok(_) | Err(Fault::WrongType(_) | Fault::NoGroup(_)) => results.push(Ok(())),
            Err(fault) if missing => return Err(fault),
            Err(fault) => results.push(Err(fault)),
        }
    }
    if missing { Err(Fault::Lost("a pipeline's answers are missing".into())) } else { Ok(results) }
}

/// `ms-seq`, written without the formatting machinery: one for each entry acknowledged.
pub(super) fn id_text(id: EntryId) -> fred::bytes_utils::Str {
    let mut text = Vec::with_capacity(24);
    id.write_to(&mut text);
    // Digits and a hyphen are UTF-8.
    fred::bytes_utils::Str::from_inner(Bytes::from(text)).unwrap_or_default()
}

/// Creates the group on streams that exist, all in one round trip. For each: false when it was there already,
/// [`Fault::NoGroup`] when the stream is not. May be repeated.
pub(crate) async fn create(
    client: &Client,
    streams: &[(Bytes, StartId)],
    group: &str,
) -> Result<Vec<Result<bool, Fault>>, Fault> {
    let pipeline = client.pipeline();
    for (stream, start) in streams {
        let id = match start {
            StartId::After(id) => XID::Manual(id_text(*id)),
            StartId::Latest => XID::Max,
        };
        let _: () = pipeline.xgroup_create(key(stream), group, id, false).await?;
    }
    let replies = pipeline.try_all::<Value>().await;
    if replies.len() != streams.len() {
        return Err(Fault::Lost("a pipeline's answers are missing".into()));
    }
    let created = |reply: Result<Value, Error>| match reply {
        Ok(_) => Ok(Ok(true)),
        Err(error) if error.details().starts_with("BUSYGROUP") => Ok(Ok(false)),
        Err(error) if error.details().contains("requires the key to exist") => {
            Ok(Err(Fault::NoGroup(error.details().to_owned())))
        }
        Err(error) => match Fault::from(error) {
            fault @ Fault::Lost(_) => Err(fault),
            fault => Ok(Err(fault)),
        },
    };
    replies.into_iter().map(created).collect()
}

/// Whether this very entry still stands in the stream: then the stream is the one that it was read from.
pub(crate) async fn holds(client: &Client, stream: &Bytes, id: EntryId) -> Result<bool, Fault> {
    let id = id.to_string();
    let found: Value = client.xrange(key(stream), id.as_str(), id.as_str(), Some(1)).await?;
    Ok(matches!(found, Value::Array(found) if !found.is_empty()))
}

/// How far a group has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last entry that it was handed.
    pub delivered: EntryId,
    /// How many of those it has not acknowledged.
    pub pending: u64,
}

/// How far the group has come on a stream; `None` where there is no such group.
pub async fn standing(client: &Client, stream: &Bytes, group: &str) -> Result<Option<Standing>, Fault> {
    let groups = match client.xinfo_groups::<Value, _>(key(stream)).await {
        Err(error) if error.details().contains("no such key") => return Ok(None),
        groups => groups?,
    };
    let Value::Array(groups) = groups else { return Ok(None) };
    let named = |fields: &reply::Fields| {
        fields.get("name").and_then(Value::as_bytes).is_some_and(|name| name == group.as_bytes())
    };
    let Some(mut ours) = groups.into_iter().map(reply::Fields::of).find(named) else { return Ok(None) };
    let (delivered, pending) = (ours.id("last-delivered-id"), ours.number("pending"));
    match (delivered, pending) {
        (Some(delivered), Some(pending)) => Ok(Some(Standing { delivered, pending })),
        _ => Err(Fault::Other("XINFO GROUPS does not tell how far the group has come".into())),
    }
}

/// Which of these entries are pending in the group, whoever read them: all asked for in one round trip.
pub async fn pending_among(
    client: &Client,
    stream: &Bytes,
    group: &str,
    ids: &[EntryId],
) -> Result<BTreeSet<EntryId>, Fault> {
    let pipeline = client.pipeline();
    for id in ids {
        let id = id.to_string();
        let _: () = pipeline.xpending(key(stream), group, (0u64, id.as_str(), id.as_str(), 1u64)).await?;
    }
    let replies = pipeline.try_all::<Value>().await;
    if replies.len() != ids.len() {
        return Err(Fault::Lost("a pipeline's answers are missing".into()));
    }
    let mut pending = BTreeSet::new();
    for (id, reply) in ids.iter().zip(replies) {
        if matches!(reply?, Value::Array(found) if !found.is_empty()) {
            pending.insert(*id);
        }
    }
    Ok(pending)
}

/// Which of the streams have the group.
pub(crate) async fn having_group(
    client: &Client,
    streams: &[Bytes],
    group: &str,
) -> Result<Vec<bool>, Fault> {
    let pipeline = client.pipeline();
    for stream in streams {
        let _: () = pipeline.xinfo_groups(key(stream)).await?;
    }
    let replies = pipeline.try_all::<Value>().await;
    let has = |reply: Result<Value, Error>| match reply {
        Ok(groups) => Ok(group_names(groups).iter().any(|name| name == group.as_bytes())),
        Err(error) => match Fault::from(error) {
            Fault::WrongType(_) | Fault::NoGroup(_) | Fault::Other(_) => Ok(false),
            fault => Err(fault),
        },
    };
    replies.into_iter().map(has).collect()
}

fn group_names(groups: Value) -> Vec<Bytes> {
    let Value::Array(groups) = groups else { return Vec::new() };
    groups.into_iter().filter_map(|group| reply::field(group, "name").and_then(reply::bytes)).collect()
}

/// What is pending for `consumer` from `from` on and not among `listed`: deleted entries, which Redis before 7.0
/// does not name when they are claimed.
pub(crate) async fn pending_beyond(
    client: &Client,
    stream: &Bytes,
    group: &str,
    consumer: &str,
    from: EntryId,
    count: u32,
    listed: &[EntryId],
) -> Result<Vec<EntryId>, Fault> {
    let (from, count) = (from.to_string(), u64::from(count));
    let range = (0u64, from.as_str(), "+", count, consumer);
    let pending: Value = client.xpending(key(stream), group, range).await?;
    let Value::Array(pending) = pending else { return Ok(Vec::new()) };
    let ids = pending.into_iter().filter_map(|item| match item {
        Value::Array(mut parts) if !parts.is_empty() => reply::entry_id(parts.swap_remove(0)).ok(),
        _ => None,
    });
    Ok(ids.filter(|id| !listed.contains(id)).collect())
}

/// Removes consumers of the group that have nothing pending and were idle for longer than `idle_ms`: what earlier
/// processes left behind. Checked and removed in one script, since XGROUP DELCONSUMER drops what is pending.
pub(crate) async fn remove_idle_consumers(
    client: &Client,
    stream: &Bytes,
    group: &str,
    me: &str,
    prefix: &str,
    idle_ms: u64,
) -> Result<u64, Fault> {
    const SCRIPT: &str = "local n = 0 \
        for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do \
          local f = {} for i = 1, #c, 2 do f[c[i]] = c[i + 1] end \
          if f.pending == 0 and f.name ~= ARGV[2] and f.idle > tonumber(ARGV[4]) \
             and string.sub(f.name, 1, #ARGV[3]) == ARGV[3] then \
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], f.name) n = n + 1 end end return n";
    let arguments = vec![group.to_owned(), me.to_owned(), prefix.to_owned(), idle_ms.to_string()];
    Ok(client.eval(SCRIPT, vec![key(stream)] as Vec<Key>, arguments).await?)
}
