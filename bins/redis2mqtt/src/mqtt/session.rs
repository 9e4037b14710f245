//! What is under way in one connection: which publish waits for which confirmation. When the connection ends, what
//! was not confirmed is given back as unknown; nothing is kept for the next one but the suspicion against a record.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mqtt_client::{AckKind, Broken, Granted, Packet, Version, Wire};
use rumqttc::QoS;
use sync_core::bridge::{Fate, Group, Lost, Record};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::publisher::{Answer, Publish, answer, publish};
use super::suspicion::{LOSSES, Suspicion};
use crate::messages::Messages;

/// With something unconfirmed and nothing heard for so long, the broker is pinged; after twice as long the
/// connection is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// Mosquitto confirms what lies above its own limit of QoS 2 messages in flight and drops it; 3.1.1 has no word for
/// that limit, and 20 is its default.
const QOS2_WINDOW_FOUR: u16 = 20;
/// How long a broken connection may go on telling what it has to tell.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Sent at once, in bytes, when much is to be sent.
const WRITE: usize = 64 << 10;

/// A group handed over, and where its fates go.
pub(crate) struct Batch {
    group: Group,
    fates: Vec<Fate>,
    /// Records without a fate.
    open: usize,
    done: oneshot::Sender<Vec<Fate>>,
}

impl Batch {
    /// Every fate is unknown until the broker says otherwise.
    pub(crate) fn new(group: Group) -> (Self, oneshot::Receiver<Vec<Fate>>) {
        let (done, fates) = oneshot::channel();
        let open = group.len();
        (Self { fates: vec![Fate::Unknown; open], open, group, done }, fates)
    }
}

/// What is asked of the session's publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) max_inflight: u16,
    pub(crate) max_packet: Option<u32>,
    /// The client ID is as configured, so that somebody else may have it too.
    pub(crate) own_client_id: bool,
}

/// A publish that waits for its confirmation.
#[derive(Clone, Copy, Debug)]
struct Sent {
    batch: u64,
    record: usize,
    /// Counts publishes: the lowest is the first unconfirmed.
    order: u64,
}

/// See the module.
pub(crate) struct Session {
    wire: Wire,
    rules: Rules,
    window: u16,
    max_packet: u32,
    keep_alive: Duration,
    messages: Messages,
    suspicion: Suspicion,
    /// Groups not settled, oldest first; the number of the first.
    batches: VecDeque<Batch>,
    first: u64,
    /// The next record to publish: batch number and index.
    next: (u64, usize),
    /// By packet identifier.
    sent: Vec<Option<Sent>>,
    free: VecDeque<u16>,
    in_flight: u16,
    published: u64,
    /// A suspect is under way: nothing else is.
    alone: bool,
    /// Streams of which a record came back.
    barred: HashMap<String, Bar>,
    /// Batches handed over so far, whether they have arrived here or not.
    handed_over: Arc<AtomicU64>,
    /// QoS 0: written and not flushed.
    unflushed: Vec<Sent>,
    /// Something may have arrived, or was asked for, last at.
    heard: Instant,
    spoke: Instant,
    pinged: bool,
}

/// Keeps later records of a stream back once one of it came back, until the lane knows that it did.
#[derive(Clone, Copy, Debug)]
struct Bar {
    /// The last batch with such a record.
    batch: u64,
    /// Set once the lane was told: what was handed over before this batch was handed over unknowing.
    until: Option<u64>,
}

impl Bar {
    fn holds_back(self, batch: u64) -> bool {
        self.until.is_none_or(|until| batch < until)
    }
}

/// Why a session ended.
struct Ended {
    lost: Lost,
    /// The broker may have hung up because of what it was sent.
    may_blame_record: bool,
    /// In an orderly way, and without a word.
    hung_up: bool,
}

impl From<Broken> for Ended {
    fn from(Broken { reason, hung_up }: Broken) -> Self {
        Self { lost: Lost { reason, by_conflict: false }, may_blame_record: true, hung_up }
    }
}

impl Session {
    /// A session on a connection just made.
    pub(crate) fn new(
        wire: Wire,
        granted: Granted,
        rules: Rules,
        messages: Messages,
        suspicion: Suspicion,
        handed_over: Arc<AtomicU64>,
    ) -> Self {
        let mut window = rules.max_inflight.min(granted.receive_max);
        if rules.qos == QoS::ExactlyOnce && wire.version() == Version::Four {
            window = window.min(QOS2_WINDOW_FOUR);
        }
        let now = Instant::now();
        Self {
            wire,
            rules,
            window,
            max_packet: rules.max_packet.map_or(granted.max_packet, |max| max.min(granted.max_packet)),
            keep_alive: granted.keep_alive,
            messages,
            suspicion,
            batches: VecDeque::new(),
            first: 0,
            next: (0, 0),
            sent: vec![None; usize::from(window) + 1],
            free: (1..=window).collect(),
            in_flight: 0,
            published: 0,
            alone: false,
            barred: HashMap::new(),
            handed_over,
            unflushed: Vec::new(),
            heard: now,
            spoke: now,
            pinged: false,
        }
    }

    /// Publishes what comes until the connection ends, or `batches` is closed and all is settled. When it returns,
    /// every batch has its fates.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> Lost {
        let ended = match self.drive(&mut batches).await {
            Ok(()) => {
                self.wire.disconnect();
                let _ = self.wire.flush().await;
                return Lost { reason: "closed".into(), by_conflict: false };
            }
            Err(ended) => self.hear_out(ended).await,
        };
        batches.close();
        let mut lost = ended.lost;
        if ended.hung_up && self.in_flight == 0 && self.rules.own_client_id && self.suspicion.hung_up_again()
        {
            // Mosquitto 2.0 has no word for it, nor has 3.1.1.
            lost.reason.push_str(
                " again, with nothing under way: it seems that another client uses this MQTT_CLIENT_ID",
            );
            lost.by_conflict = true;
        }
        if ended.may_blame_record {
            self.suspect_first();
        }
        // What the broker has not confirmed stays unknown, as it began.
        for batch in self.batches {
            let _ = batch.done.send(batch.fates);
        }
        lost
    }

    /// A connection that takes nothing more may hold answers that came before its end: confirmations, and why the
    /// broker ended it. Without them, a record that the broker refuses just before it hangs up looks innocent.
    async fn hear_out(&mut self, ended: Ended) -> Ended {
        if !ended.may_blame_record {
            return ended;
        }
        let listen = async {
            while let Ok(packet) = self.wire.read().await {
                self.take(packet)?;
            }
            Ok(())
        };
        match tokio::time::timeout(LAST_WORDS, listen).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) | Err(_) => ended,
        }
    }

    async fn drive(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<(), Ended> {
        let tick = (self.keep_alive / 4).clamp(Duration::from_secs(1), Duration::from_secs(5));
        let mut ticks = tokio::time::interval(tick);
        let mut open = true;
        loop {
            // Not left to the branch below alone: while confirmations stream in, it never gets its turn.
            while let Ok(batch) = batches.try_recv() {
                self.batches.push_back(batch);
            }
            self.publish_waiting().await?;
            if !open && self.batches.is_empty() {
                return Ok(());
            }
            // Confirmations first: they make room. Dropping a read or a receive that has not resolved loses nothing.
            tokio::select! {
                biased;
                packet = self.wire.read() => {
                    self.take(packet?)?;
                    // What else has arrived is taken before anything is published: fewer, larger writes.
                    while let Some(packet) = self.wire.next_received()? {
                        self.take(packet)?;
                    }
                    self.heard = Instant::now();
                    self.pinged = false;
                }
                batch = batches.recv(), if open => match batch {
                    Some(batch) => self.batches.push_back(batch),
                    None => open = false,
                },
                _ = ticks.tick() => self.keep_alive().await?,
            }
        }
    }

    /// Publishes as many records as the window allows, in the order handed over.
    async fn publish_waiting(&mut self) -> Result<(), Ended> {
        let before = self.published;
        while let Some((number, index)) = self.next_record() {
            let batch = &self.batches[usize::try_from(number - self.first).expect("a queue's length")];
            let record = &batch.group[index];
            if self.barred.get(&record.stream.spelled).is_some_and(|bar| bar.holds_back(number)) {
                self.advance();
                self.settle(number, index, Fate::Unknown);
                continue;
            }
            let suspected = self.suspicion.losses(record) + 1 >= LOSSES;
            if self.alone || self.in_flight >= self.window || (suspected && self.in_flight > 0) {
                break;
            }
            let message = match self.messages.encode(record) {
                Ok(message) => message,
                Err(reason) => {
                    self.advance();
                    self.settle(number, index, Fate::Unfit(reason));
                    continue;
                }
            };
            let size = message.packet_size();
            if size > self.max_packet as usize {
                let max = self.max_packet;
                self.advance();
                let reason = format!(
                    "the packet would be {size} bytes long, and {max} are allowed (the broker's limit, or MQTT_MAX_PACKET_SIZE)"
                );
                self.settle(number, index, Fate::Unfit(reason));
                continue;
            }
            let sent = Sent { batch: number, record: index, order: self.published };
            let pkid = if self.rules.qos == QoS::AtMostOnce {
                self.unflushed.push(sent);
                0
            } else {
                let pkid = self.free.pop_front().expect("as many identifiers as the window is wide");
                self.sent[usize::from(pkid)] = Some(sent);
                self.in_flight += 1;
                self.alone = suspected;
                pkid
            };
            if self.in_flight == 1 {
                self.heard = Instant::now();
            }
            let (qos, retain) = (self.rules.qos, self.rules.retain);
            let message =
                Publish { topic: message.topic, payload: message.payload, qos, retain, pkid, id: message.id };
            publish(&mut self.wire, message);
            self.published += 1;
            self.advance();
            if self.wire.buffered() >= WRITE {
                self.wire.flush().await?;
            }
        }
        if self.published != before || self.wire.buffered() > 0 {
            self.wire.flush().await?;
            self.spoke = Instant::now();
            for sent in std::mem::take(&mut self.unflushed) {
                self.settle(sent.batch, sent.record, Fate::Delivered);
            }
        }
        Ok(())
    }

    /// The record that is next in order, if there is one.
    fn next_record(&mut self) -> Option<(u64, usize)> {
        // A batch whose last records were never sent may be settled, and gone, with `next` still in it.
        self.next = self.next.max((self.first, 0));
        loop {
            let (number, index) = self.next;
            let batch = self.batches.get(usize::try_from(number - self.first).ok()?)?;
            if index < batch.group.len() {
                return Some((number, index));
            }
            self.next = (number + 1, 0);
        }
    }

    fn advance(&mut self) {
        self.next.1 += 1;
    }

    fn take(&mut self, packet: Packet) -> Result<(), Ended> {
        match answer(packet, self.wire.version()) {
            Answer::Confirmed(pkid) => {
                let sent = self.answered(pkid)?;
                if let Some(record) = self.record(sent) {
                    self.suspicion.cleared(record);
                }
                self.settle(sent.batch, sent.record, Fate::Delivered);
            }
            Answer::Received(pkid) => {
                if self.sent.get(usize::from(pkid)).copied().flatten().is_none() {
                    return Err(unasked(pkid).into());
                }
                self.wire.acknowledge(AckKind::PubRel, pkid);
            }
            Answer::Negative { pkid, code, reason } => {
                let sent = self.answered(pkid)?;
                let topic =
                    self.record(sent).map(|record| self.messages.topic_of(record)).unwrap_or_default();
                let fate =
                    fate_of(code, &format!("the broker answered {reason} (0x{code:02X}) for topic {topic}"));
                self.bar_if_undelivered(sent, &fate);
                self.settle(sent.batch, sent.record, fate);
            }
            Answer::Unlisted { pkid, code } => self.take_unlisted(pkid, code)?,
            Answer::Closing { code, reason } => {
                let by_conflict = code == 0x8E;
                let hint = if by_conflict { ": another client uses this MQTT_CLIENT_ID" } else { "" };
                let reason = format!("the broker closed the connection: {reason} (0x{code:02X}){hint}");
                return Err(Ended {
                    lost: Lost { reason, by_conflict },
                    may_blame_record: blames_record(code),
                    hung_up: false,
                });
            }
            Answer::Other => {}
        }
        Ok(())
    }

    /// A negative confirmation with a code that MQTT 5 does not list for it: what it says of the record is anybody's
    /// guess. Sent alone the record is refused; else it is sent alone on the next connection.
    fn take_unlisted(&mut self, pkid: u16, code: u8) -> Result<(), Ended> {
        let reason = format!("the broker answered with reason code 0x{code:02X}");
        let alone = self.alone;
        let sent = self.answered(pkid)?;
        let Some(record) = self.record(sent) else { return Ok(()) };
        if alone {
            self.suspicion.cleared(record);
            self.settle(sent.batch, sent.record, Fate::Refused(reason));
            return Ok(());
        }
        self.suspicion.set(record, LOSSES - 1);
        Err(Ended { lost: Lost { reason, by_conflict: false }, may_blame_record: false, hung_up: false })
    }

    /// Frees the identifier.
    fn answered(&mut self, pkid: u16) -> Result<Sent, Ended> {
        let sent =
            self.sent.get_mut(usize::from(pkid)).and_then(Option::take).ok_or_else(|| unasked(pkid))?;
        self.free.push_back(pkid);
        self.in_flight -= 1;
        self.alone = false;
        Ok(sent)
    }

    fn record(&self, sent: Sent) -> Option<&Record> {
        let batch = self.batches.get(usize::try_from(sent.batch.checked_sub(self.first)?).ok()?)?;
        batch.group.get(sent.record)
    }

    /// Later records of the stream that are not yet on the wire are not published: the lane gives them again.
    fn bar_if_undelivered(&mut self, sent: Sent, fate: &Fate) {
        if !matches!(fate, Fate::Held(_) | Fate::Busy(_) | Fate::Shut(_) | Fate::Unknown) {
            return;
        }
        let Some(record) = self.record(sent) else { return };
        let (stream, first) = (record.stream.spelled.clone(), self.first);
        self.barred.retain(|_, bar| bar.holds_back(first));
        self.barred.insert(stream, Bar { batch: sent.batch, until: None });
    }

    fn settle(&mut self, number: u64, index: usize, fate: Fate) {
        let at = usize::try_from(number - self.first).expect("a queue's length");
        let batch = &mut self.batches[at];
        batch.fates[index] = fate;
        batch.open -= 1;
        while self.batches.front().is_some_and(|batch| batch.open == 0) {
            if let Some(batch) = self.batches.pop_front() {
                let number = self.first;
                self.first += 1;
                let _ = batch.done.send(batch.fates);
                // Read after the lane was told: a batch too many is given again, one too few would be out of order.
                let until = self.handed_over.load(Ordering::SeqCst);
                for bar in self.barred.values_mut().filter(|bar| bar.until.is_none() && bar.batch <= number) {
                    bar.until = Some(until);
                }
            }
        }
    }

    /// The connection is gone: the first unconfirmed record may be why.
    fn suspect_first(&mut self) {
        let Some(sent) = self.sent.iter().flatten().min_by_key(|sent| sent.order).copied() else { return };
        let (Some(record), alone) = (self.record(sent), self.alone) else { return };
        let losses = self.suspicion.lost(record);
        tracing::debug!(stream = record.stream.spelled, id = %record.entry.id, losses, "first unconfirmed entry");
        if losses >= LOSSES && alone {
            self.suspicion.cleared(record);
            let reason = format!(
                "the broker closed the connection {losses} times with this entry first unconfirmed, at last sent alone"
            );
            self.settle(sent.batch, sent.record, Fate::Refused(reason));
        }
    }

    async fn keep_alive(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let silent = now.duration_since(self.heard);
        let waiting = self.in_flight > 0 || self.pinged;
        if waiting && silent >= SILENCE * 2 {
            return Err(Broken::because(format!("the broker has not answered for {silent:.0?}")).into());
        }
        let due = !self.keep_alive.is_zero() && now.duration_since(self.spoke) >= self.keep_alive / 2;
        if !self.pinged && (due || (waiting && silent >= SILENCE)) {
            if !waiting {
                self.heard = now;
            }
            self.wire.ping();
            self.wire.flush().await?;
            (self.spoke, self.pinged) = (now, true);
        }
        Ok(())
    }
}

fn unasked(pkid: u16) -> Broken {
    Broken::because(format!("the broker confirmed packet {pkid}, which is not under way"))
}

/// MQTT 5, 3.4.2.1 and 3.5.2.1: what a reason code says of the record.
fn fate_of(code: u8, reason: &str) -> Fate {
    match code {
        // Topic Name invalid, Packet too large, Payload format invalid: of the record's own making.
        0x90 | 0x95 | 0x99 => Fate::Refused(reason.to_owned()),
        // Not authorized.
        0x87 => Fate::Held(reason.to_owned()),
        // Quota exceeded, identifier in use or forgotten, implementation specific or unspecified error.
        _ => Fate::Busy(reason.to_owned()),
    }
}

/// MQTT 5, 3.14.2.1: whether a DISCONNECT can be about a publish rather than about the broker or this client.
fn blames_record(code: u8) -> bool {
    matches!(code, 0x80..=0x83 | 0x87 | 0x90 | 0x94 | 0x95 | 0x99 | 0x9A | 0x9B)
}
