//! What this process owns, as the rest of it is told: one value, which is replaced as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::record::StreamName;
use crate::redis::ownership::{Bucket, OF_DATABASES, bucket_of, database_of};

/// What this process owns, for the dealer and for the work on whole databases.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    /// Grows with every change.
    pub(crate) revision: u64,
    /// The name that it reads under; `None` while it is no member.
    pub(crate) member: Option<Arc<str>>,
    /// `None` is everything.
    buckets: Option<BTreeSet<Bucket>>,
}

impl Portion {
    /// Of a process that is alone.
    pub(crate) fn all() -> Self {
        Self { revision: 0, member: None, buckets: None }
    }

    /// Of one that is no member.
    pub(crate) fn nothing(revision: u64) -> Self {
        Self { revision, member: None, buckets: Some(BTreeSet::new()) }
    }

    /// Of this member.
    pub(crate) fn of(member: Arc<str>, revision: u64, buckets: BTreeSet<Bucket>) -> Self {
        Self { revision, member: Some(member), buckets: Some(buckets) }
    }

    /// Whether this process is alone.
    pub(crate) fn is_all(&self) -> bool {
        self.buckets.is_none()
    }

    pub(crate) fn holds(&self, stream: &StreamName) -> bool {
        self.buckets.as_ref().is_none_or(|buckets| buckets.contains(&bucket_of(stream)))
    }

    /// The whole databases in it; `None` is all.
    pub(crate) fn databases(&self) -> Option<BTreeSet<u16>> {
        let buckets = self.buckets.as_ref()?;
        Some(buckets.range(OF_DATABASES).filter_map(|bucket| database_of(*bucket)).collect())
    }
}
