//! What is remembered of one stream from look to look: what one look alone does not tell. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::judge::{GROWING, Group, Loss};
use crate::record::EntryId;
use crate::redis::statistics::ask::{Consumer, Oldest};
use crate::redis::statistics::{Lag, Onlooker, Snapshot, UNSEEN, lost_ahead};

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    /// What the last answer weighed.
    pub(super) weight: usize,
    /// It was there once.
    pub(super) seen: bool,
    /// Since when it is not there any more.
    pub(super) gone: Option<Instant>,
    onlooker: Onlooker,
    /// The own group, at the look before.
    before: Option<Snapshot>,
    lags: VecDeque<u64>,
    waited: bool,
    /// The oldest pending entry, and since when it is that.
    oldest: Option<(EntryId, Instant)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            weight: UNSEEN,
            seen: false,
            gone: None,
            onlooker: Onlooker::default(),
            before: None,
            lags: VecDeque::new(),
            waited: false,
            oldest: None,
        }
    }
}

impl Memory {
    /// The stream or its group is not there: whatever comes next is another one.
    pub(super) fn forget(&mut self) {
        let Self { weight, seen, gone, .. } = *self;
        *self = Self { weight, seen, gone, ..Self::default() };
    }

    /// The lag of the own group, once for each look.
    pub(super) fn lag(&mut self, now: &Snapshot) -> Lag {
        self.onlooker.lag(now)
    }

    /// The own group after this look. Nobody remembers anything for the `first_and_last` one.
    pub(super) fn group(
        &mut self,
        now: &Snapshot,
        lag: Lag,
        oldest: Option<Oldest>,
        consumers: &[Consumer],
        first_and_last: bool,
    ) -> Group {
        let before = self.before.replace(*now);
        match lag.number() {
            Some(lag) => {
                if self.lags.len() == GROWING {
                    self.lags.pop_front();
                }
                self.lags.push_back(lag);
            }
            None => self.lags.clear(),
        }
        let waited = std::mem::replace(&mut self.waited, lag.is_some());
        Group {
            length: now.length,
            lag,
            lags: self.lags.iter().copied().collect(),
            waits: waited || first_and_last,
            idle: consumers.iter().map(|consumer| consumer.idle).min(),
            oldest: self.oldest(oldest),
            loss: loss(now, before.as_ref(), lag),
            trimmed: trimmed(now, before.as_ref()),
        }
    }

    /// For how long the oldest pending entry is that: each time that it is handed out again, Redis begins anew.
    fn oldest(&mut self, oldest: Option<Oldest>) -> Option<(EntryId, Duration)> {
        let now = Instant::now();
        let since = |oldest: &Oldest| match self.oldest {
            Some((id, since)) if id == oldest.id => since,
            _ => now,
        };
        self.oldest = oldest.as_ref().map(|oldest| (oldest.id, since(oldest)));
        let (_, since) = self.oldest?;
        oldest.map(|oldest| (oldest.id, oldest.handed.max(now.saturating_duration_since(since))))
    }
}

fn loss(now: &Snapshot, before: Option<&Snapshot>, lag: Lag) -> Loss {
    // All of the stream lies ahead: what stood before it is gone.
    let ahead = lag.is_some() && now.first.is_some_and(|first| now.delivered < first);
    let unread = before
        .filter(|before| now.generated >= before.generated && !now.set_back_since(before))
        .and_then(|before| before.last)
        .filter(|last| now.delivered < *last && now.first.is_none_or(|first| *last < first));
    match lost_ahead(now).filter(|_| ahead) {
        Some(lost) if lost > 0 => Loss::Counted(lost),
        _ if unread.is_some() => Loss::Seen,
        None if ahead && now.delivered > EntryId::default() => Loss::Possible,
        _ => Loss::None,
    }
}

/// Whether the stream is one that is trimmed: it has lost entries, and none by name.
fn trimmed(now: &Snapshot, before: Option<&Snapshot>) -> bool {
    let moved = before.is_some_and(|before| now.first > before.first && before.first.is_some());
    let dropped = now.added.is_some_and(|added| added > now.length);
    (dropped || moved) && now.max_deleted == EntryId::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    /// `added` entries of which those from `first` on are there; the group is at `delivered` and has read so many.
    fn at(added: u64, first: u64, delivered: u64, read: Option<u64>) -> Snapshot {
        Snapshot {
            length: added + 1 - first,
            added: Some(added),
            first: (first <= added).then(|| id(first)),
            last: (first <= added).then(|| id(added)),
            generated: id(added),
            max_deleted: EntryId::default(),
            delivered: id(delivered),
            entries_read: read,
        }
    }

    #[test]
    fn losses() {
        let check = |name: &str, before: Option<Snapshot>, now: Snapshot, expected| {
            let lag = Onlooker::default().lag(&now);
            assert_eq!(loss(&now, before.as_ref(), lag), expected, "{name}");
        };
        check("all is delivered", None, at(9, 5, 9, Some(9)), Loss::None);
        check("a new group", None, at(9, 5, 0, None), Loss::None);
        check("trimmed unread", None, at(9, 5, 2, Some(2)), Loss::Counted(2));
        check("trimmed up to the next one", None, at(9, 3, 2, Some(2)), Loss::None);
        check("Redis does not count", None, at(9, 5, 2, None), Loss::Possible);
        check("lost before, and all is delivered now", None, at(9, 5, 9, Some(2)), Loss::None);
        let before = Some(at(9, 1, 2, Some(2)));
        // Redis sets its count anew when it trims, so that nothing seems lost.
        check("seen to go", before, at(19, 15, 2, Some(14)), Loss::Seen);
        check("all of it", before, at(9, 10, 2, Some(9)), Loss::Seen);
        check("it was read meanwhile", before, at(19, 15, 14, Some(14)), Loss::None);
        check("set back", before, at(19, 15, 1, Some(14)), Loss::None);
        check("made anew", before, at(3, 1, 2, Some(2)), Loss::None);
    }

    #[test]
    fn streams_that_are_trimmed() {
        let deleted = |snapshot| Snapshot { max_deleted: id(1), ..snapshot };
        let of_6 = |snapshot| Snapshot { added: None, ..snapshot };
        assert!(!trimmed(&at(9, 1, 2, None), None));
        assert!(trimmed(&at(9, 2, 2, None), None));
        assert!(!trimmed(&deleted(at(9, 2, 2, None)), None), "by name");
        assert!(!trimmed(&of_6(at(9, 2, 2, None)), Some(&of_6(at(8, 2, 2, None)))));
        assert!(trimmed(&of_6(at(9, 3, 2, None)), Some(&of_6(at(9, 2, 2, None)))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_look_does_not_tell() {
        let mut memory = Memory::default();
        let mut look = |lag, oldest: Option<(u64, u64)>| {
            let oldest = oldest.map(|(ms, seconds)| Oldest {
                id: id(ms),
                handed: Duration::from_secs(seconds),
                times: 1,
            });
            memory.group(&at(9, 1, 2, Some(2)), lag, oldest, &[], false)
        };
        let seconds = Duration::from_secs;
        let group = look(Lag::Exact(5), Some((1, 7)));
        assert_eq!((group.waits, &group.lags[..]), (false, &[5][..]));
        assert_eq!(group.oldest, Some((id(1), seconds(7))));
        tokio::time::advance(seconds(50)).await;
        // Handed out again meanwhile.
        let group = look(Lag::About(6), Some((1, 2)));
        assert_eq!((group.waits, group.lags.len()), (true, 2));
        assert_eq!(group.oldest, Some((id(1), seconds(50))));
        assert_eq!(look(Lag::Exact(7), Some((2, 2))).oldest, Some((id(2), seconds(2))));
        assert_eq!(look(Lag::Exact(8), None).oldest, None);
        assert_eq!(look(Lag::Exact(0), None).lags, [6, 7, 8, 0]);
        assert!(!look(Lag::Exact(9), None).waits);
        assert!(look(Lag::Unknown, None).lags.is_empty());
        assert!(look(Lag::Exact(1), None).waits);
    }
}
