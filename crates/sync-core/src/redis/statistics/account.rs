//! The arithmetic of one stream: how much of it the group has not been handed yet, and how much the source dropped
//! before it was. Talks to nobody.
//!
//! **The formula.** Of all entries ever added, each is still to be handed out, or was handed out, or is lost:
//!
//! `lost = entries-added − undelivered − delivered`
//!
//! - *entries-added* is Redis' own (7.0); neither trimming nor XDEL changes it.
//! - *undelivered* is known when nothing lies ahead of the last delivered ID (0), and when all of the stream does
//!   (its length): which is how every loss by trimming looks until the next read. In between it is not known, and
//!   the loss stays as it was last known. What was delivered and then deleted is in neither case part of the
//!   length, so our own or others' clearing up never counts as loss.
//! - *delivered* is what the lane counted ([`super::progress`]), from a base taken at the first look. The base is the
//!   group's entries-read, where Redis knows it: so what was lost before this process started is still seen, and
//!   counts once however often the bridge restarts.
//!
//! Why not entries-read throughout: Redis 7.0 counts it up entry by entry, but it is NULL from XGROUP CREATE to the
//! first read (to the end of the stream, where that was not its first entry), after XGROUP SETID and XDEL ahead, and
//! falls behind when an AOF is loaded or a replica takes over (redis PR 12898).
//! Newer servers (redis PR 13958, valkey 8.1) set it anew after each trim, which hides the loss from the next read
//! on.
//!
//! Where the base is in doubt (the stream was made anew, the group set back, XSETID, entries-read became NULL, another
//! consumer was handed entries) a new one is taken so that the loss stays as it is: "at least". One doubt cannot be
//! seen: an entries-read that fell behind when the server loaded an AOF after the previous bridge process had ended.
//! It is refused when it would mean more losses than entries are gone.

use crate::record::EntryId;

/// What Redis said of a stream and its group, the stream first: so a read between the two makes the loss smaller,
/// and the next look finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) length: u64,
    /// `None` before Redis 7.0.
    pub(crate) added: Option<u64>,
    /// IDs of the first and last entry that are there.
    pub(crate) first: Option<EntryId>,
    pub(crate) last: Option<EntryId>,
    pub(crate) generated: EntryId,
    /// The highest ID that XDEL removed; trimming leaves it alone.
    pub(crate) max_deleted: EntryId,
    /// The group's last delivered ID.
    pub(crate) delivered: EntryId,
    /// The group's own counter, where Redis can tell.
    pub(crate) entries_read: Option<u64>,
}

impl Snapshot {
    /// Entries that the group was not handed yet, where that can be told.
    pub(crate) fn undelivered(&self) -> Option<u64> {
        match (self.first, self.last) {
            (Some(first), _) if self.delivered < first => Some(self.length),
            (Some(_), Some(last)) if self.delivered < last => None,
            _ => Some(0),
        }
    }

    /// The group was set back (or made anew) since then.
    pub(crate) fn set_back_since(&self, before: &Self) -> bool {
        self.delivered < before.delivered
    }
}

/// Losses found at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) count: u64,
    pub(super) total: u64,
    pub(super) exact: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// `delivered` of the formula is `base` and what the lane counted.
    base: Option<i128>,
    /// A base was taken: from then on another one leaves the loss as it is.
    opened: bool,
    lost: u64,
    at_least: bool,
    before: Option<Snapshot>,
}

impl Account {
    /// The first look, before anything of the stream is read.
    pub(super) fn open(&mut self, now: Snapshot) {
        self.before = Some(now);
        if self.base.is_none() {
            self.take_base(&now, 0);
        }
    }

    /// One look. `counted` is what the lane has counted up to `now.delivered`, where that is known; `alone` says
    /// that nobody else was handed entries since the look before.
    pub(super) fn look(&mut self, now: Snapshot, counted: Option<u64>, alone: bool) -> Option<Growth> {
        let before = self.before.replace(now);
        let Some(added) = now.added else { return self.look_before_7(before?, now) };
        if let Some(before) = before {
            let deleted = now.max_deleted != before.max_deleted;
            let renumbered = now.generated == before.generated && before.added != Some(added);
            let made_anew = Some(added) < before.added || now.generated < before.generated;
            // An XDEL ahead makes it NULL too, and leaves our own count right.
            let forgotten = before.entries_read.is_some()
                && now.entries_read.is_none()
                && now.max_deleted <= before.delivered;
            if renumbered || made_anew || forgotten || now.set_back_since(&before) || !alone {
                self.opened |= self.base.take().is_some();
                self.at_least = true;
            }
            // What was deleted ahead counts too once it is seen; what XDEL and a trim share is not told apart.
            self.at_least |= deleted && now.max_deleted > before.delivered;
        }
        let counted = counted?;
        if self.base.is_none() {
            self.take_base(&now, counted);
        }
        let gone = i128::from(added) - i128::from(now.undelivered()?);
        let lost = gone - self.base? - i128::from(counted);
        if lost - i128::from(self.lost) > i128::from(added.saturating_sub(now.length)) {
            // More than is gone: the base was wrong.
            (self.base, self.opened, self.at_least) = (None, true, true);
            self.take_base(&now, counted);
            return None;
        }
        self.grow_to(u64::try_from(lost).unwrap_or(0))
    }

    fn take_base(&mut self, now: &Snapshot, counted: u64) {
        let Some(added) = now.added else { return };
        let delivered = match (now.entries_read.filter(|_| !self.opened), now.undelivered()) {
            (Some(read), _) => i128::from(read),
            // An ID above all that was generated: what comes below it is nobody's loss, and not known yet.
            (None, Some(undelivered)) if now.delivered <= now.generated => {
                i128::from(added) - i128::from(undelivered) - i128::from(self.lost)
            }
            _ => return,
        };
        self.base = Some(delivered - i128::from(counted));
        self.opened = true;
    }

    /// Without entries-added: the newest entry of the look before was not delivered, and is gone.
    fn look_before_7(&mut self, before: Snapshot, now: Snapshot) -> Option<Growth> {
        self.at_least = true;
        let newest = before.last?;
        let gone = now.first.is_none_or(|first| first > newest);
        let made_anew = now.generated < before.generated || now.set_back_since(&before);
        if gone && now.delivered < newest && !made_anew { self.grow_to(self.lost + 1) } else { None }
    }

    fn grow_to(&mut self, lost: u64) -> Option<Growth> {
        let count = lost.checked_sub(self.lost).filter(|count| *count > 0)?;
        self.lost = lost;
        Some(Growth { count, total: lost, exact: !self.at_least })
    }

    /// What was lost, as far as known.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The look before.
    pub(super) fn before(&self) -> Option<&Snapshot> {
        self.before.as_ref()
    }

    /// Entries after the last delivered ID. Exact when all or none of the stream lies ahead; else what the count
    /// leaves over, which is exact unless something ahead was deleted since; and where there is no count, the
    /// part of the length that the IDs' times suggest.
    pub(super) fn lag(&self, now: &Snapshot, counted: Option<u64>) -> u64 {
        if let Some(undelivered) = now.undelivered() {
            return undelivered;
        }
        // The first entry was delivered and the last was not, or one of those next to them was deleted.
        let most = now.length.saturating_sub(1).max(1);
        let left = match (now.added, self.base, counted) {
            (Some(added), Some(base), Some(counted)) => {
                let left = i128::from(added) - base - i128::from(counted) - i128::from(self.lost);
                u64::try_from(left).unwrap_or(0)
            }
            _ => {
                let (first, last) = (now.first.map_or(0, |id| id.ms), now.last.map_or(0, |id| id.ms));
                let ahead = u128::from(last.saturating_sub(now.delivered.ms)) * u128::from(now.length);
                let share = ahead.checked_div(u128::from(last - first.min(last)));
                share.map_or(most, |left| u64::try_from(left).unwrap_or(most))
            }
        };
        left.clamp(1, most)
    }
}

/// Age of an entry by its ID; 0 when the ID is no time that could be true.
pub(crate) fn age_ms(id: Option<EntryId>, now_ms: u64) -> u64 {
    /// September 2001: long before there were streams. Below it IDs are numbers of the writer's own.
    const EARLIEST: u64 = 1_000_000_000_000;
    id.filter(|id| id.ms >= EARLIEST).map_or(0, |id| now_ms.saturating_sub(id.ms))
}

#[cfg(test)]
mod tests;
