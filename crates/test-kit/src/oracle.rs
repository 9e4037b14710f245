//! The ledger of what was written, and what every test asks of the destination: all of it, in order of first
//! arrivals, with the repeats counted.

use std::collections::{BTreeMap, HashMap, HashSet};

/// `ms-seq` as two numbers: they compare as Redis compares them.
pub type Id = (u64, u64);

/// One entry at the destination: the stream's name and the entry's ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub stream: String,
    pub id: Id,
}

/// From the text of an entry ID.
pub fn id(text: &str) -> Id {
    let (ms, seq) = text.split_once('-').expect("ms-seq");
    (ms.parse().expect("milliseconds"), seq.parse().expect("a sequence number"))
}

/// What was written: per stream, the IDs that Redis has confirmed.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Vec<Id>>);

/// What the destination has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub written: usize,
    /// Of those written.
    pub arrived: usize,
    pub duplicates: usize,
    /// A first arrival below an earlier first arrival of its stream.
    pub out_of_order: Vec<(String, Id, Id)>,
    /// The first few.
    pub missing: Vec<(String, Id)>,
}

impl Ledger {
    pub fn wrote(&mut self, stream: &str, entry: &str) {
        self.0.entry(stream.to_owned()).or_default().push(id(entry));
    }

    pub fn join(&mut self, other: Self) {
        for (stream, mut ids) in other.0 {
            self.0.entry(stream).or_default().append(&mut ids);
        }
    }

    pub fn written(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Compares. Streams that are not in the ledger do not count.
    pub fn tally(&self, arrivals: &[Arrival]) -> Tally {
        let mut tally = Tally { written: self.written(), ..Tally::default() };
        let mut seen: HashMap<&str, (HashSet<Id>, Id)> = HashMap::new();
        for Arrival { stream, id } in arrivals.iter().filter(|a| self.0.contains_key(&a.stream)) {
            let (ids, last) = seen.entry(stream).or_insert_with(|| (HashSet::new(), (0, 0)));
            if !ids.insert(*id) {
                tally.duplicates += 1;
            } else if id < last {
                tally.out_of_order.push((stream.clone(), *last, *id));
            }
            *last = (*last).max(*id);
        }
        for (stream, ids) in &self.0 {
            let arrived = seen.get(stream.as_str()).map(|(ids, _)| ids);
            for id in ids {
                if arrived.is_some_and(|ids| ids.contains(id)) {
                    tally.arrived += 1;
                } else if tally.missing.len() < 5 {
                    tally.missing.push((stream.clone(), *id));
                }
            }
        }
        tally
    }
}

impl Tally {
    pub fn complete(&self) -> bool {
        self.arrived == self.written
    }

    /// Complete, in order, and with no more repeats than that.
    pub fn check(&self, most_duplicates: usize) {
        assert!(self.complete() && self.out_of_order.is_empty(), "{self:#?}");
        assert!(
            self.duplicates <= most_duplicates,
            "{} duplicates of {most_duplicates}: {self:#?}",
            self.duplicates
        );
    }
}
