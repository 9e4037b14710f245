//! The sink.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Unreachable};
use sync_core::redis::connection::{Connector, ConnectorError};

use crate::naming::Naming;
use crate::settings::{Settings, TargetSettings};

/// Another Redis as a sink.
pub(crate) struct RedisSink {
    connector: Connector,
    naming: Naming,
    target: TargetSettings,
}

impl RedisSink {
    /// Reads TLS files; connects to nothing.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConnectorError> {
        let target = &settings.target;
        let naming = Naming::new(
            &target.prefix,
            settings.streams.source_name.as_deref(),
            settings.redis.db,
            target.db,
        );
        Ok(Self { connector: Connector::to_target(target.redis.clone())?, naming, target: target.clone() })
    }
}

impl Sink for RedisSink {
    fn destination(&self) -> String {
        format!("target Redis at {}", self.connector.address())
    }

    fn identity(&self) -> String {
        let TargetSettings { db, prefix, .. } = &self.target;
        format!("{} {db:?} {prefix}", self.connector.address())
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        Err(Unreachable { reason: "not written yet".into(), needs_human: true })
    }

    fn deliver(&self, group: Group) -> Delivery {
        tracing::trace!(self.target.maxlen, self.target.wait_replicas);
        for record in group.iter() {
            let _ = self.naming.place(&record.stream.name);
        }
        std::future::ready(vec![Fate::Unknown; group.len()]).boxed()
    }

    async fn disconnect(&self) {}
}
