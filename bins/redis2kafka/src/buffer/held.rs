//! Which topics take nothing, as health tells it: once for each topic, however many of its queues meet it.

use std::collections::{HashMap, HashSet};

use sync_core::bridge::Fate;
use sync_core::telemetry::health::{Health, Severity};

use super::keys::Queue;

/// Topics of which queues are held.
pub(super) struct Held {
    health: Health,
    topics: HashMap<String, HashSet<Queue>>,
    /// Why something came back last.
    pub(super) last_reason: Option<String>,
}

impl Held {
    pub(super) fn new(health: Health) -> Self {
        Self { health, topics: HashMap::new(), last_reason: None }
    }

    /// Says that a topic takes nothing, once.
    pub(super) fn hold(&mut self, queue: &Queue, fate: &Fate) {
        let (reason, severity) = match fate {
            Fate::Held(reason) => (reason, Severity::Error),
            Fate::Busy(reason) => (reason, Severity::Warn),
            // That Kafka is away is told by the keeper.
            _ => return,
        };
        self.last_reason = Some(reason.clone());
        self.topics.entry(queue.topic().to_owned()).or_default().insert(queue.clone());
        self.health.down(&part(queue.topic()), reason, severity);
    }

    pub(super) fn holds(&self, queue: &Queue) -> bool {
        self.topics.get(queue.topic()).is_some_and(|queues| queues.contains(queue))
    }

    /// And that it takes something again, once nothing of it is held.
    pub(super) fn release(&mut self, queue: &Queue) {
        if let Some(queues) = self.topics.get_mut(queue.topic()) {
            queues.remove(queue);
            self.tell();
        }
    }

    /// Others are not this process's to send any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&Queue) -> bool) {
        for queues in self.topics.values_mut() {
            queues.retain(&keep);
        }
        self.tell();
    }

    fn tell(&mut self) {
        let health = &self.health;
        self.topics.retain(|topic, queues| {
            if queues.is_empty() {
                health.up(&part(topic));
                health.forget(&part(topic));
            }
            !queues.is_empty()
        });
    }
}

/// The part of the process's health that a topic is.
fn part(topic: &str) -> String {
    format!("topic {topic} (what waits for it in the buffer)")
}
