//! The order of lines over batches: which way the records of a line may go, so that no later one takes effect before an
//! earlier one, or although an earlier one came back.
//!
//! A line goes *straight* as long as nothing is known against it: its records are sent at once, behind those of earlier
//! batches, and the main producer keeps their order. It goes with *care* when a record of it was refused in a batch of
//! several, when one is long, when its topic is not known to take records, or when the producer is new to it: then a task of its own ([`Care`]) sends it,
//! behind what was handed over before, record by record if need be; and so does another one with whatever is handed over
//! before that task has sent all it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// All lines that have something under way, and those that need care. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<HashMap<Arc<str>, State>>>);

#[derive(Debug, Default)]
struct State {
    /// Batches with records of it.
    batches: usize,
    /// The last of them.
    last: Option<Batch>,
    /// Tasks that have not sent all they have.
    careful: usize,
    /// A record came back undone, and the batch's giver may not know it yet.
    undone: bool,
    /// A record of it was refused, among others.
    suspect: bool,
}

/// What a batch tells those behind it.
#[derive(Clone, Debug)]
struct Batch {
    sent: Told,
    has_its_fates: Told,
}

/// Told by the end of all its senders.
type Told = watch::Receiver<()>;
type Tell = watch::Sender<()>;

/// How the records of a line are to be sent.
#[derive(Debug)]
pub(crate) enum Way {
    Straight,
    Care(Care),
    /// Not at all: an earlier record came back.
    Back,
}

/// Held until the records of a line are sent.
#[derive(Debug)]
pub(crate) struct Care {
    lines: Lines,
    name: Arc<str>,
    before: Option<Batch>,
    _sent: Tell,
}

/// A batch's place behind those before it, until its giver has the fates.
#[derive(Debug)]
pub(crate) struct Place {
    lines: Lines,
    names: Vec<Arc<str>>,
    sent: Option<Tell>,
    fates: Option<Tell>,
}

impl Lines {
    /// A batch takes its place. `with_care` says of each line whether it has to go with care for the batch's own sake.
    pub(crate) fn take<'a>(&self, lines: impl Iterator<Item = (&'a Arc<str>, bool)>) -> (Place, Vec<Way>) {
        let (sent, was_sent) = watch::channel(());
        let (fates, has_its_fates) = watch::channel(());
        let batch = Batch { sent: was_sent, has_its_fates };
        let (mut names, mut ways) = (Vec::new(), Vec::new());
        let mut states = self.states();
        for (name, with_care) in lines {
            let state = states.entry(name.clone()).or_default();
            state.batches += 1;
            let before = state.last.replace(batch.clone());
            names.push(name.clone());
            ways.push(if state.undone {
                Way::Back
            } else if with_care || state.suspect || state.careful > 0 {
                state.careful += 1;
                Way::Care(Care { lines: self.clone(), name: name.clone(), before, _sent: sent.clone() })
            } else {
                Way::Straight
            });
        }
        drop(states);
        (Place { lines: self.clone(), names, sent: Some(sent), fates: Some(fates) }, ways)
    }

    /// A record came back: nothing handed over from now on is sent, until its giver has been told.
    pub(crate) fn undone(&self, name: &str) {
        if let Some(state) = self.states().get_mut(name) {
            state.undone = true;
        }
    }

    pub(crate) fn is_undone(&self, name: &str) -> bool {
        self.states().get(name).is_some_and(|state| state.undone)
    }

    /// Whether its records are sent one by one, and each waited for.
    pub(crate) fn is_suspect(&self, name: &str) -> bool {
        self.states().get(name).is_some_and(|state| state.suspect)
    }

    pub(crate) fn suspect(&self, name: &str, suspect: bool) {
        if let Some(state) = self.states().get_mut(name) {
            state.suspect = suspect;
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Arc<str>, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What goes straight is sent.
    pub(crate) fn is_sent(&mut self) {
        self.sent = None;
    }

    /// The batch has all its fates: what waits behind it may go.
    pub(crate) fn has_its_fates(&mut self) {
        self.fates = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_its_fates();
        let mut states = self.lines.states();
        for name in &self.names {
            let Some(state) = states.get_mut(name) else { continue };
            state.batches -= 1;
            if state.batches == 0 {
                // Its giver begins anew with the first one that is undone.
                state.undone = false;
                state.last = None;
                if !state.suspect {
                    states.remove(name);
                }
            }
        }
    }
}

impl Care {
    /// All that was handed over before is sent.
    pub(crate) async fn before_is_sent(&mut self) {
        if let Some(before) = &mut self.before {
            // Nothing is ever sent through it: it ends.
            let _ = before.sent.changed().await;
        }
    }

    /// All that was handed over before has its fate.
    pub(crate) async fn before_has_its_fates(&mut self) {
        if let Some(before) = &mut self.before {
            let _ = before.has_its_fates.changed().await;
        }
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        if let Some(state) = self.lines.states().get_mut(&self.name) {
            state.careful = state.careful.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn take(lines: &Lines, name: &str, care: bool) -> (Place, Way) {
        let (place, mut ways) = lines.take([(&Arc::from(name), care)].into_iter());
        (place, ways.remove(0))
    }

    #[test]
    fn straight_until_something_is_known_against_it() {
        let lines = Lines::default();
        let (_first, way) = take(&lines, "a", false);
        assert!(matches!(way, Way::Straight));
        let (_second, with_care) = take(&lines, "a", true);
        let (_third, behind_it) = take(&lines, "a", false);
        assert!(matches!((&with_care, &behind_it), (Way::Care(_), Way::Care(_))));
        assert!(matches!(take(&lines, "b", false).1, Way::Straight));
        drop(with_care);
        assert!(matches!(take(&lines, "a", false).1, Way::Care(_)), "the one behind it has not sent all yet");
        drop(behind_it);
        assert!(matches!(take(&lines, "a", false).1, Way::Straight));
    }

    #[test]
    fn nothing_goes_behind_what_came_back_until_all_is_told() {
        let lines = Lines::default();
        let (first, _) = take(&lines, "a", false);
        let (second, _) = take(&lines, "a", false);
        lines.undone("a");
        let (third, way) = take(&lines, "a", true);
        assert!(matches!(way, Way::Back));
        drop(first);
        assert!(lines.is_undone("a"), "the second one's giver does not know yet");
        drop((second, third));
        assert!(matches!(take(&lines, "a", false).1, Way::Straight));
        assert!(lines.states().is_empty());
    }

    #[test]
    fn a_suspect_needs_care_until_it_is_cleared() {
        let lines = Lines::default();
        let (place, _) = take(&lines, "a", false);
        lines.suspect("a", true);
        drop(place);
        let (place, way) = take(&lines, "a", false);
        assert!(matches!(way, Way::Care(_)), "{way:?}");
        lines.suspect("a", false);
        drop((place, way));
        assert!(lines.states().is_empty());
    }

    #[tokio::test]
    async fn what_waits_goes_when_the_batch_before_is_sent_and_goes_alone_when_that_has_its_fates() {
        let lines = Lines::default();
        let (mut first, with_care) = take(&lines, "a", true);
        let (_second, way) = take(&lines, "a", false);
        let Way::Care(mut care) = way else { panic!("{way:?}") };
        first.is_sent();
        assert!(care.before_is_sent().now_or_never().is_none(), "some of it goes with care");
        drop(with_care);
        care.before_is_sent().await;
        assert!(care.before_has_its_fates().now_or_never().is_none());
        first.has_its_fates();
        care.before_has_its_fates().await;
    }
}
