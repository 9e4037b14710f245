//! What is counted, by topic filter.

use std::sync::Arc;

use sync_core::telemetry::metrics::{Counter, Gauge, Metrics};

use crate::filter::Filter;
use crate::sparkplug::Births;

/// Label of messages that no filter of the settings asks for: the session has subscriptions that are older.
const NO_FILTER: &str = "none";

/// The numbers of one filter.
#[derive(Debug)]
pub(crate) struct FilterCounts {
    pub(crate) received: Counter,
    /// Kafka has confirmed them.
    pub(crate) delivered: Counter,
    /// The dead-letter topic has them.
    pub(crate) refused: Counter,
    unacknowledged: Gauge,
}

/// Those of all filters, in the order in which the settings have them, and of no filter.
#[derive(Debug)]
pub(crate) struct Counts {
    filters: Vec<Filter>,
    counts: Vec<Arc<FilterCounts>>,
}

impl Counts {
    pub(crate) fn new(filters: Vec<Filter>, metrics: &Metrics) -> Self {
        let labels = filters.iter().map(Filter::as_str).chain([NO_FILTER]);
        let counts = labels.map(|filter| {
            let counter = |name, help| metrics.labelled_counter(name, help, "filter", filter);
            Arc::new(FilterCounts {
                received: counter("messages_received", "Messages received, repeated ones included"),
                delivered: counter("messages_delivered", "Messages that Kafka confirmed"),
                refused: counter("messages_refused", "Messages that went to the dead-letter topic"),
                unacknowledged: metrics.labelled_gauge(
                    "messages_unacknowledged",
                    "Messages received on this connection and not acknowledged yet",
                    "filter",
                    filter,
                ),
            })
        });
        let counts = counts.collect();
        Self { filters, counts }
    }

    /// The place of the first filter that matches a topic, and its numbers; the last place is that of no filter.
    pub(crate) fn of(&self, topic: &str) -> (usize, &Arc<FilterCounts>) {
        let place =
            self.filters.iter().position(|filter| filter.matches(topic)).unwrap_or(self.filters.len());
        (place, &self.counts[place])
    }

    /// Whether that place is of no filter.
    pub(crate) fn is_asked_for(&self, place: usize) -> bool {
        place < self.filters.len()
    }

    /// How many are unacknowledged, by place.
    pub(crate) fn unacknowledged(&self, by_place: &[u64]) {
        for (place, counts) in self.counts.iter().enumerate() {
            let number = by_place.get(place).copied().unwrap_or(0);
            counts.unacknowledged.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
}

/// Sparkplug's aliases: what is told of them.
#[derive(Debug)]
pub(crate) struct Aliases {
    unknown: Counter,
    forgotten: Counter,
}

impl Aliases {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let unknown = "Sparkplug metrics with an alias that no birth was seen for";
        let forgotten = "Sparkplug births that were forgotten for want of room";
        Self {
            unknown: metrics.counter("sparkplug_unknown_aliases", unknown),
            forgotten: metrics.counter("sparkplug_forgotten_births", forgotten),
        }
    }

    pub(crate) fn count(&self, births: &Births) {
        for (counter, number) in [(&self.unknown, births.missing()), (&self.forgotten, births.forgotten())] {
            counter.inc_by(number.saturating_sub(counter.get()));
        }
    }
}
