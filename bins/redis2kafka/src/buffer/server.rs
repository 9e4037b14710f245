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

/// Looks at what the server tells; else why it is none to keep messages in. What it does not tell is taken for good.
pub(super) async fn examine(client: &Client) -> Result<Durability, String> {
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

fn judge(info: &str, save: Option<&str>) -> Result<Durability, String> {
    let of =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if of("redis_mode") == Some("cluster") || of("server_mode") == Some("cluster") {
        return Err("it is a Cluster, and what the buffer holds must change together".into());
    }
    if let Some(policy) = of("maxmemory_policy").filter(|policy| policy.starts_with("allkeys-")) {
        return Err(format!(
            "its maxmemory-policy is {policy}, which throws away messages that Kafka does not have. Set noeviction, or \
             volatile-ttl: then what Kafka has goes first"
        ));
    }
    match (of("aof_enabled"), save) {
        (Some("0"), Some("")) => Ok(Durability::InMemory),
        (Some("0"), Some(_)) => Ok(Durability::Snapshots),
        _ => Ok(Durability::OnDisk),
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
