//! The buffer as those see it who send what it holds: reading queues, settling messages, looking for queues. Whatever is
//! asked here may be asked twice, so it is asked until there is an answer; when to ask again is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::redis::connection::Connector;
use sync_core::retry::Backoff;
use sync_core::telemetry::health::{Health, Severity};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::answer::{number, text};
use super::keys::{MessageKey, QUEUES, Queue, id_of, member};
use super::script::{AGREE, DIRECT, HEADS, LOOK, RESTORE, SEEK, SETTLE, Script};
use super::server::{self, Memory};
use super::stored::Digest;
use crate::settings::BufferSettings;

/// Keys that a scan looks at in one go.
const PAGE: &str = "1000";

/// Messages that are put back into a queue in one go.
const RESTORED_AT_ONCE: &str = "1000";

/// See the module. Clones are the same.
#[derive(Clone)]
pub(crate) struct Books(Arc<Inner>);

struct Inner {
    connector: Connector,
    settings: BufferSettings,
    health: Option<Health>,
    part: String,
    /// It is told that it is away.
    away: AtomicBool,
    client: OnceCell<Client>,
}

/// What was read of one queue.
#[derive(Debug)]
pub(super) struct Read {
    /// There may be more behind.
    pub(super) more: bool,
    /// In order.
    pub(super) messages: Vec<(EntryId, Bytes)>,
    /// What is gone from there, and Kafka does not have it.
    pub(super) lost: Vec<EntryId>,
    /// Why no more could be read.
    pub(super) error: Option<String>,
}

/// What is to be settled of one queue.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Kafka has them.
    pub(super) synced: Vec<(EntryId, Digest)>,
    /// It will never have them, and why. What is no message has no digest.
    pub(super) refused: Vec<(EntryId, Option<Digest>, String)>,
    /// They are not there any more.
    pub(super) lost: Vec<EntryId>,
}

impl Settling {
    pub(super) fn is_empty(&self) -> bool {
        self.synced.is_empty() && self.refused.is_empty() && self.lost.is_empty()
    }
}

/// What became of a message that is to come behind all others of its queue.
#[derive(Debug)]
pub(super) enum Appended {
    /// It is there.
    Yes,
    /// Not, since it would not have come behind this one.
    Behind(EntryId),
    /// Not, since its key has another message.
    Taken,
}

/// How the books stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// So many messages Kafka does not have.
    pub(super) unsynced: u64,
    /// So many of them are in queues: all of them.
    pub(super) queued: u64,
    /// Another one, and the server has lost its data.
    pub(super) since: String,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Queues that have something, with the ID at the head, where it can be told.
    pub(super) queues: Vec<(Queue, Option<EntryId>)>,
    /// The time in the lowest ID, ms since 1970.
    pub(super) oldest: Option<u64>,
}

impl Books {
    /// Connects to nothing yet.
    pub(crate) fn new(connector: Connector, settings: &BufferSettings, health: Option<Health>) -> Self {
        let part = format!("what is sent from the buffer Redis at {}", connector.address());
        Self(Arc::new(Inner {
            connector,
            settings: settings.clone(),
            health,
            part,
            away: AtomicBool::new(false),
            client: OnceCell::new(),
        }))
    }

    /// What comes next in these queues, each after the ID given with it: for the first ones of them, as much as may be read
    /// at once.
    pub(super) async fn read(
        &self,
        queues: &[(Queue, Option<EntryId>)],
        most: usize,
        bytes: usize,
        share: usize,
    ) -> Result<Vec<Read>, Fault> {
        let mut arguments: Vec<Value> =
            [most, bytes, share].iter().map(|number| number.to_string().into()).collect();
        for (queue, after) in queues {
            arguments.extend([queue.as_str().into(), after.map(member).unwrap_or_default().into()]);
        }
        let Value::Array(found) = self.run(&HEADS, arguments).await? else { return Err(malformed()) };
        found.into_iter().map(|found| read(found).ok_or_else(malformed)).collect()
    }

    /// Stores one message behind all others of its queue.
    pub(super) async fn append(
        &self,
        process: &str,
        key: &MessageKey,
        digest: &Digest,
        message: Bytes,
    ) -> Result<Appended, Fault> {
        let MessageKey { queue, id } = key;
        let mut arguments = vec![process.into(), queue.as_str().into(), id.to_string().into()];
        arguments.extend([key.member().into(), digest.as_str().into(), Value::Bytes(message)]);
        let answer = text(self.run(&DIRECT, arguments).await?).ok_or_else(malformed)?;
        match answer.as_str() {
            "" => Ok(Appended::Yes),
            "taken" => Ok(Appended::Taken),
            last => id_of(last).map(Appended::Behind).ok_or_else(malformed),
        }
    }

    /// Marks messages of a queue as synced or refused; both leave the queue, and so do those that are lost.
    pub(super) async fn settle(&self, queue: &Queue, settling: &Settling) -> Result<(), Fault> {
        let milliseconds = |duration: Duration| Value::from(duration.as_millis().to_string());
        let Inner { settings, .. } = &*self.0;
        let Settling { synced, refused, lost } = settling;
        let mut arguments = Vec::with_capacity(5 + 3 * synced.len() + 4 * refused.len() + 2 * lost.len());
        arguments.push(queue.as_str().into());
        arguments.extend([milliseconds(settings.sync_ttl), milliseconds(settings.time_to_live)]);
        arguments.extend([synced.len().to_string().into(), refused.len().to_string().into()]);
        let names = |id: &EntryId| [Value::from(id.to_string()), member(*id).into()];
        for (id, digest) in synced {
            arguments.extend(names(id));
            arguments.push(digest.as_str().into());
        }
        for (id, digest, reason) in refused {
            arguments.extend(names(id));
            arguments.extend([digest.as_ref().map_or("", Digest::as_str).into(), reason.as_str().into()]);
        }
        lost.iter().for_each(|id| arguments.extend(names(id)));
        self.run(&SETTLE, arguments).await.map(drop)
    }

    /// How the books stand.
    pub(super) async fn agree(&self, now: u64) -> Result<Standing, Fault> {
        let Value::Array(parts) = self.run(&AGREE, vec![now.to_string().into()]).await? else {
            return Err(malformed());
        };
        let [unsynced, queued, since] = <[Value; 3]>::try_from(parts).map_err(|_| malformed())?;
        let unsynced = unsynced.as_u64().ok_or_else(malformed)?;
        let queued = queued.as_u64().ok_or_else(malformed)?;
        Ok(Standing { unsynced, queued, since: text(since).ok_or_else(malformed)? })
    }

    /// All queues that have something and that `mine` says yes to.
    pub(super) async fn look(&self, mine: impl Fn(&Queue) -> bool) -> Result<Seen, Fault> {
        let mut seen = Seen::default();
        let mut cursor = Value::from("0");
        loop {
            let arguments = vec![QUEUES.into(), cursor, "COUNT".into(), PAGE.into()];
            let (next, members) = page(self.ask("SSCAN", arguments).await?)?;
            let queues: Vec<Queue> =
                members.iter().filter_map(|text| Queue::parse(text)).filter(&mine).collect();
            if !queues.is_empty() {
                let names = queues.iter().map(|queue| queue.as_str().into()).collect();
                let Value::Array(heads) = self.run(&LOOK, names).await? else { return Err(malformed()) };
                for (queue, head) in queues.into_iter().zip(heads) {
                    let Some(head) = text(head).filter(|head| !head.is_empty()) else { continue };
                    let id = id_of(&head);
                    seen.oldest = seen.oldest.into_iter().chain(id.map(|id| id.ms)).min();
                    seen.queues.push((queue, id));
                }
            }
            match next {
                Some(next) => cursor = next,
                None => return Ok(seen),
            }
        }
    }

    /// How it stands with the server's memory. Asked once: not whoever may not ask is told, but whoever may not store.
    pub(super) async fn memory(&self) -> Option<Memory> {
        let client = self.0.client.get()?;
        Some(server::memory(client, self.0.settings.redis.db).await)
    }

    /// One page of the keys that match, and where the next one begins.
    pub(super) async fn scan(
        &self,
        cursor: Value,
        matching: &str,
    ) -> Result<(Option<Value>, Vec<String>), Fault> {
        let words = ["MATCH", matching, "COUNT", PAGE, "TYPE", "string"].map(Value::from);
        let arguments = [cursor].into_iter().chain(words).collect();
        page(self.ask("SCAN", arguments).await?)
    }

    /// Puts those of these messages aside that are in no queue and should be; how many that were.
    pub(super) async fn seek(&self, messages: Vec<Value>) -> Result<usize, Fault> {
        number(&self.run(&SEEK, messages).await?).ok_or_else(malformed)
    }

    /// Brings back what was put aside; how many messages that were.
    pub(super) async fn restore(&self) -> Result<usize, Fault> {
        let mut restored = 0;
        let Value::Array(queues) = self.ask("SMEMBERS", vec!["rebuild_queues".into()]).await? else {
            return Err(malformed());
        };
        for queue in queues {
            loop {
                let arguments = vec![queue.clone(), RESTORED_AT_ONCE.into()];
                let Value::Array(numbers) = self.run(&RESTORE, arguments).await? else {
                    return Err(malformed());
                };
                let [back, left] = numbers.first_chunk().ok_or_else(malformed)?;
                restored += number(back).ok_or_else(malformed)?;
                if number(left).ok_or_else(malformed)? == 0 {
                    break;
                }
            }
        }
        Ok(restored)
    }

    async fn run(&self, script: &'static Script, arguments: Vec<Value>) -> Result<Value, Fault> {
        let run = |client: Client| {
            let arguments = arguments.clone();
            async move { script.run(&client, arguments).await }
        };
        self.until_answered(run).await
    }

    async fn ask(&self, command: &'static str, arguments: Vec<Value>) -> Result<Value, Fault> {
        let command = CustomCommand::new(command, ClusterHash::Random, false);
        let ask = |client: Client| {
            let (command, arguments) = (command.clone(), arguments.clone());
            async move { Ok(client.custom::<Value, Value>(command, arguments).await?) }
        };
        self.until_answered(ask).await
    }

    /// Asks until the server says yes, or no for good.
    async fn until_answered<F: Future<Output = Result<Value, Fault>>>(
        &self,
        ask: impl Fn(Client) -> F,
    ) -> Result<Value, Fault> {
        let Inner { connector, settings, health, part, away, client } = &*self.0;
        let mut backoff = Backoff::new(settings.redis.retry);
        let mut attempts = 0;
        loop {
            let answer = match client.get_or_try_init(|| connector.commands(settings.redis.db)).await {
                Ok(client) => ask(client.clone()).await,
                Err(fault) => Err(fault),
            };
            let fault = match answer {
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_) | Fault::Denied(_))) => fault,
                answer => {
                    if let Some(health) = health
                        && away.swap(false, Ordering::Relaxed)
                    {
                        health.up(part);
                        health.forget(part);
                    }
                    return answer;
                }
            };
            if let Some(health) = health {
                let severity = if fault.needs_human() { Severity::Error } else { Severity::Warn };
                away.store(true, Ordering::Relaxed);
                health.down(part, &fault.to_string(), severity);
            }
            attempts += 1;
            // Whoever has no health to tell it by is told by the answer.
            if health.is_none() && attempts >= settings.redis.retry.max_retries.max(1) {
                return Err(fault);
            }
            sleep(backoff.next_delay()).await;
        }
    }
}

impl Drop for Inner {
    /// The client library goes on connecting a client that nobody has any more.
    fn drop(&mut self) {
        if let (Some(client), Ok(runtime)) = (self.client.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { client.quit().await });
        }
    }
}

fn malformed() -> Fault {
    Fault::Other("the buffer's answer is not what it should be".into())
}

/// What SCAN and SSCAN return; `None` is that there is no further page.
pub(super) fn page(reply: Value) -> Result<(Option<Value>, Vec<String>), Fault> {
    let Value::Array(parts) = reply else { return Err(malformed()) };
    let [cursor, members] = <[Value; 2]>::try_from(parts).map_err(|_| malformed())?;
    let last = cursor.as_str().is_some_and(|cursor| cursor == "0") || cursor.as_u64() == Some(0);
    // What is no text was not made here.
    let members = members.into_array().into_iter().filter_map(|member| member.as_string()).collect();
    Ok(((!last).then_some(cursor), members))
}

/// What the script returns of one queue.
fn read(found: Value) -> Option<Read> {
    let Value::Array(parts) = found else { return None };
    let mut parts = parts.into_iter();
    let more = text(parts.next()?)? == "1";
    let error = Some(text(parts.next()?)?).filter(|error| !error.is_empty());
    let lost = parts.next()?.into_array().into_iter().map(|member| id_of(&text(member)?));
    let lost = lost.collect::<Option<_>>()?;
    let mut messages = Vec::with_capacity(parts.len() / 2);
    while let Some(member) = parts.next() {
        messages.push((id_of(&text(member)?)?, parts.next()?.into_bytes()?));
    }
    Some(Read { more, messages, lost, error })
}
