//! How much a group was not handed yet, as somebody sees it who reads nothing himself. Pure.
//!
//! All or none of the stream may lie ahead of the group: then the lag is its length, or 0, and that is certain. In
//! between, Redis' own count is the only source: `entries-added − entries-read`. It counts what was trimmed or deleted
//! unread as if it were still to come, and falls behind when an AOF is loaded (see `account.rs`). By how much is known
//! from the last certain look, as long as nothing can have been lost or set back since. Otherwise the count is only
//! about right, and where it cannot be, nothing is said.

use super::account::Snapshot;

/// Entries after the last one that the group was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// So many.
    Exact(u64),
    /// By Redis' own count, which may be wrong and cannot be checked.
    About(u64),
    /// Nobody knows. More than none.
    Unknown,
}

impl Lag {
    /// The number, where there is one.
    pub(crate) fn number(self) -> Option<u64> {
        match self {
            Self::Exact(number) | Self::About(number) => Some(number),
            Self::Unknown => None,
        }
    }

    /// Whether anything lies ahead.
    pub(crate) fn is_some(self) -> bool {
        self != Self::Exact(0)
    }
}

/// What is remembered of one group from look to look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Onlooker(Option<Known>);

/// By how much Redis' count is too high, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Known {
    excess: i128,
    at: Snapshot,
}

impl Onlooker {
    /// One look, later than those before.
    pub(crate) fn lag(&mut self, now: &Snapshot) -> Lag {
        let known = self.0.take();
        if let Some(undelivered) = now.undelivered() {
            // A group that is past the stream was looked at later than the stream: both do not belong together.
            let fits = now.added.is_some() && now.delivered <= now.generated;
            // Where Redis does not know, it finds out by the IDs when the group is handed something: that is right then.
            let excess = own_count(now).map_or(0, |count| count - i128::from(undelivered));
            self.0 = fits.then_some(Known { excess, at: *now });
            return Lag::Exact(undelivered);
        }
        let Some(count) = own_count(now) else { return Lag::Unknown };
        // The first entry was delivered and the last was not, or one of those next to them was deleted.
        let most = now.length.saturating_sub(1).max(1);
        let possible = |lag: i128| u64::try_from(lag).ok().filter(|lag| (1..=most).contains(lag));
        if let Some(known) = known.filter(|known| known.holds(now))
            && let Some(lag) = possible(count - known.excess)
        {
            self.0 = Some(Known { at: *now, ..known });
            return Lag::Exact(lag);
        }
        let deleted_ahead = now.max_deleted > now.delivered;
        possible(count).filter(|_| !deleted_ahead).map_or(Lag::Unknown, Lag::About)
    }
}

impl Known {
    /// Whether nothing that the group was not handed yet can have gone since, and all counts went on.
    fn holds(&self, now: &Snapshot) -> bool {
        let before = &self.at;
        let untrimmed = now.first.is_some_and(|first| first <= before.delivered) || now.first == before.first;
        untrimmed
            && now.max_deleted == before.max_deleted
            && now.added >= before.added
            && now.generated >= before.generated
            && now.entries_read >= before.entries_read
            && !now.set_back_since(before)
    }
}

fn own_count(now: &Snapshot) -> Option<i128> {
    Some(i128::from(now.added?) - i128::from(now.entries_read?))
}

/// Entries that were trimmed or deleted before the group was handed them, by Redis' own count: where all of the stream
/// lies ahead. It does not know when, nor whether the group was meant to have them.
pub(crate) fn lost_ahead(now: &Snapshot) -> Option<u64> {
    let first = now.first.filter(|first| now.delivered < *first);
    let lost = own_count(now).filter(|_| first.is_some())? - i128::from(now.length);
    u64::try_from(lost).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EntryId;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    /// Entries 1, 2, … `added`, of which those from `first` on are there; the group is at `delivered`.
    fn at(added: u64, first: u64, delivered: u64, read: Option<u64>) -> Snapshot {
        let length = (added + 1).saturating_sub(first);
        Snapshot {
            length,
            added: Some(added),
            first: (length > 0).then(|| id(first)),
            last: (length > 0).then(|| id(added)),
            generated: id(added),
            max_deleted: EntryId::default(),
            delivered: id(delivered),
            entries_read: read,
        }
    }

    #[track_caller]
    fn check(name: &str, looks: &[(Snapshot, Lag)]) {
        let mut onlooker = Onlooker::default();
        for (number, (snapshot, expected)) in looks.iter().enumerate() {
            assert_eq!(onlooker.lag(snapshot), *expected, "{name}: look {number}");
        }
    }

    #[test]
    fn only_what_is_certain_is_called_exact() {
        use Lag::{About, Exact, Unknown};
        check("nothing is there", &[(at(0, 1, 0, None), Exact(0))]);
        check("all lies ahead", &[(at(9, 3, 0, None), Exact(7))]);
        check("nothing lies ahead", &[(at(9, 3, 9, Some(2)), Exact(0))]);
        check("the first look finds it half-way", &[(at(9, 1, 4, Some(4)), About(5))]);
        check("seen from the start", &[(at(9, 1, 0, Some(0)), Exact(9)), (at(12, 1, 4, Some(4)), Exact(8))]);
        check("a new group", &[(at(9, 3, 0, None), Exact(7)), (at(9, 3, 4, Some(4)), Exact(5))]);
        let late = at(9, 5, 0, Some(0));
        check("it lost 4 before", &[(late, Exact(5)), (at(12, 5, 6, Some(2)), Exact(6))]);
        check("the same, not seen from the start: more than there are", &[(at(12, 5, 6, Some(2)), Unknown)]);
        check(
            "trimmed beyond where it was, so that it may have lost some",
            &[(at(9, 1, 9, Some(9)), Exact(0)), (at(90, 50, 60, Some(20)), Unknown)],
        );
        check(
            "trimmed behind it only",
            &[(at(9, 1, 9, Some(9)), Exact(0)), (at(90, 8, 60, Some(60)), Exact(30))],
        );
        let deleted = |snapshot, deleted| Snapshot { max_deleted: id(deleted), ..snapshot };
        check("deleted ahead", &[(deleted(at(9, 1, 4, Some(4)), 7), Unknown)]);
        check("deleted behind", &[(deleted(at(9, 1, 4, Some(4)), 3), About(5))]);
        check("Redis does not count", &[(at(9, 1, 4, None), Unknown)]);
        check("set back", &[(at(9, 1, 9, Some(9)), Exact(0)), (at(9, 1, 4, Some(4)), About(5))]);
        // The group was asked about after the stream, and had been handed two more by then.
        check("in a race", &[(at(9, 1, 11, Some(11)), Exact(0)), (at(20, 1, 15, Some(15)), About(5))]);
    }

    #[test]
    fn what_was_lost_is_told_while_all_lies_ahead() {
        let check = |snapshot, expected| assert_eq!(lost_ahead(&snapshot), expected, "{snapshot:?}");
        check(at(9, 5, 2, Some(2)), Some(2));
        check(at(9, 3, 2, Some(2)), Some(0));
        check(at(9, 5, 2, None), None);
        check(at(9, 5, 6, Some(2)), None);
        check(at(9, 10, 6, Some(2)), None);
    }
}
