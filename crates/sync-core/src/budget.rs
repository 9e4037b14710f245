//! The process-wide bound on what is read and not yet settled. It bounds memory, and nothing else: which
//! stream reads next is the lanes' business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that may be read and unsettled at once in this process.
pub(crate) const READ_BUDGET: usize = 32 << 20;

/// Shared by all lanes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// A budget of so many bytes, all free.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicUsize::new(0), freed: Notify::new() }))
    }

    /// Sets up to `wanted` bytes aside for a read of something that is expected to take at least `least`. Empty when
    /// less than that or than a quarter of `wanted` is left, unless nothing at all is in use: so one huge entry can pass
    /// alone.
    pub(crate) fn set_aside(&self, wanted: usize, least: usize) -> Option<Share> {
        let mut used = self.0.used.load(Ordering::Relaxed);
        loop {
            let bytes = self.0.limit.saturating_sub(used).min(wanted);
            if used > 0 && (bytes == 0 || bytes < least.max(wanted / 4)) {
                return None;
            }
            match self.0.used.compare_exchange(used, used + bytes, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Share { budget: self.clone(), bytes }),
                Err(now) => used = now,
            }
        }
    }

    /// A share of no bytes, to be resized.
    pub(crate) fn nothing(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Returns once something was given back after the call of this function.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// (bytes in use, bytes in all).
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.0.used.load(Ordering::Relaxed), self.0.limit)
    }
}

/// Bytes in use; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// How much it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was read turned out to be so large, whatever was set aside: the budget may be exceeded by it.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let used = &self.budget.0.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.budget.0.freed.notify_waiters();
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.set_aside(60, 0).expect("all free");
        assert!(budget.set_aside(60, 41).is_none(), "an entry of 41 does not fit");
        let second = budget.set_aside(60, 40).expect("40 are left");
        assert_eq!((first.bytes(), second.bytes()), (60, 40));
        assert!(budget.set_aside(60, 0).is_none());
        first.resize(10);
        assert_eq!(budget.set_aside(60, 0).expect("50 are left").bytes(), 50);
        drop((first, second));
        assert_eq!(budget.usage(), (0, 100));
    }

    #[test]
    fn one_huge_entry_passes_alone() {
        let budget = Budget::new(100);
        let mut share = budget.set_aside(1000, 1000).expect("nothing is in use");
        share.resize(700);
        assert_eq!(budget.usage(), (700, 100));
        assert!(budget.set_aside(1, 0).is_none());
        drop(share);
        assert_eq!(budget.usage(), (0, 100));
    }
}
