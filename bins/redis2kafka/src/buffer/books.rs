//! The buffer as those see it who send what it holds: reading queues, settling messages, looking for queues. Whatever is
//! asked here may be asked twice, so it is asked until there is an answer; when to ask again is decided here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use sync_core::bridge::Fate;
use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::redis::connection::Connector;
use sync_core::retry::Backoff;
use sync_core::telemetry::health::{Health, Severity};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::answer::Answer;
use super::answer::{number, text};
use super::keys::{MessageKey, QUEUES, Queue, UNSYNCED_KEYS, id_of, member};
use super::script::{HEADS, LOOK, RESTORE, SEEK, SETTLE, STORE, Script};
use super::stored::Digest;
use crate::settings::BufferSettings;

/// Keys that a scan looks at in one go.
const PAGE: &str = "1000";

/// See the module. Clones are the same.
#[derive(Clone)]
pub(crate) struct Books(Arc<Inner>);

struct Inner {
    connector: Connector,
    settings: BufferSettings,
    health: Option<Health>,
    part: String,
    client: OnceCell<Client>,
}

/// What was read of one queue.
#[derive(Debug)]
pub(super) struct Read {
    /// There may be more behind.
    pub(super) more: bool,
    /// In order.
    pub(super) messages: Vec<(EntryId, Bytes)>,
    /// Why no more could be read.
    pub(super) error: Option<String>,
}

/// What is to be settled of one queue.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Kafka has them.
    pub(super) synced: Vec<(EntryId, Digest)>,
    /// It will never have them, and why.
    pub(super) refused: Vec<(EntryId, String)>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Queues that have something.
    pub(super) queues: Vec<Queue>,
    /// The time in the lowest ID, ms since 1970.
    pub(super) oldest: Option<u64>,
}

impl Books {
    /// Connects to nothing yet.
    pub(crate) fn new(connector: Connector, settings: &BufferSettings, health: Option<Health>) -> Self {
        let part = format!("what is sent from the buffer Redis at {}", connector.address());
        Self(Arc::new(Inner { connector, settings: settings.clone(), health, part, client: OnceCell::new() }))
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

    /// Stores one message; `false` is that there is another one under its key.
    pub(super) async fn store(
        &self,
        process: &str,
        key: &MessageKey,
        digest: &Digest,
        message: Bytes,
    ) -> Result<bool, Fault> {
        let MessageKey { queue, id } = key;
        let mut arguments = vec![process.into(), queue.as_str().into(), "".into()];
        arguments.extend([id.to_string().into(), key.member().into()]);
        arguments.extend([digest.as_str().into(), Value::Bytes(message)]);
        match Answer::read(Ok(self.run(&STORE, arguments).await?), 1).fates.remove(0) {
            Fate::Delivered => Ok(true),
            Fate::Unfit(_) => Ok(false),
            Fate::Busy(reason) | Fate::Held(reason) | Fate::Refused(reason) => Err(Fault::Other(reason)),
            Fate::Unknown => Err(malformed()),
        }
    }

    /// Marks messages of a queue as synced or refused; both leave the queue.
    pub(super) async fn settle(&self, queue: &Queue, settling: &Settling) -> Result<(), Fault> {
        let milliseconds = |duration: Duration| Value::from(duration.as_millis().to_string());
        let Inner { settings, .. } = &*self.0;
        let Settling { synced, refused } = settling;
        let mut arguments = Vec::with_capacity(4 + 3 * (synced.len() + refused.len()));
        arguments.push(queue.as_str().into());
        arguments.extend([milliseconds(settings.sync_ttl), milliseconds(settings.time_to_live)]);
        arguments.push(synced.len().to_string().into());
        let mut push = |id: EntryId, word: &str| {
            arguments.extend([id.to_string().into(), member(id).into(), Value::from(word)]);
        };
        synced.iter().for_each(|(id, digest)| push(*id, digest.as_str()));
        refused.iter().for_each(|(id, reason)| push(*id, reason));
        self.run(&SETTLE, arguments).await.map(drop)
    }

    /// How many messages Kafka does not have.
    pub(super) async fn unsynced(&self) -> Result<u64, Fault> {
        let count = self.ask("SCARD", vec![UNSYNCED_KEYS.into()]).await?;
        count.as_u64().ok_or_else(malformed)
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
                    let Some(id) = text(head).and_then(|head| id_of(&head)) else { continue };
                    seen.oldest = Some(seen.oldest.map_or(id.ms, |oldest| oldest.min(id.ms)));
                    seen.queues.push(queue);
                }
            }
            match next {
                Some(next) => cursor = next,
                None => return Ok(seen),
            }
        }
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
            restored += number(&self.run(&RESTORE, vec![queue]).await?).ok_or_else(malformed)?;
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
        let Inner { connector, settings, health, part, client } = &*self.0;
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
                    if let Some(health) = health {
                        health.up(part);
                        health.forget(part);
                    }
                    return answer;
                }
            };
            if let Some(health) = health {
                let severity = if fault.needs_human() { Severity::Error } else { Severity::Warn };
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
    let mut messages = Vec::with_capacity(parts.len() / 2);
    while let Some(member) = parts.next() {
        messages.push((id_of(&text(member)?)?, parts.next()?.into_bytes()?));
    }
    Some(Read { more, messages, error })
}
