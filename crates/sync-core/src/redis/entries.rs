//! Reading a stream as it stands, on the source or on a target: pages of entries, and what the server tells of the
//! stream. Nothing here belongs to a consumer group.

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Value;

use super::Fault;
use super::connection::key;
use super::reply::{self, Fields, Listed};
use crate::record::{Entry, EntryId};

/// The entries after `after` up to `until`, at most `count`, in ID order.
pub async fn page(
    client: &Client,
    stream: &Bytes,
    after: EntryId,
    until: EntryId,
    count: u64,
) -> Result<Vec<Entry>, Fault> {
    let (after, until) = (format!("({after}"), until.to_string());
    entries(client.xrange(key(stream), after.as_str(), until.as_str(), Some(count)).await?)
}

/// The entries with these IDs, without those that are not there: all asked for in one round trip.
pub async fn among(client: &Client, stream: &Bytes, ids: &[EntryId]) -> Result<Vec<Entry>, Fault> {
    let pipeline = client.pipeline();
    for id in ids {
        let id = id.to_string();
        let _: () = pipeline.xrange(key(stream), id.as_str(), id.as_str(), Some(1)).await?;
    }
    let replies = pipeline.try_all::<Value>().await;
    if replies.len() != ids.len() {
        return Err(Fault::Lost("a pipeline's answers are missing".into()));
    }
    let mut found = Vec::with_capacity(ids.len());
    for listed in replies {
        found.extend(entries(listed?)?);
    }
    Ok(found)
}

fn entries(listed: Value) -> Result<Vec<Entry>, Fault> {
    let listed = reply::entries(listed).map_err(|error| Fault::Other(error.to_string()))?;
    let entry = |listed| match listed {
        Listed::Entry(entry) => Some(entry),
        Listed::Deleted(_) | Listed::Nameless => None,
    };
    Ok(listed.into_iter().filter_map(entry).collect())
}

/// How many entries to ask for, so that a page keeps to a size in memory: as many as fit if all are as large as the
/// largest of the page before. One page may be larger than that, where entries suddenly are; after it, the number
/// grows by doubling, so that it takes many small pages before another surprise can be as big.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    bytes: usize,
    most: u64,
    count: u64,
}

impl PageSize {
    const FIRST: u64 = 8;

    /// Pages of so many bytes ([`Entry::size`]) and entries at most.
    pub fn new(bytes: usize, most: u64) -> Self {
        Self { bytes, most, count: Self::FIRST.min(most) }
    }

    /// The COUNT of the next page.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes account of a page that was read.
    pub fn learn(&mut self, page: &[Entry]) {
        let Some(largest) = page.iter().map(Entry::size).max() else { return };
        let fit = u64::try_from(self.bytes / largest).unwrap_or(self.most);
        self.count = (self.count * 2).min(fit).clamp(1, self.most);
    }
}

/// What a server tells of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// How many entries it holds.
    pub length: u64,
    /// The oldest of them.
    pub first: Option<EntryId>,
    /// The newest that it ever held: XADD takes only what is above.
    pub newest: EntryId,
    /// How many were ever added; unknown before Redis 7.0.
    pub added: Option<u64>,
    /// The highest that was deleted by name, which trimming does not count as; unknown before Redis 7.0.
    pub deleted: Option<EntryId>,
}

/// XINFO STREAM; `None` where there is no such key.
pub async fn facts(client: &Client, stream: &Bytes) -> Result<Option<StreamFacts>, Fault> {
    let mut fields = match client.xinfo_stream::<Value, _>(key(stream), false, None).await {
        Err(error) if error.details().contains("no such key") => return Ok(None),
        reply => Fields::of(reply?),
    };
    let first = match fields.take("first-entry") {
        Some(Value::Array(mut entry)) if !entry.is_empty() => reply::entry_id(entry.swap_remove(0)).ok(),
        _ => None,
    };
    let (added, deleted) = (fields.number("entries-added"), fields.id("max-deleted-entry-id"));
    match (fields.number("length"), fields.id("last-generated-id")) {
        (Some(length), Some(newest)) => Ok(Some(StreamFacts { length, first, newest, added, deleted })),
        _ => Err(Fault::Other("XINFO STREAM does not tell length and newest ID".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize) -> Entry {
        Entry { id: EntryId::default(), fields: vec![("f".into(), vec![0; bytes].into())] }
    }

    #[test]
    fn pages_grow_slowly_and_shrink_at_once() {
        let mut size = PageSize::new(100_000, 500);
        let mut counts = Vec::new();
        for largest in [10, 10, 10, 10, 10, 10, 10, 1_000, 1_000_000, 10, 10, 10] {
            counts.push(size.count());
            size.learn(&[entry(10), entry(largest)]);
        }
        assert_eq!(counts, [8, 16, 32, 64, 128, 256, 500, 500, 88, 1, 2, 4]);
        size.learn(&[]);
        assert_eq!(size.count(), 8);
    }
}
