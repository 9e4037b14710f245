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

/// A connection to the source, with the settings that say what is read there.
pub struct Source {
    connection: Connection,
    /// Without credentials.
    pub address: String,
    /// Streams of it are named by their key alone.
    pub default_db: u16,
    pub(super) is_cluster: bool,
    /// What is read, and as whom.
    pub settings: StreamSettings,
    /// Reads and scans wait for it.
    pub limiter: RateLimiter,
}

impl Source {
    /// One attempt.
    pub async fn connect(redis: RedisSettings, mut streams: StreamSettings) -> Result<Self, CommandError> {
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
    pub fn spell(&self, stream: &StreamName) -> String {
        stream.spell(self.default_db)
    }

    /// Does something in one database.
    pub async fn in_database<T, F: Future<Output = Result<T, Fault>>>(
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
    pub async fn version(&mut self) -> Option<String> {
        let ask = async |client: Client| Ok(client.info::<String>(Some(InfoKind::Server)).await?);
        let info = self.in_database(self.default_db, ask).await.ok()?;
        let of = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        match of("valkey_version:") {
            Some(version) => Some(format!("Valkey {version}")),
            None => of("redis_version:").map(|version| format!("Redis {version}")),
        }
    }

    /// The databases to look at, ascending, and those that the server does not have.
    pub async fn databases(&mut self) -> Result<(BTreeSet<u16>, Vec<u16>), Fault> {
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
    pub fn named_in(&self, db: u16) -> Vec<Bytes> {
        self.settings.named.iter().filter(|name| name.db == db).map(|name| name.key.clone()).collect()
    }

    /// All streams that a bridge with these settings would read now, and those named in them that are not there yet.
    pub async fn streams(&mut self) -> Result<BTreeSet<StreamName>, Fault> {
        let mut streams = BTreeSet::new();
        if !self.settings.enabled {
            return Ok(streams);
        }
        for db in self.databases().await?.0 {
            streams.extend(self.streams_in(db).await?);
        }
        Ok(streams)
    }

    /// Those of one database, whether or not anything is read.
    pub(super) async fn streams_in(&mut self, db: u16) -> Result<BTreeSet<StreamName>, Fault> {
        let search = self.settings.discovery.clone().filter(|discovery| discovery.dbs.contains(&db));
        let mut keys = self.named_in(db);
        if let Some(search) = search {
            let (suffix, limiter) = (self.settings.dead_letter_suffix.clone(), self.limiter.clone());
            keys.retain(|key| !search.excludes(key));
            let scan = async |client| discovery::scan(&client, &search, &suffix, &limiter).await;
            keys.extend(self.in_database(db, scan).await?);
        }
        Ok(keys.into_iter().map(|key| StreamName::new(db, key)).collect())
    }
}
