//! What people are told about who owns what: log lines, numbers, `/api/status`. Nothing is decided here.

use std::ops::RangeInclusive;

use super::{Ownership, Term, Weights};
use crate::redis::ownership::{Bucket, Member, OF_DATABASES, OF_STREAMS, View};
use crate::run::Parts;
use crate::telemetry::metrics::{Counter, Gauge, Metrics};
use crate::telemetry::status::Replica;

/// What is counted.
pub(super) struct Numbers {
    pub(super) members: Gauge,
    owned: Gauge,
    /// Where there is work beside the streams.
    parts_owned: Option<Gauge>,
    pub(super) fenced: Counter,
}

impl Numbers {
    pub(super) fn new(metrics: &Metrics, beside: Option<Parts>) -> Self {
        let parts_owned = beside.map(|parts| match parts {
            Parts::Databases => {
                metrics.gauge("databases_owned", "Databases that this process owns as a whole")
            }
            Parts::Shards(_) => metrics.gauge("shards_owned", "Shards of the buffer that this process sends"),
        });
        Self {
            members: metrics.gauge("replicas", "Processes that share the streams, this one included"),
            owned: metrics.gauge("streams_owned", "Streams that this process owns"),
            parts_owned,
            fenced: metrics
                .counter("memberships_lost", "Times the other replicas took over from this process"),
        }
    }

    pub(super) fn nothing_is_owned(&self) {
        self.owned.set(0);
        if let Some(parts) = &self.parts_owned {
            parts.set(0);
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

    pub(super) fn say_what_is_owned(&self, term: &Term, weights: &Weights, before: usize) {
        let (replicas, buckets) = (term.view.members.len(), term.mine.len());
        let (streams, all) = owned(term, weights, OF_STREAMS);
        match self.beside {
            None => tracing::info!(replicas, buckets, before, "owns {streams} of {all} streams"),
            Some(parts) => {
                let (mine, there_are) = owned(term, weights, OF_DATABASES);
                let what = match parts {
                    Parts::Databases => "databases",
                    Parts::Shards(_) => "shards",
                };
                tracing::info!(
                    replicas,
                    buckets,
                    before,
                    "owns {streams} of {all} streams, and {mine} of {there_are} {what}"
                );
            }
        }
    }

    pub(super) fn count_what_is_owned(&self, term: &Term, weights: &Weights) {
        self.numbers.owned.set(i64::from(owned(term, weights, OF_STREAMS).0));
        if let Some(parts) = &self.numbers.parts_owned {
            parts.set(i64::from(owned(term, weights, OF_DATABASES).0));
        }
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

/// How many of these are this member's, and how many there are.
fn owned(term: &Term, weights: &Weights, kind: RangeInclusive<Bucket>) -> (u32, u32) {
    let mine = term.mine.range(kind.clone()).filter_map(|bucket| weights.get(bucket)).sum();
    (mine, weights.range(kind).map(|(_, weight)| weight).sum())
}
