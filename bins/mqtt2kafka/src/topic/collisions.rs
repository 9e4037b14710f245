//! Topics that land on one another. It owns what is remembered to tell each such case once, which is bounded: what is long
//! ago may be told again.

use std::fmt;
use std::sync::Arc;

use crate::recent::Recent;

/// Two topics that cannot be told apart by the Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Collision {
    /// Two MQTT topics are mapped to one Kafka topic; records are told apart by their key and headers.
    Shared { kafka: Arc<str>, first: Box<str>, second: Box<str> },
    /// Kafka refuses to create one beside the other, since `.` and `_` are one in the names of its metrics.
    Alike { first: Arc<str>, second: Arc<str> },
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { kafka, first, second } => write!(
                f,
                "the MQTT topics {first:?} and {second:?} both go to the Kafka topic {kafka}, where their records are told apart by key and headers"
            ),
            Self::Alike { first, second } => {
                write!(
                    f,
                    "the Kafka topics {first} and {second} differ in '.' and '_' only: Kafka refuses to create the second"
                )
            }
        }
    }
}

/// The Kafka topics there were of late.
#[derive(Debug)]
pub(super) struct Collisions {
    /// By their names with `_` for each `.`.
    seen: Recent<Seen>,
}

#[derive(Debug)]
struct Seen {
    kafka: Arc<str>,
    /// The first MQTT topic that went there.
    mqtt: Box<str>,
    told_shared: bool,
    told_alike: bool,
}

impl Collisions {
    pub(super) fn new(limit: usize) -> Self {
        Self { seen: Recent::new(limit) }
    }

    /// What an MQTT topic, which goes to this Kafka topic, collides with, if that was not told. `is_meant`: others are meant
    /// to go there too.
    pub(super) fn look(&mut self, mqtt: &str, kafka: &Arc<str>, is_meant: bool) -> Option<Collision> {
        let metric = kafka.replace('.', "_");
        let Some(seen) = self.seen.get(&metric) else {
            let seen =
                Seen { kafka: kafka.clone(), mqtt: mqtt.into(), told_shared: false, told_alike: false };
            self.seen.insert(&metric, seen, 1);
            return None;
        };
        if seen.kafka != *kafka {
            let is_new = !std::mem::replace(&mut seen.told_alike, true);
            return is_new.then(|| Collision::Alike { first: seen.kafka.clone(), second: kafka.clone() });
        }
        if is_meant || *seen.mqtt == *mqtt || std::mem::replace(&mut seen.told_shared, true) {
            return None;
        }
        Some(Collision::Shared { kafka: kafka.clone(), first: seen.mqtt.clone(), second: mqtt.into() })
    }
}
