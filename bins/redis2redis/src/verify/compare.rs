//! One stream, entry by entry: both sides are merged by ID. Where they differ, the question is why, and whether they
//! still do: a bridge may be running. So whatever is missing is judged only after the group was asked how far it has
//! come: what it has acknowledged by then, the target must have.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use fred::clients::Client;
use sync_core::commands::verify::{
    Letters, Lines, Pages, Tally, Verdict, left_out, trimmed_at_source, waiting,
};
use sync_core::rate_limit::RateLimiter;
use sync_core::record::{Entry, EntryId, StreamName};
use sync_core::redis::Fault;
use sync_core::redis::entries::{self, StreamFacts};
use sync_core::settings::StreamSettings;

use crate::naming::Place;

/// What is found at once before it is judged.
const SUSPECTS: usize = 500;
const SUSPECT_BYTES: usize = 1 << 20;

/// One stream, and what is needed to read it on both sides: each client has the stream's database selected.
pub(super) struct Pair<'a> {
    pub(super) name: &'a StreamName,
    pub(super) source: Client,
    pub(super) place: &'a Place,
    pub(super) target: Client,
    pub(super) target_is_cluster: bool,
    /// TARGET_STREAM_MAXLEN
    pub(super) maxlen: u64,
    pub(super) settings: &'a StreamSettings,
    pub(super) limiter: &'a RateLimiter,
}

/// What keeps a stream from being compared.
#[derive(Debug)]
pub(super) enum Trouble {
    Source(Fault),
    Target(Fault),
    Output(io::Error),
    /// It is on neither side.
    Absent,
}

impl Pair<'_> {
    pub(super) fn source_pages(&self, after: EntryId, until: EntryId) -> Pages {
        Pages::read(self.source.clone(), self.name.key.clone(), after, until, Some(self.limiter.clone()))
    }

    fn target_pages(&self, until: EntryId) -> Pages {
        Pages::read(self.target.clone(), self.place.key.clone(), EntryId::default(), until, None)
    }

    /// Whether the filter lets the entry through.
    pub(super) fn passes(&self, entry: &Entry) -> bool {
        self.settings.filter.as_ref().is_none_or(|filter| filter.passes(entry))
    }

    async fn source_facts(&self) -> Result<Option<StreamFacts>, Trouble> {
        self.limiter.take().await;
        entries::facts(&self.source, &self.name.key).await.map_err(Trouble::Source)
    }

    async fn target_facts(&self) -> Result<Option<StreamFacts>, Trouble> {
        entries::facts(&self.target, &self.place.key).await.map_err(Trouble::Target)
    }
}

/// What comparing came to.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) tally: Tally,
    /// There is something that --repair could not copy, because the target is past it.
    pub(super) beyond_repair: bool,
}

/// Compares the stream as it was when this began: what arrives at the source later is not looked at.
pub(super) async fn compare(
    pair: &Pair<'_>,
    repaired: bool,
    lines: &mut Lines<'_>,
) -> Result<Compared, Trouble> {
    // The target first: what a bridge has brought there by then, the source has as well.
    let there = pair.target_facts().await?;
    let here = pair.source_facts().await?;
    if here.is_none() && there.is_none() {
        return Err(Trouble::Absent);
    }
    let newest = |facts: Option<StreamFacts>| facts.map_or_else(EntryId::default, |facts| facts.newest);
    let until = newest(here).max(newest(there));
    let (mut source, mut target) = (pair.source_pages(EntryId::default(), until), pair.target_pages(until));
    let mut court = Court::new(pair, newest(there), repaired);
    loop {
        let left = source.peek().await.map_err(Trouble::Source)?;
        let right = target.peek().await.map_err(Trouble::Target)?;
        let order = match (left, right) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.id.cmp(&right.id),
        };
        let left = if order.is_le() { source.take() } else { None };
        let right = if order.is_ge() { target.take() } else { None };
        match (left, right) {
            (Some(left), Some(right)) if left == right => court.compared.tally.count(Verdict::Same),
            (Some(left), Some(_)) => court.suspects.push(Suspect::Differs(left.id)),
            (Some(left), None) => match left_out(pair.settings, &left) {
                Some(verdict) => court.compared.tally.count(verdict),
                None => {
                    court.bytes += left.size();
                    court.suspects.push(Suspect::Missing(left));
                }
            },
            (None, Some(right)) => court.suspects.push(Suspect::Extra(right.id)),
            (None, None) => {}
        }
        if court.suspects.len() >= SUSPECTS || court.bytes >= SUSPECT_BYTES {
            court.judge(lines).await?;
        }
    }
    court.judge(lines).await?;
    Ok(court.compared)
}

/// An entry that is not the same on both sides, or was not when it was read.
enum Suspect {
    /// Only at the source.
    Missing(Entry),
    /// Only at the target.
    Extra(EntryId),
    /// Other content.
    Differs(EntryId),
}

/// Says what becomes of suspects, in their order.
struct Court<'a> {
    pair: &'a Pair<'a>,
    /// The target's newest ID before anything was read. What was missing at or below it stays missing: a stream's IDs
    /// only grow.
    newest: EntryId,
    suspects: Vec<Suspect>,
    bytes: usize,
    letters: Letters,
    /// --repair was asked for, and has done what it could.
    repaired: bool,
    compared: Compared,
}

impl<'a> Court<'a> {
    fn new(pair: &'a Pair<'a>, newest: EntryId, repaired: bool) -> Self {
        Self {
            pair,
            newest,
            suspects: Vec::new(),
            bytes: 0,
            letters: Letters::of(pair.name, pair.settings),
            repaired,
            compared: Compared::default(),
        }
    }

    async fn judge(&mut self, lines: &mut Lines<'_>) -> Result<(), Trouble> {
        let suspects = std::mem::take(&mut self.suspects);
        self.bytes = 0;
        if suspects.is_empty() {
            return Ok(());
        }
        let missing: Vec<EntryId> = suspects
            .iter()
            .filter_map(|suspect| match suspect {
                Suspect::Missing(entry) => Some(entry.id),
                Suspect::Extra(_) | Suspect::Differs(_) => None,
            })
            .collect();
        // In this order: what is acknowledged now is at the target or among the letters from now on.
        let Pair { name, source, settings, limiter, .. } = self.pair;
        let waiting = waiting(source, &name.key, settings, &missing).await.map_err(Trouble::Source)?;
        let here = self.pair.source_facts().await?;
        let there = self.pair.target_facts().await?;
        let arrived = self.arrived(&missing, there).await?;
        self.letters.read_on(source, limiter).await.map_err(Trouble::Source)?;
        let is_copy = match there.and_then(|there| there.first).filter(|_| !missing.is_empty()) {
            Some(oldest) => self.is_copy(oldest).await?,
            None => false,
        };
        for suspect in suspects {
            let (id, verdict) = match suspect {
                Suspect::Differs(id) => (id, Verdict::Differs),
                Suspect::Extra(id) if trimmed_at_source(here, id) => (id, Verdict::TrimmedAtSource),
                Suspect::Extra(id) => (id, Verdict::Extra),
                Suspect::Missing(entry) => (
                    entry.id,
                    match arrived.get(&entry.id) {
                        Some(fields) if *fields == entry.fields => Verdict::Same,
                        Some(_) => Verdict::Differs,
                        None if self.letters.contains(entry.id) => Verdict::DeadLettered,
                        None if trimmed_at_target(there, entry.id, self.pair.maxlen) && is_copy => {
                            Verdict::TrimmedAtTarget
                        }
                        None if waiting.contains(&entry.id) => Verdict::Waiting,
                        None => Verdict::Missing,
                    },
                ),
            };
            self.compared.tally.count(verdict);
            let note = self.note(id, verdict, there.is_some_and(|there| id <= there.newest));
            lines.entry(id, verdict, note).map_err(Trouble::Output)?;
        }
        Ok(())
    }

    /// What is to be said of an entry besides; `below` the target's newest ID or not.
    fn note(&mut self, id: EntryId, verdict: Verdict, below: bool) -> &'static str {
        match verdict {
            Verdict::Differs if self.letters.contains(id) => ", and dead-lettered",
            Verdict::Missing | Verdict::DeadLettered | Verdict::Waiting if self.repaired && below => {
                self.compared.beyond_repair = true;
                ": cannot be repaired, below the target's newest ID"
            }
            _ => "",
        }
    }

    /// What has come to the target since its pages were read.
    async fn arrived(
        &self,
        missing: &[EntryId],
        there: Option<StreamFacts>,
    ) -> Result<BTreeMap<EntryId, Fields>, Trouble> {
        let is_new = |id: &&EntryId| there.is_some_and(|there| **id > self.newest && **id <= there.newest);
        let new: Vec<EntryId> = missing.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = entries::among(&self.pair.target, &self.pair.place.key, &new).await;
        Ok(found.map_err(Trouble::Target)?.into_iter().map(|entry| (entry.id, entry.fields)).collect())
    }

    /// Whether the target's oldest entry is the source's: then what is older was there before it.
    async fn is_copy(&self, oldest: EntryId) -> Result<bool, Trouble> {
        let ids = [oldest];
        let there = entries::among(&self.pair.target, &self.pair.place.key, &ids).await;
        let there = there.map_err(Trouble::Target)?;
        self.pair.limiter.take().await;
        let here = entries::among(&self.pair.source, &self.pair.name.key, &ids).await;
        Ok(!there.is_empty() && here.map_err(Trouble::Source)? == there)
    }
}

type Fields = Vec<(Bytes, Bytes)>;

/// A part of the rule by which the bridge takes an entry for delivered (the other is [`Court::is_copy`]): it is older than all that is left, and what is missing was
/// not deleted by name. Before Redis 7.0 nobody counts what was added: there the cap must have been reached.
fn trimmed_at_target(there: Option<StreamFacts>, id: EntryId, maxlen: u64) -> bool {
    let Some(there) = there else { return false };
    if id > there.newest || there.first.is_some_and(|first| id >= first) {
        return false;
    }
    match there.added {
        Some(added) => added > there.length && there.deleted == Some(EntryId::default()),
        None => maxlen > 0 && there.length >= maxlen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn facts(length: u64, first: Option<u64>, newest: u64) -> StreamFacts {
        StreamFacts { length, first: first.map(id), newest: id(newest), added: None, deleted: None }
    }

    #[test]
    fn trimmed_at_the_target_must_be_proved() {
        let seven = |added, deleted| StreamFacts {
            added: Some(added),
            deleted: Some(id(deleted)),
            ..facts(3, Some(5), 9)
        };
        let check = |there, at, maxlen, expected| {
            assert_eq!(trimmed_at_target(there, id(at), maxlen), expected, "{there:?} {at}");
        };
        check(Some(seven(4, 0)), 4, 0, true);
        check(Some(seven(4, 0)), 6, 0, false);
        check(Some(seven(3, 0)), 4, 0, false);
        check(Some(seven(4, 2)), 4, 0, false);
        check(Some(facts(3, Some(5), 9)), 4, 0, false);
        check(Some(facts(3, Some(5), 9)), 4, 3, true);
        check(Some(facts(3, Some(5), 9)), 4, 4, false);
        let emptied = StreamFacts { added: Some(9), deleted: Some(id(0)), ..facts(0, None, 9) };
        check(Some(emptied), 9, 0, true);
        check(Some(emptied), 10, 0, false);
        check(None, 4, 0, false);
    }
}
