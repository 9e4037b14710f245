//! What people are told about who owns what: log lines, numbers, `/api/status`. Nothing is decided here.

use super::{Ownership, Term};
use crate::redis::ownership::{Member, View};
use crate::telemetry::metrics::{Counter, Gauge, Metrics};
use crate::telemetry::status::Replica;

/// What is counted.
pub(super) struct Numbers {
    pub(super) members: Gauge,
    pub(super) owned: Gauge,
    pub(super) fenced: Counter,
}

impl Numbers {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            members: metrics.gauge("replicas", "Processes that share the streams, this one included"),
            owned: metrics.gauge("streams_owned", "Streams that this process owns"),
            fenced: metrics
                .counter("memberships_lost", "Times the other replicas took over from this process"),
        }
    }
}

impl Ownership {
    pub(super) fn show(&self, term: &Term) {
        self.numbers.members.set(i64::try_from(term.view.members.len()).unwrap_or(i64::MAX));
        let replica = |(name, member): (&String, &Member)| Replica {
            name: name.clone(),
            host: member.host.clone(),
            pid: member.pid,
            version: member.version.clone(),
            me: **name == *term.name,
        };
        let replicas = term.view.members.iter().map(replica).collect();
        self.status.shared(Some(term.name.to_string()), replicas, term.view.owners.clone());
        self.statistics.companions(term.view.members.values().map(|member| member.consumer.clone()));
    }

    pub(super) fn taken_by(&self, other: &Member) -> String {
        let Member { bridge, sink, host, pid, .. } = other;
        let group = &self.streams.group;
        let (what, mine) = (&self.member.bridge, &self.member.sink);
        format!(
            "the consumer group {group} is used by {bridge} to {sink} (host {host}, process {pid}), and this is {what} to {mine}: \
             give it a group of its own with STREAM_CONSUMER_GROUP"
        )
    }

    pub(super) fn say_dead(&self, name: &str, member: Option<&Member>) {
        let (host, pid) = member.map_or(("", 0), |member| (member.host.as_str(), member.pid));
        tracing::warn!(
            member = name,
            host,
            pid,
            "a replica has not renewed its lease, or its process has ended: its streams are taken over"
        );
    }

    pub(super) fn say_what_changed(&self, me: &str, before: &View, now: &View) {
        for name in &now.dropped {
            self.say_dead(name, before.members.get(name));
        }
        for (name, member) in now.members.iter().filter(|(name, _)| !before.members.contains_key(*name)) {
            if name != me {
                tracing::info!(
                    member = name,
                    host = member.host,
                    pid = member.pid,
                    "another replica is there"
                );
            }
        }
        for name in before.members.keys() {
            if !now.members.contains_key(name) && !now.dropped.contains(name) {
                tracing::info!(member = name, "a replica is no longer there");
            }
        }
        let unlike = |view: &View| view.members.values().any(|member| member.reads != self.member.reads);
        if unlike(now) && !unlike(before) {
            tracing::warn!(
                "replicas with other settings of what to read share this group: streams that not all of them read may wait \
                 for an owner. Give all the same databases, patterns and streams"
            );
        }
    }
}
