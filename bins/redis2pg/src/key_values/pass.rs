//! One pass over a database: over all its keys, or over those that are known to have changed. What is written to
//! PostgreSQL is remembered only after it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ServerInterface as _;
use futures_util::FutureExt as _;
use sync_core::redis::Fault as RedisFault;
use sync_core::redis::connection::Connection;
use sync_core::redis::discovery::OWN_PREFIX;
use sync_core::run::Databases;
use tokio::time::Instant;

use super::look::{self, Cursor, Kind, Look};
use super::read::{self, Read, Small};
use super::shape::Shape;
use super::store::{Clock, Deadline, Store, Written};
use super::{Numbers, State, Trouble};
use crate::postgres::fault::Fault;
use crate::postgres::pool::{Loan, Pool};
use crate::settings::KeyValueSettings;

/// What is read and written at once, at most.
const BATCH_KEYS: usize = 1000;
const BATCH_BYTES: u64 = 4 << 20;
/// What another transaction was in the way of is tried again so often at once.
const AGAIN: u32 = 3;

/// See the module.
pub(super) struct Pass<'a> {
    pub(super) db: u16,
    pub(super) databases: &'a mut Databases,
    pub(super) pool: &'a Pool,
    pub(super) store: &'a Store,
    pub(super) clock: Clock,
    pub(super) settings: &'a KeyValueSettings,
    pub(super) shape: Shape,
    pub(super) numbers: &'a Numbers,
    pub(super) state: &'a mut State,
}

/// Values that may be new, to be read and written together.
#[derive(Default)]
struct Batch {
    /// Each once: a search may find one twice.
    keys: BTreeSet<Bytes>,
    bytes: u64,
}

/// What becomes of rows that were to be written, by their places.
#[derive(Default)]
struct Left {
    /// No row can hold the value.
    refused: Vec<usize>,
    /// The table does not take the row as things stand.
    held: Vec<usize>,
}

impl Pass<'_> {
    /// `changed` are the keys that changed; without it, all are looked at.
    pub(super) async fn run(
        mut self,
        redis: &mut [Connection],
        changed: Option<Vec<Bytes>>,
    ) -> Result<(), Trouble> {
        let is_full = changed.is_none();
        self.state.held = None;
        if is_full {
            self.state.known.begin();
        }
        let mut others = BTreeMap::new();
        let mut changed =
            changed.map(|keys| keys.into_iter().filter(|key| self.takes(key)).collect::<Vec<_>>());
        if changed.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        for connection in &mut *redis {
            let client = connection.client();
            let changed = changed.take();
            let looked = async {
                if !self.databases.connector.is_cluster() {
                    client.select(i64::from(self.db)).await.map_err(RedisFault::from)?;
                }
                match changed {
                    Some(keys) => self.over_changed(&client, &keys, &mut others).await,
                    None => self.over_all(&client, &mut others).await,
                }
            };
            unless_it_ends(connection, looked).await?;
        }
        self.say_others(others);
        if is_full {
            let gone = self.state.known.end();
            if self.store.ends_rows() && (gone > 0 || self.state.table_unseen || self.state.known.is_full()) {
                self.end_rows_of_gone_keys(redis).await?;
            }
            self.state.table_unseen = false;
        }
        Ok(())
    }

    /// Whether a key is copied at all, if it is no stream.
    fn takes(&self, key: &[u8]) -> bool {
        !key.starts_with(OWN_PREFIX) && self.settings.patterns.iter().any(|pattern| pattern.matches(key))
    }

    async fn over_all(&mut self, client: &Client, others: &mut Others) -> Result<(), Trouble> {
        let glob = match self.settings.patterns.as_slice() {
            [only] => only.server_glob(),
            _ => "*".to_owned(),
        };
        let (mut cursor, mut keys) = (Some(Cursor::start()), Vec::new());
        let mut batch = Batch::default();
        while cursor.is_some() || !keys.is_empty() {
            self.remaining()?;
            self.databases.limiter.take().await;
            let (page, looks) = look::scan_and_look(client, cursor.as_ref(), &glob, &keys).await?;
            self.take_looks(client, &keys, looks, &mut batch, others, false).await?;
            (keys, cursor) = match page {
                Some((found, next)) => (found.into_iter().filter(|key| self.takes(key)).collect(), next),
                None => (Vec::new(), None),
            };
        }
        self.flush(client, &mut batch).await
    }

    async fn over_changed(
        &mut self,
        client: &Client,
        keys: &[Bytes],
        others: &mut Others,
    ) -> Result<(), Trouble> {
        let mut batch = Batch::default();
        for keys in keys.chunks(look::PAGE) {
            self.remaining()?;
            self.databases.limiter.take().await;
            let looks = look::look(client, keys).await?;
            self.take_looks(client, keys, looks, &mut batch, others, true).await?;
        }
        self.flush(client, &mut batch).await
    }

    /// What stands at each of these keys. `changed`: each of them was written to since it was last looked at.
    async fn take_looks(
        &mut self,
        client: &Client,
        keys: &[Bytes],
        looks: Vec<Look>,
        batch: &mut Batch,
        others: &mut Others,
        changed: bool,
    ) -> Result<(), Trouble> {
        self.numbers.looked_at.inc_by(keys.len() as u64);
        let mut gone = Vec::new();
        for (key, look) in keys.iter().zip(looks) {
            match look {
                // One that a search found is gone since; the next search will not find it.
                Look::Gone | Look::Stream if changed => {
                    self.state.known.forget(key);
                    gone.push(key.clone());
                }
                Look::Gone | Look::Stream => {}
                Look::Other(kind) => {
                    others.entry(kind).or_insert_with(|| (0, key.clone())).0 += 1;
                }
                Look::Small { bytes, digest, .. } => {
                    if self.state.known.is_new(key, digest) && batch.keys.insert(key.clone()) {
                        batch.bytes += bytes;
                        if batch.keys.len() >= BATCH_KEYS || batch.bytes >= BATCH_BYTES {
                            self.flush(client, batch).await?;
                        }
                    }
                }
                Look::Big { kind, bytes } => {
                    if changed || self.state.known.is_due(key, bytes, Instant::now()) {
                        self.copy_big(client, key, kind, bytes).await?;
                    }
                }
            }
        }
        if !gone.is_empty() && self.store.ends_rows() {
            self.end(&gone).await?;
        }
        Ok(())
    }

    /// Reads and writes what was gathered.
    async fn flush(&mut self, client: &Client, batch: &mut Batch) -> Result<(), Trouble> {
        let keys: Vec<Bytes> = std::mem::take(batch).keys.into_iter().collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.databases.limiter.take().await;
        let values = read::small(client, &keys, self.shape).await?;
        let (mut rows, mut looks) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (key, value) in keys.into_iter().zip(values) {
            // What is not there, or large by now, is seen when it is looked at the next time.
            let Some(Small { json, digest }) = value else { continue };
            rows.push((self.store.spelling.of(self.db, &key), text(json)));
            looks.push((key, digest));
        }
        // Until the answer is there, nobody knows what the rows hold.
        looks.iter().for_each(|(key, _)| self.state.known.forget(key));
        let left = self.write(&rows).await?;
        for (at, (key, digest)) in looks.into_iter().enumerate() {
            if !left.held.contains(&at) {
                self.state.known.written(&key, digest);
            }
        }
        Ok(())
    }

    async fn copy_big(
        &mut self,
        client: &Client,
        key: &Bytes,
        kind: Kind,
        bytes: u64,
    ) -> Result<(), Trouble> {
        self.remaining()?;
        let begun = Instant::now();
        let (stop, limiter) = (self.databases.stop.clone(), self.databases.limiter.clone());
        // Nothing is under way but a read, so it may be given up.
        let read = tokio::select! {
            read = read::big(client, key, kind, self.shape, &limiter) => read?,
            () = self.databases.changed() => return Err(Trouble::Over),
            () = stop.requested() => return Err(Trouble::Over),
        };
        let took = begun.elapsed().max(Duration::from_millis(1));
        match read {
            Read::Json(json) => {
                let digest = self.state.known.digest_of(&json);
                let mut left = Left::default();
                if self.state.known.big_is_new(key, digest) {
                    self.state.known.forget(key);
                    left = self.write(&[(self.store.spelling.of(self.db, key), text(json))]).await?;
                }
                if left.held.is_empty() {
                    self.state.known.big_written(key, bytes, digest, took);
                }
            }
            Read::Gone => {}
            Read::TooLong(length) => {
                self.say_too_long(key, length);
                self.state.known.big_written(key, bytes, 0, took);
            }
        }
        Ok(())
    }

    /// Writes rows where they differ. One that cannot be written is left out, and said.
    async fn write(&mut self, rows: &[(String, String)]) -> Result<Left, Trouble> {
        let (mut left, mut again) = (Left::default(), 0);
        let mut parts = vec![(0, rows)];
        while let Some((first, part)) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let mut loan = self.loan().await?;
            let deadline = self.deadline()?;
            match self.store.write(&mut loan, deadline, self.db, part).await {
                Ok(Written::Rows(count)) => {
                    self.numbers.written.inc_by(count);
                }
                Ok(Written::Fenced) => return Err(Trouble::Over),
                Err(Fault::Row(reason)) if let [(key, _)] = part => {
                    self.numbers.refused.inc();
                    tracing::warn!(
                        database = self.db,
                        key,
                        reason,
                        "a value cannot be a row: it is left out until it changes"
                    );
                    left.refused.push(first);
                }
                Err(Fault::Rule(reason)) if let [(key, _)] = part => {
                    self.state.held = Some(format!("{key}: {reason}"));
                    left.held.push(first);
                }
                Err(Fault::Row(_) | Fault::Rule(_)) => {
                    let middle = part.len() / 2;
                    let (one, other) = part.split_at(middle);
                    parts.extend([(first + middle, other), (first, one)]);
                }
                // Another transaction was in the way. If one always is, it is waited for.
                Err(Fault::Again(_)) if again < AGAIN => {
                    again += 1;
                    parts.push((first, part));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(left)
    }

    /// Marks or deletes the rows of keys that are gone.
    async fn end(&mut self, gone: &[Bytes]) -> Result<(), Trouble> {
        let mut loan = self.loan().await?;
        let deadline = self.deadline()?;
        match self.store.end(&mut loan, deadline, self.db, gone).await? {
            Written::Rows(count) => {
                self.numbers.ended.inc_by(count);
                Ok(())
            }
            Written::Fenced => Err(Trouble::Over),
        }
    }

    /// Looks through the table for keys that the pass has not seen, and in Redis whether they are really gone.
    async fn end_rows_of_gone_keys(&mut self, redis: &mut [Connection]) -> Result<(), Trouble> {
        let mut after = Some(String::new());
        while let Some(from) = after {
            self.remaining()?;
            let mut loan = self.loan().await?;
            let (keys, next) = self.store.list(&mut loan, self.db, &from).await?;
            drop(loan);
            after = next;
            let unseen: Vec<Bytes> =
                keys.into_iter().filter(|key| self.takes(key) && !self.state.known.was_seen(key)).collect();
            for unseen in unseen.chunks(look::PAGE) {
                let gone = self.gone_of(redis, unseen).await?;
                if !gone.is_empty() {
                    self.end(&gone).await?;
                }
            }
        }
        Ok(())
    }

    /// Those of these keys that no server holds as a key-value.
    async fn gone_of(&mut self, redis: &mut [Connection], keys: &[Bytes]) -> Result<Vec<Bytes>, Trouble> {
        let mut gone: Vec<Bytes> = keys.to_vec();
        for connection in &mut *redis {
            self.databases.limiter.take().await;
            let client = connection.client();
            let looked = async { Ok(look::look(&client, &gone).await?) };
            let looks = unless_it_ends(connection, looked).await?;
            let mut looks = looks.into_iter();
            gone.retain(|_| matches!(looks.next(), Some(Look::Gone | Look::Stream)));
        }
        Ok(gone)
    }

    /// How long what is written may still take effect. Not at all at a stop, or once databases have changed hands: then
    /// the pass ends here, since others may wait for what this process is to let go of.
    fn remaining(&mut self) -> Result<Option<Duration>, Trouble> {
        if self.databases.stop.is_requested() || self.databases.changed().now_or_never().is_some() {
            return Err(Trouble::Over);
        }
        match self.databases.remaining() {
            Some(Duration::ZERO) => Err(Trouble::Over),
            remaining => Ok(remaining),
        }
    }

    /// Until when what is sent now may take effect. To be asked for at the last moment.
    fn deadline(&mut self) -> Result<Deadline, Trouble> {
        let clock = self.clock;
        clock.deadline(|| self.remaining())
    }

    async fn loan(&self) -> Result<Loan, Trouble> {
        Ok(self.pool.line_up().loan().await?)
    }

    fn say_too_long(&self, key: &Bytes, bytes: usize) {
        self.numbers.refused.inc();
        let key = self.store.spelling.of(self.db, key);
        tracing::warn!(
            database = self.db,
            key,
            bytes,
            "a value is longer than JSONB can be (268,435,455 bytes): it is left out until it changes"
        );
    }

    /// Types that are not copied are named once each.
    fn say_others(&mut self, others: Others) {
        for (kind, (count, key)) in others {
            if self.state.said.insert(kind.clone()) {
                let key = self.store.spelling.of(self.db, &key);
                tracing::warn!(
                    database = self.db,
                    kind,
                    count,
                    key,
                    "keys of a type that is not copied, one of them named here"
                );
            }
        }
    }
}

/// What is sent on a connection that has ended waits for ever: whoever waits for an answer waits for the end as well.
async fn unless_it_ends<T>(
    connection: &mut Connection,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::select! {
        biased;
        done = work => done,
        reason = connection.ended() => Err(RedisFault::Lost(reason).into()),
    }
}

/// Types that are not copied: how many keys, and one of them.
type Others = BTreeMap<String, (u64, Bytes)>;

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is text")
}
