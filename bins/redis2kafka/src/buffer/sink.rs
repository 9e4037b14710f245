//! The sink with the buffer: a group becomes one script call per run of a queue, all of them pipelined on one connection
//! that never reconnects ([`sync_core::redis::link`]). Delivered means that the message stands in the buffer.
//!
//! **Order.** Calls go out before `deliver` returns, and a server answers them in that order. A run names the message that
//! was sent before it ([`Flights`]); the script stores nothing of it if that one did not get there. So no message stands in
//! the buffer while an earlier one of its stream is still to be stored.

use std::collections::HashMap;
use std::sync::Arc;

use fred::types::Value;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kafka_producer::Kafka;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Stream, Unreachable};
use sync_core::record::EntryId;
use sync_core::redis::Fault;
use sync_core::redis::call::Call;
use sync_core::redis::connection::{Connection, Connector, ConnectorError};
use sync_core::redis::flights::{Flight, Flights};
use sync_core::redis::link::{Link, Live, takes_writes};
use sync_core::redis::runs::runs_of;
use sync_core::telemetry::health::Health;

use super::answer::{Answer, Trouble};
use super::intake::Intake;
use super::keys::{Kind, Queue, member};
use super::script::STORE;
use super::server;
use super::stored::{self, Digest};
use super::wake::Wake;
use crate::message;
use crate::settings::{BufferSettings, Settings};
use crate::sink::Shape;

/// No server takes a longer argument as it comes (proto-max-bulk-len).
pub(super) const LONGEST: usize = 512 << 20;

/// The buffer as a sink.
pub(crate) struct BufferSink {
    connector: Connector,
    settings: BufferSettings,
    shape: Arc<Shape>,
    longest: usize,
    kafka: Kafka,
    /// What was sent last, with its digest.
    flights: Flights<(EntryId, Digest)>,
    wake: Wake,
    intake: Intake,
    link: Link,
}

/// A run under way.
struct Sent {
    /// Which records of the group.
    records: Vec<usize>,
    queue: Queue,
    call: Call,
    _flight: Flight<(EntryId, Digest)>,
}

impl BufferSink {
    /// Reads TLS files; connects to nothing. Where `health` is told how the buffer stands, whoever sends looks at it.
    pub(crate) fn new(
        settings: &Settings,
        buffer: &BufferSettings,
        kafka: Kafka,
        wake: Wake,
        health: Option<Health>,
    ) -> Result<Self, ConnectorError> {
        let connector = Connector::to_target(buffer.redis.clone())?;
        Ok(Self {
            intake: Intake::new(&connector.address(), buffer, health),
            connector,
            settings: buffer.clone(),
            shape: Arc::new(Shape::new(settings)),
            longest: settings.kafka.client.max_request_size().min(LONGEST),
            kafka,
            flights: Flights::default(),
            wake,
            link: Link::default(),
        })
    }

    /// What it tells of the buffer as a whole.
    pub(crate) fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Before the first connection that is to last: a server that would throw messages away is not tried again and again.
    /// One that cannot be reached says so when it is connected to.
    pub(crate) async fn refuse_unsafe(&self) -> anyhow::Result<()> {
        let Ok(mut connection) = self.connector.connection(self.settings.redis.db).await else {
            return Ok(());
        };
        let address = self.connector.address();
        match connection.run(async |client| Ok(server::examine(&client).await)).await {
            Ok(Ok(server::Durability::OnDisk)) | Err(_) => {}
            Ok(Ok(server::Durability::InMemory)) => tracing::warn!(
                "the buffer Redis at {address} has neither an append-only file nor snapshots: what waits there for Kafka is \
                 lost when it restarts. Set appendonly yes"
            ),
            Ok(Ok(server::Durability::Snapshots)) => tracing::warn!(
                "the buffer Redis at {address} has snapshots and no append-only file: what came since the last snapshot is \
                 lost when it crashes. Set appendonly yes"
            ),
            Ok(Err(reason)) => anyhow::bail!("the buffer Redis at {address} cannot be used: {reason}"),
        }
        Ok(())
    }

    async fn attempt(&self) -> Result<Connection, Unreachable> {
        let unreachable =
            |fault: Fault| Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() };
        let mut connection = self.connector.connection(self.settings.redis.db).await.map_err(unreachable)?;
        connection.run(|client| takes_writes(client, false)).await.map_err(unreachable)?;
        let examined = connection.run(async |client| Ok(server::examine(&client).await)).await;
        match examined.map_err(unreachable)? {
            Ok(_) => Ok(connection),
            Err(reason) => Err(Unreachable { reason: reason.to_string(), needs_human: true }),
        }
    }
}

/// What is the same for all entries of a stream.
struct Way {
    queue: Queue,
    topic: Arc<str>,
    /// As a JSON string.
    json: Vec<u8>,
}

impl Sink for BufferSink {
    fn destination(&self) -> String {
        format!("buffer Redis at {}", self.connector.address())
    }

    fn identity(&self) -> String {
        let topics = self.shape.topics.all().join(",");
        let db = self.settings.redis.db;
        format!("{} {topics} through {} {db}", self.kafka.destination(), self.connector.address())
    }

    /// For as long as markers stay.
    fn repeats_are_harmless(&self) -> bool {
        true
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        self.link.connect(self.settings.redis.health_check_interval, self.attempt()).await
    }

    fn deliver(&self, group: Group) -> Delivery {
        let mut fates = vec![Fate::Unknown; group.len()];
        let Some(live) = self.link.live() else { return std::future::ready(fates).boxed() };
        let mut messages: Vec<Vec<Value>> = Vec::with_capacity(group.len());
        let mut ways: HashMap<*const Stream, Way> = HashMap::new();
        for (at, record) in group.iter().enumerate() {
            let way = ways.entry(Arc::as_ptr(&record.stream)).or_insert_with(|| self.way(&record.stream));
            match self.message(way, record) {
                Ok(message) => messages.push(message),
                Err(reason) => {
                    messages.push(Vec::new());
                    fates[at] = Fate::Unfit(reason);
                }
            }
        }
        let runs =
            runs_of(group.len(), |at| (!messages[at].is_empty()).then(|| Arc::as_ptr(&group[at].stream)));
        let knows_script = live.knows_script();
        let mut sent = Vec::with_capacity(runs.len());
        for records in runs {
            let stream = &group[records[0]].stream;
            let last = &group[*records.last().expect("a run has records")].entry;
            let (before, flight) = self.flights.set_out(&stream.name, (last.id, Digest::of_entry(last)));
            let queue = ways[&Arc::as_ptr(stream)].queue.clone();
            let mut arguments = Vec::with_capacity(4 + 4 * records.len());
            arguments.push(self.wake.process().into());
            arguments.push(queue.as_str().into());
            match before {
                Some((id, digest)) => arguments.extend([id.to_string().into(), digest.as_str().into()]),
                None => arguments.extend(["".into(), "".into()]),
            }
            for &at in &records {
                arguments.append(&mut messages[at]);
            }
            let (command, arguments) = STORE.command(knows_script, arguments);
            sent.push(Sent {
                records,
                queue,
                call: Call::send(&live.client, command, arguments),
                _flight: flight,
            });
        }
        settle(sent, live, self.wake.clone(), self.intake.clone(), fates).boxed()
    }

    async fn disconnect(&self) {
        self.link.close();
        // Whatever sends has ended by now, or was given up.
        self.kafka.disconnect().await;
    }
}

impl BufferSink {
    fn way(&self, stream: &Stream) -> Way {
        let topic = self.shape.topics.of(&stream.name, self.shape.default_db).clone();
        let mut json = Vec::new();
        sync_core::payload::write_json_string(&mut json, &stream.spelled);
        Way { queue: Queue::new(Kind::Stream, &topic, &stream.spelled), topic, json }
    }

    /// What the script is given of an entry; else why it cannot be sent.
    fn message(&self, way: &Way, record: &sync_core::bridge::Record) -> Result<Vec<Value>, String> {
        let (entry, spelled) = (&record.entry, &*record.stream.spelled);
        let mut value = Vec::new();
        message::write_value(&mut value, self.shape.encoder, &way.json, entry);
        let length = value.len() + spelled.len();
        if length > self.longest {
            let most = self.longest;
            return Err(format!("the record is {length} bytes long, and KAFKA_MAX_REQUEST_SIZE is {most}"));
        }
        let id = entry.id.to_string();
        let digest = Digest::of_entry(entry);
        let timestamp = message::timestamp(entry.id, self.shape.timestamp);
        let headers = [(message::STREAM, spelled), (message::ENTRY_ID, &id)];
        let mut stored = Vec::with_capacity(value.len() + 2 * spelled.len() + 220);
        let json = stored::Value::Json(&value);
        stored::write(&mut stored, &digest, &way.topic, spelled, timestamp, &headers, json);
        Ok(vec![id.into(), member(entry.id).into(), digest.as_str().into(), Value::Bytes(stored.into())])
    }
}

/// The fates of a group, once every call has its answer or the connection is gone.
async fn settle(
    mut sent: Vec<Sent>,
    mut live: Live,
    wake: Wake,
    intake: Intake,
    mut fates: Vec<Fate>,
) -> Vec<Fate> {
    let all_answered = async {
        for sent in &mut sent {
            sent.call.answered().await;
        }
    };
    tokio::select! {
        biased;
        () = all_answered => {}
        () = live.gone() => {}
    }
    for Sent { records, queue, call, _flight } in sent {
        let answer = match call.answer() {
            Some(reply) => Answer::read(reply, records.len()),
            None => Answer::silence(records.len()),
        };
        let stored = answer.fates.contains(&Fate::Delivered);
        match answer.trouble {
            Some(Trouble::ScriptUnknown) => live.set_knows_script(false),
            // It may be a failover: whoever is primary now is asked for when connecting.
            Some(Trouble::ReadOnly(reason)) => live.end(reason),
            None if stored => live.set_knows_script(true),
            None => {}
        }
        if stored {
            wake.stored(&queue);
            intake.takes();
        }
        if let Some(Fate::Shut(reason)) = answer.fates.iter().find(|fate| matches!(fate, Fate::Shut(_))) {
            intake.refuses(reason);
        }
        for (&at, fate) in records.iter().zip(answer.fates) {
            fates[at] = fate;
        }
    }
    fates
}
