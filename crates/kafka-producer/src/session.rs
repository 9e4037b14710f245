//! The two producers, from their making until they are given up, and what they hear from the brokers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use sync_core::bridge::Unreachable;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::client::PRODUCER;
use super::fault::{needs_human, words};
use super::flight::Ticket;
use super::{Head, Line};

/// An answer from the brokers may take so long.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// Brokers remember a producer for much longer.
const PROOF: Duration = Duration::from_secs(3600);
/// Questions under way at a time.
const ASKS: usize = 16;
/// librdkafka's own.
const BATCH_SIZE: usize = 1_000_000;

/// Many records a request, and when one is refused, an end to all.
const MAIN: [(&str, &str); 3] =
    [("enable.gapless.guarantee", "true"), ("linger.ms", "1"), ("batch.num.messages", "10000")];
/// Each record is a request of its own, also where a person wants more in one: what is refused must be refused alone.
const SOLO: [(&str, &str); 2] = [("linger.ms", "0"), ("batch.num.messages", "1")];

/// See the module.
pub(super) struct Session {
    main: Producer,
    /// Made when it is needed, and kept when the main one is replaced.
    solo: Arc<OnceLock<Result<Producer, KafkaError>>>,
    /// What every client of it is made with.
    config: ClientConfig,
    heard: Arc<Heard>,
    /// One permit for each question that may be asked at a time: each waits on a thread of its own.
    asks: Arc<Semaphore>,
    /// Lines of which the main producer got a record through, and when that is known to have been at the latest.
    proven: Mutex<HashMap<Arc<str>, Instant>>,
}

/// What both producers have heard.
#[derive(Debug, Default)]
struct Heard {
    /// The last thing that went wrong on a connection.
    trouble: Mutex<Option<(Code, String)>>,
    /// Something went wrong: a connection, or a producer as a whole.
    something: Notify,
}

/// Gets what the client library calls back with.
struct Reports(Arc<Heard>);

/// Taking one apart takes a moment, and must not keep up who lets go of it last.
struct Producer(Option<ThreadedProducer<Reports>>);

impl Session {
    /// Makes the main producer, and waits until a broker has answered.
    pub(super) async fn connect(mut config: ClientConfig) -> Result<Arc<Self>, Unreachable> {
        for (key, value) in PRODUCER {
            config.set(key, value);
        }
        let heard = Arc::new(Heard::default());
        let main = make(main(&config), &heard).map_err(|error| Unreachable {
            reason: format!("the client library refuses the settings: {error}"),
            needs_human: true,
        })?;
        let session = Arc::new(Self {
            main,
            solo: Arc::default(),
            config,
            heard,
            proven: Mutex::default(),
            asks: Arc::new(Semaphore::new(ASKS)),
        });
        let asked = session.clone();
        let cluster = spawn_blocking(move || asked.main.get().client().fetch_cluster_id(ANSWER)).await;
        match cluster.ok().flatten() {
            Some(_) => Ok(session),
            None => Err(session.unreachable("no answer")),
        }
    }

    pub(super) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// With another main producer, which sends batches of at most so many bytes; the brokers are there.
    pub(super) fn renewed(&self, batch_size: usize) -> Result<Arc<Self>, KafkaError> {
        let mut config = self.config.clone();
        config.set("batch.size", batch_size.to_string());
        Ok(Arc::new(Self {
            main: make(main(&config), &self.heard)?,
            solo: self.solo.clone(),
            config,
            heard: self.heard.clone(),
            asks: self.asks.clone(),
            proven: Mutex::default(),
        }))
    }

    /// The most bytes that it sends in a batch of several records.
    pub(super) fn batch_size(&self) -> usize {
        self.config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(BATCH_SIZE)
    }

    /// What keeps it from the brokers, as far as it has heard.
    pub(super) fn unreachable(&self, otherwise: &str) -> Unreachable {
        match self.heard.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some((code, reason)) => Unreachable { reason, needs_human: needs_human(code) },
            None => Unreachable { reason: otherwise.to_owned(), needs_human: false },
        }
    }

    /// Why the main producer has ended, if it has.
    pub(super) fn main_ended(&self) -> Option<(Code, String)> {
        self.main.get().client().fatal_error()
    }

    /// Why it is of no use any more, if it is.
    pub(super) fn ended(&self) -> Option<(Code, String)> {
        let solo = self.solo().and_then(|solo| solo.get().client().fatal_error());
        self.main_ended().or(solo)
    }

    /// The same in words.
    pub(super) fn why_ended(&self) -> Option<Unreachable> {
        let (code, reason) = self.ended()?;
        let advice = match code {
            Code::ClusterAuthorizationFailed => {
                "the user may not write to any topic (before Kafka 2.8 it needs IDEMPOTENT_WRITE on the cluster): "
            }
            _ => "",
        };
        let reason = format!("{advice}the producer ended: {}: {reason}", words(code));
        Some(Unreachable { reason, needs_human: needs_human(code) })
    }

    /// Waits until the brokers must have said whether they let it write: a producer asks them for its ID by itself, once it
    /// is connected, and nobody is told when it has got one.
    pub(super) async fn stays(&self) -> Result<(), Unreachable> {
        let ends = async {
            loop {
                self.trouble().await;
                if let Some(why) = self.why_ended() {
                    return why;
                }
            }
        };
        if let Ok(why) = tokio::time::timeout(ANSWER, ends).await {
            return Err(why);
        }
        // What else went wrong meanwhile is for whoever waits for its end.
        self.heard.something.notify_one();
        Ok(())
    }

    fn solo(&self) -> Option<&Producer> {
        self.solo.get().and_then(|solo| solo.as_ref().ok())
    }

    /// Returns when something went wrong since it was asked last, or the session was given up.
    pub(super) async fn trouble(&self) {
        self.heard.something.notified().await;
    }

    /// Asks the brokers for a topic: the error that they have for it.
    pub(super) async fn ask_for(self: &Arc<Self>, topic: &Arc<str>) -> Result<Option<Code>, Unreachable> {
        let (session, name) = (self.clone(), topic.clone());
        let _permit = self.asks.acquire().await;
        let asked = move || {
            let metadata = session.main.get().client().fetch_metadata(Some(&name), ANSWER)?;
            let error = metadata.topics().first().and_then(|topic| topic.error());
            Ok::<_, KafkaError>(error.map(Code::from))
        };
        match spawn_blocking(asked).await {
            Ok(Ok(error)) => {
                self.is_answered();
                Ok(error)
            }
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable("the client library failed")),
        }
    }

    /// Whatever was heard before is over.
    fn is_answered(&self) {
        *self.heard.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The topics that there are.
    pub(super) async fn topics(self: &Arc<Self>) -> Result<HashSet<String>, Unreachable> {
        let session = self.clone();
        let asked = move || {
            let metadata = session.main.get().client().fetch_metadata(None, ANSWER)?;
            Ok::<_, KafkaError>(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        };
        match spawn_blocking(asked).await {
            Ok(Ok(topics)) => {
                self.is_answered();
                Ok(topics)
            }
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable("the client library failed")),
        }
    }

    /// Whether the broker of a line's partition knows the main producer, and so refuses what comes behind a batch that it
    /// refused. Of a producer that it does not know, or has forgotten (`producer.id.expiration.ms`, a day), it takes a batch
    /// with any sequence number.
    pub(super) fn has_proven(&self, line: &str) -> bool {
        self.proven().get_mut(line).is_some_and(|at| {
            let age = at.elapsed();
            if age > PROOF / 6 && age < PROOF {
                // It is sent to now: either that gets there, or the producer ends.
                *at = Instant::now();
            }
            age < PROOF
        })
    }

    /// A record of the line got there.
    pub(super) fn prove(&self, line: &Arc<str>) {
        let mut proven = self.proven();
        // Lines may come and go: when there is no room, those whose proof is over make some.
        if proven.len() == proven.capacity() {
            proven.retain(|_, at| at.elapsed() < PROOF);
        }
        proven.insert(line.clone(), Instant::now());
    }

    fn proven(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the main producer.
    pub(super) fn send(
        &self,
        line: &Line,
        value: &[u8],
        head: Head,
        ticket: Box<Ticket>,
    ) -> Result<(), Code> {
        self.main.send(line, value, head, ticket)
    }

    /// Hands a record to the other one.
    pub(super) fn send_alone(
        &self,
        line: &Line,
        value: &[u8],
        head: Head,
        ticket: Box<Ticket>,
    ) -> Result<(), Code> {
        let solo = self.solo.get_or_init(|| make(alone(&self.config), &self.heard));
        match solo {
            Ok(solo) => solo.send(line, value, head, ticket),
            Err(error) => {
                tracing::debug!("no second producer: {error}");
                Err(Code::Fail)
            }
        }
    }

    /// Nothing more is sent: what has no report gets one, and who waits for its end hears of it.
    pub(super) fn give_up(&self) {
        self.heard.something.notify_one();
        self.give_up_main();
        if let Some(solo) = self.solo() {
            solo.get().purge(PurgeConfig::default().queue().inflight());
        }
    }

    /// The same of the main producer alone.
    pub(super) fn give_up_main(&self) {
        self.main.get().purge(PurgeConfig::default().queue().inflight());
    }
}

fn main(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    for (key, value) in MAIN {
        // What a person set goes before what delivery does not depend on.
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    config
}

fn alone(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    for (key, value) in SOLO {
        config.set(key, value);
    }
    config
}

fn make(config: ClientConfig, heard: &Arc<Heard>) -> Result<Producer, KafkaError> {
    config.create_with_context(Reports(heard.clone())).map(|producer| Producer(Some(producer)))
}

impl Producer {
    fn get(&self) -> &ThreadedProducer<Reports> {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn send(&self, line: &Line, value: &[u8], head: Head, ticket: Box<Ticket>) -> Result<(), Code> {
        let record = BaseRecord::with_opaque_to(&line.topic, ticket).key(&line.key[..]).headers(head.headers);
        let record = if head.tombstone { record } else { record.payload(value) };
        let record = match head.timestamp {
            Some(timestamp) => record.timestamp(timestamp),
            None => record,
        };
        self.get().send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let producer = self.0.take();
        std::thread::spawn(move || drop(producer));
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error, too, and is told once.
        tracing::debug!("{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        tracing::debug!("{}: {reason}", words(code));
        // Which errors end a producer shows in the producer.
        self.0.something.notify_one();
        // That all brokers are down says less than why each is.
        if code != Code::AllBrokersDown {
            let mut trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            *trouble = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match report {
            Ok(_) => ticket.delivered(),
            Err((error, _)) => ticket.failed(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_sets_of_batches_is_not_for_records_that_go_alone() {
        let mut config = ClientConfig::new();
        config.set("batch.num.messages", "500").set("linger.ms", "20").set("client.id", "plant-7");
        let told = |config: &ClientConfig| {
            ["batch.num.messages", "linger.ms", "client.id", "enable.gapless.guarantee"]
                .map(|key| config.get(key).map(str::to_owned).unwrap_or_default())
        };
        assert_eq!(told(&main(&config)), ["500", "20", "plant-7", "true"]);
        assert_eq!(told(&alone(&config)), ["1", "0", "plant-7", ""]);
    }
}
