//! The one command that writes: `write.lua` with a run of a stream's entries, and what its answer says about each of
//! them. Nothing here sends.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::{ClusterHash, CustomCommand, Value};
use fred::util::{redis_keyslot, sha1_hash};
use sync_core::bridge::{Fate, Record};
use sync_core::record::{Entry, EntryId};
use sync_core::redis::Fault;

use crate::naming::Place;
use crate::settings::{IdConflict, TargetSettings};

const SOURCE: &str = include_str!("write.lua");
static HASH: LazyLock<String> = LazyLock::new(|| sha1_hash(SOURCE));

/// Lua passes on at most some 8,000 words at once.
pub(crate) const MOST_FIELDS: usize = 3900;

/// What is the same for every run.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    maxlen: Value,
    conflict: &'static str,
    waiting: &'static str,
    on_cluster: bool,
}

impl Rules {
    pub(crate) fn new(target: &TargetSettings) -> Self {
        Self {
            maxlen: target.maxlen.to_string().into(),
            conflict: match target.conflict {
                IdConflict::DeadLetter => "dead-letter",
                IdConflict::AutoId => "auto-id",
            },
            waiting: if target.wait_replicas > 0 { "1" } else { "0" },
            on_cluster: target.is_cluster(),
        }
    }

    /// The command that writes these entries to a place; `before` is the entry before them whose fate is not known yet,
    /// `proof` what [`crate::proofs`] says.
    /// `known` is whether the target has the script: else its text goes along, and then it has.
    pub(crate) fn command(
        &self,
        place: &Place,
        before: Option<EntryId>,
        proof: String,
        entries: &[&Entry],
        known: bool,
    ) -> (CustomCommand, Vec<Value>) {
        // The nodes of a Cluster do not share their scripts, and which of them has it is not worth knowing.
        let known = known && !self.on_cluster;
        let name = if known { "EVALSHA" } else { "EVAL" };
        let script = if known { Value::from(HASH.as_str()) } else { Value::from_static_str(SOURCE) };
        let words: usize = entries.iter().map(|entry| 2 + 2 * entry.fields.len()).sum();
        let mut arguments = Vec::with_capacity(9 + words);
        arguments.extend([script, 1.into(), Value::Bytes(place.key.clone())]);
        arguments.push(if self.on_cluster { "".into() } else { place.db.to_string().into() });
        arguments.push(before.map_or_else(String::new, |id| id.to_string()).into());
        arguments.extend([self.maxlen.clone(), self.conflict.into(), self.waiting.into(), proof.into()]);
        for entry in entries {
            let mut id = Vec::with_capacity(24);
            entry.id.write_to(&mut id);
            arguments.push(Value::Bytes(id.into()));
            arguments.push((2 * entry.fields.len()).to_string().into());
            for (field, value) in &entry.fields {
                arguments.extend([Value::Bytes(field.clone()), Value::Bytes(value.clone())]);
            }
        }
        let to = if self.on_cluster { redis_keyslot(&place.key).into() } else { ClusterHash::Random };
        (CustomCommand::new(name, to, false), arguments)
    }
}

/// Why a record cannot be written, whatever the target says.
pub(crate) fn unfit(record: &Record) -> Option<String> {
    let fields = record.entry.fields.len();
    (fields > MOST_FIELDS)
        .then(|| format!("it has {fields} fields, and {MOST_FIELDS} can be written at once"))
}

/// What a run's answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// One for each record of the run.
    pub(crate) fates: Vec<Fate>,
    /// Records that stand on the target under a new ID, and the words for the first of them.
    pub(crate) renamed: Option<(usize, String)>,
    /// What else is to be done.
    pub(crate) trouble: Option<Trouble>,
}

/// What concerns more than this run's records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The target does not have the script (any more).
    ScriptUnknown,
    /// This server is no primary: another one may be.
    ReadOnly(String),
    /// It must be known first whether this, the target's oldest entry, is a copy of the source's.
    Unproven(Entry),
}

impl Answer {
    /// Nothing was heard.
    pub(crate) fn silence(records: usize) -> Self {
        Self { fates: vec![Fate::Unknown; records], renamed: None, trouble: None }
    }

    /// Reads the reply to a run of so many records.
    pub(crate) fn read(reply: Result<Value, Fault>, records: usize) -> Self {
        let reply = match reply {
            Ok(reply) => reply,
            Err(Fault::Other(text)) if text.starts_with("NOSCRIPT") => {
                return Self { trouble: Some(Trouble::ScriptUnknown), ..Self::silence(records) };
            }
            Err(fault) => return Self::stopped(0, fault, false, records),
        };
        let Some(Parts { done, stop, error, oldest, notes }) =
            parts(reply).filter(|parts| parts.done <= records)
        else {
            let fault = Fault::Other("the script's answer is not what it should be".into());
            return Self::stopped(0, fault, false, records);
        };
        let mut answer = match stop.as_str() {
            "" if done == records => {
                Self { fates: vec![Fate::Delivered; records], renamed: None, trouble: None }
            }
            // "behind": what was sent before did not get there, so none of these may.
            "" | "behind" => Self::silence(records),
            "unproven" => {
                let trouble = error.parse().ok().map(|id| Trouble::Unproven(Entry { id, fields: oldest }));
                let mut fates = vec![Fate::Unknown; records];
                fates[..done].fill(Fate::Delivered);
                Self { fates, renamed: None, trouble }
            }
            stop => Self::stopped(done, fault_of(&error), stop == "entry", records),
        };
        for (number, kind, words) in notes {
            match answer.fates.get_mut(number.wrapping_sub(1)) {
                Some(fate) if kind == "conflict" => *fate = Fate::Unfit(words),
                _ => match &mut answer.renamed {
                    Some((renamed, _)) => *renamed += 1,
                    None => answer.renamed = Some((1, words)),
                },
            }
        }
        answer
    }

    /// The first records are delivered, the next one met this, and those after it were not tried.
    fn stopped(delivered: usize, fault: Fault, about_the_entry: bool, records: usize) -> Self {
        let mut fates = vec![Fate::Unknown; records];
        fates[..delivered].fill(Fate::Delivered);
        let mut trouble = None;
        let fate = match fault {
            Fault::Lost(_) => Fate::Unknown,
            Fault::Busy(text) => {
                if text.starts_with("READONLY") {
                    trouble = Some(Trouble::ReadOnly(text.clone()));
                }
                Fate::Busy(text)
            }
            Fault::Other(text) if about_the_entry => Fate::Refused(text),
            Fault::NoGroup(text)
            | Fault::Taken(text)
            | Fault::WrongType(text)
            | Fault::Unblocked(text)
            | Fault::Denied(text)
            | Fault::Other(text) => Fate::Held(format!("the target says: {text}")),
        };
        if let Some(slot) = fates.get_mut(delivered) {
            *slot = fate;
        }
        Self { fates, renamed: None, trouble }
    }
}

/// An error inside a script; Redis 6 puts the place before it, and its own mark.
fn fault_of(text: &str) -> Fault {
    let text = match text.strip_prefix("@user_script: ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => text,
    };
    Fault::answered(text.strip_prefix('-').unwrap_or(text).trim_end().to_owned())
}

/// What the script returns, see there.
struct Parts {
    done: usize,
    stop: String,
    error: String,
    oldest: Vec<(Bytes, Bytes)>,
    notes: Vec<(usize, String, String)>,
}

fn parts(reply: Value) -> Option<Parts> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let done = number(parts.next()?)?;
    let (stop, error) = (text(parts.next()?)?, text(parts.next()?)?);
    let (mut oldest, mut notes) = (Vec::new(), Vec::new());
    let mut words = parts.next().map(Value::into_array).unwrap_or_default().into_iter();
    while let Some(field) = words.next() {
        oldest.push((field.into_bytes()?, words.next()?.into_bytes()?));
    }
    while let Some(at) = parts.next() {
        notes.push((number(at)?, text(parts.next()?)?, text(parts.next()?)?));
    }
    Some(Parts { done, stop, error, oldest, notes })
}

fn number(value: Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn text(value: Value) -> Option<String> {
    let bytes: Bytes = value.into_bytes()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(done: i64, stop: &str, error: &str, notes: &[(i64, &str, &str)]) -> Result<Value, Fault> {
        let mut parts: Vec<Value> = vec![done.into(), stop.into(), error.into(), Value::Array(Vec::new())];
        for (number, kind, words) in notes {
            parts.extend([Value::from(*number), (*kind).into(), (*words).into()]);
        }
        Ok(Value::Array(parts))
    }

    #[test]
    fn fates() {
        use Fate::{Busy, Delivered, Held, Refused, Unfit, Unknown};
        let check =
            |reply, expected: &[Fate]| assert_eq!(Answer::read(reply, expected.len()).fates, expected);
        check(reply(2, "", "", &[]), &[Delivered, Delivered]);
        check(reply(0, "behind", "", &[]), &[Unknown, Unknown]);
        check(reply(1, "entry", "OOM x", &[]), &[Delivered, Busy("OOM x".into()), Unknown]);
        check(reply(0, "entry", "WRONGTYPE x", &[]), &[Held("the target says: WRONGTYPE x".into()), Unknown]);
        check(reply(0, "entry", "ERR too large", &[]), &[Refused("ERR too large".into())]);
        check(
            reply(0, "target", "ERR DB index is out of range", &[]),
            &[Held("the target says: ERR DB index is out of range".into())],
        );
        check(reply(2, "", "", &[(1, "conflict", "why")]), &[Unfit("why".into()), Delivered]);
        check(
            reply(1, "entry", "MISCONF x", &[(1, "conflict", "why")]),
            &[Unfit("why".into()), Busy("MISCONF x".into())],
        );
        check(reply(0, "entry", "@user_script: 12: -OOM x\r\n", &[]), &[Busy("OOM x".into())]);
        check(reply(0, "entry", "NOPERM x", &[]), &[Held("the target says: NOPERM x".into())]);
        check(Err(Fault::Lost("x".into())), &[Unknown, Unknown]);
        check(
            Err(Fault::Other("ERR unknown command".into())),
            &[Held("the target says: ERR unknown command".into()), Unknown],
        );
        check(Err(Fault::Busy("MOVED 1 a:2".into())), &[Busy("MOVED 1 a:2".into()), Unknown]);
    }

    #[test]
    fn an_answer_that_makes_no_sense_delivers_nothing() {
        for reply in [reply(3, "", "", &[]), reply(1, "", "", &[]), Ok(Value::Null), reply(-1, "", "", &[])] {
            let answer = Answer::read(reply, 2);
            assert!(!answer.fates.contains(&Fate::Delivered), "{answer:?}");
        }
    }

    #[test]
    fn troubles() {
        let trouble = |reply| Answer::read(reply, 1).trouble;
        let flushed = Err(Fault::Other("NOSCRIPT No matching script.".into()));
        assert_eq!(trouble(flushed), Some(Trouble::ScriptUnknown));
        assert_eq!(
            trouble(reply(0, "entry", "READONLY x", &[])),
            Some(Trouble::ReadOnly("READONLY x".into()))
        );
        assert_eq!(trouble(reply(0, "entry", "OOM x", &[])), None);
        let id = EntryId { ms: 7, seq: 1 };
        let oldest = Value::Array(vec!["f".into(), "v".into()]);
        let unproven = Ok(Value::Array(vec![1.into(), "unproven".into(), "7-1".into(), oldest]));
        let answer = Answer::read(unproven, 3);
        assert_eq!(answer.fates, [Fate::Delivered, Fate::Unknown, Fate::Unknown]);
        let fields = vec![(Bytes::from("f"), Bytes::from("v"))];
        assert_eq!(answer.trouble, Some(Trouble::Unproven(Entry { id, fields })));
    }

    #[test]
    fn new_ids_are_counted() {
        let notes = [(1, "new-id", "first"), (2, "new-id", "second")];
        let answer = Answer::read(reply(2, "", "", &notes), 2);
        assert_eq!(answer.renamed, Some((2, "first".into())));
        assert_eq!(answer.fates, [Fate::Delivered, Fate::Delivered]);
    }
}
