//! The words of the source: stream names, entry IDs, entries. Pure values; nothing here talks to a server.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;

/// Which stream, on which database of the source: the key is bytes, as Redis has it.
///
/// Its spelling for people and destinations is [`StreamName::spell`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName {
    /// The number given to `SELECT`.
    pub db: u16,
    /// The key, byte for byte.
    pub key: Bytes,
}

const BASE64_MARK: &str = "b64:";

impl StreamName {
    /// A stream by database and key.
    pub fn new(db: u16, key: impl Into<Bytes>) -> Self {
        Self { db, key: key.into() }
    }

    /// The one spelling used in settings, logs, metrics and at every destination: `key` in the default
    /// database, `dbN:key` elsewhere. Two streams never share a spelling: a key of the default database that
    /// itself begins `db<digits>:` is written with its database (`db0:db1:foo`), and a key that is not UTF-8,
    /// holds NUL or begins `b64:` is written `b64:<base64url without padding>`.
    pub fn spell(&self, default_db: u16) -> String {
        let key = spell_key(&self.key);
        // What begins `b64:` never begins `db<digits>:`.
        match self.db == default_db && split_db(&key).is_none() {
            true => key,
            false => format!("db{}:{key}", self.db),
        }
    }

    /// The exact inverse of [`StreamName::spell`].
    pub fn parse(spelled: &str, default_db: u16) -> Result<Self, NameError> {
        let (db, key) = match split_db(spelled) {
            Some((digits, key)) => (digits.parse().map_err(|_| NameError::Database(digits.to_owned()))?, key),
            None => (default_db, spelled),
        };
        Ok(Self { db, key: parse_key(key)? })
    }
}

/// A key by itself, for people and destinations: its text, or `b64:<base64url without padding>` where it is not UTF-8,
/// holds NUL or begins `b64:`. Two keys never share a spelling.
pub fn spell_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.contains('\0') && !text.starts_with(BASE64_MARK) => text.to_owned(),
        _ => format!("{BASE64_MARK}{}", BASE64.encode(key)),
    }
}

/// The exact inverse of [`spell_key`].
pub fn parse_key(spelled: &str) -> Result<Bytes, NameError> {
    match spelled.strip_prefix(BASE64_MARK) {
        Some(encoded) => match BASE64.decode(encoded) {
            Ok(key) => Ok(key.into()),
            Err(_) => Err(NameError::Base64(encoded.to_owned())),
        },
        None => Ok(Bytes::copy_from_slice(spelled.as_bytes())),
    }
}

/// `db<digits>:rest` → (digits, rest).
fn split_db(text: &str) -> Option<(&str, &str)> {
    let (digits, rest) = text.strip_prefix("db")?.split_once(':')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some((digits, rest))
}

/// Why a text is no stream name, or no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The number after `db` is above 65535.
    #[error("database number {0} is above 65535")]
    Database(String),
    /// What follows `b64:` is not base64url without padding.
    #[error("\"{0}\" after b64: is not base64url without padding")]
    Base64(String),
}

/// An entry's ID: milliseconds and a sequence number, ordered as Redis orders them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// Unix time in milliseconds, where the writer let Redis choose the ID.
    pub ms: u64,
    /// Counts the entries of one millisecond.
    pub seq: u64,
}

impl EntryId {
    /// No ID is above it.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// Appends `ms-seq`: what `Display` writes, several times as fast.
    pub fn write_to(self, out: &mut Vec<u8>) {
        write_decimal(out, self.ms);
        out.push(b'-');
        write_decimal(out, self.seq);
    }

    /// The ID just before this one; `0-0` stays.
    pub fn previous(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self { ms: ms - 1, seq: u64::MAX },
            (ms, seq) => Self { ms, seq: seq - 1 },
        }
    }
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not `ms-seq` or `ms` in decimal, each below 2^64.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry ID is two numbers, as in 1526919030474-55")]
pub struct IdError;

impl FromStr for EntryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or(IdError)
        };
        match text.split_once('-') {
            Some((ms, seq)) => Ok(Self { ms: number(ms)?, seq: number(seq)? }),
            None => Ok(Self { ms: number(text)?, seq: 0 }),
        }
    }
}

/// One stream element: its ID and its pairs in the order written; names may repeat, values are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in its stream.
    pub id: EntryId,
    /// (field, value) as they were written.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// Roughly what it occupies in memory, in bytes: what the read budget counts.
    pub fn size(&self) -> usize {
        const ENTRY: usize = 64;
        const PAIR: usize = 64;
        ENTRY + self.fields.iter().map(|(field, value)| PAIR + field.len() + value.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        let check = |db: u16, key: &'static [u8], spelled: &str| {
            let name = StreamName::new(db, key);
            assert_eq!(name.spell(0), spelled);
            assert_eq!(StreamName::parse(spelled, 0), Ok(name));
        };
        check(0, b"device:1:data", "device:1:data");
        check(3, b"device:1:data", "db3:device:1:data");
        check(0, b"db1:foo", "db0:db1:foo");
        check(1, b"db1:foo", "db1:db1:foo");
        check(0, b"dbx:foo", "dbx:foo");
        check(0, b"", "");
        check(2, b"", "db2:");
        check(0, b"b64:x", "b64:YjY0Ong");
        check(2, b"\xff\x00", "db2:b64:_wA");
        check(0, b"a\0b", "b64:YQBi");
    }

    #[test]
    fn not_a_name() {
        assert_eq!(StreamName::parse("db65536:x", 0), Err(NameError::Database("65536".into())));
        assert_eq!(StreamName::parse("b64:??", 0), Err(NameError::Base64("??".into())));
        assert_eq!(parse_key("b64:YQ=="), Err(NameError::Base64("YQ==".into())));
    }

    #[test]
    fn ids() {
        for text in ["0-0", "1526919030474-55", "18446744073709551615-18446744073709551615"] {
            assert_eq!(text.parse::<EntryId>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "-", "1-", "-1", "+1-1", "1-2-3", "18446744073709551616-0", "a"] {
            assert_eq!(text.parse::<EntryId>(), Err(IdError), "{text}");
        }
        for id in
            [EntryId::default(), EntryId { ms: 1526919030474, seq: 55 }, EntryId { ms: u64::MAX, seq: 10 }]
        {
            let mut text = Vec::new();
            id.write_to(&mut text);
            assert_eq!(text, id.to_string().into_bytes());
        }
        assert_eq!(EntryId { ms: 5, seq: 0 }.previous(), EntryId { ms: 4, seq: u64::MAX });
        assert_eq!(EntryId::default().previous(), EntryId::default());
    }

    proptest! {
        #[test]
        fn spelling_is_injective(db in 0u16..4, default in 0u16..4, prefix in "(db[0-9]{1,6}:|b64:)?", rest: Vec<u8>) {
            let name = StreamName::new(db, [prefix.as_bytes(), &rest].concat());
            prop_assert_eq!(StreamName::parse(&name.spell(default), default), Ok(name));
        }

        #[test]
        fn a_keys_spelling_is_injective(prefix in "(db1:|b64:|\u{0})?", rest: Vec<u8>) {
            let key = [prefix.as_bytes(), &rest].concat();
            let spelled = spell_key(&key);
            prop_assert!(!spelled.contains('\0'));
            prop_assert_eq!(parse_key(&spelled), Ok(key.into()));
        }

        #[test]
        fn a_key_that_is_text_is_spelled_as_it_is(text in "[^\u{0}]*") {
            prop_assume!(!text.starts_with("b64:"));
            prop_assert_eq!(spell_key(text.as_bytes()), text);
        }
    }
}
