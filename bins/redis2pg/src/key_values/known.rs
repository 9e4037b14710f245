//! What is known of each key of one database: how its value looked when its row was last written. Pure.
//!
//! A key takes 16 bytes, whatever its length, of a table that doubles; above [`MOST`] keys nothing more is remembered, and
//! what is not remembered is read and compared in PostgreSQL at each pass.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Some 60 MB, just before the table would double.
const MOST: usize = 3_600_000;
/// A large value that looks the same is read again after so many times as long as reading it took.
const PATIENCE: u32 = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    /// Digest of the value, and in its lowest bit whether the key was seen in this pass or in the one before.
    small: HashMap<u64, u64>,
    big: HashMap<u64, Big>,
    /// Flips with each pass over all keys.
    parity: u64,
    /// A pass over all keys has begun and not ended.
    under_way: bool,
}

#[derive(Clone, Copy, Debug)]
struct Big {
    bytes: u64,
    digest: u64,
    due: Instant,
    parity: u64,
}

impl Known {
    /// A pass over all keys begins.
    pub(super) fn begin(&mut self) {
        self.parity ^= 1;
        if std::mem::replace(&mut self.under_way, true) {
            // The one before was not finished: what it did not come to bears the mark of this one.
            let unseen = self.parity ^ 1;
            self.small.values_mut().for_each(|known| *known = *known & !1 | unseen);
            self.big.values_mut().for_each(|known| known.parity = unseen);
        }
    }

    /// The key is there; whether its value may be another than when it was written.
    pub(super) fn is_new(&mut self, key: &[u8], digest: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        let Some(known) = self.small.get_mut(&hash) else {
            self.big.remove(&hash);
            return true;
        };
        let same = *known | 1 == digest | 1;
        *known = *known & !1 | self.parity;
        !same
    }

    /// The same for a large value, of which only the size is known.
    pub(super) fn is_due(&mut self, key: &[u8], bytes: u64, now: Instant) -> bool {
        let hash = self.hasher.hash_one(key);
        let Some(known) = self.big.get_mut(&hash) else { return true };
        known.parity = self.parity;
        known.bytes != bytes || known.due <= now
    }

    /// Its row is written as it looked.
    pub(super) fn written(&mut self, key: &[u8], digest: u64) {
        let hash = self.hasher.hash_one(key);
        if self.small.len() < MOST || self.small.contains_key(&hash) {
            self.small.insert(hash, digest & !1 | self.parity);
        }
    }

    /// A large value, as it was read.
    pub(super) fn digest_of(&self, json: &[u8]) -> u64 {
        self.hasher.hash_one(json)
    }

    /// Whether a large value is another one than when its row was last written.
    pub(super) fn big_is_new(&self, key: &[u8], digest: u64) -> bool {
        self.big.get(&self.hasher.hash_one(key)).is_none_or(|known| known.digest != digest)
    }

    /// Its row is as it was read; `bytes` is its size before that, and `took` how long reading it took.
    pub(super) fn big_written(&mut self, key: &[u8], bytes: u64, digest: u64, took: Duration) {
        let hash = self.hasher.hash_one(key);
        let due = Instant::now() + took * PATIENCE;
        self.small.remove(&hash);
        self.big.insert(hash, Big { bytes, digest, due, parity: self.parity });
    }

    /// It is not known any more how its row looks.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        self.small.remove(&hash);
        self.big.remove(&hash);
    }

    /// Whether the key was seen in this pass, as far as is known.
    pub(super) fn was_seen(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        self.small.get(&hash).is_some_and(|known| known & 1 == self.parity)
            || self.big.get(&hash).is_some_and(|known| known.parity == self.parity)
    }

    /// The pass has seen all keys: forgets the others, and how many those were.
    pub(super) fn end(&mut self) -> usize {
        self.under_way = false;
        let before = self.len();
        let parity = self.parity;
        self.small.retain(|_, known| *known & 1 == parity);
        self.big.retain(|_, known| known.parity == parity);
        before - self.len()
    }

    pub(super) fn len(&self) -> usize {
        self.small.len() + self.big.len()
    }

    /// Not all keys are remembered.
    pub(super) fn is_full(&self) -> bool {
        self.small.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_new_until_it_was_written_and_when_it_looks_otherwise() {
        let mut known = Known::default();
        known.begin();
        assert!(known.is_new(b"a", 8));
        assert!(known.is_new(b"a", 8));
        known.written(b"a", 8);
        assert!(!known.is_new(b"a", 8));
        assert!(known.is_new(b"a", 16));
        known.written(b"a", 16);
        known.begin();
        assert!(!known.is_new(b"a", 16));
        known.forget(b"a");
        assert!(known.is_new(b"a", 16));
    }

    #[test]
    fn what_a_pass_did_not_see_is_forgotten() {
        let mut known = Known::default();
        known.begin();
        known.written(b"a", 8);
        known.written(b"b", 8);
        known.big_written(b"big", 1 << 20, 7, Duration::ZERO);
        assert_eq!(known.end(), 0);
        for _ in 0..3 {
            known.begin();
            assert!(!known.was_seen(b"a"));
            assert!(!known.is_new(b"a", 8));
            assert!(known.was_seen(b"a") && !known.was_seen(b"b"));
            known.end();
            assert_eq!(known.len(), 1);
        }
        assert!(known.is_new(b"b", 8));
    }

    #[test]
    fn a_pass_that_was_not_finished_has_seen_nothing() {
        let mut known = Known::default();
        known.begin();
        known.written(b"a", 8);
        known.written(b"b", 8);
        known.end();
        known.begin();
        known.is_new(b"a", 8);
        known.begin();
        assert!(!known.was_seen(b"a") && !known.was_seen(b"b"));
        known.is_new(b"b", 8);
        assert_eq!(known.end(), 1);
        assert!(known.was_seen(b"b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_value_is_read_when_its_size_changes_and_now_and_then() {
        let mut known = Known::default();
        known.begin();
        assert!(known.is_due(b"big", 9, Instant::now()));
        let digest = known.digest_of(b"[1]");
        assert!(known.big_is_new(b"big", digest));
        known.big_written(b"big", 9, digest, Duration::from_secs(2));
        assert!(!known.is_due(b"big", 9, Instant::now()));
        assert!(known.is_due(b"big", 10, Instant::now()));
        tokio::time::advance(Duration::from_secs(39)).await;
        assert!(!known.is_due(b"big", 9, Instant::now()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(known.is_due(b"big", 9, Instant::now()));
        assert!(!known.big_is_new(b"big", digest));
        assert!(known.big_is_new(b"big", known.digest_of(b"[2]")));
    }
}
