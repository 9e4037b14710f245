//! Whether what is written would be read again: a bridge from a server to itself can be right (to another database, or
//! under other names), or run for ever. What the settings allow is decided by [`comes_back`], which is pure and would
//! rather refuse too much; whether both sides are one server is asked of the servers.

use std::collections::BTreeSet;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use sync_core::pattern::Pattern;
use sync_core::redis::Fault;
use sync_core::redis::connection::Connector;
use sync_core::settings::{Discovery, StreamSettings};

use crate::naming::Naming;
use crate::settings::{Settings, TargetDb};

/// Why a bridge is not to run.
const REFUSAL: &str = "source and target are the same Redis, and what is written there would be read again, for ever: \
    give TARGET_STREAM_PREFIX and exclude what begins so (TARGET_STREAM_PREFIX=copy: and \
    STREAM_EXCLUDE_PATTERNS=copy:*), or set TARGET_REDIS_DB to a database that SOURCE_REDIS_DB_SEARCH_RANGE and \
    REDIS_STREAMS leave out";

/// Looks whether both sides are one server, where that would matter.
#[derive(Clone, Debug)]
pub(crate) struct LoopCheck {
    /// `None` where nothing could come back whatever the servers are.
    source: Option<(Connector, u16)>,
}

/// What the servers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing comes back.
    Fine,
    /// Everything would; and what to set.
    Loop(&'static str),
    /// A server does not say who it is.
    NotTold(String),
}

impl LoopCheck {
    pub(crate) fn new(settings: &Settings, source: Connector) -> Self {
        let matters = comes_back(settings.target.db, &Naming::of(settings), &settings.streams);
        Self { source: matters.then_some((source, settings.redis.db)) }
    }

    /// Asks both servers. One that cannot be reached is no finding: the bridge does not get further without it.
    pub(crate) async fn verdict(&self, target: &Client) -> Verdict {
        let Some((source, db)) = &self.source else { return Verdict::Fine };
        let Ok(mut connection) = source.connection(*db).await else { return Verdict::Fine };
        let source = connection.run(async |client| names(&client).await).await;
        match (source, names(target).await) {
            (Ok(source), Ok(target)) if source.is_disjoint(&target) => Verdict::Fine,
            (Ok(_), Ok(_)) => Verdict::Loop(REFUSAL),
            (Err(Fault::Lost(_)), _) | (_, Err(Fault::Lost(_))) => Verdict::Fine,
            (Err(fault), _) | (_, Err(fault)) => Verdict::NotTold(fault.to_string()),
        }
    }
}

/// What no two servers share: the run ID, or the IDs of all nodes of a Cluster, whichever of them answers.
async fn names(client: &Client) -> Result<BTreeSet<String>, Fault> {
    let info: String = client.info(None).await?;
    let of =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if of("cluster_enabled") != Some("1") {
        return Ok(of("run_id").map(str::to_owned).into_iter().collect());
    }
    let nodes = client.custom::<String, Value>(fred::cmd!("CLUSTER"), vec!["NODES".into()]).await?;
    Ok(nodes.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// Whether a stream could be written where streams are read, if both sides were one server.
fn comes_back(db: TargetDb, naming: &Naming, streams: &StreamSettings) -> bool {
    let is_excluded = |key: &[u8]| streams.discovery.as_ref().is_some_and(|it| it.excludes(key));
    let named: BTreeSet<_> = streams.named.iter().filter(|stream| !is_excluded(&stream.key)).collect();
    let is_read = |db: u16, key: &[u8]| {
        let found = streams.discovery.as_ref().is_some_and(|it| it.dbs.contains(&db) && it.takes(key));
        found || named.iter().any(|stream| stream.db == db && stream.key == key)
    };
    if named.iter().map(|stream| naming.place(stream)).any(|place| is_read(place.db, &place.key)) {
        return true;
    }
    let Some(discovery) = &streams.discovery else { return false };
    let written_to = |other: u16| match db {
        TargetDb::Number(number) => number == other,
        TargetDb::Same => discovery.dbs.contains(&other),
    };
    let before = naming.before();
    discovery.dbs.iter().any(|db| written_to(*db)) && may_take(discovery, before)
        || named.iter().any(|stream| written_to(stream.db) && stream.key.starts_with(before))
}

/// Whether discovery may take a key that begins so.
fn may_take(discovery: &Discovery, before: &[u8]) -> bool {
    let fits = |pattern: &Pattern| {
        let head = head(pattern);
        head.starts_with(before) || before.starts_with(head)
    };
    let all = |pattern: &Pattern| {
        let head = head(pattern);
        before.starts_with(head) && &pattern.as_str().as_bytes()[head.len()..] == b"*"
    };
    discovery.patterns.iter().any(fits) && !discovery.exclude.iter().any(all)
}

/// What every key begins with that matches.
fn head(pattern: &Pattern) -> &[u8] {
    let text = pattern.as_str();
    &text.as_bytes()[..text.find(['*', '?', '[']).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use sync_core::program::BridgeSettings as _;
    use sync_core::settings::Inputs;

    use super::*;

    fn check(environment: &[(&str, &str)], expected: bool) {
        let inputs = Inputs::new(environment.iter().copied(), "/absent/env.conf");
        let settings = Settings::load(&inputs).expect("loads").settings;
        let comes_back = comes_back(settings.target.db, &Naming::of(&settings), &settings.streams);
        assert_eq!(comes_back, expected, "{environment:?}");
    }

    const PREFIX: (&str, &str) = ("TARGET_STREAM_PREFIX", "copy:");

    #[test]
    fn what_discovery_would_find_again() {
        check(&[], true);
        check(&[("TARGET_REDIS_DB", "same")], true);
        check(&[("TARGET_REDIS_DB", "15")], true);
        check(&[("TARGET_REDIS_DB", "15"), ("REDIS_DB_SEARCH_RANGE", "0-14")], false);
        check(&[PREFIX], true);
        check(&[PREFIX, ("STREAM_EXCLUDE_PATTERNS", "other:*,copy:*")], false);
        check(&[PREFIX, ("STREAM_EXCLUDE_PATTERNS", "co*")], false);
        check(&[PREFIX, ("STREAM_EXCLUDE_PATTERNS", "copy:device*")], true);
        check(&[PREFIX, ("STREAM_EXCLUDE_PATTERNS", "copy:*"), ("TARGET_REDIS_DB", "same")], false);
        check(&[PREFIX, ("STREAM_DISCOVERY_PATTERNS", "device:*,biosignal-*")], false);
        check(&[PREFIX, ("STREAM_DISCOVERY_PATTERNS", "device:*,c?py*")], true);
        check(&[PREFIX, ("STREAM_DISCOVERY_PATTERNS", "copy:a:*")], true);
        check(&[("SOURCE_NAME", "a:"), ("STREAM_DISCOVERY_PATTERNS", "b*")], false);
    }

    #[test]
    fn named_streams() {
        const NO_DISCOVERY: (&str, &str) = ("STREAM_AUTO_DISCOVERY", "false");
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "a,b")], true);
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "a,b"), PREFIX], false);
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "a,copy:a"), PREFIX], true);
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "db1:a")], false);
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "db1:a"), ("TARGET_REDIS_DB", "same")], true);
        check(&[NO_DISCOVERY, ("REDIS_STREAMS", "a,db3:a"), ("TARGET_REDIS_DB", "3")], true);
        let elsewhere = [("REDIS_DB_SEARCH_RANGE", "1"), ("TARGET_REDIS_DB", "2"), PREFIX];
        check(&[&elsewhere[..], &[("REDIS_STREAMS", "db2:copy:x")]].concat(), true);
        check(&[&elsewhere[..], &[("REDIS_STREAMS", "db2:x")]].concat(), false);
    }
}
