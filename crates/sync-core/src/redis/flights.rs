//! Which entry of each stream was sent last and has no answer yet: a run that follows it names it, and the target
//! writes nothing of that run if it did not get the one before. Where an ID does not tell an entry from all others, it is
//! named with what does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::record::{EntryId, StreamName};

/// Of all streams. Clones are the same.
#[derive(Clone, Debug)]
pub struct Flights<T = EntryId>(Arc<Mutex<HashMap<StreamName, Flying<T>>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[derive(Debug)]
struct Flying<T> {
    last: T,
    runs: usize,
}

/// One run under way; it has landed when this is dropped.
#[derive(Debug)]
pub struct Flight<T = EntryId> {
    flights: Flights<T>,
    stream: StreamName,
}

impl<T> Flights<T> {
    /// A run of the stream that ends with `last` sets out. What was sent before it and is still under way ended with
    /// this.
    pub fn set_out(&self, stream: &StreamName, last: T) -> (Option<T>, Flight<T>) {
        let mut flying = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match flying.get_mut(stream) {
            Some(flying) => {
                flying.runs += 1;
                Some(std::mem::replace(&mut flying.last, last))
            }
            None => {
                flying.insert(stream.clone(), Flying { last, runs: 1 });
                None
            }
        };
        (before, Flight { flights: Self(self.0.clone()), stream: stream.clone() })
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        let mut flying = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = flying.get_mut(&self.stream) {
            stream.runs -= 1;
            if stream.runs == 0 {
                flying.remove(&self.stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_under_way_is_named() {
        let flights = Flights::default();
        let (one, other) = (StreamName::new(0, "a"), StreamName::new(1, "a"));
        let id = |ms| EntryId { ms, seq: 0 };
        let (before, first) = flights.set_out(&one, id(5));
        assert_eq!(before, None);
        let (before, second) = flights.set_out(&one, id(9));
        assert_eq!(before, Some(id(5)));
        let (before, third) = flights.set_out(&other, id(1));
        assert_eq!(before, None);
        drop(first);
        let (before, fourth) = flights.set_out(&one, id(12));
        assert_eq!(before, Some(id(9)));
        drop((second, third, fourth));
        assert_eq!(flights.set_out(&one, id(3)).0, None);
    }
}
