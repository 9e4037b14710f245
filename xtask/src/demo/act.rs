//! What can be shown: each bridge, and redis2kafka once more, through its buffer. It owns how the demo sets each of them,
//! beside the example settings that we ship.

use anyhow::Result;

use super::plant;
use crate::bridge::{self, Kind, uns};
use crate::kafka::Kafka;
use crate::paths;
use crate::services::{Private, Service};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) kind: Kind,
    /// Through the buffer, which redis2kafka alone has.
    pub(super) buffered: bool,
}

/// Patterns of streams and their topics, in the order in which they count.
const TOPIC_MAP: [(&str, &str); 2] =
    [("device:*:stream", "device-data-topic"), ("*-stream", "default-stream-topic")];
/// That of all other streams.
const OTHER_TOPIC: &str = "default-sync-topic";
const PARTITIONS: u32 = 3;
/// Of the target Redis, whose database 0 has the copies.
const BUFFER_DB: &str = "1";

impl From<Kind> for Act {
    fn from(kind: Kind) -> Self {
        Self { kind, buffered: false }
    }
}

impl Act {
    pub(super) fn name(self) -> &'static str {
        if self.buffered { "kafka+buffer" } else { self.kind.name() }
    }

    /// What it moves entries from, through, and to.
    pub(super) fn services(self) -> impl Iterator<Item = Service> {
        [self.kind.source()]
            .into_iter()
            .chain(self.buffered.then_some(Service::Target))
            .chain([self.kind.destination()])
    }

    /// The settings that it shows at work.
    pub(super) fn settings(self) -> &'static str {
        match self.kind {
            Kind::Redis2mqtt => "deploy/examples/redis2mqtt.env.conf",
            Kind::Redis2redis => "deploy/examples/redis2redis.env.conf",
            Kind::Redis2pg => "deploy/examples/redis2pg.env.conf",
            Kind::Redis2kafka => "deploy/examples/redis2kafka.env.conf",
            Kind::Mqtt2kafka => "deploy/examples/mqtt2kafka",
        }
    }

    /// What it is started with.
    pub(super) fn arguments(self) -> [String; 3] {
        let option = match self.kind {
            Kind::Redis2mqtt | Kind::Redis2redis | Kind::Redis2pg | Kind::Redis2kafka => "--config-file",
            Kind::Mqtt2kafka => "--conf",
        };
        let settings = paths::root().join(self.settings());
        ["run".to_owned(), option.to_owned(), settings.display().to_string()]
    }

    /// The consumer group, or the session, as those settings name it, or as [`Self::variables`] do.
    pub(super) fn group(self) -> &'static str {
        match self.kind {
            Kind::Redis2mqtt => "mqtt-group",
            Kind::Redis2redis => "redis-sync-group",
            Kind::Redis2pg => "redis-pg-sync",
            Kind::Redis2kafka if self.buffered => "redis-kafka-buffered",
            Kind::Redis2kafka => "redis-kafka-sync",
            Kind::Mqtt2kafka => "mqtt2kafka",
        }
    }

    /// Replicas of one bridge share its streams; one bridge is enough to show it.
    pub(super) fn replicas(self) -> usize {
        match self.kind {
            Kind::Redis2mqtt | Kind::Redis2pg | Kind::Redis2kafka | Kind::Mqtt2kafka => 1,
            Kind::Redis2redis => 2,
        }
    }

    /// What goes before its settings file: addresses, and what keeps it apart from the other one of its kind.
    pub(super) fn variables(self, servers: &Private, admin: u16) -> Result<Vec<(String, String)>> {
        let mut variables = self.kind.addresses(servers, admin)?;
        if self.kind == Kind::Redis2kafka {
            let map = TOPIC_MAP.map(|(pattern, topic)| format!("\"{pattern}\": \"{}\"", self.topic(topic)));
            variables.push(("STREAM_TARGET_TOPIC_MAP".to_owned(), format!("{{{}}}", map.join(", "))));
            variables.push(("KAFKA_TOPIC".to_owned(), self.topic(OTHER_TOPIC)));
            // All bridges read the same streams here, and a group that is made later still wants their first entries.
            variables.push(("STREAM_CLEANUP".to_owned(), "ack".to_owned()));
        }
        if self.kind == Kind::Mqtt2kafka {
            variables.push(uns("mqtt__topics", plant::FILTERS));
            variables.push(uns("mqtt__ignored_attributes", plant::IGNORED));
        }
        if self.buffered {
            variables.push(("STREAM_CONSUMER_GROUP".to_owned(), self.group().to_owned()));
            variables.extend(bridge::at("TARGET_REDIS", servers.port(Service::Target, "plain")?));
            variables.push(("TARGET_REDIS_DB".to_owned(), BUFFER_DB.to_owned()));
        }
        Ok(variables)
    }

    /// Makes the topics: this broker makes none by itself.
    pub(super) fn topics(self, kafka: Kafka) -> Result<Vec<String>> {
        let topics: Vec<String> = if self.kind == Kind::Mqtt2kafka {
            plant::topics().map(|topic| topic.replace('/', "_")).collect()
        } else {
            let topics = TOPIC_MAP.map(|(_, topic)| topic).into_iter().chain([OTHER_TOPIC]);
            topics.map(|topic| self.topic(topic)).collect()
        };
        for topic in &topics {
            kafka.create(topic, PARTITIONS)?;
        }
        Ok(topics)
    }

    fn topic(self, topic: &str) -> String {
        if self.buffered { format!("buffered-{topic}") } else { topic.to_owned() }
    }
}
