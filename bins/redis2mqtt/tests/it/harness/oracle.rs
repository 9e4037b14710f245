//! The ledger of what was written, and what every test asks of the destination: all of it, in order of first
//! arrivals, with the repeats counted.

use std::collections::{BTreeMap, HashMap, HashSet};

/// `ms-seq` as two numbers: they compare as Redis compares them.
pub(crate) type Id = (u64, u64);

/// One message at the destination: the stream's name and the entry's ID, from the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) stream: String,
    pub(crate) id: Id,
}

impl Arrival {
    /// From a payload as the bridge writes it.
    pub(crate) fn read(payload: &[u8]) -> Self {
        let payload: serde_json::Value = serde_json::from_slice(payload).expect("the payload is JSON");
        let text = |name: &str| payload[name].as_str().expect("a text").to_owned();
        Self { stream: text("stream"), id: id(&text("id")) }
    }
}

pub(crate) fn id(text: &str) -> Id {
    let (ms, seq) = text.split_once('-').expect("ms-seq");
    (ms.parse().expect("milliseconds"), seq.parse().expect("a sequence number"))
}

/// What was written: per stream, the IDs that Redis has confirmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(BTreeMap<String, Vec<Id>>);

/// What the destination has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) written: usize,
    /// Of those written.
    pub(crate) arrived: usize,
    pub(crate) duplicates: usize,
    /// A first arrival below an earlier first arrival of its stream.
    pub(crate) out_of_order: Vec<(String, Id, Id)>,
    /// The first few.
    pub(crate) missing: Vec<(String, Id)>,
}

impl Ledger {
    pub(crate) fn wrote(&mut self, stream: &str, entry: &str) {
        self.0.entry(stream.to_owned()).or_default().push(id(entry));
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (stream, mut ids) in other.0 {
            self.0.entry(stream).or_default().append(&mut ids);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Compares. Streams that are not in the ledger do not count.
    pub(crate) fn tally(&self, arrivals: &[Arrival]) -> Tally {
        let mut tally = Tally { written: self.len(), ..Tally::default() };
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
    pub(crate) fn complete(&self) -> bool {
        self.arrived == self.written
    }

    /// Complete, in order, and with no more repeats than that.
    pub(crate) fn check(&self, most_duplicates: usize) {
        assert!(self.complete() && self.out_of_order.is_empty(), "{self:#?}");
        assert!(
            self.duplicates <= most_duplicates,
            "{} duplicates of {most_duplicates}: {self:#?}",
            self.duplicates
        );
    }
}
