//! Which bridges there are, as containers know them: one entry each. All else (files, targets of the Dockerfile) goes
//! by these names. A bridge whose package is not in this workspace is known, and said to be missing.

use anyhow::{Result, bail, ensure};

use crate::paths;

/// A bridge and the servers that its compose file can bring along.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// The binary, the image, the target in docker/Dockerfile, and the files in compose/ and deploy/swarm/.
    pub(crate) name: &'static str,
    /// What the services are called that run its image: the bridge itself, then its monitor.
    pub(crate) services: &'static [&'static str],
    /// What its settings file is called, in compose/NAME/.
    pub(crate) settings: &'static str,
    /// The files of its secrets in a Swarm.
    pub(crate) secrets: &'static [&'static str],
}

pub(crate) const ALL: [Bridge; 5] = [
    Bridge {
        name: "redis2mqtt",
        services: &["redis-mqtt-sync"],
        settings: "env.conf",
        secrets: &["redis_password", "mqtt_password", "redis_key", "mqtt_key"],
    },
    Bridge {
        name: "redis2redis",
        services: &["redis-to-redis-sync"],
        settings: "env.conf",
        secrets: &["source_redis_password", "target_redis_password", "source_redis_key", "target_redis_key"],
    },
    Bridge {
        name: "redis2pg",
        services: &["redis-postgres-sync-service", "redis-stream-processor-service"],
        settings: "env.conf",
        secrets: &["redis_password", "postgres_password", "redis_key", "postgres_key"],
    },
    Bridge {
        name: "redis2kafka",
        services: &["redis-kafka-sync"],
        settings: "env.conf",
        secrets: &[
            "source_redis_password",
            "target_redis_password",
            "kafka_password",
            "source_redis_key",
            "target_redis_key",
            "kafka_key",
        ],
    },
    Bridge {
        name: "mqtt2kafka",
        services: &["mqtt-kafka-bridge"],
        settings: "settings.yaml",
        secrets: &["secrets.yaml", "mqtt_key", "kafka_key"],
    },
];

impl Bridge {
    /// Whether its package is part of this workspace.
    pub(crate) fn exists(&self) -> bool {
        paths::root().join("bins").join(self.name).join("Cargo.toml").is_file()
    }
}

/// A bridge by its own name or its service's, for the command line.
pub(crate) fn parse(name: &str) -> Result<&'static Bridge> {
    let Some(bridge) = ALL.iter().find(|bridge| bridge.name == name || bridge.services.contains(&name))
    else {
        bail!("there is {}", ALL.map(|bridge| bridge.name).join(", "));
    };
    ensure!(bridge.exists(), "{name} is not part of this workspace: there is no bins/{}", bridge.name);
    Ok(bridge)
}

/// Those that can be built here.
pub(crate) fn existing() -> impl Iterator<Item = &'static Bridge> {
    ALL.iter().filter(|bridge| bridge.exists())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn known_by_either_name() {
        assert_eq!(parse("redis2mqtt").unwrap(), parse("redis-mqtt-sync").unwrap());
        let error = parse("redis2oracle").unwrap_err().to_string();
        assert!(error.contains("redis2mqtt, redis2redis"), "{error}");
    }

    /// One that is forgotten in a file would otherwise be missed by the first user who asks for it.
    #[test]
    fn every_bridge_has_its_files() {
        let root = paths::root();
        let dockerfile = fs::read_to_string(root.join("docker/Dockerfile")).unwrap();
        for bridge in &ALL {
            assert!(dockerfile.contains(&format!("\nFROM runtime AS {}\n", bridge.name)), "{}", bridge.name);
            let compose = fs::read_to_string(root.join(format!("compose/{}.yml", bridge.name))).unwrap();
            for service in bridge.services {
                assert!(compose.contains(&format!("\n  {service}:\n")), "{service}");
            }
            let stack = fs::read_to_string(root.join(format!("deploy/swarm/{}.yml", bridge.name))).unwrap();
            assert!(stack.contains(&format!("\n  {}:\n", bridge.services[0])), "{}", bridge.name);
            for secret in bridge.secrets {
                assert!(stack.contains(&format!("/secrets/{secret}\n")), "{secret}");
            }
            assert_eq!(stack.matches("_CONF:-").count(), 1 + bridge.secrets.len(), "{}", bridge.name);
            let example = root.join("compose").join(bridge.name).join(format!("{}.example", bridge.settings));
            assert!(example.is_file(), "{}", example.display());
        }
        for package in fs::read_dir(root.join("bins")).unwrap() {
            let name = package.unwrap().file_name().into_string().unwrap();
            assert!(ALL.iter().any(|bridge| bridge.name == name), "{name} is in no container");
        }
    }
}
