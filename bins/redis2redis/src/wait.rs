//! WAIT: how many replicas have what this connection has written. It goes behind the scripts of a group, to each
//! server that they went to.

use std::collections::HashMap;

use fred::clients::Client;
use fred::interfaces::ClusterInterface as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use fred::util::redis_keyslot;
use sync_core::bridge::Fate;
use sync_core::redis::Fault;
use sync_core::redis::call::Call;

use crate::naming::Place;

/// How long the server waits for its replicas, in milliseconds. Nothing else is answered on the connection meanwhile.
const PATIENCE: u64 = 1000;

/// One WAIT on its way, and the runs that it is about.
pub(crate) struct Wait {
    pub(crate) runs: Vec<usize>,
    pub(crate) call: Call,
}

/// Asks every server that was written to; `places` are those of the runs. Nothing with no replicas to wait for.
pub(crate) fn send(client: &Client, replicas: u32, on_cluster: bool, places: &[Place]) -> Vec<Wait> {
    if replicas == 0 || places.is_empty() {
        return Vec::new();
    }
    let mut servers: HashMap<_, (u16, Vec<usize>)> = HashMap::new();
    let routing = client.cached_cluster_state().filter(|_| on_cluster);
    for (run, place) in places.iter().enumerate() {
        let slot = redis_keyslot(&place.key);
        let server = routing.as_ref().and_then(|routing| routing.get_server(slot));
        servers.entry(server).or_insert_with(|| (slot, Vec::new())).1.push(run);
    }
    let ask = |(slot, runs)| {
        let command = CustomCommand::new("WAIT", ClusterHash::Custom(slot), false);
        Wait {
            runs,
            call: Call::send(client, command, vec![i64::from(replicas).into(), (PATIENCE as i64).into()]),
        }
    };
    servers.into_values().map(ask).collect()
}

/// What an entry comes to that was written; `None` when enough replicas have it.
pub(crate) fn fate(answer: Option<Result<Value, Fault>>, replicas: u32) -> Option<Fate> {
    match answer {
        Some(Ok(reached)) => match reached.as_u64().unwrap_or_default() {
            reached if reached >= u64::from(replicas) => None,
            reached => Some(Fate::Busy(format!("only {reached} of {replicas} replicas have it"))),
        },
        Some(Err(Fault::Busy(text))) => Some(Fate::Busy(text)),
        Some(Err(Fault::Lost(_))) | None => Some(Fate::Unknown),
        Some(Err(fault)) => Some(Fate::Held(fault.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates() {
        assert_eq!(fate(Some(Ok(2.into())), 2), None);
        assert_eq!(fate(Some(Ok(1.into())), 2), Some(Fate::Busy("only 1 of 2 replicas have it".into())));
        assert_eq!(fate(Some(Ok(Value::Null)), 1), Some(Fate::Busy("only 0 of 1 replicas have it".into())));
        assert_eq!(fate(None, 1), Some(Fate::Unknown));
        assert_eq!(fate(Some(Err(Fault::Lost("x".into()))), 1), Some(Fate::Unknown));
        assert_eq!(fate(Some(Err(Fault::Denied("NOPERM".into()))), 1), Some(Fate::Held("NOPERM".into())));
    }
}
