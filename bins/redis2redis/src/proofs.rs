//! Whether the beginning of a target stream was trimmed away, or was never there: an entry that is older than all that
//! is left can only have been trimmed if what is left is a copy of this very stream, since entries are copied in order.
//! So the target's oldest entry is looked for at the source. A stream that was deleted and made anew at the source,
//! with lower IDs, does not hold it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sync_core::record::{Entry, EntryId, StreamName};
use sync_core::redis::connection::Connector;
use sync_core::redis::{Fault, entries};

/// Streams of which something is remembered; it is looked up again where it was forgotten.
const REMEMBERED: usize = 10_000;

/// What was found out.
#[derive(Debug)]
pub(crate) struct Proofs {
    source: Connector,
    /// By stream: the target's oldest entry when it was looked at, and whether it is the source's.
    known: Mutex<HashMap<StreamName, (EntryId, bool)>>,
}

impl Proofs {
    pub(crate) fn new(source: Connector) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// For the script: `ID copy` or `ID other`, or nothing.
    pub(crate) fn of(&self, stream: &StreamName) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(stream).map_or_else(String::new, |(oldest, is_copy)| {
            format!("{oldest} {}", if *is_copy { "copy" } else { "other" })
        })
    }

    /// Compares the target's oldest entry with what the source has under its ID.
    pub(crate) async fn look(&self, stream: &StreamName, oldest: &Entry) -> Result<(), Fault> {
        let mut connection = self.source.connection(stream.db).await?;
        let ids = [oldest.id];
        let found = connection.run(async |client| entries::among(&client, &stream.key, &ids).await).await?;
        let is_copy = found.first() == Some(oldest);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(stream.clone(), (oldest.id, is_copy));
        Ok(())
    }
}
