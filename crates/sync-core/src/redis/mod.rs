//! Everything that speaks to Redis: to the source, and what bridges share that write to another one (`link.rs` and
//! what it names). Nothing here decides what to do about a failure: it says what
//! failed ([`Fault`]), and the lane decides.

pub mod call;
pub(crate) mod cleanup;
pub mod cluster;
pub(crate) mod commands;
pub mod connection;
pub mod dead_letters;
pub mod discovery;
pub mod entries;
pub mod flights;
pub mod groups;
pub mod link;
pub(crate) mod ownership;
pub(crate) mod reply;
pub mod runs;
pub(crate) mod script;
pub mod statistics;

use fred::error::{Error, ErrorKind};

/// What a failed command means for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection, or it broke while the command was under way: whether it took effect is unknown.
    #[error("{0}")]
    Lost(String),
    /// The group or the key does not exist.
    #[error("{0}")]
    NoGroup(String),
    /// The key holds another type.
    #[error("{0}")]
    WrongType(String),
    /// The group was handed entries by another read than the one that this one was to follow; nothing was read.
    #[error("{0}")]
    Taken(String),
    /// A blocked read was ended; nothing was read.
    #[error("{0}")]
    Unblocked(String),
    /// The server cannot do it now: loading, busy, out of memory, read-only, a failover under way.
    #[error("{0}")]
    Busy(String),
    /// The server will not do it until a human acts: permissions, a password.
    #[error("{0}")]
    Denied(String),
    /// Any other error reply, in the server's words.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// Whether a human must act.
    pub fn needs_human(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Other(_))
    }

    /// What an error reply means: its first word says it.
    pub fn answered(text: String) -> Self {
        match text.split([' ', ':']).next().unwrap_or_default() {
            "NOGROUP" => Self::NoGroup(text),
            "WRONGTYPE" => Self::WrongType(text),
            "TAKEN" => Self::Taken(text),
            "UNBLOCKED" => Self::Unblocked(text),
            "LOADING" | "BUSY" | "OOM" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"
            | "MISCONF" | "NOREPLICAS" | "MOVED" | "ASK" => Self::Busy(text),
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Self::Denied(text),
            _ => Self::Other(text),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match Self::answered(error.details().to_owned()) {
            Self::Other(text) => match error.kind() {
                ErrorKind::Auth => Self::Denied(text),
                ErrorKind::IO
                | ErrorKind::Canceled
                | ErrorKind::Timeout
                | ErrorKind::Routing
                | ErrorKind::Tls
                | ErrorKind::Protocol
                | ErrorKind::Backpressure
                | ErrorKind::Cluster
                | ErrorKind::Sentinel => Self::Lost(in_words(&text)),
                _ => Self::Other(text),
            },
            fault => fault,
        }
    }
}

/// The client prints the system's errors as Rust does: `Os { code: 111, kind: …, message: "Connection refused" }`.
fn in_words(text: &str) -> String {
    let message = text.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(text, |(message, _)| message).to_owned()
}
