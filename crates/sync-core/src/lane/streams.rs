//! The streams of one lane: which state each is in, and what to ask Redis for next. Talks to nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::bridge::Stream;
use crate::record::EntryId;
use crate::retry::Backoff;

/// What an entry is taken to occupy, at least, before one of its stream was seen: so few of them are asked for.
const UNSEEN: usize = 256 << 10;
/// While the lane has seen no entry at all, it asks for one of one stream, so often.
const FIRST_READS: u32 = 16;
/// The same for a stream that had nothing when it was asked.
const EMPTY: usize = 1 << 10;
/// Up to so many streams are all named in each read.
const NARROW: usize = 64;
/// A wider lane that is busy names only the streams that had something last time, and all of them this often.
const WIDE_EVERY: Duration = Duration::from_millis(100);

/// Where a stream stands. It is restarted whenever what this lane knows of it may not be what Redis knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is read until that time and until nothing of it is in flight; then `Recover` from the beginning.
    Restart(Instant),
    /// What is pending in the group is read, page by page, from here on.
    Recover(EntryId),
    /// New entries are read.
    Live,
}

/// A stream that the destination does not take as things stand.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Between one attempt and the next.
    pub(crate) backoff: Backoff,
    /// Health has heard of it.
    pub(crate) told: bool,
}

/// One stream of the lane.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stream: Arc<Stream>,
    phase: Phase,
    /// Another one after each restart: a reply that was asked for before the last one is not used.
    epoch: u64,
    /// Handed over to the sink and not settled.
    pub(crate) in_flight: usize,
    /// Read and not handed over.
    pub(crate) waiting: usize,
    /// What one entry is expected to occupy.
    entry_size: usize,
    /// On a Cluster: the last entry that the group was handed, as this lane knows it (see `redis/cluster/commands.rs`).
    pub(crate) last_delivered: EntryId,
    /// While it is there, one record at a time is tried.
    pub(crate) hold: Option<Hold>,
    /// Why its last record was refused, if none was delivered since.
    pub(crate) last_refusal: Option<String>,
    /// Of a hold that ended with everything refused and nothing delivered.
    pub(crate) spare_backoff: Option<Backoff>,
    /// Negative answers so far, by entry: few at a time.
    attempts: Vec<(EntryId, u32)>,
    /// The last entry settled, and the first that came back: where a lost group is taken up again.
    pub(crate) last_settled: Option<EntryId>,
    pub(crate) first_unsettled: Option<EntryId>,
    /// The group was there; when it is gone, somebody destroyed it.
    pub(crate) had_group: bool,
    /// When its dead letters were last told of, and how many there were since.
    pub(crate) letters_said: Option<Instant>,
    pub(crate) letters_unsaid: u64,
    /// A group that is missing and not to be created, or a key of another type, was reported.
    pub(crate) warned: bool,
    /// It was reported down, other than by a hold.
    pub(crate) reported_down: bool,
    leaving: bool,
}

impl Slot {
    /// One more negative answer about this entry; how many it makes.
    pub(crate) fn count_attempt(&mut self, id: EntryId) -> u32 {
        if let Some((_, count)) = self.attempts.iter_mut().find(|(entry, _)| *entry == id) {
            *count += 1;
            return *count;
        }
        self.attempts.push((id, 1));
        1
    }

    /// Settled: its attempts so far.
    pub(crate) fn settled(&mut self, id: EntryId) -> u32 {
        self.last_settled = self.last_settled.max(Some(id));
        if self.attempts.is_empty() {
            return 0;
        }
        match self.attempts.iter().position(|(entry, _)| *entry == id) {
            Some(at) => self.attempts.swap_remove(at).1,
            None => 0,
        }
    }

    /// This entry was read and comes back unsettled.
    pub(crate) fn unsettled(&mut self, id: EntryId) {
        self.first_unsettled = Some(self.first_unsettled.map_or(id, |first| first.min(id)));
    }

    /// There were no new entries: the next are expected to be few.
    pub(crate) fn had_nothing(&mut self) {
        if self.entry_size == UNSEEN {
            self.entry_size = EMPTY;
        }
    }
}

/// A slot as it was when something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) slot: usize,
    epoch: u64,
}

/// What to ask Redis for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A page of what is pending, for each of these.
    Recover { pages: Vec<(Asked, EntryId)>, count: u32 },
    /// New entries of these, listed by ascending slot; `block` when there is nothing else to do.
    Read { streams: Vec<Asked>, count: u32, block: Option<Duration> },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Streams {
    slots: Vec<Option<Slot>>,
    by_key: HashMap<Bytes, usize>,
    /// Slots by phase; every slot stands in exactly one of these.
    restarting: BTreeSet<usize>,
    recovering: BTreeSet<usize>,
    live: BTreeSet<usize>,
    /// Those that Redis did not answer about, since it last did.
    lost: BTreeSet<usize>,
    /// Live ones that had something when last asked.
    hot: Vec<usize>,
    /// Where reads do not block: none is due before that time while nothing is hot.
    rest_until: Option<Instant>,
    /// Where the next wide read begins that cannot name all live ones.
    live_from: usize,
    leaving: usize,
    /// The last epoch of any slot. A slot that is used again begins with one that its former stream never had.
    epochs: u64,
    wide_at: Option<Instant>,
    recovered_last: bool,
    /// The largest average that any stream of the lane had.
    largest: usize,
    first_reads: u32,
    batch_size: u32,
    block: Duration,
}

impl Streams {
    pub(crate) fn new(batch_size: u32, block: Duration) -> Self {
        Self {
            slots: Vec::new(),
            by_key: HashMap::new(),
            restarting: BTreeSet::new(),
            recovering: BTreeSet::new(),
            live: BTreeSet::new(),
            lost: BTreeSet::new(),
            hot: Vec::new(),
            rest_until: None,
            live_from: 0,
            leaving: 0,
            epochs: 0,
            wide_at: None,
            recovered_last: false,
            largest: 0,
            first_reads: 0,
            batch_size,
            block,
        }
    }

    /// Whether something of what left is still in flight.
    pub(crate) fn are_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Whether the lane has the stream already; one that had left and returned before all of it was settled stays.
    pub(crate) fn has_returned(&mut self, key: &Bytes) -> bool {
        let Some(&slot) = self.by_key.get(key) else { return false };
        self.leaving -= usize::from(std::mem::take(&mut self[slot].leaving));
        true
    }

    /// Adds a stream that the lane does not have, to be recovered before it is read.
    pub(crate) fn add(&mut self, stream: Arc<Stream>) {
        let key = stream.name.key.clone();
        self.epochs += 1;
        let slot = Slot {
            stream,
            phase: Phase::Restart(Instant::now()),
            epoch: self.epochs,
            in_flight: 0,
            waiting: 0,
            entry_size: UNSEEN,
            last_delivered: EntryId::default(),
            hold: None,
            last_refusal: None,
            spare_backoff: None,
            attempts: Vec::new(),
            last_settled: None,
            first_unsettled: None,
            had_group: false,
            letters_said: None,
            letters_unsaid: 0,
            warned: false,
            reported_down: false,
            leaving: false,
        };
        let free =
            self.slots.iter().position(Option::is_none).filter(|_| self.by_key.len() < self.slots.len());
        let at = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        self.by_key.insert(key, at);
        self.restarting.insert(at);
    }

    /// No longer read; forgotten once nothing of it is in flight. The caller purges what waits.
    pub(crate) fn remove(&mut self, key: &Bytes) -> Option<usize> {
        let slot = *self.by_key.get(key)?;
        self.restart(slot, Instant::now());
        self[slot].leaving = true;
        self.leaving += 1;
        Some(slot)
    }

    /// Forgets what left and has nothing in flight; says which.
    pub(crate) fn sweep(&mut self) -> Vec<Arc<Stream>> {
        if self.leaving == 0 {
            return Vec::new();
        }
        let gone =
            |slot: &&Option<Slot>| slot.as_ref().is_some_and(|slot| slot.leaving && slot.in_flight == 0);
        let gone: Vec<_> = self.slots.iter().filter(gone).flatten().map(|slot| slot.stream.clone()).collect();
        for stream in &gone {
            if let Some(slot) = self.by_key.remove(&stream.name.key) {
                self.unlist(slot);
                self.lost.remove(&slot);
                self.slots[slot] = None;
                self.leaving -= 1;
            }
        }
        gone
    }

    /// Reads nothing of the stream before `not_before`, nor before all of it that is in flight has settled, and
    /// then what is pending first. The caller purges what waits.
    pub(crate) fn restart(&mut self, slot: usize, not_before: Instant) {
        self.unlist(slot);
        self.restarting.insert(slot);
        self.epochs += 1;
        let epoch = self.epochs;
        let slot = &mut self[slot];
        slot.epoch = epoch;
        slot.phase = Phase::Restart(not_before);
    }

    /// Restarts every stream; one on hold keeps its time.
    pub(crate) fn restart_all(&mut self) {
        let now = Instant::now();
        self.epochs += 1;
        for slot in self.slots.iter_mut().flatten() {
            slot.epoch = self.epochs;
            if slot.hold.is_none() || !matches!(slot.phase, Phase::Restart(_)) {
                slot.phase = Phase::Restart(now);
            }
        }
        self.restarting.append(&mut self.recovering);
        self.restarting.append(&mut self.live);
        self.hot.clear();
    }

    /// Whether the stream waits for a restart.
    pub(crate) fn is_restarting(&self, slot: usize) -> bool {
        matches!(self[slot].phase, Phase::Restart(_))
    }

    fn unlist(&mut self, slot: usize) {
        let removed = match self[slot].phase {
            Phase::Restart(_) => self.restarting.remove(&slot),
            Phase::Recover(_) => self.recovering.remove(&slot),
            Phase::Live => self.live.remove(&slot),
        };
        debug_assert!(removed, "a slot is listed by its phase");
        if !self.hot.is_empty() {
            self.hot.retain(|other| *other != slot);
        }
    }

    /// How many streams.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The stream of a slot, if it is in use.
    pub(crate) fn stream(&self, slot: usize) -> Option<&Arc<Stream>> {
        self.slots.get(slot)?.as_ref().map(|slot| &slot.stream)
    }

    pub(crate) fn slot_of(&self, key: &[u8]) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Keys of this lane.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.by_key.iter().filter(|(_, slot)| !self[**slot].leaving).map(|(key, _)| key)
    }

    /// What an entry of any stream is expected to occupy at most: a read may bring one, whatever it asks for.
    pub(crate) fn largest_expected(&self) -> usize {
        let seen = self.slots.iter().flatten().map(|slot| slot.entry_size).filter(|size| *size != UNSEEN);
        seen.max().unwrap_or(0)
    }

    /// Learns from entries of the stream, of so many bytes on average.
    pub(crate) fn saw(&mut self, slot: usize, average: usize) {
        self.largest = self.largest.max(average);
        let size = &mut self[slot].entry_size;
        *size = if *size == UNSEEN { average } else { average.max((3 * *size + average) / 4) };
    }

    /// Whether a reply asked for then is still good.
    pub(crate) fn is_current(&self, asked: Asked) -> bool {
        self.slots[asked.slot].as_ref().is_some_and(|slot| slot.epoch == asked.epoch)
    }

    /// A page was read: `next` is where the following one begins, `None` after the last.
    pub(crate) fn recovered(&mut self, slot: usize, next: Option<EntryId>) {
        self.unlist(slot);
        let phase = next.map_or(Phase::Live, Phase::Recover);
        self[slot].phase = phase;
        match phase {
            Phase::Live => {
                self.rest_until = None;
                self.live.insert(slot)
            }
            _ => self.recovering.insert(slot),
        };
    }

    /// Redis does not answer about this stream, though it may about others.
    pub(crate) fn lost(&mut self, slot: usize) {
        self.lost.insert(slot);
    }

    /// Redis said something about it.
    pub(crate) fn answered(&mut self, slot: usize) {
        self.lost.remove(&slot);
    }

    /// Whether there are streams that Redis does not answer about.
    pub(crate) fn are_some_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Where reads do not block: nothing is read before that time but what had something.
    pub(crate) fn rest_until(&mut self, at: Instant) {
        self.rest_until = Some(at);
    }

    /// The streams that had something in the last read; of a wide read, these are all that are hot.
    pub(crate) fn had_entries(&mut self, slots: Vec<usize>) {
        self.hot = slots;
    }

    /// When the next restart is due that waits for nothing but time.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.restarts().min()
    }

    /// The same, of those that are not due yet.
    pub(crate) fn wake_at_after(&self, now: Instant) -> Option<Instant> {
        let read = self.rest_until.filter(|_| !self.live.is_empty());
        self.restarts().chain(read).filter(|at| *at > now).min()
    }

    fn restarts(&self) -> impl Iterator<Item = Instant> {
        self.restarting.iter().filter_map(|&slot| match self[slot].phase {
            Phase::Restart(at) if self[slot].in_flight == 0 && !self[slot].leaving => Some(at),
            _ => None,
        })
    }

    /// What to ask for next, within `share` bytes. Pages of pending entries and reads of new ones take turns.
    pub(crate) fn next_step(&mut self, share: usize, now: Instant) -> Option<Step> {
        self.begin_restarts(now);
        let recover_first = !self.recovered_last || self.live.is_empty();
        self.recovered_last = false;
        if recover_first && let Some(step) = self.recover_step(share) {
            self.recovered_last = true;
            return Some(step);
        }
        self.read_step(share, now).or_else(|| self.recover_step(share))
    }

    fn begin_restarts(&mut self, now: Instant) {
        let due = |&slot: &usize| {
            let slot = &self[slot];
            matches!(slot.phase, Phase::Restart(at) if at <= now) && slot.in_flight == 0 && !slot.leaving
        };
        let due: Vec<usize> = self.restarting.iter().copied().filter(due).collect();
        for slot in due {
            self.restarting.remove(&slot);
            self.recovering.insert(slot);
            self[slot].phase = Phase::Recover(EntryId::default());
        }
    }

    fn recover_step(&self, share: usize) -> Option<Step> {
        // A stream on hold is tried with one record at a time.
        let ready = |&&slot: &&usize| match self[slot].hold {
            Some(_) => self[slot].in_flight == 0 && self[slot].waiting == 0,
            None => true,
        };
        let held = |slot: usize| self[slot].hold.is_some();
        let first = *self.recovering.iter().find(ready)?;
        let alike = self.recovering.iter().filter(ready).copied().filter(|slot| held(*slot) == held(first));
        let (slots, count) = self.fit(alike.take(1000), share);
        let pages = slots.into_iter().map(|slot| match self[slot].phase {
            Phase::Recover(from) => (self.asked(slot), from),
            _ => unreachable!("only what recovers is listed as recovering"),
        });
        Some(Step::Recover { pages: pages.collect(), count: if held(first) { 1 } else { count } })
    }

    fn read_step(&mut self, share: usize, now: Instant) -> Option<Step> {
        let resting = self.hot.is_empty() && self.rest_until.is_some_and(|at| at > now);
        if self.live.is_empty() || resting {
            return None;
        }
        self.first_reads = self.first_reads.saturating_add(1);
        let wide_is_due = self.wide_at.is_none_or(|at| now.duration_since(at) >= WIDE_EVERY);
        let narrow = !self.hot.is_empty() && self.live.len() > NARROW && !wide_is_due;
        let (slots, count) = if narrow {
            self.fit(self.hot.iter().copied(), share)
        } else {
            self.wide_at = Some(now);
            let from = self.live_from;
            self.fit(self.live.range(from..).chain(self.live.range(..from)).copied(), share)
        };
        if !narrow {
            self.live_from = slots.last().map_or(0, |last| last + 1);
        }
        let idle = self.hot.is_empty() && self.recovering.is_empty();
        let rounds = u32::try_from(self.live.len().div_ceil(slots.len().max(1))).unwrap_or(u32::MAX);
        // A part of the streams blocks for its part of the time.
        let block = idle.then(|| (self.block / rounds).max(Duration::from_millis(1)));
        let mut streams: Vec<Asked> = slots.into_iter().map(|slot| self.asked(slot)).collect();
        streams.sort_unstable_by_key(|asked| asked.slot);
        Some(Step::Read { streams, count, block })
    }

    /// As many of these as fit into the share with one entry each, and how many entries each may then have.
    fn fit(&self, slots: impl Iterator<Item = usize>, share: usize) -> (Vec<usize>, u32) {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let unseen = if self.largest == 0 && self.first_reads < FIRST_READS { share } else { self.largest };
        for slot in slots {
            let size = match self[slot].entry_size {
                UNSEEN => unseen.max(UNSEEN),
                size => size,
            };
            if bytes + size > share && !taken.is_empty() {
                break;
            }
            bytes += size;
            taken.push(slot);
        }
        let count = u32::try_from(share / bytes.max(1)).unwrap_or(u32::MAX);
        (taken, count.clamp(1, self.batch_size))
    }

    fn asked(&self, slot: usize) -> Asked {
        Asked { slot, epoch: self[slot].epoch }
    }
}

impl std::ops::Index<usize> for Streams {
    type Output = Slot;

    fn index(&self, slot: usize) -> &Slot {
        self.slots[slot].as_ref().expect("a listed slot is in use")
    }
}

impl std::ops::IndexMut<usize> for Streams {
    fn index_mut(&mut self, slot: usize) -> &mut Slot {
        self.slots[slot].as_mut().expect("a listed slot is in use")
    }
}

/// Sets the stream's gauge.
pub(crate) fn set_held(slot: &Slot, held: bool) {
    slot.stream.metrics.held.store(u64::from(held), Relaxed);
}

#[cfg(test)]
mod tests;
