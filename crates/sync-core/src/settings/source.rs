//! The settings that every bridge with a Redis source shares, as typed values.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::Secret;
use crate::pattern::Pattern;
use crate::record::{EntryId, StreamName};

/// How one Redis server (or deployment) is reached.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Replaces host, port, user, password and TLS when set: `redis://`, `rediss://`, `unix://`,
    /// `redis-cluster://` or `redis-sentinel://`. A secret, since it may hold a password.
    pub url: Option<Secret>,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user.
    pub username: Option<String>,
    /// Password of the user, or of `requirepass`.
    pub password: Option<Secret>,
    /// TLS, when it is on (also switched on by a `rediss://` URL).
    pub tls: Option<TlsSettings>,
    /// The default database: streams named without `dbN:` live here.
    pub db: u16,
    /// Upper bound of lanes (reading connections) of this process.
    pub pool_size: usize,
    /// Connecting and reconnecting.
    pub retry: RetrySettings,
    /// Idle connections are pinged this often.
    pub health_check_interval: Duration,
}

/// Certificates are PEM files; the server is verified unless `insecure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Trusted instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// Client certificate chain.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`.
    pub key: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// Exponential backoff with jitter: `base`, doubled up to `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Connection attempts at start; at runtime there is no limit.
    pub max_retries: u32,
    /// First delay.
    pub base: Duration,
    /// Longest delay.
    pub cap: Duration,
}

/// Which streams are read, and how.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// REDIS_STREAMS_ENABLED.
    pub enabled: bool,
    /// Named streams: read whether or not discovery is on.
    pub named: Vec<StreamName>,
    /// SOURCE_REDIS_DB_SEARCH_RANGE, ascending, each once: also where discovery is off, for what works on whole databases.
    pub dbs: Vec<u16>,
    /// What discovery looks for; `None` when STREAM_AUTO_DISCOVERY is false.
    pub discovery: Option<Discovery>,
    /// How often discovery runs, and named streams that were absent are looked for.
    pub discovery_interval: Duration,
    /// Whether a missing consumer group is created.
    pub auto_create_groups: bool,
    /// Where a new group begins.
    pub start_id: StartId,
    /// Consumer group.
    pub group: String,
    /// This process's name in the group: STREAM_CONSUMER_NAME, host name and PID, joined by `-`.
    pub consumer: String,
    /// STREAM_CONSUMER_NAME: what the names of this bridge's earlier processes begin with, too.
    pub consumer_base: String,
    /// At most so many entries per stream per read.
    pub batch_size: u32,
    /// How long an idle read may wait: 1 ms to 2 s.
    pub poll_interval: Duration,
    /// Only entries that pass are delivered.
    pub filter: Option<Filter>,
    /// The dead-letter stream of `key` is `key` + suffix, in the same database.
    pub dead_letter_suffix: String,
    /// Approximate cap of a dead-letter stream; 0 is none.
    pub dead_letter_maxlen: u64,
    /// STREAM_OWNERSHIP.
    pub ownership: Ownership,
    /// SOURCE_NAME: stands before the stream name at the destination.
    pub source_name: Option<String>,
    /// Dead-letter an entry after so many negative answers about it; 0 is never.
    pub max_deliveries: u32,
    /// Redis operations per second; 0 is unlimited.
    pub rate_limit: u32,
    /// What becomes of acknowledged entries. [`Cleanup::Ack`] but where a bridge has STREAM_CLEANUP and sets it.
    pub cleanup: Cleanup,
    /// How often streams are looked through for entries that no group needs any more. No setting.
    pub cleanup_interval: Duration,
}

/// What discovery looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Databases, ascending, each once.
    pub dbs: Vec<u16>,
    /// A key is read when one of these matches,
    pub patterns: Vec<Pattern>,
    /// and none of these does.
    pub exclude: Vec<Pattern>,
}

/// Where a new consumer group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartId {
    /// After this ID; `0-0` is everything that the stream holds.
    After(EntryId),
    /// `$`: only what arrives later, on streams present at the first start; streams that appear later are
    /// read from their beginning.
    Latest,
}

impl std::fmt::Display for StartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(id) => id.fmt(f),
            Self::Latest => f.write_str("$"),
        }
    }
}

/// Who else may read in the same consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Replicas share the streams.
    Shared,
    /// This process is alone.
    Exclusive,
}

/// STREAM_CLEANUP: what becomes of acknowledged entries. What another consumer group of the stream needs stays, whatever
/// is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted when they are acknowledged; where another group needs them then, by a sweep later.
    Delete,
    /// They stay.
    Ack,
    /// Deleted by sweeps only.
    Trim,
}

/// FILTER_FIELD and FILTER_VALUES: an entry passes when one of its fields of this name has one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Field name.
    pub field: Bytes,
    /// Accepted values.
    pub values: Vec<Bytes>,
}
