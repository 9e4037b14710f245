//! Where the messages of an MQTT topic go. Looked up once for each topic, and remembered for those in use.

use std::sync::Arc;

use bytes::Bytes;

use crate::counts::{Counts, FilterCounts};
use crate::recent::Recent;
use crate::topic::Topics;

/// What is remembered may occupy, about, in bytes.
const REMEMBERED: usize = 16 << 20;
/// A route besides its texts.
const ROUTE: usize = 300;

/// See the module.
#[derive(Debug)]
pub(crate) struct Route {
    /// The MQTT topic, as it came.
    pub(crate) bytes: Bytes,
    /// The same; what is not UTF-8 in it is replaced.
    pub(crate) topic: Box<str>,
    /// The Kafka topic, or why there is none.
    pub(crate) target: Result<Arc<str>, String>,
    pub(crate) key: Bytes,
    /// What tells the order that it belongs in from others: Kafka topic and key.
    pub(crate) line: Arc<str>,
    /// The same of its dead letters.
    pub(crate) letters: Arc<str>,
    /// The place of the filter that it came by.
    pub(crate) filter: u16,
    pub(crate) counts: Arc<FilterCounts>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Routes {
    topics: Topics,
    counts: Counts,
    known: Recent<Arc<Route>>,
    /// It was said that a message came that no filter asks for.
    told: bool,
}

impl Routes {
    pub(crate) fn new(topics: Topics, counts: Counts) -> Self {
        Self { topics, counts, known: Recent::new(REMEMBERED), told: false }
    }

    /// The route of a topic, as it came from the broker.
    pub(crate) fn of(&mut self, topic: &[u8]) -> Arc<Route> {
        let Ok(text) = std::str::from_utf8(topic) else {
            // MQTT forbids it, and who sent it may do so again.
            let text = String::from_utf8_lossy(topic);
            let (filter, counts) = self.counts.of(&text);
            let route = Route::new(&text, Err("the MQTT topic is not UTF-8".into()), filter, counts);
            return Arc::new(Route { bytes: Bytes::copy_from_slice(topic), ..route });
        };
        if let Some(route) = self.known.get(text) {
            return route.clone();
        }
        let route = Arc::new(self.look_up(text));
        self.known.insert(text, route.clone(), ROUTE + 6 * text.len());
        route
    }

    fn look_up(&mut self, topic: &str) -> Route {
        let (filter, counts) = self.counts.of(topic);
        if !self.counts.is_asked_for(filter) && !self.told {
            self.told = true;
            tracing::warn!(
                topic,
                "a message came that none of mqtt.topics asks for: the session still has a subscription of other settings. It \
                 goes to Kafka like all others; to be rid of it, unsubscribe with this client ID, or use another mqtt.client_id"
            );
        }
        let target = match self.topics.target(topic) {
            Ok(mapped) => {
                if let Some(collision) = mapped.collision {
                    tracing::warn!("{collision}");
                }
                Ok((mapped.topic, mapped.key))
            }
            Err(unmapped) => Err(unmapped.to_string()),
        };
        Route::new(topic, target, filter, counts)
    }

    /// How many messages wait for an acknowledgement, by place of the filter.
    pub(crate) fn count_unacknowledged(&self, by_filter: &[u64]) {
        self.counts.unacknowledged(by_filter);
    }
}

impl Route {
    fn new(
        topic: &str,
        target: Result<(Arc<str>, Bytes), String>,
        filter: usize,
        counts: &Arc<FilterCounts>,
    ) -> Self {
        let (target, key) = match target {
            Ok((target, key)) => (Ok(target), key),
            Err(reason) => (Err(reason), Bytes::new()),
        };
        // No topic of Kafka's has a space in its name.
        let line = match &target {
            Ok(target) => format!("{target} {}", String::from_utf8_lossy(&key)),
            Err(_) => String::new(),
        };
        Self {
            bytes: Bytes::copy_from_slice(topic.as_bytes()),
            topic: topic.into(),
            target,
            key,
            line: line.into(),
            letters: format!("dead letters {topic}").into(),
            filter: u16::try_from(filter).unwrap_or(u16::MAX),
            counts: counts.clone(),
        }
    }

    /// To this Kafka topic, for tests.
    #[cfg(test)]
    pub(crate) fn to(target: &str) -> Arc<Self> {
        let counts = Counts::new(Vec::new(), &sync_core::telemetry::metrics::Metrics::default());
        Arc::new(Self::new(
            "mqtt/topic",
            Ok((target.into(), Bytes::from_static(b"mqtt/topic"))),
            0,
            counts.of("").1,
        ))
    }
}
