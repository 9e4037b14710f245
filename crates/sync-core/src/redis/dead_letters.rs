//! Dead letters: what no destination will ever accept, kept beside its stream with the reason. One stream serves
//! all bridges that read `key`, so each letter says first whose it is.

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Value;

use super::Fault;
use super::connection::key;
use crate::record::{Entry, EntryId};

/// What stands before the original pairs of a letter, in this order.
pub const HEADER: [&str; 7] = ["bridge", "group", "stream", "id", "reason", "time", "attempts"];

/// One entry that was refused.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    /// The stream's key.
    pub(crate) stream: &'a Bytes,
    /// Its spelling.
    pub(crate) spelled: &'a str,
    /// The entry, as it was read.
    pub(crate) entry: &'a Entry,
    /// Why, for people.
    pub(crate) reason: &'a str,
    /// How many times its delivery was tried.
    pub(crate) attempts: u32,
}

/// Who writes letters, and where.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// The binary's name.
    pub bridge: &'static str,
    /// The consumer group.
    pub group: String,
    /// What is put behind a stream's key.
    pub suffix: String,
    /// Approximate cap; 0 is none.
    pub maxlen: u64,
}

impl DeadLetters {
    /// The dead-letter stream of a stream.
    pub fn key_of(&self, stream: &[u8]) -> Bytes {
        [stream, self.suffix.as_bytes()].concat().into()
    }

    /// Writes one letter. The entry is acknowledged by the caller afterwards: a crash in between, or a connection
    /// lost while this is under way, repeats the letter.
    pub(crate) async fn write(&self, client: &Client, letter: &Letter<'_>) -> Result<(), Fault> {
        let header = [
            self.bridge.to_owned(),
            self.group.clone(),
            letter.spelled.to_owned(),
            letter.entry.id.to_string(),
            letter.reason.to_owned(),
            chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            letter.attempts.to_string(),
        ];
        let mut arguments: Vec<Value> = vec![Value::Bytes(self.key_of(letter.stream))];
        if self.maxlen > 0 {
            arguments.extend(["MAXLEN".into(), "~".into(), self.maxlen.to_string().into()]);
        }
        arguments.push("*".into());
        for (name, value) in HEADER.iter().zip(header) {
            arguments.extend([(*name).into(), value.into()]);
        }
        for (field, value) in &letter.entry.fields {
            arguments.extend([Value::Bytes(field.clone()), Value::Bytes(value.clone())]);
        }
        let command = fred::cmd!("XADD", blocking: false);
        let _: Value = client.custom(command, arguments).await?;
        Ok(())
    }
}

/// A letter as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The letter's own ID in the dead-letter stream.
    pub letter: EntryId,
    /// The seven values of [`HEADER`].
    pub header: [String; 7],
    /// The original entry.
    pub entry: Entry,
}

impl Found {
    /// The binary that wrote it.
    pub fn bridge(&self) -> &str {
        &self.header[0]
    }

    /// The consumer group that it was read in.
    pub fn group(&self) -> &str {
        &self.header[1]
    }

    /// Why no destination takes it.
    pub fn reason(&self) -> &str {
        &self.header[4]
    }

    /// When it was written, RFC 3339.
    pub fn time(&self) -> &str {
        &self.header[5]
    }

    /// How many times its delivery was tried.
    pub fn attempts(&self) -> &str {
        &self.header[6]
    }

    /// Reads a letter; `None` when the entry is not one that a bridge wrote.
    pub fn parse(entry: Entry) -> Option<Self> {
        let mut fields = entry.fields.into_iter();
        let mut header: [String; 7] = Default::default();
        for (slot, name) in header.iter_mut().zip(HEADER) {
            let (field, value) = fields.next()?;
            if field != name.as_bytes() {
                return None;
            }
            *slot = String::from_utf8(value.to_vec()).ok()?;
        }
        let id = header[3].parse().ok()?;
        Some(Self { letter: entry.id, header, entry: Entry { id, fields: fields.collect() } })
    }
}

/// Removes letters; how many were still there.
pub(crate) async fn remove(client: &Client, dead_letters: &Bytes, letters: &[EntryId]) -> Result<u64, Fault> {
    let ids: Vec<String> = letters.iter().map(EntryId::to_string).collect();
    Ok(client.xdel(key(dead_letters), ids).await?)
}
