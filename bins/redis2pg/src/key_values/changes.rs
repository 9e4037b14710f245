//! Which keys change, as the server tells where it is set to (notify-keyspace-events). What it tells is not kept for
//! anybody: whoever misses something has to look at all keys.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::types::{KeyspaceEvent, Value};
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connection, Connector};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

/// Messages that may wait between two turns of this process. The client library sets memory aside for so many, several
/// times over.
const WAITING: usize = 16_384;
/// A server that answers at all says within this that something is not permitted.
const DENIED_WITHIN: Duration = Duration::from_secs(1);
/// What changed keys may occupy in memory, in bytes; more of them are as if some had been missed.
const MOST: usize = 16 << 20;
/// What an element of a set takes besides its bytes.
const ELEMENT: usize = 64;

/// See the module. It ends with the value.
pub(super) struct Changes {
    heard: Arc<Mutex<Heard>>,
    dbs: BTreeSet<u16>,
    _listening: Listening,
}

/// Ends the task with the value.
struct Listening(tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Default)]
struct Heard {
    changed: HashMap<u16, HashSet<Bytes>>,
    bytes: usize,
    /// The databases of which something was missed since they were last looked at.
    missed: BTreeSet<u16>,
    /// The connection has ended.
    over: bool,
}

impl Changes {
    /// Of these databases; `None` where the server does not tell, or may not be asked whether it does, and a reason where
    /// this user may not listen. `server` is a connection to ask it on.
    pub(super) async fn subscribe(
        connector: &Connector,
        server: &mut Connection,
        dbs: BTreeSet<u16>,
    ) -> Result<Result<Option<Self>, String>, Fault> {
        let Some(first) = dbs.first().filter(|_| !connector.is_cluster()) else { return Ok(Ok(None)) };
        if !told(server).await? {
            return Ok(Ok(None));
        }
        let patterns: Vec<String> = dbs.iter().map(|db| format!("__keyevent@{db}__:*")).collect();
        if let Some(reason) = denied(connector, *first, &patterns).await? {
            return Ok(Err(reason));
        }
        let mut connection = connector.listener(*first, WAITING).await?;
        let events = connection.client().keyspace_event_rx();
        connection.run(async |client| Ok(client.psubscribe(patterns).await?)).await?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let listening = Listening(tokio::spawn(listen(connection, events, heard.clone(), dbs.clone())));
        Ok(Ok(Some(Self { heard, dbs, _listening: listening })))
    }

    /// Whether it hears of these databases, as far as is known.
    pub(super) fn hears(&self, dbs: &BTreeSet<u16>) -> bool {
        self.dbs == *dbs && !self.heard().over
    }

    /// The keys of a database that changed since this was last asked; `None` when some were missed.
    pub(super) fn take(&self, db: u16) -> Option<Vec<Bytes>> {
        let mut heard = self.heard();
        let keys: Vec<Bytes> = heard.changed.remove(&db).unwrap_or_default().into_iter().collect();
        heard.bytes -= keys.iter().map(|key| key.len() + ELEMENT).sum::<usize>();
        let missed = heard.missed.remove(&db) || heard.over;
        (!missed).then_some(keys)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why this user may not subscribe to these, if so. The client library answers Ok to its own PSUBSCRIBE whatever the server
/// says; sent as any other command, a denial is an error, and what is allowed has no answer.
async fn denied(connector: &Connector, db: u16, patterns: &[String]) -> Result<Option<String>, Fault> {
    let mut connection = connector.connection(db).await?;
    let command = fred::cmd!("PSUBSCRIBE", blocking: false);
    let ask = async |client: Client| Ok(client.custom::<Value, _>(command, patterns.to_vec()).await?);
    match timeout(DENIED_WITHIN, connection.run(ask)).await {
        Ok(Err(Fault::Denied(reason))) => Ok(Some(reason)),
        Ok(Err(fault)) => Err(fault),
        Ok(Ok(_)) | Err(_) => Ok(None),
    }
}

/// Whether the server tells of every kind of change, as far as it may be asked.
pub(super) async fn told(server: &mut Connection) -> Result<bool, Fault> {
    let command = fred::cmd!("CONFIG", blocking: false);
    let ask = async |client: Client| {
        let answer = client.custom::<Vec<String>, _>(command, vec!["GET", "notify-keyspace-events"]).await;
        Ok(answer.unwrap_or_default())
    };
    Ok(server.run(ask).await?.get(1).is_some_and(|flags| tells_all(flags)))
}

/// By the event, not by the key: there a key that is no text can be told
/// (<https://redis.io/docs/latest/develop/use/keyspace-notifications/#configuration>).
fn tells_all(flags: &str) -> bool {
    let of_all_kinds = flags.contains('A') || "g$lshzxe".chars().all(|kind| flags.contains(kind));
    of_all_kinds && flags.contains('E')
}

async fn listen(
    mut connection: Connection,
    mut events: Receiver<KeyspaceEvent>,
    heard: Arc<Mutex<Heard>>,
    dbs: BTreeSet<u16>,
) {
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            _ = connection.ended() => Err(RecvError::Closed),
        };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) => heard.note(u16::from(event.db), event.key.into_bytes()),
            Err(RecvError::Lagged(_)) => heard.miss(&dbs),
            Err(RecvError::Closed) => {
                heard.over = true;
                return;
            }
        }
    }
}

impl Heard {
    fn note(&mut self, db: u16, key: Bytes) {
        if self.missed.contains(&db) {
            return;
        }
        // The library's buffer is much longer than the key in it.
        let size = key.len() + ELEMENT;
        if self.bytes + size > MOST {
            return self.miss(&BTreeSet::from([db]));
        }
        if self.changed.entry(db).or_default().insert(Bytes::copy_from_slice(&key)) {
            self.bytes += size;
        }
    }

    fn miss(&mut self, dbs: &BTreeSet<u16>) {
        for db in dbs {
            let keys = self.changed.remove(db).unwrap_or_default();
            self.bytes -= keys.iter().map(|key| key.len() + ELEMENT).sum::<usize>();
            self.missed.insert(*db);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_tells_everything_is_listened_to() {
        let check = |flags: &str, expected| assert_eq!(tells_all(flags), expected, "{flags}");
        check("", false);
        check("AKE", true);
        check("AE", true);
        check("KA", false);
        check("g$lshzxeE", true);
        check("g$lshzxE", false);
        check("A", false);
        check("KEx", false);
    }

    #[test]
    fn what_does_not_fit_is_missed() {
        let mut heard = Heard::default();
        heard.note(0, Bytes::from("a"));
        heard.note(0, Bytes::from("a"));
        assert_eq!(heard.bytes, 1 + ELEMENT);
        heard.note(1, Bytes::from(vec![b'x'; MOST]));
        assert!(heard.missed.contains(&1) && !heard.missed.contains(&0));
        heard.note(1, Bytes::from("b"));
        assert!(!heard.changed.contains_key(&1));
        heard.miss(&BTreeSet::from([0]));
        assert_eq!((heard.bytes, heard.changed.len()), (0, 0));
    }
}
