//! The books in which the replicas of a bridge write down who reads what, kept in the source Redis, and the scripts
//! that change them. Nothing here decides who should own what or when to try again: that is `run/ownership.rs`, and
//! why it is safe is told in ARCHITECTURE.md, "One owner per stream".
//!
//! Keys, in the default database, in one slot of a Cluster, without a time to live anywhere:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `redis-sync:{GROUP}:members` | hash | `member NAME` → `EXPIRY RECORD`, in ms of Redis' clock and JSON ([`Member`]); `fence NAME DB KEY` → empty: each fence that stands; `#version` counts changes, `#owned` the fields of the owners, `#server` is the run ID of the server, `#claims_from` a time before which nobody may claim |
//! | `redis-sync:{GROUP}:owners` | hash | bucket → NAME. A bucket below 1024 is a 1024th of all streams ([`bucket_of`]); 1024 + N is database N as a whole ([`bucket_of_database`]), for bridges that work on whole databases beside the streams. To the scripts they are all alike |
//! | `redis-sync:{GROUP}:fence:NAME:N` | stream | nothing, ever; it has the consumer group. One for each reading connection, in the database that it reads |

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike as _, LuaInterface as _};
use fred::types::Value;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::cluster::Cluster;
use super::connection::{Connection, Connector};
use super::discovery::OWN_PREFIX;
use crate::record::StreamName;

/// Buckets that all streams are divided into.
const BUCKETS: u16 = 1024;

/// What has an owner: a part of all streams, or a whole database.
pub(crate) type Bucket = u16;

/// The buckets that are parts of all streams.
pub(crate) const OF_STREAMS: RangeInclusive<Bucket> = 0..=BUCKETS - 1;

/// The buckets that are databases.
pub(crate) const OF_DATABASES: RangeInclusive<Bucket> = BUCKETS..=BUCKETS + LAST_DATABASE;

/// What a connection can select.
pub(crate) const LAST_DATABASE: u16 = u8::MAX as u16;

/// The bucket of a stream. The same in every version: replicas of two versions share streams during an update.
pub(crate) fn bucket_of(stream: &StreamName) -> Bucket {
    let mut state = crc16::State::<crc16::XMODEM>::new();
    state.update(stream.db.to_string().as_bytes());
    state.update(b":");
    state.update(&stream.key);
    state.get() % BUCKETS
}

/// The bucket that this database is.
pub(crate) fn bucket_of_database(db: u16) -> Bucket {
    debug_assert!(db <= LAST_DATABASE, "nobody works on database {db}: no connection can select it");
    BUCKETS + db
}

/// The database that this bucket is.
pub(crate) fn database_of(bucket: Bucket) -> Option<u16> {
    OF_DATABASES.contains(&bucket).then(|| bucket - BUCKETS)
}

/// One process that shares in the streams of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The binary. Members of two bridges in one group would halve each other's output.
    pub(crate) bridge: String,
    /// Where it delivers to.
    pub(crate) sink: String,
    /// A digest of the settings that say which streams are read.
    pub(crate) reads: String,
    /// Its name in the consumer group.
    pub(crate) consumer: String,
    /// Its host's name.
    pub(crate) host: String,
    /// One start of one machine, and the process namespace there: where both are alike, a process ID says who lives.
    pub(crate) machine: String,
    /// Its process ID,
    pub(crate) pid: u32,
    /// and when that process started, in the kernel's ticks: an ID is used again.
    pub(crate) started: u64,
    /// The program's version.
    pub(crate) version: String,
}

/// Who lives and who owns what, as of one moment in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Counts changes.
    pub(crate) version: u64,
    /// By name.
    pub(crate) members: BTreeMap<String, Member>,
    /// Buckets that have an owner.
    pub(crate) owners: HashMap<Bucket, String>,
    /// Members that this very call ended, since their lease ran out or they were proven dead.
    pub(crate) dropped: Vec<String>,
}

/// What became of a call that only a member may make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing<T> {
    /// Done.
    Member(T),
    /// Another member ended this membership, or the books were lost: all that was owned is not owned any more.
    Fenced,
}

/// What became of joining.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is a member.
    Yes,
    /// Another bridge, or the same one with another sink, has this consumer group.
    Taken(Box<Member>),
}

/// How this process gets to the books. What fails may have been carried out, and is then seen in the next view.
#[derive(Debug)]
pub(crate) enum Access {
    /// By a connection of its own to the database of the books; the next call makes another when it has failed.
    Server { connector: Connector, home: u16, connection: Option<Connection> },
    /// At the node that has the books, whatever becomes of the others.
    Cluster(Cluster),
}

impl Access {
    /// Connects to nothing yet.
    pub(crate) fn new(connector: &Connector, home: u16) -> Self {
        match connector.is_cluster() {
            true => Self::Cluster(Cluster::new(connector.clone())),
            false => Self::Server { connector: connector.clone(), home, connection: None },
        }
    }

    async fn run<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        key: String,
        work: impl Fn(Client) -> F,
    ) -> Result<T, Fault> {
        match self {
            Self::Server { connector, home, connection } => {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => connector.connection(*home).await?,
                };
                let result = open.run(work).await;
                *connection = result.is_ok().then_some(open);
                result
            }
            Self::Cluster(cluster) => cluster.at_owner(&key.into(), work).await,
        }
    }
}

/// One call of a script.
struct Call {
    script: String,
    keys: Vec<String>,
    arguments: Vec<String>,
}

/// The first word of a script's answer, and the rest.
type Answer = (String, Vec<Value>);

/// Where the books of one group are.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    prefix: String,
    home: String,
    group: String,
    lease: Duration,
}

impl Books {
    /// Of this group, in this database.
    pub(crate) fn new(group: &str, home: u16, lease: Duration) -> Self {
        let own = std::str::from_utf8(OWN_PREFIX).expect("the prefix is text");
        Self { prefix: format!("{own}{{{group}}}:"), home: home.to_string(), group: group.to_owned(), lease }
    }

    /// Every command that the scripts give, for whoever wants to know whether they are permitted.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let members = self.key_of_members();
        let fence = format!("{}fence:x:0", self.prefix);
        let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let on_members = |words: &[&str]| [of(&words[..1]), vec![members.clone()], of(&words[1..])].concat();
        vec![
            of(&["EVAL", "", "0"]),
            of(&["SELECT", "0"]),
            of(&["TIME"]),
            on_members(&["HGET", "x"]),
            on_members(&["HGETALL"]),
            on_members(&["HKEYS"]),
            on_members(&["HLEN"]),
            on_members(&["HSET", "x", "x"]),
            on_members(&["HSETNX", "x", "x"]),
            on_members(&["HDEL", "x"]),
            on_members(&["HINCRBY", "x", "1"]),
            on_members(&["EXISTS"]),
            on_members(&["DEL"]),
            [of(&["XGROUP", "CREATE"]), vec![fence.clone()], of(&[&self.group, "0", "MKSTREAM"])].concat(),
            [of(&["XREADGROUP", "GROUP", &self.group, "x", "STREAMS"]), vec![fence], of(&[">"])].concat(),
        ]
    }

    fn key_of_members(&self) -> String {
        format!("{}members", self.prefix)
    }

    /// The key of a member's `number`th fence.
    pub(crate) fn fence(&self, name: &str, number: u64) -> Bytes {
        format!("{}fence:{name}:{number}", self.prefix).into()
    }

    /// Becomes a member, unless one of another bridge or sink lives. `before` is this process's earlier name.
    pub(crate) async fn join(
        &self,
        access: &mut Access,
        name: &str,
        member: &Member,
        before: Option<&str>,
        dead: &[String],
    ) -> Result<Joined, Fault> {
        let mut arguments = vec![
            record(member),
            member.bridge.clone(),
            member.sink.clone(),
            before.unwrap_or_default().into(),
        ];
        arguments.extend_from_slice(dead);
        let answer = self.call(access, include_str!("ownership/join.lua"), name, arguments).await?;
        match answer {
            (word, _) if word == "joined" => Ok(Joined::Yes),
            (word, rest) if word == "other" => {
                let other = rest.into_iter().next().and_then(parse_member).ok_or_else(unexpected)?;
                Ok(Joined::Taken(Box::new(other)))
            }
            _ => Err(unexpected()),
        }
    }

    /// Whether the server may evict any key when its memory is full: the books and fences among them.
    pub(crate) async fn may_be_evicted(&self, access: &mut Access) -> bool {
        let ask = async |client: Client| {
            let command = fred::cmd!("CONFIG", blocking: false);
            Ok(client.custom::<Vec<String>, _>(command, vec!["GET", "maxmemory-policy"]).await?)
        };
        // Who may not ask is not told.
        let answer = access.run(self.key_of_members(), ask).await;
        answer.is_ok_and(|answer| answer.get(1).is_some_and(|policy| policy.starts_with("allkeys-")))
    }

    /// The members, without becoming one.
    pub(crate) async fn members(&self, access: &mut Access) -> Result<BTreeMap<String, Member>, Fault> {
        let ask = async |client: Client| {
            let command = fred::cmd!("HGETALL", blocking: false);
            Ok(client.custom::<Value, _>(command, vec![self.key_of_members()]).await?)
        };
        let fields = access.run(self.key_of_members(), ask).await?;
        let mut members = BTreeMap::new();
        for (field, value) in pairs(fields) {
            let record = value.split_once(' ').map(|(_, record)| record);
            if let (Some(name), Some(record)) = (field.strip_prefix("member "), record)
                && let Ok(member) = serde_json::from_str(record)
            {
                members.insert(name.to_owned(), member);
            }
        }
        Ok(members)
    }

    /// Renews the lease, and ends the memberships of the `dead` and of those whose lease ran out. Answers with what
    /// changed since the `known` version.
    pub(crate) async fn tick(
        &self,
        access: &mut Access,
        name: &str,
        member: &Member,
        known: u64,
        dead: &[String],
    ) -> Result<Standing<Option<View>>, Fault> {
        let mut arguments = vec![record(member), known.to_string()];
        arguments.extend_from_slice(dead);
        let (word, rest) = self.call(access, include_str!("ownership/tick.lua"), name, arguments).await?;
        match word.as_str() {
            "fenced" => Ok(Standing::Fenced),
            "same" => Ok(Standing::Member(None)),
            "changed" => parse_view(rest).map(|view| Standing::Member(Some(view))).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// Takes buckets that nobody owns; answers which of these are this member's.
    pub(crate) async fn claim(
        &self,
        access: &mut Access,
        name: &str,
        buckets: &[Bucket],
    ) -> Result<Standing<Vec<Bucket>>, Fault> {
        let arguments = buckets.iter().map(Bucket::to_string).collect();
        let (word, rest) = self.call(access, include_str!("ownership/claim.lua"), name, arguments).await?;
        let bucket = |value: Value| value.into_string()?.parse().ok();
        match word.as_str() {
            "fenced" => Ok(Standing::Fenced),
            "claimed" => rest
                .into_iter()
                .map(bucket)
                .collect::<Option<_>>()
                .map(Standing::Member)
                .ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// Lets go of buckets of which nothing is read any more.
    pub(crate) async fn release(
        &self,
        access: &mut Access,
        name: &str,
        buckets: &[Bucket],
    ) -> Result<Standing<()>, Fault> {
        let arguments = buckets.iter().map(Bucket::to_string).collect();
        let (word, _) = self.call(access, include_str!("ownership/release.lua"), name, arguments).await?;
        Ok(if word == "fenced" { Standing::Fenced } else { Standing::Member(()) })
    }

    /// Ends this membership, fences and all; the last one leaves nothing behind.
    pub(crate) async fn leave(&self, access: &mut Access, name: &str) -> Result<(), Fault> {
        self.call(access, include_str!("ownership/leave.lua"), name, Vec::new()).await.map(drop)
    }

    /// Puts up a fence for a new reading connection, and takes down the one of the connection before.
    pub(crate) async fn open_fence(
        &self,
        client: &Client,
        name: &str,
        db: u16,
        fence: &Bytes,
        before: Option<&Bytes>,
    ) -> Result<Standing<()>, Fault> {
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        let arguments = vec![db.to_string(), text(fence), before.map(text).unwrap_or_default()];
        let call = self.call_of(include_str!("ownership/fence.lua"), name, arguments);
        let (word, _) = carry_out(client.clone(), &call).await?;
        Ok(if word == "fenced" { Standing::Fenced } else { Standing::Member(()) })
    }

    async fn call(
        &self,
        access: &mut Access,
        script: &str,
        name: &str,
        arguments: Vec<String>,
    ) -> Result<Answer, Fault> {
        let call = self.call_of(script, name, arguments);
        access.run(self.key_of_members(), |client| carry_out(client, &call)).await
    }

    fn call_of(&self, script: &str, name: &str, arguments: Vec<String>) -> Call {
        let mut all =
            vec![self.home.clone(), self.group.clone(), self.lease.as_millis().to_string(), name.to_owned()];
        all.extend(arguments);
        Call {
            script: [include_str!("ownership/prelude.lua"), script].concat(),
            keys: vec![self.key_of_members(), format!("{}owners", self.prefix)],
            arguments: all,
        }
    }
}

async fn carry_out(client: Client, call: &Call) -> Result<Answer, Fault> {
    let Call { script, keys, arguments } = call;
    let answer: Value = client.eval(script.as_str(), keys.clone(), arguments.clone()).await?;
    let Value::Array(answer) = answer else { return Err(unexpected()) };
    let mut answer = answer.into_iter();
    let word = answer.next().and_then(Value::into_string).ok_or_else(unexpected)?;
    Ok((word, answer.collect()))
}

fn record(member: &Member) -> String {
    serde_json::to_string(member).expect("texts and numbers are JSON")
}

fn parse_member(record: Value) -> Option<Member> {
    serde_json::from_str(&record.into_string()?).ok()
}

fn parse_view(answer: Vec<Value>) -> Option<View> {
    let mut answer = answer.into_iter();
    let version = answer.next()?.into_string()?.parse().ok()?;
    let members = pairs(answer.next()?)
        .map(|(name, record)| Some((name, serde_json::from_str(&record).ok()?)))
        .collect::<Option<_>>()?;
    let owners = pairs(answer.next()?)
        .map(|(bucket, name)| Some((bucket.parse().ok()?, name)))
        .collect::<Option<_>>()?;
    let dropped = match answer.next()? {
        Value::Array(names) => names.into_iter().filter_map(Value::into_string).collect(),
        _ => return None,
    };
    Some(View { version, members, owners, dropped })
}

/// A flat list of names and values.
fn pairs(list: Value) -> impl Iterator<Item = (String, String)> {
    let mut flat = list.into_array().into_iter().filter_map(Value::into_string);
    std::iter::from_fn(move || Some((flat.next()?, flat.next()?)))
}

fn unexpected() -> Fault {
    Fault::Other("a script of ours was answered in an unexpected way".into())
}
