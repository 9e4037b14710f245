//! Connections to one Redis: clients for commands, which reconnect by themselves, and single connections, which
//! do not.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::config::{
    Config, ReconnectPolicy, Server, ServerConfig, TcpConfig, TlsConnector, UnresponsiveConfig,
};
use fred::types::streams::XID;
use fred::types::{ConnectHandle, Key, Value};

use super::{Fault, cluster};
use crate::settings::shared::{SOURCE_REDIS, TARGET_REDIS};
use crate::settings::{RedisSettings, TlsSettings};
use crate::tls::{self, TlsError};

/// A connection on which nothing came for so long, with a reply outstanding, is taken for dead. Above the longest
/// block of a read.
const UNRESPONSIVE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An acknowledgement is sent again after each lost connection; it cannot take effect twice.
const COMMAND_ATTEMPTS: u32 = 1000;

/// How often a Cluster may send a command on to another node.
const REDIRECTIONS: u32 = 5;

/// XAUTOCLAIM for a key that is not UTF-8: the server names the key in a NOGROUP, and the client library never returns
/// an error reply that is not UTF-8.
const CLAIM: &str = "local reply = redis.pcall('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'COUNT', ARGV[4]) \
    if reply.err and string.find(reply.err, 'NOGROUP', 1, true) then \
      return redis.error_reply('NOGROUP no such key or consumer group') end \
    return reply";

/// How to reach one Redis, checked and ready: every connection of the process comes from here.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Config,
    settings: RedisSettings,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The URL is not one.
    #[error("{setting}: {reason}")]
    Url {
        /// Which one.
        setting: &'static str,
        /// In the client library's words.
        reason: String,
    },
    /// A TLS file is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Connector {
    /// To the source. Reads TLS files; connects to nothing.
    pub fn new(settings: RedisSettings) -> Result<Self, ConnectorError> {
        Self::named(settings, SOURCE_REDIS.url.name)
    }

    /// To the target of a bridge that writes to Redis. Reads TLS files; connects to nothing.
    pub fn to_target(settings: RedisSettings) -> Result<Self, ConnectorError> {
        Self::named(settings, TARGET_REDIS.url.name)
    }

    fn named(settings: RedisSettings, setting: &'static str) -> Result<Self, ConnectorError> {
        let mut config = match &settings.url {
            Some(url) => {
                // The client's own word for a socket; ours is the one that people write.
                let url = match url.expose().strip_prefix("unix:") {
                    Some(path) => format!("redis+unix:{path}"),
                    None => url.expose().to_owned(),
                };
                let reason = |error: Error| error.details().to_owned();
                Config::from_url(&url)
                    .map_err(|error| ConnectorError::Url { setting, reason: reason(error) })?
            }
            None => Config {
                server: ServerConfig::new_centralized(&settings.host, settings.port),
                username: settings.username.clone(),
                password: settings.password.as_ref().map(|password| password.expose().to_owned()),
                ..Config::default()
            },
        };
        if let Some(tls) = settings.tls.as_ref().or(config.tls.is_some().then_some(&TlsSettings::default())) {
            config.tls = Some(TlsConnector::from(tls::client_config(tls)?).into());
        }
        config.fail_fast = true;
        Ok(Self { config, settings })
    }

    /// Where it leads, without credentials: for log lines.
    pub fn address(&self) -> String {
        match &self.config.server {
            ServerConfig::Centralized { server } => format!("{}:{}", server.host, server.port),
            ServerConfig::Unix { path } => path.display().to_string(),
            ServerConfig::Clustered { hosts, .. } | ServerConfig::Sentinel { hosts, .. } => {
                let hosts: Vec<_> = hosts.iter().map(|host| format!("{}:{}", host.host, host.port)).collect();
                hosts.join(",")
            }
        }
    }

    /// Whether it is a Cluster: then there is one database, and each key has its node.
    pub fn is_cluster(&self) -> bool {
        self.config.server.is_clustered()
    }

    /// The nodes that the settings name.
    pub(crate) fn seeds(&self) -> Vec<Server> {
        self.config.server.hosts()
    }

    /// A client for everything but blocking reads. It reconnects by itself for ever; what is sent meanwhile
    /// waits, and what was under way is sent again: only for commands that may be repeated.
    pub async fn commands(&self, db: u16) -> Result<Client, Fault> {
        let retry = self.settings.retry;
        let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let policy =
            ReconnectPolicy::new_exponential(0, milliseconds(retry.base), milliseconds(retry.cap), 2);
        let (client, _) = self.connect(db, Some(policy), COMMAND_ATTEMPTS).await?;
        Ok(client)
    }

    /// The same as [`Connector::connection`], to one node of a Cluster.
    pub(crate) async fn node(&self, server: &Server) -> Result<Connection, Fault> {
        let mut config = self.config.clone();
        config.server = ServerConfig::Centralized { server: server.clone() };
        let (client, closed) = connect(config, None, 1, None).await?;
        Ok(Connection { client, closed })
    }

    /// A connection that never reconnects; to a Cluster, one to each primary, which end together. When a lane's ends, the lane makes another and then looks at what is
    /// pending: so no read spans two connections. And a database selected on it stays selected.
    pub async fn connection(&self, db: u16) -> Result<Connection, Fault> {
        // A redirection counts as an attempt; without a policy nothing else makes a second one.
        let attempts = if self.config.server.is_clustered() { 1 + REDIRECTIONS } else { 1 };
        let (client, closed) = self.connect(db, None, attempts).await?;
        Ok(Connection { client, closed })
    }

    /// A connection to each server that holds keys: the one that there is, or every primary of a Cluster. For what has
    /// to be asked of all of them, and is sent to none twice.
    pub async fn connections(&self, db: u16) -> Result<Vec<Connection>, Fault> {
        let mut connection = self.connection(db).await?;
        if !self.is_cluster() {
            return Ok(vec![connection]);
        }
        let mut nodes = Vec::new();
        for primary in connection.run(async |client| cluster::primaries(&client).await).await? {
            nodes.push(self.node(&primary).await?);
        }
        Ok(nodes)
    }

    /// A connection for messages that the server sends unasked; up to so many wait for whoever takes them.
    pub async fn listener(&self, db: u16, waiting: usize) -> Result<Connection, Fault> {
        let (client, closed) = self.connect_with(db, None, 1, Some(waiting)).await?;
        Ok(Connection { client, closed })
    }

    async fn connect(
        &self,
        db: u16,
        policy: Option<ReconnectPolicy>,
        attempts: u32,
    ) -> Result<(Client, ConnectHandle), Fault> {
        self.connect_with(db, policy, attempts, None).await
    }

    async fn connect_with(
        &self,
        db: u16,
        policy: Option<ReconnectPolicy>,
        attempts: u32,
        waiting: Option<usize>,
    ) -> Result<(Client, ConnectHandle), Fault> {
        let mut config = self.config.clone();
        config.database =
            Some(u8::try_from(db).map_err(|_| Fault::Other(format!("database {db} is above 255")))?);
        connect(config, policy, attempts, waiting).await
    }
}

async fn connect(
    config: Config,
    policy: Option<ReconnectPolicy>,
    attempts: u32,
    waiting: Option<usize>,
) -> Result<(Client, ConnectHandle), Fault> {
    let tls = config.tls.is_some();
    let mut builder = Builder::from_config(config);
    if let Some(waiting) = waiting {
        builder.with_performance_config(|performance| performance.broadcast_channel_capacity = waiting);
    }
    if let Some(policy) = policy {
        builder.set_policy(policy);
    }
    builder.with_connection_config(|connection| {
        connection.connection_timeout = CONNECT_TIMEOUT;
        connection.internal_command_timeout = CONNECT_TIMEOUT;
        connection.max_command_attempts = attempts;
        // On ASK the library takes another command's reply for its own (see `cluster.rs`): what a Cluster redirects
        // fails instead, after the library has asked who owns what, and is sent again by whoever sent it.
        connection.max_redirections = 0;
        connection.unresponsive =
            UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE), interval: Duration::from_secs(1) };
        connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
    });
    let client = builder.build()?;
    match client.init().await {
        Ok(handle) => Ok((client, handle)),
        Err(error) => {
            // Ends the client's own tasks; the error that counts is the first.
            let _ = client.quit().await;
            Err(with_hint(error.into(), tls))
        }
    }
}

/// Says what to look at where the library's words do not: most first starts that fail do so over TLS.
fn with_hint(fault: Fault, tls: bool) -> Fault {
    let Fault::Lost(reason) = fault else { return fault };
    let words = reason.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let hint = if tls && has(&["certificate"]) {
        " (is …_SSL_CA the authority that signed its certificate?)"
    } else if tls && has(&["timed out", "invalidmessage", "contenttype", "eof"]) {
        " (does it speak TLS on this port? …_SSL is true)"
    } else if !tls && has(&["reset", "eof", "closed", "protocol"]) {
        " (does it expect TLS? …_SSL is false)"
    } else {
        ""
    };
    Fault::Lost(format!("{reason}{hint}"))
}

/// One connection, for one thing at a time.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    /// Ends when the connection does. Without it a command sent to a dead connection would wait for ever.
    closed: ConnectHandle,
}

impl Connection {
    /// New entries of these streams: `XREADGROUP … STREAMS keys… > …`. Not to be dropped before it returns:
    /// what Redis then answers would be pending with nobody to know it.
    pub(crate) async fn read_new(
        &mut self,
        group: &str,
        consumer: &str,
        keys: Vec<Key>,
        count: u32,
        block: Option<Duration>,
    ) -> Result<Value, Fault> {
        let ids = vec![XID::NewInGroup; keys.len()];
        let block = block.map(|block| u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1));
        let read = self.client.xreadgroup(group, consumer, Some(u64::from(count)), block, false, keys, ids);
        ended_by(&mut self.closed, read).await
    }

    /// One page per stream of what is pending in the group, whoever read it, claimed for this consumer.
    pub(crate) async fn claim_pending(
        &mut self,
        group: &str,
        consumer: &str,
        pages: &[(Key, String)],
        count: u32,
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let pipeline = self.client.pipeline();
        for (key, from) in pages {
            let count = u64::from(count);
            if key.as_str().is_some() {
                let _: () = pipeline
                    .xautoclaim(key.clone(), group, consumer, 0, from.as_str(), Some(count), false)
                    .await?;
            } else {
                let mut arguments: Vec<Value> = vec![CLAIM.into(), 1.into(), key.clone().into()];
                arguments.extend([group, consumer, from, &count.to_string()].map(Value::from));
                let _: () = pipeline.custom(fred::cmd!("EVAL", blocking: false), arguments).await?;
            }
        }
        let replies =
            ended_by(&mut self.closed, async { Ok::<_, Fault>(pipeline.try_all::<Value>().await) }).await?;
        if replies.len() != pages.len() {
            let reason = replies.into_iter().find_map(Result::err);
            return Err(
                reason.map_or_else(|| Fault::Lost("a pipeline's answers are missing".into()), Fault::from)
            );
        }
        replies
            .into_iter()
            .map(|reply| match reply.map_err(Fault::from) {
                Err(Fault::Lost(reason)) => Err(Fault::Lost(reason)),
                reply => Ok(reply),
            })
            .collect()
    }

    /// Something else on this connection, ended with [`Fault::Lost`] when the connection ends.
    pub async fn run<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        work: impl FnOnce(Client) -> F,
    ) -> Result<T, Fault> {
        ended_by(&mut self.closed, work(self.client.clone())).await
    }

    /// The client that sends on this connection. What is sent after the end waits for ever: whoever waits for an
    /// answer waits for the end as well.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Ready once the connection has ended, with the reason. Not to be called again then.
    pub async fn ended(&mut self) -> String {
        match (&mut self.closed).await {
            Ok(Err(error)) => Fault::from(error).to_string(),
            Ok(Ok(())) | Err(_) => "connection closed".into(),
        }
    }

    /// Whether it has not ended, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.is_finished()
    }

    /// Lets somebody else end a blocked read of this connection.
    pub(crate) fn waker(&self) -> Waker {
        Waker(self.client.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The client's tasks hold the socket until they are told to end.
        let client = self.client.clone();
        tokio::spawn(async move {
            let _ = client.quit().await;
        });
    }
}

async fn ended_by<T, E: Into<Fault>>(
    closed: &mut ConnectHandle,
    command: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    tokio::select! {
        biased;
        reply = command => reply.map_err(Into::into),
        _ = closed => Err(Fault::Lost("connection closed".into())),
    }
}

/// Ends a blocked read at once, where CLIENT UNBLOCK is permitted; elsewhere the read ends by its time limit.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Client);

impl Waker {
    /// The read returns with what it has, which is nothing.
    pub(crate) fn wake(&self) {
        let client = self.0.clone();
        tokio::spawn(async move {
            let _ = client.unblock_self(Some(fred::types::ClientUnblockFlag::Timeout)).await;
        });
    }
}

/// Selects a database, for what is sent on this connection from now on. A Cluster has one and no SELECT.
pub(crate) async fn select(client: &Client, db: u16) -> Result<(), Fault> {
    let number = u8::try_from(db).map_err(|_| Fault::Other(format!("database {db} is above 255")))?;
    if !client.is_clustered() {
        client.select(i64::from(number)).await?;
    }
    Ok(())
}

/// A stream's key as the client wants it.
pub(crate) fn key(bytes: &Bytes) -> Key {
    Key::from(bytes.clone())
}
