//! The order of lines over batches: which way the records of a line may go, so that no later one takes effect before an
//! earlier one, or although an earlier one came back.
//!
//! A line goes *straight* as long as nothing is known against it: its records are sent at once, behind those of earlier
//! batches, and the main producer keeps their order. It goes with *care* when a record of it was refused in a batch of
//! several, when one is long, or when its topic is not known to take records: then it waits until all that was handed over
//! before has its fate. So does whatever is handed over behind it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// All lines that have something under way, and those that need care. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<HashMap<Arc<str>, State>>>);

#[derive(Debug, Default)]
struct State {
    /// Batches with records of it, the last of which tells when it has all its fates.
    batches: usize,
    last: Option<Batch>,
    /// Of these, those that go with care.
    careful: usize,
    /// A record came back undone, and the batch's giver may not know it yet.
    undone: bool,
    /// A record of it was refused, among others.
    suspect: bool,
}

/// Ends when its sender is dropped.
type Batch = watch::Receiver<()>;

/// How the records of a line are to be sent.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Straight,
    /// Once the batch before it has all its fates, if there is one.
    Care(Option<Batch>),
    /// Not at all: an earlier record came back.
    Back,
}

/// A batch's place behind those before it, until its giver has the fates.
#[derive(Debug)]
pub(crate) struct Place {
    lines: Lines,
    names: Vec<(Arc<str>, bool)>,
    fates: Option<watch::Sender<()>>,
}

impl Lines {
    /// A batch takes its place. `with_care` says of each line whether it has to go with care for the batch's own sake.
    pub(crate) fn take<'a>(&self, lines: impl Iterator<Item = (&'a Arc<str>, bool)>) -> (Place, Vec<Way>) {
        let (fates, batch) = watch::channel(());
        let mut names = Vec::new();
        let mut ways = Vec::new();
        let mut states = self.states();
        for (name, with_care) in lines {
            let state = states.entry(name.clone()).or_default();
            state.batches += 1;
            let before = state.last.replace(batch.clone());
            let care = !state.undone && (with_care || state.suspect || state.careful > 0);
            state.careful += usize::from(care);
            names.push((name.clone(), care));
            ways.push(match () {
                () if state.undone => Way::Back,
                () if care => Way::Care(before),
                () => Way::Straight,
            });
        }
        drop(states);
        (Place { lines: self.clone(), names, fates: Some(fates) }, ways)
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
    /// The batch has all its fates: what waits behind it may go.
    pub(crate) fn has_its_fates(&mut self) {
        self.fates = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_its_fates();
        let mut states = self.lines.states();
        for (name, care) in &self.names {
            let Some(state) = states.get_mut(name) else { continue };
            state.batches -= 1;
            state.careful -= usize::from(*care);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lines: &Lines, name: &str, care: bool) -> (Place, Way) {
        let (place, mut ways) = lines.take([(&Arc::from(name), care)].into_iter());
        (place, ways.remove(0))
    }

    #[test]
    fn straight_until_something_is_known_against_it() {
        let lines = Lines::default();
        let (first, way) = take(&lines, "a", false);
        assert!(matches!(way, Way::Straight));
        let (second, way) = take(&lines, "a", true);
        assert!(matches!(way, Way::Care(Some(_))));
        let (third, way) = take(&lines, "a", false);
        assert!(matches!(way, Way::Care(Some(_))), "behind one with care");
        assert!(matches!(take(&lines, "b", false).1, Way::Straight));
        drop((first, second));
        assert!(matches!(take(&lines, "a", false).1, Way::Care(Some(_))));
        drop(third);
        assert!(matches!(take(&lines, "a", false).1, Way::Straight));
        assert!(lines.states().is_empty());
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
    }

    #[test]
    fn a_suspect_needs_care_until_it_is_cleared() {
        let lines = Lines::default();
        let (place, _) = take(&lines, "a", false);
        lines.suspect("a", true);
        drop(place);
        let (place, way) = take(&lines, "a", false);
        assert!(matches!(way, Way::Care(None)), "{way:?}");
        lines.suspect("a", false);
        drop(place);
        assert!(lines.states().is_empty());
    }

    #[tokio::test]
    async fn what_waits_goes_when_the_batch_before_has_its_fates() {
        let lines = Lines::default();
        let (mut first, _) = take(&lines, "a", false);
        let (_second, way) = take(&lines, "a", true);
        let Way::Care(Some(mut before)) = way else { panic!("{way:?}") };
        assert!(before.has_changed().is_ok());
        first.has_its_fates();
        assert!(before.changed().await.is_err());
    }
}
