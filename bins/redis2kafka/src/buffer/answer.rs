//! What the answer to a run of messages says about each of them (`lua/store.lua`). Nothing here sends.

use fred::types::Value;
use sync_core::bridge::Fate;
use sync_core::redis::Fault;

use super::script::answered;

/// What a run's answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// One for each message of the run.
    pub(super) fates: Vec<Fate>,
    /// What concerns more than this run.
    pub(super) trouble: Option<Trouble>,
}

/// See there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server does not have the script (any more).
    ScriptUnknown,
    /// It is no primary: another one may be.
    ReadOnly(String),
}

impl Answer {
    /// Nothing was heard.
    pub(super) fn silence(messages: usize) -> Self {
        Self { fates: vec![Fate::Unknown; messages], trouble: None }
    }

    /// Reads the reply to a run of so many messages.
    pub(super) fn read(reply: Result<Value, Fault>, messages: usize) -> Self {
        let reply = match reply {
            Ok(reply) => reply,
            Err(Fault::Other(text)) if text.starts_with("NOSCRIPT") => {
                return Self { trouble: Some(Trouble::ScriptUnknown), ..Self::silence(messages) };
            }
            Err(Fault::Other(text)) => return Self::stopped(0, answered(&text), messages),
            Err(fault) => return Self::stopped(0, fault, messages),
        };
        let Some(Parts { done, stop, error, conflicts }) =
            parts(reply).filter(|parts| parts.done <= messages)
        else {
            let fault = Fault::Other("the script's answer is not what it should be".into());
            return Self::stopped(0, fault, messages);
        };
        let mut answer = match stop.as_str() {
            "" if done == messages => Self { fates: vec![Fate::Delivered; messages], trouble: None },
            // "behind": what was sent before did not get there, so none of these may.
            "" | "behind" => Self::silence(messages),
            // It passes: that one is sent, or refused.
            "conflict" => Self::stopped_with(
                done,
                Fate::Busy(
                    "the buffer has another message under its key, which Kafka does not have yet".into(),
                ),
                messages,
            ),
            _ => Self::stopped(done, answered(&error), messages),
        };
        for number in conflicts {
            if let Some(fate) = answer.fates.get_mut(number.wrapping_sub(1)) {
                *fate = Fate::Unfit(
                    "the buffer has another message under its key, which Kafka has refused: see `buffer list --refused`"
                        .into(),
                );
            }
        }
        answer
    }

    /// The first messages are stored, the next one met this, and those after it were not tried.
    fn stopped(stored: usize, fault: Fault, messages: usize) -> Self {
        let mut trouble = None;
        let fate = match fault {
            Fault::Lost(_) => Fate::Unknown,
            Fault::Busy(text) => {
                if text.starts_with("READONLY") {
                    trouble = Some(Trouble::ReadOnly(text.clone()));
                }
                Fate::Shut(text)
            }
            Fault::NoGroup(text)
            | Fault::Taken(text)
            | Fault::WrongType(text)
            | Fault::Unblocked(text)
            | Fault::Denied(text)
            | Fault::Other(text) => Fate::Held(format!("the buffer says: {text}")),
        };
        Self { trouble, ..Self::stopped_with(stored, fate, messages) }
    }

    fn stopped_with(stored: usize, fate: Fate, messages: usize) -> Self {
        let mut fates = vec![Fate::Unknown; messages];
        fates[..stored].fill(Fate::Delivered);
        if let Some(slot) = fates.get_mut(stored) {
            *slot = fate;
        }
        Self { fates, trouble: None }
    }
}

/// What the script returns, see there.
struct Parts {
    done: usize,
    stop: String,
    error: String,
    conflicts: Vec<usize>,
}

fn parts(reply: Value) -> Option<Parts> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let done = number(&parts.next()?)?;
    let (stop, error) = (text(parts.next()?)?, text(parts.next()?)?);
    let conflicts = parts.map(|part| number(&part)).collect::<Option<_>>()?;
    Some(Parts { done, stop, error, conflicts })
}

pub(super) fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

pub(super) fn text(value: Value) -> Option<String> {
    let bytes: bytes::Bytes = value.into_bytes()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(done: i64, stop: &str, error: &str, conflicts: &[i64]) -> Result<Value, Fault> {
        let mut parts: Vec<Value> = vec![done.into(), stop.into(), error.into()];
        parts.extend(conflicts.iter().map(|number| Value::from(*number)));
        Ok(Value::Array(parts))
    }

    #[test]
    fn fates() {
        use Fate::{Busy, Delivered, Held, Shut, Unfit, Unknown};
        let check =
            |reply, expected: &[Fate]| assert_eq!(Answer::read(reply, expected.len()).fates, expected);
        let oom = || Shut("OOM x".into());
        let waits =
            || Busy("the buffer has another message under its key, which Kafka does not have yet".into());
        let conflict = || {
            let reason = "the buffer has another message under its key, which Kafka has refused: see `buffer list --refused`";
            Unfit(reason.into())
        };
        check(reply(1, "conflict", "", &[]), &[Delivered, waits(), Unknown]);
        check(reply(1, "conflict", "", &[1]), &[conflict(), waits()]);
        check(reply(2, "", "", &[]), &[Delivered, Delivered]);
        check(reply(0, "behind", "", &[]), &[Unknown, Unknown]);
        check(reply(1, "message", "OOM x", &[]), &[Delivered, oom(), Unknown]);
        check(reply(0, "message", "@user_script: 12: -OOM x\r\n", &[]), &[oom()]);
        check(reply(2, "", "", &[2]), &[Delivered, conflict()]);
        check(reply(1, "message", "OOM x", &[1]), &[conflict(), oom()]);
        check(
            reply(0, "message", "WRONGTYPE x", &[]),
            &[Held("the buffer says: WRONGTYPE x".into()), Unknown],
        );
        check(Err(Fault::Lost("x".into())), &[Unknown, Unknown]);
        check(Err(Fault::Denied("NOPERM x".into())), &[Held("the buffer says: NOPERM x".into()), Unknown]);
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
        assert_eq!(trouble(Err(Fault::Other("NOSCRIPT No".into()))), Some(Trouble::ScriptUnknown));
        assert_eq!(
            trouble(reply(0, "message", "READONLY x", &[])),
            Some(Trouble::ReadOnly("READONLY x".into()))
        );
        assert_eq!(trouble(reply(0, "message", "OOM x", &[])), None);
    }
}
