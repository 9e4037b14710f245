//! Where the commands of a lane go that are no reads of new entries: to a server, by a client that reconnects by
//! itself, or each to the node of a Cluster that owns its key.

use bytes::Bytes;
use fred::clients::Client;

use super::cleanup::{self, Deleted, Swept};
use super::cluster::Cluster;
use super::dead_letters::{DeadLetters, Letter};
use super::groups::{self, Settled};
use super::script::At;
use super::{Fault, connection::Connector};
use crate::record::EntryId;
use crate::settings::StartId;

/// See the module. All of them may be repeated.
#[derive(Debug)]
pub(crate) enum Commands {
    /// What is sent while it is away waits for it.
    Server(Client),
    /// What is sent to a node that is away fails.
    Cluster(Box<Cluster>),
}

/// What came of an acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    pub(crate) deleted: Deleted,
    /// Where it failed, what is left to acknowledge, and why.
    pub(crate) left: Option<(Vec<Settled>, Fault)>,
}

impl Commands {
    /// `client` is one of the connector's.
    pub(crate) fn new(connector: &Connector, client: Client) -> Self {
        if connector.is_cluster() {
            Self::Cluster(Box::new(Cluster::new(connector.clone())))
        } else {
            Self::Server(client)
        }
    }

    /// Whether what is sent to a node that is away fails while others answer.
    pub(crate) fn fail_by_node(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Acknowledges; and deletes what no group needs any more, if told to.
    pub(crate) async fn acknowledge(
        &mut self,
        group: &str,
        settled: Vec<Settled>,
        delete: bool,
    ) -> Acknowledged {
        let all = || settled.iter().collect::<Vec<_>>();
        let nothing = |result: Result<(), Fault>| result.map(|()| Deleted::default());
        let results = match (self, delete) {
            (Self::Server(client), false) => groups::acknowledge(client, group, &all())
                .await
                .map(|results| results.into_iter().map(nothing).collect()),
            (Self::Server(client), true) => cleanup::acknowledge(client, At::Server, group, &all()).await,
            (Self::Cluster(cluster), false) => {
                let results = Box::pin(cluster.acknowledge(group, &settled)).await;
                Ok(results.into_iter().map(nothing).collect())
            }
            (Self::Cluster(cluster), true) => {
                Ok(Box::pin(cluster.acknowledge_and_delete(group, &settled)).await)
            }
        };
        let results = match results {
            Ok(results) => results,
            Err(fault) => return Acknowledged { left: Some((settled, fault)), ..Acknowledged::default() },
        };
        let mut deleted = Deleted::default();
        let mut reason = None;
        let mut left = Vec::new();
        for (settled, result) in settled.into_iter().zip(results) {
            match result {
                Ok(Deleted { entries, problem }) => {
                    deleted.entries += entries;
                    deleted.problem = deleted.problem.or(problem);
                }
                Err(fault) => {
                    reason.get_or_insert(fault);
                    left.push(settled);
                }
            }
        }
        Acknowledged { deleted, left: reason.map(|fault| (left, fault)) }
    }

    /// [`cleanup::sweep`].
    pub(crate) async fn sweep(&mut self, group: &str, keys: &[Bytes]) -> Vec<Result<Swept, Fault>> {
        match self {
            Self::Server(client) => {
                let swept = cleanup::sweep(client, At::Server, group, &keys.iter().collect::<Vec<_>>()).await;
                swept.unwrap_or_else(|fault| keys.iter().map(|_| Err(fault.clone())).collect())
            }
            Self::Cluster(cluster) => Box::pin(cluster.sweep(group, keys)).await,
        }
    }

    /// [`groups::create`].
    pub(crate) async fn create(
        &mut self,
        streams: &[(Bytes, StartId)],
        group: &str,
    ) -> Result<Vec<Result<bool, Fault>>, Fault> {
        match self {
            Self::Server(client) => groups::create(client, streams, group).await,
            Self::Cluster(cluster) => Ok(Box::pin(cluster.create(streams, group)).await),
        }
    }

    /// [`groups::holds`].
    pub(crate) async fn holds(&mut self, stream: &Bytes, id: EntryId) -> Result<bool, Fault> {
        match self {
            Self::Server(client) => groups::holds(client, stream, id).await,
            Self::Cluster(cluster) => {
                cluster
                    .at_owner(stream, |client| async move { groups::holds(&client, stream, id).await })
                    .await
            }
        }
    }

    /// [`groups::pending_beyond`].
    pub(crate) async fn pending_beyond(
        &mut self,
        stream: &Bytes,
        group: &str,
        consumer: &str,
        from: EntryId,
        count: u32,
        listed: &[EntryId],
    ) -> Result<Vec<EntryId>, Fault> {
        match self {
            Self::Server(client) => {
                groups::pending_beyond(client, stream, group, consumer, from, count, listed).await
            }
            Self::Cluster(cluster) => {
                let work = |client: Client| async move {
                    groups::pending_beyond(&client, stream, group, consumer, from, count, listed).await
                };
                cluster.at_owner(stream, work).await
            }
        }
    }

    /// [`DeadLetters::write`]. In a Cluster the letter stands in another slot than its stream.
    pub(crate) async fn bury(
        &mut self,
        dead_letters: &DeadLetters,
        letter: &Letter<'_>,
    ) -> Result<(), Fault> {
        match self {
            Self::Server(client) => dead_letters.write(client, letter).await,
            Self::Cluster(cluster) => {
                let key = dead_letters.key_of(letter.stream);
                cluster
                    .at_owner(&key, |client| async move { dead_letters.write(&client, letter).await })
                    .await
            }
        }
    }
}
