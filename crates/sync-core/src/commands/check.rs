//! `check`: the settings in force and where each comes from; with `--connect` what the bridge would do. It reads, and
//! changes nothing: no group is created, nothing is claimed.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::StreamsInterface as _;
use fred::types::Value;
use tokio::time::timeout;

use super::permissions::{self, Permissions};
use super::source::Source;
use super::table::Table;
use super::{CommandError, Ended, counted};
use crate::bridge::Sink;
use crate::record::{EntryId, StreamName};
use crate::redis::connection::key;
use crate::redis::{Fault, discovery, reply};
use crate::settings::{Effective, RedisSettings, StartId, StreamSettings};
use crate::telemetry::log::escape;

/// Streams that are named without `--all`, in each database.
const NAMED: usize = 20;
/// Streams asked about in one round trip.
const PAGE: usize = 500;
/// How long the sink may take to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);

/// What may stand behind `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArguments {
    /// Also connect to both servers and tell what the bridge would do; nothing is changed.
    #[arg(long)]
    pub connect: bool,
    /// With --connect: name every stream, however many there are.
    #[arg(long, requires = "connect")]
    pub all: bool,
}

/// Every setting with its value and origin, then the warnings.
pub fn print_settings(
    effective: &[Effective],
    warnings: &[String],
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let mut table = Table::new("", ["SETTING", "VALUE", "ORIGIN"]);
    for setting in effective {
        table.row([setting.name.to_string(), setting.value.clone(), setting.origin.clone()]);
    }
    table.write(out)?;
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// Connects to both sides, once each, and tells what the bridge would do. [`Ended::Badly`] when it could not work:
/// a server is out of reach, a database cannot be searched, a permission is missing.
pub async fn connect<S: Sink>(
    redis: RedisSettings,
    streams: StreamSettings,
    sink: &S,
    all: bool,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let (source, mut well) = match Source::connect(redis, streams).await {
        Ok(mut source) => {
            let version = source.version().await.unwrap_or_else(|| "version unknown".to_owned());
            writeln!(out, "source Redis {}: connected, {version}", source.address)?;
            (Some(source), true)
        }
        Err(error @ CommandError::Source { .. }) => {
            writeln!(out, "{error}")?;
            (None, false)
        }
        Err(error) => return Err(error),
    };
    let destination = sink.destination();
    match sink.connect().await {
        Ok(lost) => {
            writeln!(out, "{destination}: connected")?;
            sink.disconnect().await;
            let _ = timeout(GOODBYE, lost).await;
        }
        Err(reason) => {
            writeln!(out, "cannot reach the {destination}: {reason}")?;
            well = false;
        }
    }
    if let Some(mut source) = source {
        let looked = look(&mut source, all, out).await;
        well &= looked? == Ended::Well;
    }
    Ok(if well { Ended::Well } else { Ended::Badly })
}

/// What the bridge would find in one database.
struct Database {
    db: u16,
    streams: Vec<(StreamName, Group)>,
    /// Named in the settings and no stream: what stands there, `none` for nothing.
    odd: Vec<(StreamName, String)>,
}

/// In place of what stands at a key: nobody is to read it.
const EXCLUDED: &str = "excluded";

/// The consumer group on one stream.
enum Group {
    There {
        pending: u64,
        /// Unknown before Redis 7.0, and after some deletions.
        lag: Option<u64>,
    },
    Missing,
    Unknown(Fault),
}

async fn look(source: &mut Source, all: bool, out: &mut impl Write) -> Result<Ended, CommandError> {
    writeln!(out)?;
    if !source.settings.enabled {
        writeln!(out, "nothing is read: REDIS_STREAMS_ENABLED is false")?;
        return Ok(Ended::Well);
    }
    let lost = |doing: &str| {
        let doing = doing.to_owned();
        move |fault| CommandError::Redis { doing, fault }
    };
    let (databases, beyond) = source.databases().await.map_err(lost("looking for databases"))?;
    for db in beyond {
        writeln!(out, "database {db}: the server does not have it")?;
    }
    let mut ended = Ended::Well;
    let mut found = Vec::new();
    for db in databases {
        match database(source, db).await {
            Ok(database) => found.push(database),
            Err(fault @ Fault::Lost(_)) => return Err(lost("looking for streams")(fault)),
            Err(fault) => {
                writeln!(out, "database {db}: cannot look for streams: {fault}")?;
                ended = Ended::Badly;
            }
        }
    }
    let any_group = found
        .iter()
        .flat_map(|database| &database.streams)
        .any(|(_, group)| !matches!(group, Group::Missing));
    for database in &found {
        write_database(source, database, !any_group, all, out)?;
    }
    // What is not there yet will be read too.
    let absent = |database: &Database| {
        let absent = database.odd.iter().filter(|(_, kind)| kind == "none");
        absent.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let streams: Vec<StreamName> = found
        .iter()
        .flat_map(|database| database.streams.iter().map(|(name, _)| name.clone()).chain(absent(database)))
        .collect();
    let permissions =
        permissions::find_out(source, &streams).await.map_err(lost("asking for permissions"))?;
    if !write_permissions(source, permissions, streams.is_empty(), out)? {
        ended = Ended::Badly;
    }
    Ok(ended)
}

async fn database(source: &mut Source, db: u16) -> Result<Database, Fault> {
    let named = source.named_in(db);
    let search = source.settings.discovery.clone().filter(|discovery| discovery.dbs.contains(&db));
    let (suffix, limiter) = (source.settings.dead_letter_suffix.clone(), source.limiter.clone());
    let group = source.settings.group.clone();
    let excluded = |key: &[u8]| search.as_ref().is_some_and(|search| search.excludes(key));
    source
        .in_database(db, async |client| {
            let mut streams = match &search {
                Some(search) => discovery::scan(&client, search, &suffix, &limiter).await?,
                None => BTreeSet::new(),
            };
            let mut odd = Vec::new();
            for (named, kind) in named.iter().zip(discovery::types(&client, &named, &limiter).await?) {
                if excluded(named) {
                    odd.push((StreamName::new(db, named.clone()), EXCLUDED.to_owned()));
                } else if kind == "stream" {
                    streams.insert(named.clone());
                } else {
                    odd.push((StreamName::new(db, named.clone()), kind));
                }
            }
            let streams: Vec<Bytes> = streams.into_iter().collect();
            let mut with_groups = Vec::with_capacity(streams.len());
            for page in streams.chunks(PAGE) {
                limiter.take().await;
                let groups = groups_of(&client, page, &group).await?;
                let names = page.iter().map(|key| StreamName::new(db, key.clone()));
                with_groups.extend(names.zip(groups));
            }
            Ok(Database { db, streams: with_groups, odd })
        })
        .await
}

async fn groups_of(client: &Client, streams: &[Bytes], group: &str) -> Result<Vec<Group>, Fault> {
    let pipeline = client.pipeline();
    for stream in streams {
        let _: () = pipeline.xinfo_groups(key(stream)).await?;
    }
    let answers = pipeline.try_all::<Value>().await;
    if answers.len() != streams.len() {
        return Err(Fault::Lost("a pipeline's answers are missing".into()));
    }
    let state = |answer: Result<Value, _>| match answer.map_err(Fault::from) {
        Ok(groups) => Ok(group_in(groups, group)),
        Err(fault @ Fault::Lost(_)) => Err(fault),
        Err(fault) => Ok(Group::Unknown(fault)),
    };
    answers.into_iter().map(state).collect()
}

fn group_in(groups: Value, wanted: &str) -> Group {
    let Value::Array(groups) = groups else { return Group::Missing };
    let is_wanted = |group: &Value| {
        let name = reply::field(group.clone(), "name").and_then(reply::bytes);
        name.is_some_and(|name| name == wanted.as_bytes())
    };
    match groups.into_iter().find(is_wanted) {
        None => Group::Missing,
        Some(group) => Group::There {
            pending: reply::field(group.clone(), "pending")
                .and_then(|count| count.as_u64())
                .unwrap_or_default(),
            lag: reply::field(group, "lag").and_then(|lag| lag.as_u64()),
        },
    }
}

/// `first_start`: no stream has the group.
fn write_database(
    source: &Source,
    database: &Database,
    first_start: bool,
    all: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let Database { db, streams, odd } = database;
    let group = escape(&source.settings.group).into_owned();
    let missing = streams.iter().filter(|(_, group)| matches!(group, Group::Missing)).count();
    let groups = match missing {
        _ if streams.is_empty() => String::new(),
        0 => format!(", all with the group {group}"),
        missing => format!(", {missing} without the group {group}"),
    };
    writeln!(out, "database {db}: {}{groups}", counted(streams.len(), "stream"))?;
    if !streams.is_empty() {
        let mut table = Table::new("  ", ["STREAM", "GROUP", "PENDING", "LAG"]);
        let number =
            |number: &Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        for (name, group) in streams.iter().take(if all { usize::MAX } else { NAMED }) {
            let name = source.spell(name);
            table.row(match group {
                Group::There { pending, lag } => [name, "exists".into(), pending.to_string(), number(lag)],
                Group::Missing => [name, begins(source, first_start), String::new(), String::new()],
                Group::Unknown(fault) => [name, format!("? ({fault})"), "?".into(), "?".into()],
            });
        }
        table.write(out)?;
        if streams.len() > NAMED && !all {
            writeln!(out, "  … and {} more (--all names them)", streams.len() - NAMED)?;
        }
    }
    for (name, kind) in odd {
        let name = source.spell(name);
        let name = escape(&name);
        match kind.as_str() {
            "none" => {
                writeln!(out, "  {name}: named in REDIS_STREAMS and not there yet: read once it exists")?
            }
            kind => writeln!(out, "  {name}: named in REDIS_STREAMS and not read: the key holds a {kind}")?,
        }
    }
    Ok(())
}

/// What becomes of a stream without the group.
fn begins(source: &Source, first_start: bool) -> String {
    if !source.settings.auto_create_groups {
        return "missing: not read (STREAM_AUTO_CREATE_CONSUMER_GROUPS is false)".to_owned();
    }
    match source.settings.start_id {
        StartId::Latest if first_start => "new: what arrives from the start on ($)".to_owned(),
        StartId::After(after) if after != EntryId::default() => format!("new: after {after}"),
        StartId::Latest | StartId::After(_) => "new: all that the stream holds".to_owned(),
    }
}

/// Whether nothing is missing.
fn write_permissions(
    source: &Source,
    permissions: Permissions,
    no_streams: bool,
    out: &mut impl Write,
) -> Result<bool, CommandError> {
    writeln!(out)?;
    let (user, rights) = match permissions {
        Permissions::Of(user, rights) => (user, rights),
        Permissions::Unknown(reason) => {
            writeln!(out, "permissions cannot be checked (ACL WHOAMI, ACL DRYRUN): {}", escape(&reason))?;
            return Ok(true);
        }
    };
    let denied: Vec<_> = rights.iter().filter(|right| !right.denied.is_empty()).collect();
    let granted: Vec<_> =
        rights.iter().filter(|right| right.denied.is_empty()).map(|right| right.what).collect();
    let granted = if granted.is_empty() { "nothing".to_owned() } else { granted.join(", ") };
    writeln!(out, "permissions of the Redis user {}: {granted}", escape(&user))?;
    if no_streams {
        writeln!(out, "  what is done to streams was not checked: there are none yet")?;
    }
    for right in &denied {
        let spelled: Vec<String> = right
            .denied
            .iter()
            .filter_map(|(stream, _)| Some(source.spell(stream.as_ref()?)))
            .take(3)
            .collect();
        let place = match right.denied.len() {
            _ if spelled.is_empty() => String::new(),
            number => {
                let more = if number > spelled.len() { ", …" } else { "" };
                format!(" on {number} of {} ({}{more})", counted(right.asked, "stream"), spelled.join(", "))
            }
        };
        let words = right.denied.first().map_or("", |(_, words)| words);
        writeln!(out, "  missing: {}{}: {}", right.what, escape(&place), escape(words))?;
    }
    Ok(denied.is_empty())
}
