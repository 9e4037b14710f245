//! What the consumer group and its settings say of an entry that the destination does not have.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use fred::clients::Client;

use super::pages::LARGEST_PAGE;
use super::tally::Verdict;
use crate::rate_limit::RateLimiter;
use crate::record::{Entry, EntryId, StreamName};
use crate::redis::dead_letters::Found;
use crate::redis::entries::{self, PageSize, StreamFacts};
use crate::redis::{Fault, groups};
use crate::settings::{StartId, StreamSettings};

/// What a page of dead letters should occupy in memory.
const LETTER_BYTES: usize = 1 << 20;

/// Why the bridge has nothing to do with an entry of the source, if it has not.
pub fn left_out(settings: &StreamSettings, entry: &Entry) -> Option<Verdict> {
    match settings.start_id {
        StartId::After(start) if entry.id <= start => Some(Verdict::BeforeStart),
        _ => settings.filter.as_ref().is_some_and(|it| !it.passes(entry)).then_some(Verdict::Filtered),
    }
}

/// Whether an entry that only the destination has is older than all that the source still holds. `here` is what the
/// source tells of the stream, `None` where it has none.
pub fn trimmed_at_source(here: Option<StreamFacts>, id: EntryId) -> bool {
    here.is_some_and(|here| id < here.first.unwrap_or(here.newest) || (here.length == 0 && id <= here.newest))
}

/// Which of these ascending IDs the group has not acknowledged. Where there is no group, a bridge makes one that begins
/// with all of them, unless it may not. What is not among them stands at the destination, or among the letters, from now
/// on: so both are to be looked at after this.
pub async fn waiting(
    client: &Client,
    stream: &Bytes,
    settings: &StreamSettings,
    missing: &[EntryId],
) -> Result<BTreeSet<EntryId>, Fault> {
    if missing.is_empty() {
        return Ok(BTreeSet::new());
    }
    let Some(standing) = groups::standing(client, stream, &settings.group).await? else {
        return Ok(missing.iter().filter(|_| settings.auto_create_groups).copied().collect());
    };
    let (handed, new) = missing.split_at(missing.partition_point(|id| *id <= standing.delivered));
    let mut waiting = BTreeSet::from_iter(new.iter().copied());
    if standing.pending > 0 && !handed.is_empty() {
        waiting.extend(groups::pending_among(client, stream, &settings.group, handed).await?);
    }
    Ok(waiting)
}

/// The IDs of the entries of one stream that stand in the group's dead letters: 16 bytes for each in memory.
#[derive(Debug)]
pub struct Letters {
    key: Bytes,
    group: String,
    after: EntryId,
    size: PageSize,
    ids: HashSet<EntryId>,
}

impl Letters {
    /// None as yet.
    pub fn of(stream: &StreamName, settings: &StreamSettings) -> Self {
        Self {
            key: [&stream.key, settings.dead_letter_suffix.as_bytes()].concat().into(),
            group: settings.group.clone(),
            after: EntryId::default(),
            size: PageSize::new(LETTER_BYTES, LARGEST_PAGE),
            ids: HashSet::new(),
        }
    }

    /// Reads what was written since the last time, of the database that the client has selected.
    pub async fn read_on(&mut self, client: &Client, limiter: &RateLimiter) -> Result<(), Fault> {
        loop {
            limiter.take().await;
            let page = entries::page(client, &self.key, self.after, EntryId::MAX, self.size.count()).await?;
            self.size.learn(&page);
            let Some(last) = page.last() else { return Ok(()) };
            self.after = last.id;
            let own = |found: &Found| found.group() == self.group;
            self.ids
                .extend(page.into_iter().filter_map(Found::parse).filter(own).map(|found| found.entry.id));
        }
    }

    /// Whether this entry is among them.
    pub fn contains(&self, id: EntryId) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimmed_at_the_source_is_what_is_older_than_all_it_holds() {
        let id = |ms| EntryId { ms, seq: 0 };
        let facts = |length, first: Option<u64>, newest| {
            let (first, newest) = (first.map(id), id(newest));
            Some(StreamFacts { length, first, newest, added: None, deleted: None })
        };
        let check =
            |here, at, expected| assert_eq!(trimmed_at_source(here, id(at)), expected, "{here:?} {at}");
        check(facts(3, Some(5), 9), 4, true);
        check(facts(3, Some(5), 9), 6, false);
        check(facts(3, Some(5), 9), 10, false);
        check(facts(0, None, 9), 9, true);
        check(facts(0, None, 9), 10, false);
        check(None, 4, false);
    }
}
