//! The questions of a sweep, pipelined, and their answers as plain numbers.

use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Value;

use super::account::Snapshot;
use crate::record::{EntryId, StreamName};
use crate::redis::connection::key;
use crate::redis::reply::Fields;
use crate::redis::{Fault, reply};

/// What is asked of every stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) snapshot: Snapshot,
    pub(super) pending: u64,
    pub(super) consumers: u64,
    /// Bytes of the entries that came along.
    pub(super) weight: usize,
}

/// A consumer of the group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) name: Bytes,
    pub(super) pending: u64,
    pub(super) idle: Duration,
}

/// The lowest pending ID, and the group's consumers: each only where asked for.
pub(super) type Details = (Option<EntryId>, Vec<Consumer>);

/// XINFO STREAM and XINFO GROUPS of each. `None` where there is no such stream or group.
pub(super) async fn streams(
    client: &Client,
    group: &str,
    names: &[StreamName],
) -> Result<Vec<Result<Option<Answer>, Fault>>, Fault> {
    let pipeline = client.pipeline();
    for name in names {
        // The stream first: see `Snapshot`.
        let _: () = pipeline.xinfo_stream(key(&name.key), false, None).await?;
        let _: () = pipeline.xinfo_groups(key(&name.key)).await?;
    }
    let replies = all(pipeline.try_all::<Value>().await, 2 * names.len())?;
    let mut replies = replies.into_iter();
    let mut answers = Vec::with_capacity(names.len());
    while let (Some(stream), Some(groups)) = (replies.next(), replies.next()) {
        answers.push(match (stream, groups) {
            (Ok(stream), Ok(groups)) => Ok(answer(stream, groups, group)),
            (Err(Fault::Denied(reason)), _) | (_, Err(Fault::Denied(reason))) => Err(Fault::Denied(reason)),
            // No such key, or another type.
            _ => Ok(None),
        });
    }
    Ok(answers)
}

/// XPENDING and XINFO CONSUMERS of each, as asked for.
pub(super) async fn details(
    client: &Client,
    group: &str,
    wanted: &[(&StreamName, bool, bool)],
) -> Result<Vec<Result<Details, Fault>>, Fault> {
    let pipeline = client.pipeline();
    let mut questions = 0;
    for (name, pending, consumers) in wanted {
        if *pending {
            let _: () = pipeline.xpending(key(&name.key), group, ()).await?;
        }
        if *consumers {
            let _: () = pipeline.xinfo_consumers(key(&name.key), group).await?;
        }
        questions += usize::from(*pending) + usize::from(*consumers);
    }
    let mut replies = all(pipeline.try_all::<Value>().await, questions)?.into_iter();
    let mut next =
        |asked: bool| if asked { replies.next().unwrap_or(Ok(Value::Null)) } else { Ok(Value::Null) };
    let answers = wanted.iter().map(|(_, pending, consumers)| {
        let (pending, consumers) = (next(*pending), next(*consumers));
        match (pending, consumers) {
            (Ok(pending), Ok(consumers)) => Ok((oldest(pending), list_consumers(consumers))),
            // Gone meanwhile.
            (Err(Fault::NoGroup(_)), _) | (_, Err(Fault::NoGroup(_))) => Ok(Details::default()),
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
        }
    });
    Ok(answers.collect())
}

/// A pipeline's answers, each a value or an error of its own; one lost with the connection fails them all.
fn all(replies: Vec<Result<Value, Error>>, expected: usize) -> Result<Vec<Result<Value, Fault>>, Fault> {
    let replies: Vec<_> = replies.into_iter().map(|reply| reply.map_err(Fault::from)).collect();
    let broken = replies.iter().find_map(|reply| match reply {
        Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => Some(fault.clone()),
        _ => None,
    });
    match broken {
        Some(fault) => Err(fault),
        None if replies.len() == expected => Ok(replies),
        None => Err(Fault::Lost("a pipeline's answers are missing".into())),
    }
}

fn answer(stream: Value, groups: Value, group: &str) -> Option<Answer> {
    let mut fields = Fields::of(stream);
    let (first, first_weight) = entry(fields.take("first-entry"));
    let (last, last_weight) = entry(fields.take("last-entry"));
    let Value::Array(groups) = groups else { return None };
    let mut ours = groups
        .into_iter()
        .map(Fields::of)
        .find(|fields| fields.get("name").and_then(Value::as_bytes) == Some(group.as_bytes()))?;
    let snapshot = Snapshot {
        length: fields.number("length")?,
        added: fields.number("entries-added"),
        first,
        last,
        generated: fields.id("last-generated-id")?,
        max_deleted: fields.id("max-deleted-entry-id").unwrap_or_default(),
        delivered: ours.id("last-delivered-id")?,
        entries_read: ours.number("entries-read"),
    };
    let weight = super::MIN_WEIGHT + first_weight + last_weight;
    Some(Answer { snapshot, pending: ours.number("pending")?, consumers: ours.number("consumers")?, weight })
}

/// An entry's ID, and what it weighs.
fn entry(value: Option<Value>) -> (Option<EntryId>, usize) {
    let Some(Value::Array(mut parts)) = value else { return (None, 0) };
    let weight = match parts.get(1) {
        Some(Value::Array(fields)) => {
            fields.iter().map(|field| field.as_bytes().map_or(0, <[u8]>::len)).sum()
        }
        _ => 0,
    };
    let id = (!parts.is_empty()).then(|| parts.swap_remove(0)).and_then(|id| reply::entry_id(id).ok());
    (id, weight)
}

/// XPENDING's summary: count, lowest ID, highest ID, consumers.
fn oldest(summary: Value) -> Option<EntryId> {
    match summary {
        Value::Array(parts) => parts.into_iter().nth(1).and_then(|id| reply::entry_id(id).ok()),
        _ => None,
    }
}

fn list_consumers(consumers: Value) -> Vec<Consumer> {
    let Value::Array(consumers) = consumers else { return Vec::new() };
    let consumer = |consumer| {
        let mut fields = Fields::of(consumer);
        Some(Consumer {
            pending: fields.number("pending")?,
            idle: Duration::from_millis(fields.number("idle")?),
            name: fields.take("name").and_then(reply::bytes)?,
        })
    };
    consumers.into_iter().filter_map(consumer).collect()
}
