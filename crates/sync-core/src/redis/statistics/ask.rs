//! The questions of a sweep, pipelined, and their answers as plain numbers. `monitor` asks them too.

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

/// What Redis says of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) length: u64,
    pub(crate) first: Option<EntryId>,
    pub(crate) last: Option<EntryId>,
    /// All of them, in Redis' order.
    pub(crate) groups: Vec<GroupSurvey>,
    /// See [`Answer::weight`].
    pub(crate) weight: usize,
}

/// What it says of a group, and of the stream with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GroupSurvey {
    pub(crate) name: Bytes,
    pub(crate) snapshot: Snapshot,
    pub(crate) pending: u64,
    pub(crate) consumers: u64,
}

/// A consumer of the group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) name: Bytes,
    pub(crate) pending: u64,
    pub(crate) idle: Duration,
}

/// The pending entry with the lowest ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) id: EntryId,
    /// Since somebody was last handed it.
    pub(crate) handed: Duration,
    /// How often that was.
    pub(crate) times: u64,
}

/// The oldest pending entry, and the group's consumers: each only where asked for.
pub(crate) type Details = (Option<Oldest>, Vec<Consumer>);

/// [`surveys`], of this group alone. `None` where there is no such stream or group.
pub(super) async fn streams(
    client: &Client,
    group: &str,
    names: &[StreamName],
) -> Result<Vec<Result<Option<Answer>, Fault>>, Fault> {
    let answers = surveys(client, names).await?.into_iter().map(|survey| match survey {
        Ok(Survey { groups, weight, .. }) => {
            let ours = groups.into_iter().find(|it| it.name == group.as_bytes());
            Ok(ours.map(|GroupSurvey { snapshot, pending, consumers, .. }| Answer {
                snapshot,
                pending,
                consumers,
                weight,
            }))
        }
        Err(fault @ Fault::Denied(_)) => Err(fault),
        // No such key, or another type.
        Err(_) => Ok(None),
    });
    Ok(answers.collect())
}

/// XINFO STREAM and XINFO GROUPS of each.
pub(crate) async fn surveys(
    client: &Client,
    names: &[StreamName],
) -> Result<Vec<Result<Survey, Fault>>, Fault> {
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
            (Ok(stream), Ok(groups)) => survey(stream, groups),
            (_, Err(fault @ Fault::Denied(_))) | (Err(fault), _) | (_, Err(fault)) => Err(fault),
        });
    }
    Ok(answers)
}

/// XPENDING and XINFO CONSUMERS of each, as asked for.
pub(crate) async fn details(
    client: &Client,
    group: &str,
    wanted: &[(&StreamName, bool, bool)],
) -> Result<Vec<Result<Details, Fault>>, Fault> {
    let pipeline = client.pipeline();
    let mut questions = 0;
    for (name, pending, consumers) in wanted {
        if *pending {
            let first = (0u64, "-", "+", 1u64);
            let _: () = pipeline.xpending(key(&name.key), group, first).await?;
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

fn survey(stream: Value, groups: Value) -> Result<Survey, Fault> {
    let malformed = || Fault::Other("XINFO's answer lacks a part".into());
    let mut fields = Fields::of(stream);
    let (first, first_weight) = entry(fields.take("first-entry"));
    let (last, last_weight) = entry(fields.take("last-entry"));
    let length = fields.number("length").ok_or_else(malformed)?;
    let of_stream = Snapshot {
        length,
        added: fields.number("entries-added"),
        first,
        last,
        generated: fields.id("last-generated-id").ok_or_else(malformed)?,
        max_deleted: fields.id("max-deleted-entry-id").unwrap_or_default(),
        ..Snapshot::default()
    };
    let Value::Array(groups) = groups else { return Err(malformed()) };
    let group = |group| {
        let mut group = Fields::of(group);
        let (delivered, entries_read) = (group.id("last-delivered-id")?, group.number("entries-read"));
        Some(GroupSurvey {
            snapshot: Snapshot { delivered, entries_read, ..of_stream },
            pending: group.number("pending")?,
            consumers: group.number("consumers")?,
            name: group.take("name").and_then(reply::bytes)?,
        })
    };
    let groups = groups.into_iter().filter_map(group).collect();
    Ok(Survey { length, first, last, groups, weight: super::MIN_WEIGHT + first_weight + last_weight })
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

/// The only element of XPENDING's list: ID, consumer, milliseconds, how often.
fn oldest(listed: Value) -> Option<Oldest> {
    let Value::Array(mut listed) = listed else { return None };
    let Some(Value::Array(parts)) = listed.pop() else { return None };
    let mut parts = parts.into_iter();
    let id = reply::entry_id(parts.next()?).ok()?;
    let (handed, times) = (parts.nth(1)?.as_u64()?, parts.next()?.as_u64()?);
    Some(Oldest { id, handed: Duration::from_millis(handed), times })
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
