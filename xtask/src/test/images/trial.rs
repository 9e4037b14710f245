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
    pub(super) destination: Server,
    pub(super) kind: Kind,
}

/// A service of the compose file that the bridge can do without, where another one is named in its settings.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) service: &'static str,
    /// The setting that names it.
    pub(super) host: &'static str,
    /// Inside of its container.
    pub(super) port: u16,
    /// The setting of its password.
    pub(super) password: &'static str,
}

/// How what arrives is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Topics,
    Copies,
    Rows,
}

const TRIALS: [Trial; 3] = [
    Trial {
        name: "redis2mqtt",
        group: "mqtt-group",
        databases: "REDIS_DBS_TO_SEARCH",
        source: Server { service: "redis-cache", host: "REDIS_HOST", port: 6379, password: "REDIS_PASSWORD" },
        destination: Server {
            service: "mqtt-broker",
            host: "MQTT_BROKER_HOST",
            port: 1883,
            password: "MQTT_PASSWORD",
        },
        kind: Kind::Topics,
    },
    Trial {
        name: "redis2redis",
        group: "redis-sync-group",
        databases: "REDIS_DB_SEARCH_RANGE",
        source: Server {
            service: "source-redis",
            host: "SOURCE_REDIS_HOST",
            port: 6379,
            password: "SOURCE_REDIS_PASSWORD",
        },
        destination: Server {
            service: "target-redis",
            host: "TARGET_REDIS_HOST",
            port: 6379,
            password: "TARGET_REDIS_PASSWORD",
        },
        kind: Kind::Copies,
    },
    Trial {
        name: "redis2pg",
        group: "redis-pg-sync",
        databases: "REDIS_DB_SEARCH_RANGE",
        source: Server { service: "redis-cache", host: "REDIS_HOST", port: 6379, password: "REDIS_PASSWORD" },
        destination: Server {
            service: "postgres",
            host: "POSTGRES_HOST",
            port: 5432,
            password: "POSTGRES_PASSWORD",
        },
        kind: Kind::Rows,
    },
];

/// Bridges whose entries nobody follows here yet: there is no stand-in for Kafka. Their images are built and asked.
const WITHOUT_TRIAL: [&str; 2] = ["redis2kafka", "mqtt2kafka"];

impl Server {
    /// The setting of its port.
    pub(super) fn port_setting(&self) -> String {
        self.host.replace("_HOST", "_PORT")
    }
}

impl Kind {
    /// What the destination is called.
    pub(super) fn server(self) -> &'static str {
        match self {
            Self::Topics => "broker",
            Self::Copies => "target",
            Self::Rows => "postgres",
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

    pub(super) fn bridge(&self) -> &'static Bridge {
        catalog::ALL
            .iter()
            .find(|bridge| bridge.name == self.name)
            .expect("a trial is of a bridge in the catalog")
    }
}
