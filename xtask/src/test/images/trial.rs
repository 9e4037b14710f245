//! What a bridge's compose file brings along, and where its entries are to be found afterwards: one entry for each
//! bridge. A bridge of the catalog that has none is not tested in containers, and that is an error.

use anyhow::{Result, ensure};

use crate::containers::catalog::{self, Bridge};

/// A bridge under test.
#[derive(Debug)]
pub(super) struct Trial {
    name: &'static str,
    /// The consumer group that its example settings name.
    pub(super) group: &'static str,
    /// The setting of its databases, as its example spells it.
    pub(super) databases: &'static str,
    pub(super) source: Server,
    /// What entries go through on their way if its settings name one; else they go directly.
    pub(super) buffer: Option<Server>,
    pub(super) destination: Server,
    pub(super) kind: Kind,
}

/// A service of the compose file that the bridge can do without, where another one is named in its settings.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) service: &'static str,
    /// The setting that names it.
    host: &'static str,
    /// Inside of its container: where other containers find it.
    pub(super) port: u16,
    /// Inside of its container: what is published on this machine.
    pub(super) published: u16,
    /// The setting of its password.
    pub(super) password: &'static str,
}

/// How what arrives is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Topics,
    Copies,
    Rows,
    Records,
}

const TRIALS: [Trial; 4] = [
    Trial {
        name: "redis2mqtt",
        group: "mqtt-group",
        databases: "REDIS_DBS_TO_SEARCH",
        source: Server::redis("redis-cache", "REDIS_HOST", "REDIS_PASSWORD"),
        buffer: None,
        destination: Server {
            service: "mqtt-broker",
            host: "MQTT_BROKER_HOST",
            port: 1883,
            published: 1883,
            password: "MQTT_PASSWORD",
        },
        kind: Kind::Topics,
    },
    Trial {
        name: "redis2redis",
        group: "redis-sync-group",
        databases: "REDIS_DB_SEARCH_RANGE",
        source: Server::redis("source-redis", "SOURCE_REDIS_HOST", "SOURCE_REDIS_PASSWORD"),
        buffer: None,
        destination: Server::redis("target-redis", "TARGET_REDIS_HOST", "TARGET_REDIS_PASSWORD"),
        kind: Kind::Copies,
    },
    Trial {
        name: "redis2pg",
        group: "redis-pg-sync",
        databases: "REDIS_DB_SEARCH_RANGE",
        source: Server::redis("redis-cache", "REDIS_HOST", "REDIS_PASSWORD"),
        buffer: None,
        destination: Server {
            service: "postgres",
            host: "POSTGRES_HOST",
            port: 5432,
            published: 5432,
            password: "POSTGRES_PASSWORD",
        },
        kind: Kind::Rows,
    },
    Trial {
        name: "redis2kafka",
        group: "redis-kafka-sync",
        databases: "SOURCE_REDIS_DB_SEARCH_RANGE",
        source: Server::redis("source-redis", "SOURCE_REDIS_HOST", "SOURCE_REDIS_PASSWORD"),
        buffer: Some(Server::redis("redis-cache", "TARGET_REDIS_HOST", "TARGET_REDIS_PASSWORD")),
        destination: Server {
            service: "kafka",
            host: "KAFKA_BOOTSTRAP_SERVERS",
            port: 9092,
            published: 9094,
            password: "KAFKA_SASL_PASSWORD",
        },
        kind: Kind::Records,
    },
];

/// Bridges whose entries nobody follows here yet: mqtt2kafka's source is no Redis. Their images are built and asked.
const WITHOUT_TRIAL: [&str; 1] = ["mqtt2kafka"];

impl Server {
    const fn redis(service: &'static str, host: &'static str, password: &'static str) -> Self {
        Self { service, host, port: 6379, published: 6379, password }
    }

    /// The settings that say where it is.
    pub(super) fn address(&self, host: &str) -> Vec<(String, String)> {
        let port = self.port.to_string();
        match self.host.strip_suffix("_HOST") {
            Some(server) => {
                vec![(self.host.to_owned(), host.to_owned()), (format!("{server}_PORT"), port)]
            }
            None => vec![(self.host.to_owned(), format!("{host}:{port}"))],
        }
    }

    /// The setting that says that there is none.
    pub(super) fn nowhere(&self) -> (String, String) {
        (self.host.to_owned(), String::new())
    }
}

impl Kind {
    /// What the destination is called.
    pub(super) fn server(self) -> &'static str {
        match self {
            Self::Topics => "broker",
            Self::Copies => "target",
            Self::Rows => "postgres",
            Self::Records => "kafka",
        }
    }
}

impl Trial {
    /// Those whose bridge is part of this workspace.
    pub(super) fn existing() -> impl Iterator<Item = &'static Self> {
        TRIALS.iter().filter(|trial| trial.bridge().exists())
    }

    /// An error names the bridges that nobody has written a trial for, and nobody knows of.
    pub(super) fn ensure_all() -> Result<()> {
        let is_tried = |name: &str| TRIALS.iter().any(|trial| trial.name == name);
        let untried = catalog::existing().map(|bridge| bridge.name).filter(|name| !is_tried(name));
        let (known, unknown): (Vec<_>, Vec<_>) = untried.partition(|name| WITHOUT_TRIAL.contains(name));
        ensure!(unknown.is_empty(), "no trial in xtask/src/test/images/trial.rs: {}", unknown.join(", "));
        if !known.is_empty() {
            println!("built, and not tried with servers: {}", known.join(", "));
        }
        Ok(())
    }

    /// All that it can have beside it.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        [&self.source].into_iter().chain(&self.buffer).chain([&self.destination])
    }

    pub(super) fn bridge(&self) -> &'static Bridge {
        catalog::ALL
            .iter()
            .find(|bridge| bridge.name == self.name)
            .expect("a trial is of a bridge in the catalog")
    }
}
