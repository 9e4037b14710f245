//! Whether a Redis is one to keep messages in.

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::InfoKind;
use fred::types::Value;

/// What becomes of the data when the server restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It is on disk, or nobody tells that it is not.
    OnDisk,
    /// What came since the last snapshot is gone, if it does not end in peace.
    Snapshots,
    /// It is gone.
    InMemory,
}

/// Why it is none to keep messages in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsafe {
    /// Nothing can be there.
    #[error("it is a Cluster, and what the buffer holds must change together")]
    Cluster,
    /// By this policy.
    #[error(
        "its maxmemory-policy is {0}, which throws away messages that Kafka does not have. Set noeviction, or volatile-ttl: \
         then what Kafka has goes first"
    )]
    ThrowsAway(String),
}

/// Looks at what the server tells; else why it is none to keep messages in. What it does not tell is taken for good.
pub(super) async fn examine(client: &Client) -> Result<Durability, Unsafe> {
    let mut info = String::new();
    for kind in [InfoKind::Server, InfoKind::Memory, InfoKind::Persistence] {
        info += &client.info::<String>(Some(kind)).await.unwrap_or_default();
    }
    let save = client.custom::<Value, Value>(fred::cmd!("CONFIG"), vec!["GET".into(), "save".into()]).await;
    let save = save.ok().and_then(|reply| {
        let words: Vec<String> = reply.convert().ok()?;
        words.into_iter().nth(1)
    });
    judge(&info, save.as_deref())
}

fn judge(info: &str, save: Option<&str>) -> Result<Durability, Unsafe> {
    let of = |name: &str| told(info, name);
    if of("redis_mode") == Some("cluster") || of("server_mode") == Some("cluster") {
        return Err(Unsafe::Cluster);
    }
    if let Some(reason) = throws_away(of("maxmemory_policy")) {
        return Err(reason);
    }
    match (of("aof_enabled"), save) {
        (Some("0"), Some("")) => Ok(Durability::InMemory),
        (Some("0"), Some(_)) => Ok(Durability::Snapshots),
        _ => Ok(Durability::OnDisk),
    }
}

fn told<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn throws_away(policy: Option<&str>) -> Option<Unsafe> {
    policy.filter(|policy| policy.starts_with("allkeys-")).map(|policy| Unsafe::ThrowsAway(policy.to_owned()))
}

/// How it stands with the server's memory, as far as it tells.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes that count.
    pub(super) used: Option<u64>,
    /// Bytes that may be used; 0 is all that there are.
    pub(super) most: Option<u64>,
    /// Why messages may be thrown away.
    pub(super) throws_away: Option<Unsafe>,
    /// It makes room itself.
    pub(super) evicts: bool,
    /// How many keys the database has, and how many of them are to expire.
    pub(super) keys: Option<(u64, u64)>,
}

/// Asks once.
pub(super) async fn memory(client: &Client, db: u16) -> Memory {
    let mut info = String::new();
    for kind in [InfoKind::Memory, InfoKind::Keyspace] {
        info += &client.info::<String>(Some(kind)).await.unwrap_or_default();
    }
    Memory::read(&info, db)
}

impl Memory {
    pub(super) fn read(info: &str, db: u16) -> Self {
        let number = |name: &str| told(info, name).and_then(|text| text.parse::<u64>().ok());
        let policy = told(info, "maxmemory_policy");
        let keys = told(info, &format!("db{db}")).and_then(|keyspace| {
            let of = |name: &str| {
                let mut parts = keyspace.split(',').filter_map(|part| part.split_once('='));
                parts.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
            };
            Some((of("keys")?, of("expires")?))
        });
        Self {
            used: number("used_memory")
                .map(|used| used.saturating_sub(number("mem_not_counted_for_evict").unwrap_or_default())),
            most: number("maxmemory"),
            throws_away: throws_away(policy),
            evicts: policy.is_some_and(|policy| policy != "noeviction"),
            keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let fine = "redis_mode:standalone\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        assert_eq!(judge(fine, Some("")), Ok(Durability::OnDisk));
        assert_eq!(judge("", None), Ok(Durability::OnDisk));
        assert_eq!(judge("aof_enabled:0\r\n", Some("")), Ok(Durability::InMemory));
        assert_eq!(judge("aof_enabled:0\r\n", Some("3600 1")), Ok(Durability::Snapshots));
        assert_eq!(judge("maxmemory_policy:volatile-ttl\r\n", None), Ok(Durability::OnDisk));
        for bad in ["maxmemory_policy:allkeys-lru\r\n", "redis_mode:cluster\r\n"] {
            assert!(judge(bad, None).is_err(), "{bad}");
        }
    }
}
