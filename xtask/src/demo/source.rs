//! Where a bridge gets entries from, as far as that can be asked how far the bridge is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use super::act::Act;
use super::devices;
use crate::admin::Messages;
use crate::mqtt;
use crate::redis::Redis;
use crate::services::{Private, Service};

/// See the module.
pub(super) enum Source {
    /// Asked for what the consumer group has acknowledged.
    Redis(Redis),
    /// Which tells of a session only to who uses it: while the bridge does, the bridge is asked.
    Broker { port: u16, log: PathBuf, admin: u16 },
}

/// How far a bridge is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) acknowledged: u64,
    pub(super) pending: u64,
}

impl Source {
    pub(super) fn of(act: Act, servers: &Private, admin: u16) -> Result<Self> {
        let port = servers.port(act.kind.source(), "plain")?;
        Ok(match act.kind.source() {
            Service::Mosquitto => Self::Broker { port, log: servers.broker_log(), admin },
            _ => Self::Redis(Redis::connect(port)?),
        })
    }

    /// While it runs, over all streams. `written` is how many entries there are.
    pub(super) fn totals(&mut self, act: Act, written: u64) -> Result<Progress> {
        match self {
            Self::Redis(redis) => {
                let all = of_group(redis, act)?;
                Ok(Progress {
                    acknowledged: all.values().map(|progress| progress.acknowledged).sum(),
                    pending: all.values().map(|progress| progress.pending).sum(),
                })
            }
            // A bridge that has just started does not answer yet.
            Self::Broker { admin, .. } => {
                let acknowledged = Messages::of(*admin).unwrap_or_default().delivered;
                Ok(Progress { acknowledged, pending: written.saturating_sub(acknowledged) })
            }
        }
    }

    /// By stream, once it has stopped.
    pub(super) fn at_the_end(
        &mut self,
        act: Act,
        written: impl Iterator<Item = (String, usize)>,
    ) -> Result<BTreeMap<String, Progress>> {
        match self {
            Self::Redis(redis) => Ok(of_group(redis, act)?
                .into_iter()
                .map(|(name, progress)| (name.to_owned(), progress))
                .collect()),
            Self::Broker { port, log, .. } => {
                let Some(kept) = mqtt::kept(*port, log, act.group())? else { return Ok(BTreeMap::new()) };
                let progress = |(topic, written): (String, usize)| {
                    let pending = kept.iter().filter(|kept| **kept == topic).count() as u64;
                    let acknowledged = (written as u64).saturating_sub(pending);
                    (topic, Progress { acknowledged, pending })
                };
                Ok(written.map(progress).collect())
            }
        }
    }
}

/// By stream name.
fn of_group(redis: &mut Redis, act: Act) -> Result<BTreeMap<&'static str, Progress>> {
    let mut all = BTreeMap::new();
    for (name, (db, key)) in devices::streams() {
        redis.select(db)?;
        let group = redis.progress(act.group(), &[key])?.pop();
        let progress =
            group.map(|group| Progress { acknowledged: group.acknowledged(), pending: group.pending });
        all.extend(progress.map(|progress| (name, progress)));
    }
    Ok(all)
}
