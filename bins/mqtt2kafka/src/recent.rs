//! What was used of late, by text: a map that never grows beyond its limit. It owns the forgetting; what an entry is, and
//! what it weighs, is the user's.

use std::collections::HashMap;
use std::mem;

/// Two generations: what is used moves to the young one, and when that holds half of the limit, the old one is dropped
/// and the young one takes its place. So what was used within the last half is there, at the cost of a lookup.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<Box<str>, (V, usize)>,
    old: HashMap<Box<str>, (V, usize)>,
    /// Of all entries in `young`.
    weight: usize,
    limit: usize,
    forgotten: u64,
}

impl<V> Recent<V> {
    /// Holds entries up to this weight in all.
    pub(crate) fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, limit, forgotten: 0 }
    }

    /// Looks an entry up, which counts as a use of it.
    pub(crate) fn get(&mut self, key: &str) -> Option<&mut V> {
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, (value, weight)) = self.old.remove_entry(key)?;
            self.put(key, value, weight);
        }
        self.young.get_mut(key).map(|(value, _)| value)
    }

    /// Looks an entry up without using it.
    pub(crate) fn peek(&self, key: &str) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|(value, _)| value)
    }

    /// Puts an entry in place of the one that was there. One that weighs more than half of the limit is not kept.
    pub(crate) fn insert(&mut self, key: &str, value: V, weight: usize) {
        self.remove(key);
        if weight > self.limit / 2 {
            self.forgotten += 1;
        } else {
            self.put(key.into(), value, weight);
        }
    }

    fn remove(&mut self, key: &str) {
        self.old.remove(key);
        if let Some((_, weight)) = self.young.remove(key) {
            self.weight -= weight;
        }
    }

    fn put(&mut self, key: Box<str>, value: V, weight: usize) {
        if self.weight + weight > self.limit / 2 {
            let dropped = mem::replace(&mut self.old, mem::take(&mut self.young));
            self.forgotten += dropped.len() as u64;
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, (value, weight));
    }

    /// How many entries were forgotten so far for want of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many entries are there.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(10);
        recent.insert("kept", 0, 1);
        for number in 1..=1000 {
            recent.insert(&number.to_string(), number, 1);
            assert_eq!(recent.get("kept"), Some(&mut 0), "{number}");
            assert!(recent.len() <= 10, "{}", recent.len());
        }
        assert_eq!(recent.peek("1000"), Some(&1000));
        assert_eq!(recent.peek("1"), None);
        assert_eq!(recent.get("1"), None);
        assert_eq!(recent.forgotten() + recent.len() as u64, 1001);
    }

    #[test]
    fn weights_count_once_each() {
        let mut recent = Recent::new(100);
        for round in 0..1000 {
            recent.insert("same", round, 50);
        }
        assert_eq!((recent.len(), recent.forgotten()), (1, 0));
        recent.insert("other", 1, 20);
        assert_eq!((recent.len(), recent.forgotten()), (2, 0), "the first is old now");
        recent.insert("same", 2, 51);
        assert_eq!(
            (recent.peek("same"), recent.forgotten()),
            (None, 1),
            "too heavy, and what was there is not true"
        );
        assert_eq!(recent.peek("other"), Some(&1));
    }
}
