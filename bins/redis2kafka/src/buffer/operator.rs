//! What an operator sees of the buffer, and does about it: `buffer status`, `list` and `resend`. One attempt at the server,
//! and nothing is retried: a person is there.

use std::collections::BTreeMap;
use std::io::Write;

use chrono::{DateTime, SecondsFormat};
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use sync_core::commands::table::Table;
use sync_core::commands::{CommandError, Ended, counted};
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connection, Connector};

use super::answer::{number, text};
use super::books::page;
use super::keys::{MessageKey, QUEUES, Queue, REFUSED, UNSYNCED, UNSYNCED_KEYS, id_of};
use super::script::{LOOK, RESEND};
use super::server::{self, Unsafe};
use crate::settings::BufferSettings;

/// What to do with the buffer.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum BufferCommand {
    /// How much waits there for Kafka, since when, in which queues; and how much Kafka refused.
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The keys of messages that wait for Kafka, each queue in its order.
    List {
        /// Those that Kafka refused instead, with the reason.
        #[arg(long)]
        refused: bool,
        /// Only of this topic.
        #[arg(long)]
        topic: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// One JSON object for each message.
        #[arg(long)]
        json: bool,
    },
    /// Have refused messages sent again, by the bridge that runs.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Resend {
        /// Their keys, as `list --refused` has them.
        #[arg(value_name = "KEY", group = "which")]
        keys: Vec<String>,
        /// All of them.
        #[arg(long, group = "which")]
        all: bool,
    },
}

/// Carries a command out.
pub(crate) async fn operate(
    command: BufferCommand,
    settings: &BufferSettings,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let mut buffer = Buffer::connect(settings).await?;
    match command {
        BufferCommand::Status { json } => buffer.status(json, out).await,
        BufferCommand::List { refused: false, topic, limit, json } => {
            buffer.list(topic.as_deref(), limit, json, out).await
        }
        BufferCommand::List { refused: true, topic, limit, json } => {
            buffer.list_refused(topic.as_deref(), limit, json, out).await
        }
        BufferCommand::Resend { keys, all } => buffer.resend(keys, all, out).await,
    }
}

struct Buffer {
    connection: Connection,
    address: String,
    db: u16,
}

impl Buffer {
    async fn connect(settings: &BufferSettings) -> Result<Self, CommandError> {
        let connector = Connector::to_target(settings.redis.clone())?;
        let (address, db) = (connector.address(), settings.redis.db);
        let unreachable =
            |fault| CommandError::Destination(format!("cannot reach the buffer Redis at {address}: {fault}"));
        let mut connection = connector.connection(db).await.map_err(unreachable)?;
        let examined = connection.run(async |client| Ok(server::examine(&client).await)).await;
        match examined.map_err(unreachable)? {
            Ok(_) => {}
            Err(reason @ Unsafe::Cluster) => {
                let reason = format!("the buffer Redis at {address} cannot be used: {reason}");
                return Err(CommandError::Destination(reason));
            }
            // What waits there can still be looked at.
            Err(reason) => tracing::warn!("the buffer Redis at {address}: {reason}"),
        }
        Ok(Self { connection, address, db })
    }

    async fn status(&mut self, json: bool, out: &mut impl Write) -> Result<Ended, CommandError> {
        let unsynced = self.count("SCARD", UNSYNCED_KEYS).await?;
        let refused = self.count("HLEN", REFUSED).await?;
        let mut queues = BTreeMap::new();
        for queue in self.queues(None).await? {
            let length = self.count("ZCARD", &format!("{UNSYNCED}{queue}")).await?;
            let heads = self.run(async |client| LOOK.run(&client, vec![queue.as_str().into()]).await).await?;
            let head = heads.into_array().into_iter().next().and_then(text).and_then(|head| id_of(&head));
            if let Some(head) = head {
                queues.insert(queue, (length, head.ms));
            }
        }
        let oldest = queues.values().map(|(_, ms)| *ms).min();
        if json {
            let of = |(queue, (length, ms)): (&Queue, &(u64, u64))| serde_json::json!({ "queue": queue.as_str(), "unsynced": length, "oldest": time(*ms) });
            let queues: Vec<_> = queues.iter().map(of).collect();
            let oldest = oldest.map(time);
            let status = serde_json::json!({
                "unsynced": unsynced, "refused": refused, "oldest": oldest, "queues": queues,
            });
            writeln!(out, "{status}")?;
            return Ok(Ended::Well);
        }
        let (address, db) = (&self.address, self.db);
        writeln!(out, "buffer Redis at {address}, database {db}")?;
        write!(out, "  unsynced: {}", counted(usize::try_from(unsynced).unwrap_or(usize::MAX), "message"))?;
        match oldest {
            Some(ms) => {
                writeln!(out, " in {}, the oldest from {}", counted(queues.len(), "queue"), time(ms))?
            }
            None => writeln!(out)?,
        }
        writeln!(out, "  refused: {}", counted(usize::try_from(refused).unwrap_or(usize::MAX), "message"))?;
        if !queues.is_empty() {
            let mut table = Table::new("  ", ["QUEUE", "UNSYNCED", "OLDEST"]);
            for (queue, (length, ms)) in queues {
                table.row([queue.to_string(), length.to_string(), time(ms)]);
            }
            table.write(out)?;
        }
        Ok(Ended::Well)
    }

    async fn list(
        &mut self,
        topic: Option<&str>,
        limit: usize,
        json: bool,
        out: &mut impl Write,
    ) -> Result<Ended, CommandError> {
        let mut left = limit;
        for queue in self.queues(topic).await? {
            // One more than are shown.
            let key = format!("{UNSYNCED}{queue}");
            let words = vec![key.into(), 0.into(), i64::try_from(left).unwrap_or(i64::MAX).into()];
            for member in self.ask("ZRANGE", words).await?.into_array() {
                let Some(id) = text(member).and_then(|member| id_of(&member)) else { continue };
                if left == 0 {
                    return Ok(more_than(limit));
                }
                let key = MessageKey { queue: queue.clone(), id };
                match json {
                    true => writeln!(out, "{}", serde_json::json!({ "key": key.to_string() }))?,
                    false => writeln!(out, "{key}")?,
                }
                left -= 1;
            }
        }
        Ok(Ended::Well)
    }

    async fn list_refused(
        &mut self,
        topic: Option<&str>,
        limit: usize,
        json: bool,
        out: &mut impl Write,
    ) -> Result<Ended, CommandError> {
        let mut left = limit;
        let mut cursor = Some(Value::from("0"));
        while let Some(from) = cursor.take() {
            let (next, words) = self.page("HSCAN", REFUSED, from).await?;
            for pair in words.chunks_exact(2) {
                let of_topic = |key: &MessageKey| topic.is_none_or(|topic| key.queue.topic() == topic);
                if !MessageKey::parse(&pair[0]).is_some_and(|key| of_topic(&key)) {
                    continue;
                }
                if left == 0 {
                    return Ok(more_than(limit));
                }
                let mut why: serde_json::Value = serde_json::from_str(&pair[1]).unwrap_or_default();
                match json {
                    true => {
                        why["key"] = pair[0].as_str().into();
                        writeln!(out, "{why}")?;
                    }
                    false => writeln!(out, "{}: {}", pair[0], why["reason"].as_str().unwrap_or(&pair[1]))?,
                }
                left -= 1;
            }
            cursor = next;
        }
        Ok(Ended::Well)
    }

    async fn resend(
        &mut self,
        keys: Vec<String>,
        all: bool,
        out: &mut impl Write,
    ) -> Result<Ended, CommandError> {
        let (mut wanted, mut back) = (0, 0);
        if all {
            let mut cursor = Some(Value::from("0"));
            while let Some(from) = cursor {
                let (next, words) = self.page("HSCAN", REFUSED, from).await?;
                let keys: Vec<String> = words.into_iter().step_by(2).collect();
                wanted += keys.len();
                back += self.put_back(&keys).await?;
                cursor = next;
            }
        } else {
            wanted = keys.len();
            back = self.put_back(&keys).await?;
        }
        writeln!(out, "{} of {wanted} wait for Kafka again", counted(back, "message"))?;
        Ok(if back == wanted { Ended::Well } else { Ended::Badly })
    }

    async fn put_back(&mut self, keys: &[String]) -> Result<usize, CommandError> {
        let mut arguments = Vec::with_capacity(3 * keys.len());
        for text in keys {
            let Some(key) = MessageKey::parse(text) else {
                return Err(CommandError::Usage(format!("{text} is no message's key")));
            };
            arguments.extend([text.as_str().into(), key.queue.as_str().into(), key.member().into()]);
        }
        if arguments.is_empty() {
            return Ok(0);
        }
        let back = self.run(async |client| RESEND.run(&client, arguments).await).await?;
        Ok(number(&back).unwrap_or_default())
    }

    /// The queues that have something, in the order of their names.
    async fn queues(&mut self, topic: Option<&str>) -> Result<Vec<Queue>, CommandError> {
        let mut queues = Vec::new();
        let mut cursor = Some(Value::from("0"));
        while let Some(from) = cursor {
            let (next, names) = self.page("SSCAN", QUEUES, from).await?;
            queues.extend(names.iter().filter_map(|name| Queue::parse(name)));
            cursor = next;
        }
        queues.retain(|queue| topic.is_none_or(|topic| queue.topic() == topic));
        // A scan may name one twice.
        queues.sort();
        queues.dedup();
        Ok(queues)
    }

    async fn page(
        &mut self,
        command: &'static str,
        key: &str,
        from: Value,
    ) -> Result<(Option<Value>, Vec<String>), CommandError> {
        let reply = self.ask(command, vec![key.into(), from, "COUNT".into(), 1000.into()]).await?;
        page(reply).map_err(|fault| self.said(&fault))
    }

    async fn count(&mut self, command: &'static str, key: &str) -> Result<u64, CommandError> {
        Ok(self.ask(command, vec![key.into()]).await?.as_u64().unwrap_or_default())
    }

    async fn ask(&mut self, command: &'static str, words: Vec<Value>) -> Result<Value, CommandError> {
        let command = CustomCommand::new(command, ClusterHash::Random, false);
        self.run(async |client| Ok(client.custom::<Value, Value>(command, words).await?)).await
    }

    async fn run<F: Future<Output = Result<Value, Fault>>>(
        &mut self,
        work: impl FnOnce(Client) -> F,
    ) -> Result<Value, CommandError> {
        let answer = self.connection.run(work).await;
        answer.map_err(|fault| self.said(&fault))
    }

    fn said(&self, fault: &Fault) -> CommandError {
        CommandError::Destination(format!("the buffer Redis at {} says: {fault}", self.address))
    }
}

/// Beside the list, which a program may read.
fn more_than(limit: usize) -> Ended {
    tracing::warn!("there are more than these {limit}: see --limit");
    Ended::Well
}

/// Milliseconds since 1970 as people write it.
fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
