//! How many entries Redis has handed out to the group on one stream, as seen by the lane that reads it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::record::EntryId;

/// Marks kept: a busy stream goes on being read between Redis' answer to the sweep and the sweep's look here.
const MARKS: usize = 32;

/// Counts each entry once, when its ID first comes up, read or recovered: so an answer that a broken connection
/// swallowed is counted when its entries are recovered.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// (highest ID so far, entries counted up to it), oldest first.
    marks: VecDeque<(EntryId, u64)>,
}

impl Progress {
    /// The group had been handed entries up to this one before the lane began.
    pub(crate) fn begin_at(&self, delivered: EntryId) {
        let mut inner = self.inner();
        if inner.marks.is_empty() {
            inner.marks.push_back((delivered, 0));
        }
    }

    /// These entries came, of one answer, in any order.
    pub fn saw(&self, ids: impl Iterator<Item = EntryId>) {
        let mut inner = self.inner();
        let before = inner.marks.back().copied();
        let (mut highest, mut count) = (before.map(|(id, _)| id), before.map_or(0, |(_, count)| count));
        for id in ids {
            if before.is_none_or(|(seen, _)| id > seen) {
                highest = highest.max(Some(id));
                count += 1;
            }
        }
        if let Some(highest) = highest.filter(|highest| before.is_none_or(|(seen, _)| *highest > seen)) {
            if inner.marks.len() == MARKS {
                inner.marks.pop_front();
            }
            inner.marks.push_back((highest, count));
        }
    }

    /// Entries counted when the group's last delivered ID was this one. `None` when nothing is known of that
    /// moment: an answer is still on its way, or somebody else reads in the group.
    pub(crate) fn at(&self, delivered: EntryId) -> Option<u64> {
        let mut inner = self.inner();
        if inner.marks.is_empty() {
            inner.marks.push_back((delivered, 0));
        }
        inner.marks.iter().find(|(id, _)| *id == delivered).map(|(_, count)| *count)
    }

    /// The group was set back: what was handed out is handed out again, and counts again.
    pub(crate) fn restart(&self) {
        self.inner().marks.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    #[test]
    fn each_entry_counts_once() {
        let progress = Progress::default();
        assert_eq!(progress.at(id(3)), Some(0), "where it begins is what the sweep sees first");
        progress.saw([1, 2, 3].map(id).into_iter());
        progress.saw([4, 5].map(id).into_iter());
        progress.saw([2, 4, 6].map(id).into_iter());
        assert_eq!(progress.at(id(3)), Some(0));
        assert_eq!(progress.at(id(5)), Some(2));
        assert_eq!(progress.at(id(6)), Some(3));
        assert_eq!(progress.at(id(7)), None, "somebody else was handed 7");
        assert_eq!(progress.at(id(4)), None);
        progress.restart();
        progress.saw([6].map(id).into_iter());
        assert_eq!(progress.at(id(6)), Some(1));
    }

    #[test]
    fn few_marks_are_kept() {
        let progress = Progress::default();
        (1..=100).for_each(|ms| progress.saw(std::iter::once(id(ms))));
        assert_eq!(progress.at(id(100)), Some(100));
        assert_eq!(progress.at(id(69)), Some(69));
        assert_eq!(progress.at(id(68)), None);
    }
}
