//! Which streams there are: SCAN by database and pattern, and the streams named in the settings.

use std::collections::BTreeSet;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Value;
use fred::types::scan::ScanType;

use super::connection::key;
use super::{Fault, cluster, reply};
use crate::rate_limit::RateLimiter;
use crate::settings::Discovery;

/// Keys that begin so are the bridges' own; discovery never matches them.
pub const OWN_PREFIX: &[u8] = b"redis-sync:";
/// Keys per SCAN call: some 100 µs of the server's time.
const SCAN_COUNT: u32 = 1000;

/// Whether a key may be read at all: not our own bookkeeping, not a dead-letter stream.
pub fn readable(key: &[u8], dead_letter_suffix: &str) -> bool {
    !key.starts_with(OWN_PREFIX) && !key.ends_with(dead_letter_suffix.as_bytes())
}

impl Discovery {
    /// Whether discovery takes this key.
    pub fn takes(&self, key: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(key)) && !self.excludes(key)
    }

    /// Whether this key is never read, even if it is named.
    pub fn excludes(&self, key: &[u8]) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(key))
    }
}

/// All streams of the client's database that discovery takes. One SCAN with the narrowest pattern that covers
/// them all; each call waits for the rate limit.
pub(crate) async fn scan(
    client: &Client,
    discovery: &Discovery,
    dead_letter_suffix: &str,
    limiter: &RateLimiter,
) -> Result<BTreeSet<Bytes>, Fault> {
    let pattern = match discovery.patterns.as_slice() {
        [only] => only.server_glob(),
        _ => "*".to_owned(),
    };
    scan_streams(client, &pattern, limiter, |key| readable(key, dead_letter_suffix) && discovery.takes(key))
        .await
}

/// The streams of the client's database that the server's glob lets through and `wanted` takes. Of a Cluster, those of
/// each primary. A key whose slot moves meanwhile may be missed once, or found twice; a primary that is replaced fails
/// the search.
pub(crate) async fn scan_streams(
    client: &Client,
    glob: &str,
    limiter: &RateLimiter,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<BTreeSet<Bytes>, Fault> {
    if !client.is_clustered() {
        return scan_node(client, glob, limiter, &wanted).await;
    }
    let mut found = BTreeSet::new();
    for primary in cluster::primaries(client).await? {
        found.extend(scan_node(&client.with_cluster_node(primary), glob, limiter, &wanted).await?);
    }
    Ok(found)
}

async fn scan_node(
    node: &impl KeysInterface,
    glob: &str,
    limiter: &RateLimiter,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<BTreeSet<Bytes>, Fault> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        limiter.take().await;
        let page: Value = node.scan_page(cursor, glob, Some(SCAN_COUNT), Some(ScanType::Stream)).await?;
        let Value::Array(mut parts) = page else { return Err(unexpected()) };
        let (Some(Value::Array(keys)), Some(next)) = (parts.pop(), parts.pop()) else {
            return Err(unexpected());
        };
        found.extend(keys.into_iter().filter_map(reply::bytes).filter(|key| wanted(key)));
        cursor = next.into_string().ok_or_else(unexpected)?;
        if cursor == "0" {
            return Ok(found);
        }
    }
}

fn unexpected() -> Fault {
    Fault::Other("SCAN's answer is not a cursor and a list".into())
}

/// What stands at each of these keys: `none`, `stream`, `string`, ….
pub(crate) async fn types(
    client: &Client,
    keys: &[Bytes],
    limiter: &RateLimiter,
) -> Result<Vec<String>, Fault> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    limiter.take().await;
    let pipeline = client.pipeline();
    for name in keys {
        let _: () = pipeline.r#type(key(name)).await?;
    }
    let replies = pipeline.try_all::<String>().await;
    let types: Vec<String> = replies.into_iter().collect::<Result<_, _>>()?;
    if types.len() == keys.len() {
        Ok(types)
    } else {
        Err(Fault::Lost("a pipeline's answers are missing".into()))
    }
}

/// How many databases the server has, where it says so (CONFIG GET may be forbidden).
pub(crate) async fn databases(client: &Client) -> Option<u32> {
    if client.is_clustered() {
        return Some(1);
    }
    let command = fred::cmd!("CONFIG", blocking: false);
    let answer: Vec<String> = client.custom(command, vec!["GET", "databases"]).await.ok()?;
    answer.get(1)?.parse().ok()
}
