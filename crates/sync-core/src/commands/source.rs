//! The source as a command sees it: one connection, made once. A command that loses it has failed.

use std::collections::BTreeSet;
use std::future::Future;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::InfoKind;

use super::CommandError;
use crate::rate_limit::RateLimiter;
use crate::record::StreamName;
use crate::redis::connection::{Connection, Connector, select};
use crate::redis::{Fault, cluster, discovery};
use crate::settings::{RedisSettings, StreamSettings};

pub(super) struct Source {
    connection: Connection,
    /// Without credentials.
    pub(super) address: String,
    pub(super) default_db: u16,
    pub(super) is_cluster: bool,
    pub(super) settings: StreamSettings,
    pub(super) limiter: RateLimiter,
}

impl Source {
    /// One attempt.
    pub(super) async fn connect(
        redis: RedisSettings,
        mut streams: StreamSettings,
    ) -> Result<Self, CommandError> {
        let mut default_db = redis.db;
        let connector = Connector::new(redis)?;
        let is_cluster = connector.is_cluster();
        if is_cluster {
            cluster::use_its_database(&mut default_db, &mut streams);
        }
        let address = connector.address();
        match connector.connection(default_db).await {
            Ok(connection) => {
                let limiter = RateLimiter::new(streams.rate_limit);
                Ok(Self { connection, address, default_db, is_cluster, settings: streams, limiter })
            }
            Err(fault) => Err(CommandError::Source { address, fault }),
        }
    }

    /// As it stands in the settings.
    pub(super) fn spell(&self, stream: &StreamName) -> String {
        stream.spell(self.default_db)
    }

    /// Does something in one database.
    pub(super) async fn in_database<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        db: u16,
        work: impl FnOnce(Client) -> F,
    ) -> Result<T, Fault> {
        self.connection
            .run(async |client| {
                select(&client, db).await?;
                work(client).await
            })
            .await
    }

    /// Name and version of the server, where it tells.
    pub(super) async fn version(&mut self) -> Option<String> {
        let ask = async |client: Client| Ok(client.info::<String>(Some(InfoKind::Server)).await?);
        let info = self.in_database(self.default_db, ask).await.ok()?;
        let of = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        match of("valkey_version:") {
            Some(version) => Some(format!("Valkey {version}")),
            None => of("redis_version:").map(|version| format!("Redis {version}")),
        }
    }

    /// The databases to look at, ascending, and those that the server does not have.
    pub(super) async fn databases(&mut self) -> Result<(BTreeSet<u16>, Vec<u16>), Fault> {
        let ask = async |client: Client| Ok(discovery::databases(&client).await);
        let count = self.in_database(self.default_db, ask).await?;
        let range = self.settings.discovery.as_ref().map_or(&[][..], |discovery| &discovery.dbs);
        let is_there = |db: &u16| count.is_none_or(|count| u32::from(*db) < count);
        let (there, beyond): (Vec<u16>, Vec<u16>) = range.iter().copied().partition(is_there);
        let mut there = BTreeSet::from_iter(there);
        there.extend(self.settings.named.iter().map(|stream| stream.db));
        Ok((there, beyond))
    }

    /// The streams named in the settings in this database.
    pub(super) fn named_in(&self, db: u16) -> Vec<Bytes> {
        self.settings.named.iter().filter(|name| name.db == db).map(|name| name.key.clone()).collect()
    }
}
