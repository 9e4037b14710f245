//! Reading from a Cluster: the same steps as from a server, but each stream has an answer of its own, and what one node
//! does not answer concerns its streams only.

use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Lane;
use super::source_step::{Done, Reader};
use super::streams::{Asked, Step};
use crate::bridge::Sink;
use crate::budget::Share;
use crate::redis::Fault;
use crate::redis::cluster::Cluster;
use crate::redis::reply::{self, Listed};

impl<S: Sink> Lane<S> {
    /// One step on a Cluster. It always ends, see `Cluster`.
    pub(super) fn poll(
        &self,
        mut cluster: Box<Cluster>,
        share: Share,
        step: Step,
    ) -> BoxFuture<'static, Done> {
        let (limiter, group) = (self.shared.limiter.clone(), self.shared.settings.group.clone());
        let consumer = self.shared.settings.consumer.clone();
        let key_of = |asked: &Asked| -> Bytes { self.streams[asked.slot].stream.name.key.clone() };
        match step {
            Step::Recover { pages, count } => {
                let from: Vec<_> = pages.iter().map(|(asked, from)| (key_of(asked), *from)).collect();
                Box::pin(async move {
                    limiter.take().await;
                    let replies = cluster.claim_pending(&group, &consumer, &from, count).await;
                    let reader = Reader::Cluster(cluster);
                    Done::Recovered { reader, share, pages, count, replies: Ok(replies) }
                })
            }
            Step::Read { streams, count, block: rest } => {
                let expected = |asked: &Asked| (key_of(asked), self.streams[asked.slot].last_delivered);
                let expected: Vec<_> = streams.iter().map(expected).collect();
                Box::pin(async move {
                    limiter.take().await;
                    let replies = cluster.read_new(&group, &consumer, &expected, count).await;
                    Done::Polled { reader: Reader::Cluster(cluster), share, streams, rest, replies }
                })
            }
        }
    }

    /// Admits what was read of each stream. Where it was not read, what is pending is looked at first: at once if Redis
    /// says that the group is not where this lane left it, later if it says nothing.
    pub(super) fn admit_polled(
        &mut self,
        asked: &[Asked],
        replies: Vec<Result<Value, Fault>>,
        rest: Option<Duration>,
    ) {
        let mut hot = Vec::new();
        for (asked, reply) in asked.iter().zip(replies) {
            let listed = reply
                .and_then(|reply| reply::entries(reply).map_err(|error| Fault::Other(error.to_string())));
            if let (Ok(listed), Some(stream)) = (&listed, self.streams.stream(asked.slot)) {
                stream.progress.saw(listed.iter().filter_map(Listed::id));
            }
            // Restarted while this was under way: the entries are pending and come again.
            if !self.streams.is_current(*asked) {
                continue;
            }
            match listed {
                Ok(listed) => match listed.last().and_then(Listed::id) {
                    Some(last) => {
                        hot.push(asked.slot);
                        self.streams[asked.slot].last_delivered = last;
                        let entries = listed.into_iter().filter_map(Listed::into_entry);
                        self.admit(asked.slot, entries.collect());
                    }
                    None => self.streams[asked.slot].had_nothing(),
                },
                Err(fault @ (Fault::Taken(_) | Fault::NoGroup(_) | Fault::WrongType(_))) => {
                    let stream = &self.streams[asked.slot].stream.spelled;
                    tracing::debug!(stream, "what is pending is read again: {fault}");
                    self.restart(asked.slot, Instant::now());
                }
                Err(fault) => self.page_failed(asked.slot, fault),
            }
        }
        if let Some(rest) = rest.filter(|_| hot.is_empty()) {
            self.streams.rest_until(Instant::now() + rest);
        }
        self.streams.had_entries(hot);
    }
}
