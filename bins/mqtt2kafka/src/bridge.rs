//! The loop: from the broker's session to Kafka, and the acknowledgements back.
//!
//! ```text
//! receive ──▶ convert ──▶ queue ──batch──▶ Kafka
//!    ▲                      │ ▲               │
//!    └── acknowledgements ──┘ └─────fates─────┘
//! ```
//!
//! **Where a message is when the process dies:** until [`Bridge::acknowledge`] has sent its acknowledgement, at the broker,
//! which sends it again to whoever resumes the session. It is acknowledged once Kafka has confirmed it, or its dead letter,
//! and all that came before it is acknowledged: [`Queue::acknowledgements`] gives them in the order received.
//!
//! **Order.** Batches are handed over in the order received, up to [`BATCHES`] at a time; Kafka keeps it per Kafka topic and
//! key (`kafka_producer`). When something comes back, nothing more is handed over until all in flight has landed; then what
//! came back goes first.
//!
//! **A lost connection** voids the acknowledgements that were still to be sent: with the session, the broker sends those
//! messages again. What waits of them is dropped, what is in flight lands and is forgotten.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use kafka_producer::Kafka;
use mqtt_client::Publish;
use sync_core::bridge::{Fate, Unreachable};
use sync_core::retry::Backoff;
use sync_core::run::Keeper;
use sync_core::settings::RetrySettings;
use sync_core::shutdown::Shutdown;
use sync_core::telemetry::health::{Health, Severity};
use sync_core::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval, sleep_until, timeout};

use crate::broker::{Attempt, Broker, Connection};
use crate::counts::Aliases;
use crate::message::{Message, Records};
use crate::queue::Queue;
use crate::route::{Route, Routes};
use crate::subscriber::{Gone, Incoming, Subscriber};
use crate::value::{Converted, Converter};

/// Batches under way at a time.
const BATCHES: usize = 3;
/// Taken in before anything else is looked at.
const AT_ONCE: usize = 1000;
/// How often is looked after the connection while there is none.
const LOOK: Duration = Duration::from_secs(1);
/// Between two words about messages that are refused.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) broker: Broker,
    pub(crate) kafka: Kafka,
    pub(crate) kafka_retry: RetrySettings,
    pub(crate) routes: Routes,
    pub(crate) converter: Converter,
    pub(crate) dead_letters: Arc<str>,
    /// The longest record that Kafka is sent, in bytes.
    pub(crate) longest: usize,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Shutdown,
    pub(crate) shutdown_timeout: Duration,
}

/// A batch that has landed: its messages, and a fate for each of its records.
type Landed = (Arc<Records>, Vec<Fate>);

/// See the module.
pub(crate) struct Bridge {
    parts: Parts,
    queue: Queue,
    subscriber: Option<Subscriber>,
    /// The attempt at a connection, while there is none.
    attempt: Option<Attempt>,
    in_flight: FuturesUnordered<BoxFuture<'static, Landed>>,
    kafka_is_up: watch::Receiver<bool>,
    /// Nothing is handed over before that.
    not_before: Option<Instant>,
    /// For what came back although Kafka is there.
    backoff: Backoff,
    refusals: Refusals,
    aliases: Aliases,
}

/// What the loop waits for.
enum Event {
    Received(Result<Incoming, Gone>),
    Landed(Landed),
    Connected(Result<Connection, Unreachable>),
    Look,
    KafkaChanged,
    Due,
    Stop,
}

/// Runs until a stop is asked for.
pub(crate) async fn run(parts: Parts) -> anyhow::Result<()> {
    let (tell, kafka_is_up) = watch::channel(false);
    parts.health.awaited(&parts.kafka.destination());
    parts.health.awaited(&parts.broker.name());
    let keeper = Keeper {
        destination: parts.kafka.destination(),
        retry: parts.kafka_retry,
        health: parts.health.clone(),
        stop: parts.stop.clone(),
    };
    let kafka = parts.kafka.clone();
    tokio::spawn(async move { keeper.connect_and_keep(|| kafka.connect(), tell).await });
    let backoff = Backoff::new(parts.kafka_retry);
    let aliases = Aliases::new(&parts.metrics);
    let mut bridge = Bridge {
        parts,
        queue: Queue::default(),
        subscriber: None,
        attempt: None,
        in_flight: FuturesUnordered::new(),
        kafka_is_up,
        not_before: None,
        backoff,
        refusals: Refusals::default(),
        aliases,
    };
    let ended = bridge.drive().await;
    bridge.parts.kafka.disconnect().await;
    ended
}

impl Bridge {
    async fn drive(&mut self) -> anyhow::Result<()> {
        if !self.connect_at_start().await? {
            return Ok(());
        }
        let rhythm = self.subscriber.as_ref().map_or(LOOK, Subscriber::rhythm);
        let mut look = interval(rhythm);
        loop {
            self.hand_over();
            let on_the_connection = match self.next(&mut look).await {
                Event::Received(Ok(incoming)) => self.take_all(incoming).await,
                Event::Received(Err(gone)) => Err(gone),
                Event::Landed(landed) => self.land_all(landed).await,
                Event::Look => self.look().await,
                Event::Connected(Ok(connection)) => {
                    self.connected(connection);
                    Ok(())
                }
                Event::Connected(Err(unreachable)) => {
                    let attempt = self.parts.broker.attempt_again(&unreachable, &self.parts.health);
                    self.attempt = Some(attempt);
                    Ok(())
                }
                Event::KafkaChanged => Ok(()),
                Event::Due => {
                    self.not_before = None;
                    Ok(())
                }
                Event::Stop => {
                    self.finish().await;
                    return Ok(());
                }
            };
            if let Err(gone) = on_the_connection {
                self.subscriber = None;
                match self.parts.broker.lost(gone, &self.parts.health) {
                    Ok(attempt) => self.attempt = Some(attempt),
                    Err(Gone { reason, .. }) => bail!(
                        "the connection to the {} ended, and mqtt.reconnect_on_failure is false: {reason}",
                        self.parts.broker.name()
                    ),
                }
            }
        }
    }

    /// The session comes first, so that the broker queues for it whatever Kafka does. `false`: a stop was asked for.
    async fn connect_at_start(&mut self) -> anyhow::Result<bool> {
        let Parts { broker, health, stop, .. } = &mut self.parts;
        let mut attempt = broker.attempt(Duration::ZERO);
        let mut attempts = 1;
        loop {
            let connected = tokio::select! {
                connected = &mut attempt => connected,
                () = stop.requested() => return Ok(false),
            };
            match connected {
                Ok(connection) => {
                    self.connected(connection);
                    return Ok(true);
                }
                Err(Unreachable { reason, .. }) if attempts >= broker.attempts() => {
                    bail!("cannot reach the {} ({attempts} attempts): {reason}", broker.name());
                }
                Err(unreachable) => {
                    attempt = broker.attempt_again(&unreachable, health);
                    attempts += 1;
                }
            }
        }
    }

    fn connected(&mut self, Connection { subscriber, session_present }: Connection) {
        self.attempt = None;
        self.queue.connected(session_present);
        self.subscriber = Some(subscriber);
        self.parts.broker.connected(&self.parts.health);
    }

    /// Now and then: whether the broker is there, and whether it grants now what it refused.
    async fn look(&mut self) -> Result<(), Gone> {
        self.parts.routes.count_unacknowledged(self.queue.by_filter());
        self.aliases.count(self.parts.converter.births());
        let reads = self.queue.has_room();
        let Some(subscriber) = &mut self.subscriber else { return Ok(()) };
        if let Some((filters, qos)) = self.parts.broker.ask_again() {
            subscriber.subscribe(filters, qos).await?;
        }
        subscriber.look(reads).await
    }

    async fn next(&mut self, look: &mut Interval) -> Event {
        let Self { parts, queue, subscriber, attempt, in_flight, kafka_is_up, not_before, .. } = self;
        let has_room = queue.has_room();
        let receive = async {
            match subscriber {
                Some(subscriber) if has_room => subscriber.receive().await,
                _ => pending().await,
            }
        };
        let connect = async {
            match attempt {
                Some(attempt) => attempt.await,
                None => pending().await,
            }
        };
        tokio::select! {
            // What has landed is acknowledged first; it cannot keep the others from their turn, since there is only so much
            // in flight.
            biased;
            () = parts.stop.requested() => Event::Stop,
            Some(landed) = in_flight.next() => Event::Landed(landed),
            _ = look.tick() => Event::Look,
            received = receive => Event::Received(received),
            connected = connect => Event::Connected(connected),
            () = due(*not_before) => Event::Due,
            Ok(()) = kafka_is_up.changed() => Event::KafkaChanged,
        }
    }

    /// What came, and what came with it.
    async fn take_all(&mut self, incoming: Incoming) -> Result<(), Gone> {
        let mut next = Some(incoming);
        let mut taken = 0;
        while let Some(incoming) = next {
            self.take(incoming);
            taken += 1;
            let Some(subscriber) =
                self.subscriber.as_mut().filter(|_| taken < AT_ONCE && self.queue.has_room())
            else {
                break;
            };
            next = subscriber.received()?;
        }
        // Messages that were known already are acknowledged at once, and those of QoS 2 that were released completed.
        self.acknowledge().await
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(publish) => self.admit(publish),
            Incoming::Released(pkid) => self.queue.released(pkid),
            Incoming::Subscribed(granted) => {
                let Parts { broker, health, .. } = &mut self.parts;
                broker.subscribed(&granted, health);
            }
            Incoming::Other => {}
        }
    }

    fn admit(&mut self, publish: Publish) {
        let Publish { topic, payload, qos, pkid, dup, retain, properties } = publish;
        let route = self.parts.routes.of(&topic);
        route.counts.received.inc();
        let Some(place) = self.queue.place(qos, pkid, dup, route.filter) else { return };
        let converted = match &route.target {
            Ok(_) => self.parts.converter.convert(&route.topic, &payload).map_err(|unfit| unfit.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let (Converted { value, raw, timestamp }, problem) = match converted {
            Ok(converted) => (converted, None),
            Err(reason) => (Converted { value: None, raw: true, timestamp: None }, Some(reason)),
        };
        let mut message = Message {
            number: place.number,
            connection: place.connection,
            route,
            payload,
            value,
            raw,
            timestamp,
            qos,
            retain,
            dup,
            properties,
            received: Instant::now(),
            letter: None,
        };
        if let Some(reason) = problem {
            self.refusals.tell(&message.route, &self.parts.dead_letters, &reason);
            message.refuse(reason, self.parts.longest);
        }
        self.queue.push(message);
    }

    fn hand_over(&mut self) {
        let may = *self.kafka_is_up.borrow() && self.not_before.is_none();
        while may && self.in_flight.len() < BATCHES {
            let messages = self.queue.take();
            if messages.is_empty() {
                return;
            }
            let (records, lines) = Records::of(messages, &self.parts.dead_letters);
            let records = Arc::new(records);
            let delivery = self.parts.kafka.deliver(records.clone(), records.count(), lines);
            self.in_flight.push(delivery.map(move |fates| (records, fates)).boxed());
        }
    }

    /// What has landed, and what else has meanwhile: their acknowledgements go in one write.
    async fn land_all(&mut self, landed: Landed) -> Result<(), Gone> {
        self.land(landed);
        while let Some(Some(landed)) = self.in_flight.next().now_or_never() {
            self.land(landed);
        }
        self.hand_over();
        self.acknowledge().await
    }

    fn land(&mut self, (records, fates): Landed) {
        self.queue.landed();
        let mut fates = fates.into_iter();
        let (mut delivered, mut again) = (false, false);
        for (message, count) in records.messages() {
            // Of a letter in several parts, the one that is furthest from being delivered counts.
            let fate = fates.by_ref().take(count).reduce(worse).unwrap_or(Fate::Unknown);
            match self.became(message, fate) {
                Became::Settled => delivered = true,
                Became::Letter => {}
                Became::Undone => again = true,
            }
        }
        if delivered {
            self.backoff.reset();
            self.parts.metrics.delivered_now();
        } else if again {
            // Where Kafka is away, that is waited for besides.
            self.not_before = Some(Instant::now() + self.backoff.next_delay());
        }
    }

    /// What one message has come to.
    fn became(&mut self, message: &Message, fate: Fate) -> Became {
        let Self { parts, queue, refusals, .. } = self;
        match (fate, &message.letter) {
            (Fate::Delivered, letter) => {
                if letter.is_some() {
                    message.route.counts.refused.inc();
                    parts.health.up(&dead_letters(&parts.dead_letters));
                } else {
                    message.route.counts.delivered.inc();
                    refusals.takes(&message.route, &parts.health);
                }
                parts.metrics.delivery_seconds(message.received.elapsed().as_secs_f64());
                queue.settle(message);
                Became::Settled
            }
            (Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown, _) => {
                queue.came_back(message.clone());
                Became::Undone
            }
            // Acknowledgements are in order: a topic that does not take it would keep everything back.
            (Fate::Held(reason), None) => {
                refusals.takes_nothing(&message.route, &reason, &parts.health);
                self.became(message, Fate::Refused(reason))
            }
            (Fate::Refused(reason) | Fate::Unfit(reason), None) => {
                refusals.tell(&message.route, &parts.dead_letters, &reason);
                let mut message = message.clone();
                message.refuse(reason, parts.longest);
                queue.refused(message);
                Became::Letter
            }
            (Fate::Refused(reason) | Fate::Unfit(reason), Some(_)) => {
                let mut message = message.clone();
                if message.cut() {
                    queue.refused(message);
                    return Became::Letter;
                }
                queue.came_back(message);
                self.hold(&reason);
                Became::Undone
            }
            (Fate::Held(reason), Some(_)) => {
                queue.came_back(message.clone());
                self.hold(&reason);
                Became::Undone
            }
        }
    }

    /// Not even the dead-letter topic takes it: everything waits until it does.
    fn hold(&self, reason: &str) {
        let part = dead_letters(&self.parts.dead_letters);
        let reason =
            format!("{reason}; nothing is sent or acknowledged until it takes what was refused elsewhere");
        self.parts.health.down(&part, &reason, Severity::Error);
    }

    /// Sends the acknowledgements that may be sent.
    async fn acknowledge(&mut self) -> Result<(), Gone> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(()) };
        for acknowledgement in self.queue.acknowledgements() {
            subscriber.acknowledge(acknowledgement);
        }
        subscriber.flush().await
    }

    /// A stop was asked for: what is received is sent and acknowledged while there is time, the rest stays with the broker.
    async fn finish(&mut self) {
        let time = self.parts.shutdown_timeout;
        let on_its_way = async {
            while *self.kafka_is_up.borrow() && !self.queue.is_empty() {
                self.hand_over();
                let event = tokio::select! {
                    Some(landed) = self.in_flight.next() => self.land_all(landed).await,
                    Ok(()) = self.kafka_is_up.changed() => Ok(()),
                    () = due(self.not_before) => {
                        self.not_before = None;
                        Ok(())
                    }
                };
                if event.is_err() {
                    self.subscriber = None;
                }
            }
        };
        let in_time = timeout(time, on_its_way).await.is_ok();
        let left = self.queue.unacknowledged();
        if left > 0 {
            tracing::warn!(in_time, "{left} messages are not acknowledged: the broker will send them again");
        }
        if let Some(subscriber) = self.subscriber.take() {
            subscriber.disconnect().await;
        }
    }
}

/// What a message has come to.
enum Became {
    /// It is where it should be.
    Settled,
    /// It goes to the dead-letter topic.
    Letter,
    /// It goes again.
    Undone,
}

/// Of two fates, the one that is further from being delivered.
fn worse(one: Fate, other: Fate) -> Fate {
    let rank = |fate: &Fate| match fate {
        Fate::Delivered => 0,
        Fate::Unfit(_) | Fate::Refused(_) => 1,
        Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown => 2,
        Fate::Held(_) => 3,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// The dead-letter topic, as a part of the process's health.
fn dead_letters(topic: &str) -> String {
    format!("dead-letter topic {topic}")
}

/// Tells of messages that go to the dead-letter topic: of the first at once, and of those after it together, now and then.
#[derive(Default)]
struct Refusals {
    told: Option<Instant>,
    since: u64,
    /// Kafka topics that are not there, or may not be written to.
    topics: HashSet<Arc<str>>,
}

/// So many such topics are told one by one.
const TOPICS: usize = 50;

impl Refusals {
    /// A human must act: the process is not ready as long as all messages of a topic are put aside.
    fn takes_nothing(&mut self, route: &Route, reason: &str, health: &Health) {
        let Ok(topic) = &route.target else { return };
        if self.topics.contains(topic) || self.topics.len() < TOPICS {
            let reason = format!("{reason}; its messages go to the dead-letter topic");
            health.down(&format!("Kafka topic {topic}"), &reason, Severity::Error);
            self.topics.insert(topic.clone());
        }
    }

    fn takes(&mut self, route: &Route, health: &Health) {
        if !self.topics.is_empty()
            && let Ok(topic) = &route.target
            && self.topics.remove(topic)
        {
            health.up(&format!("Kafka topic {topic}"));
        }
    }

    fn tell(&mut self, route: &Route, dead_letters: &str, reason: &str) {
        self.since += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            let topic: String = route.topic.chars().take(200).collect();
            tracing::warn!(topic, refused = self.since, "a message goes to {dead_letters}: {reason}");
            (self.told, self.since) = (Some(Instant::now()), 0);
        }
    }
}
