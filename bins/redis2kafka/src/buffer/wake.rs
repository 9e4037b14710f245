//! What this process has stored, for the part of it that sends: so nothing waits for the next look.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::keys::Queue;

/// Queues that have got something. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Wake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    queues: Mutex<HashSet<Queue>>,
    notify: Notify,
}

impl Wake {
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
