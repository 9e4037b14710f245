//! A Redis Cluster as a source: which primary owns which hash slot, and one connection to each primary.
//!
//! The client library's own clustered client is not used where entries are read or acknowledged. While one of its nodes
//! is unreachable it answers nothing at all, also for the others, until that node is replaced; and on ASK it takes the
//! next reply on the wire for ASKING's, so that with commands under way each reply after it goes to the wrong command
//! (3,000 GETs at once and one key sent ahead: 29 got another's value, and then nothing answered any more).
//! Here each node has a connection that never reconnects, as a single server has: what happens to one node
//! happens to its streams and to no others.
//!
//! Nothing here waits between attempts. What a node did not answer is a [`Fault`] of each of its keys; the next call
//! first asks who owns which slot now. A node that has moved a slot says where to (MOVED), and is believed at once,
//! once a call; so is one that is just moving it and has sent this key ahead (ASK).

mod commands;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use fred::types::config::Server;
use fred::util::redis_keyslot;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Fault;
use super::connection::{Connection, Connector};
use crate::settings::{Discovery, StreamSettings};

/// How long connecting to a node may take: so long all others wait, each time that one is tried which does not answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a node that is connected may take to answer. Giving up a read that Redis may still carry out is allowed here,
/// and only here, because each read says what it expects to follow (see `commands.rs`): one carried out unseen makes
/// the next one fail, and what it took is then found pending.
const PATIENCE: Duration = Duration::from_secs(5);
const SLOTS: u16 = 16384;
const NOBODY: u16 = u16::MAX;

/// Connections to the primaries, for one thing at a time: a lane has one for reading and one for everything else.
#[derive(Debug)]
pub struct Cluster {
    connector: Connector,
    servers: Vec<Server>,
    /// By slot: an index of `servers`, or [`NOBODY`].
    owners: Vec<u16>,
    /// The last call showed that `owners` is not how things are.
    stale: bool,
    connections: HashMap<Server, Connection>,
}

/// What one node was asked, and what came of it.
struct Part<T> {
    owner: u16,
    /// Kept when it still works.
    connection: Option<Connection>,
    /// Which keys, and one result each.
    keys: Vec<usize>,
    results: Vec<Result<T, Fault>>,
}

impl Cluster {
    /// Connects to nothing yet.
    pub fn new(connector: Connector) -> Self {
        let owners = vec![NOBODY; usize::from(SLOTS)];
        Self { connector, servers: Vec::new(), owners, stale: true, connections: HashMap::new() }
    }

    /// Asks who owns which slot, if that is not known. Fails when no node of the Cluster tells.
    pub async fn learn_owners(&mut self) -> Result<(), Fault> {
        if !self.stale {
            return Ok(());
        }
        // Connected ones first: those are alive.
        let mut servers: Vec<Server> = self.connections.keys().cloned().collect();
        servers.extend(self.servers.iter().cloned().chain(self.connector.seeds()));
        let mut asked: Vec<Server> = Vec::new();
        let mut last = Fault::Lost("the Cluster has no nodes".into());
        for server in servers {
            if asked.contains(&server) {
                continue;
            }
            asked.push(server.clone());
            let connection = self.connections.remove(&server);
            match Box::pin(ask_owners(&self.connector, &server, connection)).await {
                Ok((connection, ranges)) => {
                    self.adopt(ranges);
                    self.connections.insert(server, connection);
                    let (servers, stale) = (&self.servers, &mut self.stale);
                    self.connections.retain(|server, _| servers.contains(server));
                    *stale = false;
                    return Ok(());
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    fn adopt(&mut self, ranges: Vec<SlotRange>) {
        self.servers.clear();
        self.owners.fill(NOBODY);
        for SlotRange { first, last, server } in ranges {
            let owner = self.index_of(server);
            self.owners[usize::from(first)..=usize::from(last)].fill(owner);
        }
    }

    fn index_of(&mut self, server: Server) -> u16 {
        let at = self.servers.iter().position(|known| *known == server).unwrap_or_else(|| {
            self.servers.push(server);
            self.servers.len() - 1
        });
        u16::try_from(at).expect("a Cluster has at most 16384 primaries")
    }

    /// Does `work` once at each primary that owns some of the keys, at all of them at the same time, and returns one
    /// result for each key. `work` is given which keys, in their order; what it returns is in that order too. It may be
    /// called again with keys that have moved; where it is given one key, the first command that it sends must be the one
    /// that counts.
    pub async fn at_owners<T, F>(
        &mut self,
        keys: &[Bytes],
        work: impl Fn(Client, Vec<usize>) -> F,
    ) -> Vec<Result<T, Fault>>
    where
        F: Future<Output = Result<Vec<Result<T, Fault>>, Fault>>,
    {
        if let Err(fault) = self.learn_owners().await
            && self.servers.is_empty()
        {
            return keys.iter().map(|_| Err(fault.clone())).collect();
        }
        let mut results: Vec<Option<Result<T, Fault>>> = keys.iter().map(|_| None).collect();
        let mut asked: Vec<usize> = (0..keys.len()).collect();
        let mut sent_ahead: Vec<(usize, Server)> = Vec::new();
        for may_follow in [true, false] {
            let mut by_owner: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
            for at in std::mem::take(&mut asked) {
                by_owner.entry(self.owners[slot_of(&keys[at])]).or_default().push(at);
            }
            let (connector, work) = (&self.connector, &work);
            let parts = by_owner.into_iter().map(|(owner, keys)| {
                let server = self.servers.get(usize::from(owner)).cloned();
                let connection = server.as_ref().and_then(|server| self.connections.remove(server));
                // Boxed, as what follows: a lane's future is moved about and polled on stacks of 2 MB.
                Box::pin(async move {
                    let mut part = Part { owner, connection, keys, results: Vec::new() };
                    part.results = match server {
                        Some(server) => ask(connector, &server, &mut part, work).await,
                        None => part.keys.iter().map(|_| Err(unowned())).collect(),
                    };
                    part
                })
            });
            for Part { owner, connection, keys: part, results: answers } in join_all(parts).await {
                let server = self.servers.get(usize::from(owner)).cloned();
                self.stale |= connection.is_none();
                if let (Some(server), Some(connection)) = (&server, connection) {
                    self.connections.insert(server.clone(), connection);
                }
                for (at, answer) in part.into_iter().zip(answers) {
                    if let Err(Fault::Busy(words)) = &answer {
                        if let Some(server) = redirection("ASK", words, server.as_ref()) {
                            sent_ahead.push((at, server));
                        }
                        if self.has_moved(slot_of(&keys[at]), words, server.as_ref()) && may_follow {
                            asked.push(at);
                            continue;
                        }
                    }
                    results[at] = Some(answer);
                }
            }
            asked.sort_unstable();
        }
        for (at, server) in sent_ahead {
            results[at] = Some(Box::pin(self.ask_ahead(at, &server, &work)).await);
        }
        results.into_iter().map(|result| result.expect("each key is in one part of the last round")).collect()
    }

    /// One key at the node that its slot is being moved to. ASKING counts for the next command there, and this is the only
    /// one that is sent.
    async fn ask_ahead<T, F: Future<Output = Result<Vec<Result<T, Fault>>, Fault>>>(
        &mut self,
        key: usize,
        server: &Server,
        work: &impl Fn(Client, Vec<usize>) -> F,
    ) -> Result<T, Fault> {
        let connection = self.connections.remove(server);
        let mut part = Part { owner: NOBODY, connection, keys: vec![key], results: Vec::new() };
        let work = |client: Client, keys| async move {
            let _: Value = client.custom(fred::cmd!("ASKING", blocking: false), Vec::<Value>::new()).await?;
            work(client, keys).await
        };
        let results = ask(&self.connector, server, &mut part, &work).await;
        if let Some(connection) = part.connection {
            self.connections.insert(server.clone(), connection);
        }
        results.into_iter().next().expect("one key, one result")
    }

    /// The same for one key.
    pub async fn at_owner<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        key: &Bytes,
        work: impl Fn(Client) -> F,
    ) -> Result<T, Fault> {
        let work = |client, _| {
            let working = work(client);
            async move { Ok(vec![working.await]) }
        };
        let results = Box::pin(self.at_owners(std::slice::from_ref(key), work)).await;
        results.into_iter().next().expect("one key, one result")
    }

    /// Whether these words say that the slot has another owner, and who; it is remembered.
    fn has_moved(&mut self, slot: usize, words: &str, from: Option<&Server>) -> bool {
        self.stale |= ["MOVED", "CLUSTERDOWN"].iter().any(|word| words.starts_with(word));
        let Some(server) = redirection("MOVED", words, from) else { return false };
        self.owners[slot] = self.index_of(server);
        true
    }
}

/// `MOVED 3999 127.0.0.1:6381`, or ASK, in the words of a node: an empty host is its own.
fn redirection(word: &str, words: &str, from: Option<&Server>) -> Option<Server> {
    let place = words.strip_prefix(word)?.strip_prefix(' ')?.split(' ').nth(1)?;
    let (host, port) = place.rsplit_once(':')?;
    let host = match (host, from) {
        ("", Some(from)) => from.host.to_string(),
        _ => host.to_owned(),
    };
    Some(Server::new(host, port.parse().ok()?))
}

fn slot_of(key: &Bytes) -> usize {
    usize::from(redis_keyslot(key))
}

fn unowned() -> Fault {
    Fault::Busy("CLUSTERDOWN no node owns the slot".into())
}

/// Connected already, or now: one that ended since it was last used is no outage.
async fn connected(
    connector: &Connector,
    server: &Server,
    connection: Option<Connection>,
) -> Result<Connection, Fault> {
    match connection.filter(Connection::is_open) {
        Some(connection) => Ok(connection),
        None => within(CONNECT_PATIENCE, Box::pin(connector.node(server))).await,
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let silence = || Fault::Lost(format!("no answer within {} s", patience.as_secs()));
    timeout(patience, work).await.unwrap_or_else(|_| Err(silence()))
}

/// Asks one node. Its connection stays with the part unless it was lost.
async fn ask<T, F: Future<Output = Result<Vec<Result<T, Fault>>, Fault>>>(
    connector: &Connector,
    server: &Server,
    part: &mut Part<T>,
    work: &impl Fn(Client, Vec<usize>) -> F,
) -> Vec<Result<T, Fault>> {
    let result = match connected(connector, server, part.connection.take()).await {
        Ok(mut connection) => {
            let asking = connection.run(|client| work(client, part.keys.clone()));
            let results = within(PATIENCE, asking).await;
            let is_lost = |result: &Result<T, Fault>| matches!(result, Err(Fault::Lost(_)));
            let lost = match &results {
                Ok(results) => results.iter().any(is_lost),
                Err(fault) => matches!(fault, Fault::Lost(_)),
            };
            part.connection = Some(connection).filter(|_| !lost);
            results
        }
        Err(fault) => Err(fault),
    };
    match result {
        Ok(results) if results.len() == part.keys.len() => results,
        Ok(_) => {
            part.keys.iter().map(|_| Err(Fault::Lost("a pipeline's answers are missing".into()))).collect()
        }
        Err(Fault::Lost(reason)) => {
            let reason = format!("node {server}: {reason}");
            part.keys.iter().map(|_| Err(Fault::Lost(reason.clone()))).collect()
        }
        Err(fault) => part.keys.iter().map(|_| Err(fault.clone())).collect(),
    }
}

/// Slots in a row, and their primary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotRange {
    first: u16,
    last: u16,
    server: Server,
}

async fn ask_owners(
    connector: &Connector,
    server: &Server,
    connection: Option<Connection>,
) -> Result<(Connection, Vec<SlotRange>), Fault> {
    let mut connection = connected(connector, server, connection).await?;
    let reply = within(PATIENCE, connection.run(slots)).await?;
    let ranges =
        owners(reply, server).ok_or_else(|| Fault::Other("CLUSTER SLOTS: no list of slots".into()))?;
    Ok((connection, ranges))
}

async fn slots(client: Client) -> Result<Value, Fault> {
    Ok(client.custom(fred::cmd!("CLUSTER", blocking: false), vec!["SLOTS"]).await?)
}

/// The primaries of the Cluster that a clustered client is connected to: for what has to be asked of each.
pub(crate) async fn primaries(client: &Client) -> Result<Vec<Server>, Fault> {
    let anywhere = Server::new("", 0);
    let ranges = owners(slots(client.clone()).await?, &anywhere);
    let ranges = ranges.ok_or_else(|| Fault::Other("CLUSTER SLOTS: no list of slots".into()))?;
    let mut servers: Vec<Server> = ranges.into_iter().map(|range| range.server).collect();
    servers.sort_unstable();
    servers.dedup();
    Ok(servers)
}

/// A Cluster has database 0 and no other, whatever the settings say of databases: for a start, or a command.
pub(crate) fn use_its_database(default_db: &mut u16, streams: &mut StreamSettings) {
    let elsewhere = |db: u16| db != 0 && db != *default_db;
    let range: &[u16] = streams.discovery.as_ref().map_or(&[], |discovery| &discovery.dbs);
    if *default_db != 0 || range.iter().any(|db| *db != 0) || streams.named.iter().any(|it| elsewhere(it.db))
    {
        tracing::info!("the source is a Cluster: only database 0 is there to be searched and read");
    }
    streams.named.retain(|name| !elsewhere(name.db));
    streams.named.iter_mut().for_each(|name| name.db = 0);
    streams.discovery.as_mut().map(search_its_database);
    streams.dbs = vec![0];
    *default_db = 0;
}

/// The same for a range that was set anew.
pub(crate) fn search_its_database(discovery: &mut Discovery) {
    discovery.dbs = vec![0];
}

/// `[[first, last, [host, port, …], replicas…]…]`; a host that is empty or unknown is the answering node's.
fn owners(reply: Value, answering: &Server) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = reply else { return None };
    let range = |range| {
        let Value::Array(parts) = range else { return None };
        let [first, last, Value::Array(primary), ..] = parts.as_slice() else { return None };
        let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
        let host = match primary.first()?.as_str() {
            Some(host) if !host.is_empty() && host != "?" => host.into_owned(),
            _ => answering.host.to_string(),
        };
        let (first, last) = (number(first)?, number(last).filter(|last| *last < SLOTS)?);
        let server = Server::new(host, number(primary.get(1)?)?);
        (first <= last).then_some(SlotRange { first, last, server })
    };
    ranges.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests;
