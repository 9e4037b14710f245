//! What becomes of a batch, from its handing over to its fates. `lib.rs` has the picture, `lines.rs` the order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join, join_all};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use sync_core::bridge::{Delivery, Fate, Lost, Unreachable};
use sync_core::telemetry::health::{Health, Severity};
use tokio::time::{Instant, interval};

use super::client::Client;
use super::fault::{Blame, blame, words};
use super::flight::{Failed, Flight};
use super::lines::{Care, Lines, Way};
use super::session::Session;
use super::topics::{Topics, of_topic};
use super::{Batch, Line};

/// Longer records go alone, so that no batch is refused for a limit of 1 MB, which brokers have by default, and those in
/// it are not sent twice.
const LONG: usize = 900_000;
/// Batches do not become smaller than that.
const SMALLEST_BATCH: usize = 1000;
/// Between two words about refused batches.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Longer than this nobody waits for a confirmation without being told.
const STALLED: Duration = Duration::from_secs(30);

/// Kafka. Clones are the same.
#[derive(Clone)]
pub struct Kafka(Arc<Inner>);

struct Inner {
    client: Client,
    lines: Lines,
    topics: Topics,
    session: Mutex<Option<Arc<Session>>>,
    /// Since when which batches are under way.
    under_way: Mutex<BTreeMap<u64, Instant>>,
    health: Option<Health>,
    stalled: AtomicBool,
    /// The last producer ended, and a human must act: the next one may end as well, once the brokers hear from it.
    denied: AtomicBool,
    /// A batch was refused for its size.
    too_large: AtomicBool,
    /// When it was last said that one was refused.
    told: Mutex<Option<Instant>>,
}

impl Kafka {
    /// Connects to nothing. `health` is told when nothing is confirmed for long.
    pub fn new(client: &Client, health: Option<Health>) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            lines: Lines::default(),
            topics: Topics::new(client.names),
            session: Mutex::default(),
            under_way: Mutex::default(),
            health,
            stalled: AtomicBool::new(false),
            denied: AtomicBool::new(false),
            too_large: AtomicBool::new(false),
            told: Mutex::default(),
        }))
    }

    /// As in the log.
    pub fn destination(&self) -> String {
        format!("Kafka brokers at {}", self.0.client.servers())
    }

    /// One attempt. The producers of before are kept where they still serve, with what is under way in them; the future
    /// resolves when no broker can be reached any more, or they have ended.
    pub async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let before = self.session().clone();
        let session = match before.filter(|session| session.ended().is_none()) {
            Some(session) => {
                self.probe(&session).await?;
                session
            }
            None => {
                self.end();
                let session = Session::connect(self.0.client.config()).await?;
                // The brokers answer a client that they do not let write, too.
                if self.0.denied.load(Ordering::Relaxed) {
                    session.stays().await?;
                    self.0.denied.store(false, Ordering::Relaxed);
                }
                self.0.topics.close_all();
                *self.session() = Some(session.clone());
                session
            }
        };
        let kafka = self.clone();
        Ok(async move { kafka.lost(session).await }.boxed())
    }

    /// Whether the brokers answer.
    async fn probe(&self, session: &Arc<Session>) -> Result<(), Unreachable> {
        match self.0.topics.an_open_one() {
            Some(topic) => session.ask_for(&topic).await.map(drop),
            None => session.topics().await.map(drop),
        }
    }

    async fn lost(self, mut session: Arc<Session>) -> Lost {
        let since = Instant::now();
        let mut look = interval(STALLED / 6);
        loop {
            tokio::select! {
                () = session.trouble() => {}
                _ = look.tick() => {
                    self.look_at_what_is_under_way(since);
                    continue;
                }
            }
            if !self.session().as_ref().is_some_and(|current| Arc::ptr_eq(current, &session)) {
                return Lost { reason: "closed".into(), by_conflict: false };
            }
            if let Some((Code::GaplessGuarantee, reason)) = session.main_ended()
                && let Ok(renewed) = self.renew(&session, &reason)
            {
                session = renewed;
                continue;
            }
            if let Some(Unreachable { reason, needs_human }) = session.why_ended() {
                session.give_up();
                self.0.denied.store(needs_human, Ordering::Relaxed);
                return Lost { reason, by_conflict: needs_human };
            }
            // A connection that ended is no outage, if another one can be made.
            if let Err(unreachable) = self.probe(&session).await {
                return Lost { reason: unreachable.reason, by_conflict: false };
            }
        }
    }

    /// A batch was refused, and that ended the main producer: another one takes its place at once. Where it was refused for
    /// its size, the next ones are smaller.
    fn renew(&self, session: &Arc<Session>, reason: &str) -> Result<Arc<Session>, KafkaError> {
        let too_large = self.0.too_large.swap(false, Ordering::Relaxed);
        let before = session.batch_size();
        let batch_size = if too_large { (before / 2).max(SMALLEST_BATCH) } else { before };
        let renewed = session.renewed(batch_size)?;
        let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            tracing::warn!(
                batch_size,
                "a batch was refused, and its records are sent again, one by one: {reason}"
            );
        } else {
            tracing::debug!(batch_size, "another batch was refused: {reason}");
        }
        // What it still had gets its fates when the next one is in place: what is handed over then goes there.
        *self.session() = Some(renewed.clone());
        self.0.topics.close_all();
        session.give_up_main();
        Ok(renewed)
    }

    /// Nothing here times out; so that nobody waits in silence for what will not come, it is told.
    fn look_at_what_is_under_way(&self, since: Instant) {
        let Some(health) = &self.0.health else { return };
        let part = format!("confirmations of the {}", self.destination());
        let oldest =
            self.under_way().values().next().map(|departure| departure.elapsed().min(since.elapsed()));
        if oldest.is_some_and(|age| age >= STALLED) {
            self.0.stalled.store(true, Ordering::Relaxed);
            let reason = "records wait for longer than 30 s: look for partitions without a leader, or with fewer replicas \
                          in sync than min.insync.replicas";
            health.down(&part, reason, Severity::Warn);
        } else if self.0.stalled.swap(false, Ordering::Relaxed) {
            health.up(&part);
        }
    }

    /// Of these topics, those that are not there. Makes none.
    pub async fn absent<'a>(&self, topics: &[&'a str]) -> Result<Vec<&'a str>, Unreachable> {
        let session = Session::connect(self.0.client.config()).await?;
        let there = session.topics().await?;
        Ok(topics.iter().copied().filter(|topic| !there.contains(*topic)).collect())
    }

    /// Hands a batch of so many records over. What is in no line is [`Fate::Unknown`].
    pub fn deliver(&self, batch: Arc<dyn Batch>, count: usize, lines: Vec<Line>) -> Delivery {
        let mut fates = vec![Fate::Unknown; count];
        let Some(session) = self.session().clone() else {
            return std::future::ready(fates).boxed();
        };
        let lines: Arc<[Line]> = lines.into();
        let with_care = |line: &Line| {
            !self.0.topics.is_open(&line.topic)
                || !session.has_proven(&line.name)
                // As JSON and in base64 it may become longer.
                || line.records.iter().any(|&at| batch.size(at) > LONG / 2)
        };
        let (mut place, ways) = self.0.lines.take(lines.iter().map(|line| (&line.name, with_care(line))));
        let sending = Sending { kafka: self.clone(), session, batch, lines };
        let straight = sending.flight();
        let mut careful = Vec::new();
        let mut value = Vec::new();
        for (index, way) in ways.into_iter().enumerate() {
            match way {
                Way::Straight => {
                    for &at in &sending.lines[index].records {
                        match sending.send(&straight, index, at, &mut value) {
                            Sent::Yes => fates[at] = Fate::Delivered,
                            Sent::Never(fate) => fates[at] = fate,
                            Sent::NotNow(fate) => {
                                fates[at] = fate;
                                break;
                            }
                        }
                    }
                }
                Way::Care(care) => careful.push(tokio::spawn(sending.clone().careful(index, care))),
                Way::Back => {}
            }
        }
        place.is_sent();
        let departure = self.departs();
        async move {
            let (failed, careful) = join(straight.end(), join_all(careful)).await;
            for (at, _) in failed {
                fates[at] = Fate::Unknown;
            }
            // A task that fails says nothing: unknown.
            for (at, fate) in careful.into_iter().flatten().flatten() {
                fates[at] = fate;
            }
            drop(departure);
            place.has_its_fates();
            // It is given up when the batch's giver has the fates: what it hands over until then knows of this batch.
            drop(place);
            fates
        }
        .boxed()
    }

    /// Ends the connection. What was sent and has no report yet gets none any more.
    pub async fn disconnect(&self) {
        let session = self.session().take();
        if let Some(session) = session {
            session.give_up();
        }
    }

    fn end(&self) {
        if let Some(session) = self.session().take() {
            session.give_up();
        }
    }

    fn session(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn departs(&self) -> Departure {
        let mut under_way = self.under_way();
        let number = under_way.last_key_value().map_or(0, |(last, _)| last + 1);
        under_way.insert(number, Instant::now());
        drop(under_way);
        Departure { kafka: self.clone(), number }
    }

    /// A record of a line came back.
    fn failed(&self, line: &Line, code: Code) {
        self.0.lines.undone(&line.name);
        match blame(code) {
            Blame::Record => {
                if code != Code::InvalidTimestamp {
                    self.0.too_large.store(true, Ordering::Relaxed);
                }
                self.0.lines.suspect(&line.name, true);
            }
            Blame::Topic => self.0.topics.refused(&line.topic),
            Blame::Nobody | Blame::Room => {}
        }
    }
}

/// A batch under way.
struct Departure {
    kafka: Kafka,
    number: u64,
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.kafka.under_way().remove(&self.number);
    }
}

/// What came of handing one record to the client library.
enum Sent {
    /// Its report follows.
    Yes,
    /// It cannot be sent.
    Never(Fate),
    /// Nor may what comes after it.
    NotNow(Fate),
}

/// A batch, and where it is sent.
#[derive(Clone)]
struct Sending {
    kafka: Kafka,
    session: Arc<Session>,
    batch: Arc<dyn Batch>,
    lines: Arc<[Line]>,
}

impl Sending {
    /// For records that are sent together.
    fn flight(&self) -> Arc<Flight> {
        let (kafka, lines) = (self.kafka.clone(), self.lines.clone());
        Flight::new(move |line, code| kafka.failed(&lines[line], code))
    }

    fn together(&self) -> Together {
        Together { flight: self.flight(), sent: Vec::new() }
    }

    /// Hands a record to the main producer.
    fn send(&self, flight: &Arc<Flight>, index: usize, at: usize, value: &mut Vec<u8>) -> Sent {
        let line = &self.lines[index];
        value.clear();
        let mut head = self.batch.record(at, value);
        if !self.kafka.0.topics.takes_the_time(&line.topic, head.timestamp) {
            head.timestamp = None;
        }
        if line.records.first() == Some(&at) {
            // The oldest of them.
            self.kafka.0.topics.look_at_the_time(&line.topic, head.timestamp);
        }
        match self.session.send(line, value, head, flight.ticket(index, at)) {
            Ok(()) => Sent::Yes,
            Err(code) => {
                flight.not_sent();
                self.not_sent(line, code, value.len())
            }
        }
    }

    fn not_sent(&self, line: &Line, code: Code, length: usize) -> Sent {
        if code == Code::MessageSizeTooLarge {
            let Client { names, .. } = &self.kafka.0.client;
            let (name, most) = (names.max_request_size, self.kafka.0.client.max_request_size());
            let length = length + line.key.len();
            return Sent::Never(Fate::Unfit(match length > most {
                true => format!("the record is {length} bytes long, and {name} is {most}"),
                false => format!(
                    "the record is {length} bytes long, its headers more than that, and {name} is {most}"
                ),
            }));
        }
        self.kafka.failed(line, code);
        Sent::NotNow(match blame(code) {
            Blame::Room => Fate::Busy(words(code)),
            Blame::Record | Blame::Topic | Blame::Nobody => Fate::Unknown,
        })
    }

    /// Sends the records of a line, behind those before them: together where that is no risk, else one by one, each once
    /// all before it have their fates.
    async fn careful(self, index: usize, mut care: Care) -> Vec<(usize, Fate)> {
        let Self { kafka, session, lines, .. } = &self;
        let (line, known) = (&lines[index], &kafka.0.lines);
        care.before_is_sent().await;
        if known.is_undone(&line.name) {
            return Vec::new();
        }
        if let Err(fate) = kafka.0.topics.open(session, &line.topic).await {
            known.undone(&line.name);
            return line.records.iter().map(|&at| (at, fate.clone())).collect();
        }
        let mut fates = Vec::with_capacity(line.records.len());
        let mut together = self.together();
        let suspect = known.is_suspect(&line.name);
        let mut value = Vec::new();
        for &at in &line.records {
            if !suspect && !kafka.0.topics.refuses(&line.topic) && self.batch.size(at) <= LONG / 2 {
                match self.send(&together.flight, index, at, &mut value) {
                    Sent::Yes => {
                        together.sent.push(at);
                        if !session.has_proven(&line.name) {
                            // Nothing of the line goes behind its first one, until that got there.
                            let first = std::mem::replace(&mut together, self.together());
                            fates.extend(first.land().await);
                            if known.is_undone(&line.name) {
                                break;
                            }
                            session.prove(&line.name);
                        }
                    }
                    Sent::Never(fate) => fates.push((at, fate)),
                    Sent::NotNow(fate) => {
                        fates.push((at, fate));
                        break;
                    }
                }
                continue;
            }
            let landed =
                std::mem::replace(&mut together, Together { flight: self.flight(), sent: Vec::new() });
            care.before_has_its_fates().await;
            fates.extend(landed.land().await);
            if known.is_undone(&line.name) {
                break;
            }
            let fate = self.alone(line, at, &mut value).await;
            let done = matches!(fate, Fate::Delivered | Fate::Refused(_) | Fate::Unfit(_));
            fates.push((at, fate));
            if !done {
                known.undone(&line.name);
                break;
            }
        }
        // What is handed over from now on may be sent behind these.
        drop(care);
        fates.extend(together.land().await);
        let delivered = fates.iter().filter(|(_, fate)| *fate == Fate::Delivered).count();
        if suspect && delivered == line.records.len() {
            known.suspect(&line.name, false);
        }
        fates
    }

    /// Sends one record in a request of its own, and waits for what becomes of it.
    async fn alone(&self, line: &Line, at: usize, value: &mut Vec<u8>) -> Fate {
        let topics = &self.kafka.0.topics;
        let mut with_its_time = true;
        loop {
            value.clear();
            let mut head = self.batch.record(at, value);
            let timestamp = head.timestamp;
            if !(with_its_time && topics.takes_the_time(&line.topic, timestamp)) {
                head.timestamp = None;
            }
            let has_time = head.timestamp.is_some();
            // What it means for its line is for the caller to say.
            let flight = Flight::new(|_, _| {});
            let code = match self.session.send_alone(line, value, head, flight.ticket(0, at)) {
                Ok(()) => flight.end().await.pop().map(|(_, code)| code),
                Err(Code::MessageSizeTooLarge) => {
                    return match self.not_sent(line, Code::MessageSizeTooLarge, value.len()) {
                        Sent::Never(fate) | Sent::NotNow(fate) => fate,
                        Sent::Yes => Fate::Unknown,
                    };
                }
                Err(code) => Some(code),
            };
            match code {
                None => {
                    topics.took(&line.topic);
                    if let Some(timestamp) = timestamp.filter(|_| !with_its_time) {
                        topics.took_without_its_time(&line.topic, timestamp);
                    }
                    return Fate::Delivered;
                }
                Some(Code::InvalidTimestamp) if has_time => with_its_time = false,
                Some(code) => return self.refused(line, code),
            }
        }
    }

    /// A record failed alone. The words are the same for all that fail alike: several such are the topic's fault.
    fn refused(&self, line: &Line, code: Code) -> Fate {
        match blame(code) {
            Blame::Record => {
                Fate::Refused(format!("topic {} refuses the record: {}", line.topic, words(code)))
            }
            Blame::Topic => {
                self.kafka.0.topics.refused(&line.topic);
                Fate::Held(of_topic(&line.topic, code))
            }
            Blame::Room => Fate::Busy(words(code)),
            Blame::Nobody => Fate::Unknown,
        }
    }
}

/// Records that were sent together, by their places.
struct Together {
    flight: Arc<Flight>,
    sent: Vec<usize>,
}

impl Together {
    async fn land(self) -> Vec<(usize, Fate)> {
        let failed: Vec<Failed> = self.flight.end().await;
        let fate = |at: usize| match failed.iter().any(|(place, _)| *place == at) {
            true => Fate::Unknown,
            false => Fate::Delivered,
        };
        self.sent.into_iter().map(|at| (at, fate(at))).collect()
    }
}
