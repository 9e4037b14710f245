//! What is known of a queue, and which queues are this process's to send.

use std::collections::{BTreeSet, VecDeque};

use sync_core::record::EntryId;
use sync_core::retry::Backoff;
use tokio::time::Instant;

use super::BATCHES_OF_A_QUEUE;
use crate::buffer::keys::Queue;

/// Which queues it sends.
#[derive(Clone, Default)]
pub(super) struct Mine {
    /// Of these shards,
    pub(super) shards: BTreeSet<u16>,
    /// and, where it is for one, of this topic.
    pub(super) topic: Option<String>,
}

impl Mine {
    pub(super) fn holds(&self, queue: &Queue) -> bool {
        self.shards.contains(&queue.shard())
            && self.topic.as_deref().is_none_or(|topic| queue.topic() == topic)
    }
}

/// A queue that has something, or had a moment ago.
#[derive(Default)]
pub(super) struct State {
    /// Being read, or in batches that have not landed.
    pub(super) under_way: u8,
    /// What was handed over last of it, while that is under way.
    pub(super) after: Option<EntryId>,
    /// The first of each batch under way.
    pub(super) firsts: VecDeque<EntryId>,
    /// There may be something behind that.
    pub(super) more: bool,
    /// It stands among those that are ready.
    pub(super) ready: bool,
    /// Something came back, or was put back below what is under way.
    pub(super) back: bool,
    /// Why its last message was refused alone, if none got through since.
    pub(super) last_refusal: Option<String>,
    /// As long as nothing of it gets through.
    pub(super) backoff: Option<Backoff>,
    pub(super) not_before: Option<Instant>,
}

impl State {
    /// Whether there is something to read and nothing against it.
    pub(super) fn may_be_read(&self) -> bool {
        let open = !self.ready && !self.back && self.not_before.is_none();
        open && self.more && self.under_way < BATCHES_OF_A_QUEUE
    }

    /// One thing less is under way of it.
    pub(super) fn lands(&mut self) {
        self.under_way -= 1;
        if self.under_way == 0 {
            (self.after, self.back) = (None, false);
            self.firsts.clear();
        } else if self.firsts.len() > usize::from(self.under_way) {
            self.firsts.pop_front();
        }
    }
}
