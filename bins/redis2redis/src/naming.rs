//! Where a stream goes on the target: pure, and injective, so that two streams never merge.

use std::fmt;

use bytes::Bytes;
use sync_core::record::StreamName;

use crate::settings::{Settings, TargetDb};

/// The rule of one bridge.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    /// TARGET_STREAM_PREFIX and SOURCE_NAME.
    before: Bytes,
    /// The source's default database: its streams are named by their key alone.
    default_db: u16,
    db: TargetDb,
}

/// A key on the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The database.
    pub(crate) db: u16,
    /// The key, byte for byte.
    pub(crate) key: Bytes,
}

impl Naming {
    /// As the settings say.
    pub(crate) fn of(settings: &Settings) -> Self {
        let Settings { redis, streams, target, .. } = settings;
        Self::new(&target.prefix, streams.source_name.as_deref(), redis.db, target.db)
    }

    /// `default_db` is the source's.
    fn new(prefix: &str, source_name: Option<&str>, default_db: u16, db: TargetDb) -> Self {
        let before = [prefix, source_name.unwrap_or_default()].concat().into();
        Self { before, default_db, db }
    }

    /// What every key begins with.
    pub(crate) fn before(&self) -> &[u8] {
        &self.before
    }

    /// Where a stream goes. With one target database, streams of other databases than the default one are named
    /// `dbN:key`, and so is a key of the default database that itself begins `db<digits>:`. Keys are bytes: none is
    /// encoded.
    pub(crate) fn place(&self, stream: &StreamName) -> Place {
        let db = match self.db {
            TargetDb::Same => {
                return Place { db: stream.db, key: [&self.before[..], &stream.key].concat().into() };
            }
            TargetDb::Number(db) => db,
        };
        let plain = stream.db == self.default_db && !names_a_database(&stream.key);
        let database = if plain { String::new() } else { format!("db{}:", stream.db) };
        Place { db, key: [&self.before[..], database.as_bytes(), &stream.key].concat().into() }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.db {
            TargetDb::Number(db) => write!(f, "database {db}")?,
            TargetDb::Same => f.write_str("same databases")?,
        }
        write!(f, ", {}*", String::from_utf8_lossy(&self.before))
    }
}

/// `db<digits>:…`
fn names_a_database(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(b"db") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places() {
        let check = |naming: &Naming, db: u16, key: &'static [u8], to: u16, place: &[u8]| {
            let found = naming.place(&StreamName::new(db, key));
            assert_eq!((found.db, found.key.as_ref()), (to, place), "{db} {key:?}");
        };
        let one = Naming::new("", None, 0, TargetDb::Number(3));
        check(&one, 0, b"a", 3, b"a");
        check(&one, 1, b"a", 3, b"db1:a");
        check(&one, 0, b"db1:a", 3, b"db0:db1:a");
        check(&one, 1, b"db1:a", 3, b"db1:db1:a");
        check(&one, 0, b"db:a", 3, b"db:a");
        check(&one, 0, b"db1", 3, b"db1");
        check(&one, 2, b"", 3, b"db2:");
        check(&one, 2, b"\xff\0", 3, b"db2:\xff\0");
        let other_default = Naming::new("synced:", Some("plant-a:"), 2, TargetDb::Number(0));
        check(&other_default, 2, b"a", 0, b"synced:plant-a:a");
        check(&other_default, 0, b"a", 0, b"synced:plant-a:db0:a");
        let same = Naming::new("synced:", None, 0, TargetDb::Same);
        check(&same, 7, b"a", 7, b"synced:a");
        check(&same, 0, b"db1:a", 0, b"synced:db1:a");
    }

    proptest! {
        #[test]
        fn two_streams_never_share_a_place(
            prefix in "(db[0-9]:|x)?", same: bool, default in 0u16..3, dbs in (0u16..3, 0u16..3),
            begin in ("(db[0-9]{1,2}:){0,2}", "(db[0-9]{1,2}:){0,2}"), rest in (any::<Vec<u8>>(), any::<Vec<u8>>()),
            alike: bool,
        ) {
            let db = if same { TargetDb::Same } else { TargetDb::Number(0) };
            let naming = Naming::new(&prefix, None, default, db);
            let tail = |own: Vec<u8>| if alike { Vec::new() } else { own };
            let one = StreamName::new(dbs.0, [begin.0.as_bytes(), &tail(rest.0)].concat());
            let other = StreamName::new(dbs.1, [begin.1.as_bytes(), &tail(rest.1)].concat());
            prop_assert_eq!(naming.place(&one) == naming.place(&other), one == other);
        }
    }
}
