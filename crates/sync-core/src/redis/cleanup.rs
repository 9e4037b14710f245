//! Deleting entries that no consumer group of their stream needs any more: the scripts, which are beside this file, and
//! what they answer.
//!
//! **What a group needs** is all that it was not handed yet, and what it was handed and has not acknowledged. Each script
//! finds out what every group needs and deletes what none does, ours included: nothing can come between the two, and
//! nothing has to be remembered from one call to the next. Where our own group is not there, nothing is deleted: it may
//! be made again, and read what it had not acknowledged.
//!
//! **XTRIM MINID rather than XDEL** wherever it will do, also when entries are acknowledged: entries of a stream are
//! acknowledged in its order but for few. It drops whole nodes where XDEL looks for each entry; it takes with it what was
//! kept for other groups until then; and it leaves alone what Redis keeps of deleted entries, by which it would not know
//! a group's lag any more.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::clients::Client;
use fred::types::Value;

use super::groups::{Settled, id_text};
use super::script::{At, Script};
use super::{Fault, reply};
use crate::record::EntryId;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("cleanup/prelude.lua"), include_str!($file))))
    };
}

static ACKNOWLEDGE: LazyLock<Script> = script!("cleanup/acknowledge.lua");
static SWEEP: LazyLock<Script> = script!("cleanup/sweep.lua");

/// What went with an acknowledgement.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// So many entries.
    pub(crate) entries: u64,
    /// The entries are acknowledged, but Redis would not delete them: in its words.
    pub(crate) problem: Option<String>,
}

/// What a sweep of one stream came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    /// So many entries were deleted,
    pub(crate) entries: u64,
    /// and there may be more: as many as one call may delete are gone.
    pub(crate) more: bool,
    /// For whom something is kept that our group does not need any more: of the other groups the one that needs the
    /// lowest ID, and that ID.
    pub(crate) kept_for: Option<(Bytes, EntryId)>,
}

/// As [`super::groups::acknowledge`], and deletes what no group needs any more: one script call for each stream.
pub(crate) async fn acknowledge(
    client: &Client,
    at: At,
    group: &str,
    settled: &[&Settled],
) -> Result<Vec<Result<Deleted, Fault>>, Fault> {
    let call = |settled: &&&Settled| {
        let (_, ids) = **settled;
        let mut ids = ids.clone();
        ids.sort_unstable();
        let ids = ids.into_iter().map(|id| Value::String(id_text(id)));
        std::iter::once(Value::from(group)).chain(ids).collect()
    };
    let calls = settled.iter().map(|it| (&it.0, call(&it))).collect();
    let answers = ACKNOWLEDGE.call(client, at, calls).await?.into_iter().map(|answer| match answer {
        Ok(answer) => deleted(answer).ok_or_else(unexpected),
        // Nothing is left to acknowledge.
        Err(Fault::WrongType(_) | Fault::NoGroup(_)) => Ok(Deleted::default()),
        Err(fault) => Err(fault),
    });
    Ok(answers.collect())
}

/// Deletes from each of these streams what no group needs any more, but only so much that Redis can do something else
/// soon. Nothing is done where the group is not there.
pub(crate) async fn sweep(
    client: &Client,
    at: At,
    group: &str,
    keys: &[&Bytes],
) -> Result<Vec<Result<Swept, Fault>>, Fault> {
    let calls = keys.iter().map(|key| (*key, vec![Value::from(group)])).collect();
    let answers = SWEEP.call(client, at, calls).await?;
    Ok(answers.into_iter().map(|answer| swept(answer?).ok_or_else(unexpected)).collect())
}

fn deleted(answer: Value) -> Option<Deleted> {
    let mut parts = answer.into_array().into_iter();
    let (entries, problem) = (parts.next()?.as_u64()?, parts.next()?.into_string()?);
    Some(Deleted { entries, problem: Some(problem).filter(|problem| !problem.is_empty()) })
}

fn swept(answer: Value) -> Option<Swept> {
    let mut parts = answer.into_array().into_iter();
    let (entries, more) = (parts.next()?.as_u64()?, parts.next()?.as_u64()? > 0);
    let kept_for = match parts.next() {
        Some(name) => Some((reply::bytes(name)?, reply::entry_id(parts.next()?).ok()?)),
        None => None,
    };
    Some(Swept { entries, more, kept_for })
}

fn unexpected() -> Fault {
    Fault::Other("a script of clean-up was answered in an unexpected way".into())
}
