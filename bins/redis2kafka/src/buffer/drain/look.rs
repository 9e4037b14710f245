//! Looking for queues that have something, now and then; and at how the buffer stands, where this process has shard 0.

use futures_util::FutureExt as _;
use sync_core::redis::Fault;
use sync_core::telemetry::health::Severity;
use tokio::time::Instant;

use super::Drain;
use crate::buffer::books::{Seen, Standing};
use crate::buffer::direct::now;

/// The part of the process's health that looking for queues is.
const LOOKING: &str = "the buffer's queues";

impl Drain {
    /// Begins to look for queues.
    pub(super) fn look(&mut self) {
        self.next_look = Instant::now() + self.interval;
        let (books, mine, intake) = (self.books.clone(), self.mine.clone(), self.intake.clone());
        let looking = async move {
            let begun = Instant::now();
            let seen = books.look(|queue| mine.holds(queue)).await;
            if let Some(memory) = books.memory().await {
                intake.looked(&memory, begun);
            }
            Ok((seen?, books.agree(now()).await?))
        };
        self.looking = Some(looking.boxed());
    }

    pub(super) fn has_looked(&mut self, seen: Result<(Seen, Standing), Fault>) {
        let (Seen { queues, oldest }, standing) = match seen {
            Ok(seen) => seen,
            Err(fault) => {
                let reason = format!("cannot look for what waits there: {fault}");
                self.health.down(LOOKING, &reason, Severity::Error);
                self.next_look = Instant::now() + self.look_backoff.next_delay().min(self.interval);
                self.looked = Some(Err(reason));
                return;
            }
        };
        if matches!(self.looked.replace(Ok(())), Some(Err(_))) {
            self.look_backoff.reset();
            self.health.up(LOOKING);
            self.health.forget(LOOKING);
        }
        self.numbers.waits(standing.unsynced, oldest);
        if self.mine.shards.contains(&0) && self.mine.topic.is_none() {
            let gone = self.vigil.sees(standing);
            if let Some(messages) = gone {
                self.losses.everything(messages);
            }
        }
        for (queue, head) in queues {
            if !self.mine.holds(&queue) {
                continue;
            }
            // Something was put back below what is under way: it is read from there, when that has landed.
            if let Some(state) = self.queues.get_mut(&queue)
                && let (Some(head), Some(first)) = (head, state.firsts.front())
                && head < *first
            {
                state.back = true;
            }
            self.has_something(queue);
        }
    }
}
