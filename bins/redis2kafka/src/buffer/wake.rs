//! What this process has stored, for the part of it that sends: so nothing waits for the next look.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::keys::Queue;

/// Queues that have got something. Clones are the same.
#[derive(Clone)]
pub(crate) struct Wake(Arc<Inner>);

struct Inner {
    process: String,
    queues: Mutex<HashSet<Queue>>,
    notify: Notify,
}

impl Default for Wake {
    fn default() -> Self {
        let random = RandomState::new().build_hasher().finish();
        let process = format!("{}-{:08x}", std::process::id(), random >> 32);
        Self(Arc::new(Inner { process, queues: Mutex::default(), notify: Notify::new() }))
    }
}

impl Wake {
    /// What tells this process from all others that store.
    pub(super) fn process(&self) -> &str {
        &self.0.process
    }

    /// A queue has got something.
    pub(crate) fn stored(&self, queue: &Queue) {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains(queue) {
            queues.insert(queue.clone());
        }
        drop(queues);
        self.0.notify.notify_one();
    }

    /// Returns once there are any, and takes them. May be dropped at any time.
    pub(super) async fn taken(&self) -> HashSet<Queue> {
        loop {
            let queues = std::mem::take(&mut *self.0.queues.lock().unwrap_or_else(PoisonError::into_inner));
            if !queues.is_empty() {
                return queues;
            }
            self.0.notify.notified().await;
        }
    }
}
