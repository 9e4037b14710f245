//! Until when this process may take it that what it owns is still its own. It narrows what is delivered twice, and
//! nothing more: that nobody else reads is seen to in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shared by the lanes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<AtomicU64>);

impl Lease {
    /// Of a process that is alone.
    pub(crate) fn for_ever() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Not yet, or no longer.
    pub(crate) fn none() -> Self {
        Self(Arc::default())
    }

    /// Good until this moment of [`now`].
    pub(crate) fn extend_to(&self, until: Duration) {
        self.0.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn holds(&self) -> bool {
        self.remaining().is_none_or(|remaining| !remaining.is_zero())
    }

    /// `None` is for ever.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = self.0.load(Ordering::Relaxed);
        (until != u64::MAX).then(|| Duration::from_millis(until).saturating_sub(now()))
    }
}

/// Since the machine started, the time in which it slept or the process stood still included: a lease runs out in that
/// time too.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_until_its_time() {
        assert!(Lease::for_ever().holds());
        assert_eq!(Lease::for_ever().remaining(), None);
        let lease = Lease::none();
        assert!(!lease.holds());
        assert_eq!(lease.remaining(), Some(Duration::ZERO));
        lease.extend_to(now() + Duration::from_secs(60));
        assert!(lease.holds());
        let remaining = lease.remaining().expect("it ends");
        assert!(remaining > Duration::from_secs(50) && remaining <= Duration::from_secs(60), "{remaining:?}");
        lease.extend_to(now());
        assert!(!lease.holds());
        lease.extend_to(now() + Duration::from_secs(60));
        lease.end();
        assert!(!lease.holds());
    }
}
