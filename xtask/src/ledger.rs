//! What was written against what arrived, per stream: the judge of the demo and the bench. At least once and in
//! order means: without repeats, the arrivals are exactly what was written.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// One account per stream name.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: BTreeMap<String, Account>,
}

/// Entry IDs in the order of writing, and of arriving, repeats included.
#[derive(Debug, Default)]
pub(crate) struct Account {
    written: Vec<String>,
    arrived: Vec<String>,
}

/// What an account comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) written: usize,
    /// Different entries that arrived and had been written.
    pub(crate) delivered: usize,
    pub(crate) duplicates: usize,
    /// Arrived and never written.
    pub(crate) unknown: usize,
    /// The first entry that arrived after a later one.
    pub(crate) overtaken: Option<String>,
}

impl Ledger {
    pub(crate) fn wrote(&mut self, stream: &str, id: String) {
        self.account(stream).written.push(id);
    }

    pub(crate) fn arrived(&mut self, stream: &str, id: String) {
        self.account(stream).arrived.push(id);
    }

    fn account(&mut self, stream: &str) -> &mut Account {
        if !self.streams.contains_key(stream) {
            self.streams.insert(stream.to_owned(), Account::default());
        }
        self.streams.get_mut(stream).expect("just made")
    }

    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&str, Verdict)> {
        self.streams.iter().map(|(stream, account)| (stream.as_str(), account.verdict()))
    }

    pub(crate) fn written(&self) -> usize {
        self.streams.values().map(|account| account.written.len()).sum()
    }

    /// Arrivals, repeats included: cheap, for a running count.
    pub(crate) fn arrivals(&self) -> usize {
        self.streams.values().map(|account| account.arrived.len()).sum()
    }

    /// Whether everything written arrived, once or more. Asked seldom: it looks at every entry.
    pub(crate) fn is_complete(&self) -> bool {
        self.streams.values().all(|account| {
            let verdict = account.verdict();
            verdict.delivered == verdict.written
        })
    }
}

impl Account {
    fn verdict(&self) -> Verdict {
        let position: std::collections::HashMap<&str, usize> =
            self.written.iter().enumerate().map(|(position, id)| (id.as_str(), position)).collect();
        let mut verdict = Verdict { written: self.written.len(), ..Verdict::default() };
        let mut seen = HashSet::new();
        let mut furthest = 0;
        for id in &self.arrived {
            let Some(&position) = position.get(id.as_str()) else {
                verdict.unknown += 1;
                continue;
            };
            if !seen.insert(position) {
                verdict.duplicates += 1;
                continue;
            }
            verdict.delivered += 1;
            if position < furthest && verdict.overtaken.is_none() {
                verdict.overtaken = Some(id.clone());
            }
            furthest = furthest.max(position);
        }
        verdict
    }
}

impl Verdict {
    /// All there, in order, and nothing that nobody wrote. Repeats are within the contract.
    pub(crate) fn is_ok(&self) -> bool {
        self.delivered == self.written && self.unknown == 0 && self.overtaken.is_none()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.written - self.delivered;
        match &self.overtaken {
            Some(id) => write!(f, "order BROKEN at {id}")?,
            None => write!(f, "in order")?,
        }
        for (number, what) in
            [(missing, "MISSING"), (self.unknown, "UNKNOWN"), (self.duplicates, "duplicates")]
        {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, arrived: &str, expected: &str, ok: bool) {
        let ids = |ids: &str| ids.split_whitespace().map(str::to_owned).collect();
        let verdict = Account { written: ids(written), arrived: ids(arrived) }.verdict();
        assert_eq!(verdict.to_string(), expected, "{written} -> {arrived}");
        assert_eq!(verdict.is_ok(), ok, "{written} -> {arrived}");
    }

    #[test]
    fn judges_one_stream() {
        check("", "", "in order", true);
        check("1 2 3", "1 2 3", "in order", true);
        // A redelivery begins earlier again; only first arrivals count.
        check("1 2 3", "1 2 1 2 3", "in order, 2 duplicates", true);
        check("1 2 3", "1 3", "in order, 1 MISSING", false);
        check("1 2 3", "1 3 2", "order BROKEN at 2", false);
        check("1 2 3", "3 2 1 1", "order BROKEN at 2, 1 duplicates", false);
        check("1 2", "1 2 9", "in order, 1 UNKNOWN", false);
        check("1 2", "", "in order, 2 MISSING", false);
    }

    #[test]
    fn keeps_streams_apart() {
        let mut ledger = Ledger::default();
        ledger.wrote("a", "1".into());
        ledger.wrote("db1:a", "1".into());
        ledger.arrived("a", "1".into());
        assert!(!ledger.is_complete());
        ledger.arrived("db1:a", "1".into());
        assert!(ledger.is_complete());
        assert_eq!((ledger.written(), ledger.arrivals()), (2, 2));
        ledger.arrived("b", "1".into());
        let judged: Vec<_> =
            ledger.verdicts().map(|(stream, verdict)| (stream.to_owned(), verdict.is_ok())).collect();
        assert_eq!(judged, [("a".to_owned(), true), ("b".to_owned(), false), ("db1:a".to_owned(), true)]);
    }
}
