//! Every message between its arrival and its acknowledgement: what waits, what is to be sent again, and what may be
//! acknowledged, in the order received (MQTT 5, 4.6: [MQTT-4.6.0-2]). Pure: it sends and receives nothing.
//!
//! **If the process dies at any time**, all that is in here and needs an acknowledgement has none, and the broker sends it
//! again to whoever resumes the session. What is acknowledged is in Kafka, or in its dead-letter topic.

use std::collections::{HashSet, VecDeque};

use rumqttc::QoS;

use crate::message::Message;

/// Received and not settled, in bytes: no more is read beyond that.
const BUDGET: usize = 32 << 20;
/// Received and without an acknowledgement. One that waits for its partition keeps those behind it from being acknowledged
/// while they are sent: so many come twice at most after a crash.
const UNACKNOWLEDGED: usize = 65_535;
/// Handed over at once.
const BATCH_MESSAGES: usize = 4000;
const BATCH_BYTES: usize = 8 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// In the order received.
    waiting: VecDeque<Message>,
    /// Were refused, and go to the dead-letter topic.
    letters: VecDeque<Message>,
    /// Came back, and go again once nothing is in flight.
    undone: Vec<Message>,
    /// What this connection brought and has no acknowledgement yet.
    unacknowledged: VecDeque<Unacknowledged>,
    /// The number of the first of them.
    first: u64,
    /// The number of the next message.
    next: u64,
    /// Counts connections.
    connection: u64,
    /// Messages of QoS 2 whose PUBREC was sent: the broker may send them again, and they are settled.
    received: HashSet<u16>,
    /// How many of these came by each filter.
    by_filter: Vec<u64>,
    bytes: usize,
    in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
struct Unacknowledged {
    acknowledgement: Option<Acknowledgement>,
    settled: bool,
    /// The filter that it came by.
    filter: u16,
}

/// What is sent for a message that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// PUBACK: QoS 1.
    Ack(u16),
    /// PUBREC: QoS 2.
    Rec(u16),
}

impl Acknowledgement {
    fn of(qos: QoS, pkid: u16) -> Option<Self> {
        match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Self::Ack(pkid)),
            QoS::ExactlyOnce => Some(Self::Rec(pkid)),
        }
    }
}

/// A place for a message that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u64,
    pub(crate) connection: u64,
}

impl Queue {
    /// A connection was made. What an earlier one left without an acknowledgement comes again, if the broker has kept the
    /// session; the acknowledgements that were still to be sent are void.
    pub(crate) fn connected(&mut self, session_present: bool) {
        self.connection += 1;
        self.unacknowledged.clear();
        self.by_filter.fill(0);
        self.first = self.next;
        if !session_present {
            self.received.clear();
        }
        let (connection, mut dropped) = (self.connection, 0);
        for queue in [&mut self.waiting, &mut self.letters] {
            queue.retain(|message| {
                let stays = is_of(message, connection);
                dropped += if stays { 0 } else { message.weight() };
                stays
            });
        }
        self.undone.retain(|message| {
            let stays = is_of(message, connection);
            dropped += if stays { 0 } else { message.weight() };
            stays
        });
        self.bytes -= dropped;
    }

    /// A message has come, by this filter. `None`: it is known and settled, and the broker has not heard so.
    pub(crate) fn place(&mut self, qos: QoS, pkid: u16, dup: bool, filter: u16) -> Option<Place> {
        // Without DUP it is another message: a broker that lost its latest state gives an identifier out again.
        let known =
            qos == QoS::ExactlyOnce && self.received.contains(&pkid) && (dup || !self.received.remove(&pkid));
        let number = self.next;
        self.next += 1;
        let acknowledgement = Acknowledgement::of(qos, pkid);
        self.unacknowledged.push_back(Unacknowledged { acknowledgement, settled: known, filter });
        if self.by_filter.len() <= usize::from(filter) {
            self.by_filter.resize(usize::from(filter) + 1, 0);
        }
        self.by_filter[usize::from(filter)] += 1;
        (!known).then_some(Place { number, connection: self.connection })
    }

    /// Takes a message that has a place.
    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += message.weight();
        match message.letter {
            None => self.waiting.push_back(message),
            Some(_) => self.letters.push_back(message),
        }
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < BUDGET && self.unacknowledged.len() < UNACKNOWLEDGED
    }

    /// Nothing waits, and nothing is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.letters.is_empty() && self.undone.is_empty() && self.in_flight == 0
    }

    /// Messages to be handed over, if that may be now: nothing is while something that came back waits for what is in flight.
    pub(crate) fn take(&mut self) -> Vec<Message> {
        if !self.undone.is_empty() {
            if self.in_flight > 0 {
                return Vec::new();
            }
            self.begin_again();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(message) = self.letters.pop_front().or_else(|| self.waiting.pop_front()) else { break };
            bytes += message.weight();
            batch.push(message);
        }
        self.in_flight += usize::from(!batch.is_empty());
        batch
    }

    /// What came back goes first again, in the order received.
    fn begin_again(&mut self) {
        let mut undone = std::mem::take(&mut self.undone);
        undone.sort_unstable_by_key(|message| message.number);
        for message in undone.into_iter().rev() {
            match message.letter {
                None => self.waiting.push_front(message),
                Some(_) => self.letters.push_front(message),
            }
        }
    }

    /// What [`Queue::take`] gave has its fates: call [`Queue::settle`], [`Queue::refused`] or [`Queue::came_back`] for each
    /// message of it.
    pub(crate) fn landed(&mut self) {
        self.in_flight -= 1;
    }

    /// Kafka has it.
    pub(crate) fn settle(&mut self, message: &Message) {
        self.bytes -= message.weight();
        if message.connection == self.connection
            && let Some(index) = message.number.checked_sub(self.first)
            && let Some(unacknowledged) =
                usize::try_from(index).ok().and_then(|at| self.unacknowledged.get_mut(at))
        {
            unacknowledged.settled = true;
        }
    }

    /// It goes to the dead-letter topic instead; it has its letter.
    pub(crate) fn refused(&mut self, message: Message) {
        self.again(message, |queue, message| queue.letters.push_back(message));
    }

    /// It goes again, and nothing else before that.
    pub(crate) fn came_back(&mut self, message: Message) {
        self.again(message, |queue, message| queue.undone.push(message));
    }

    fn again(&mut self, message: Message, push: impl FnOnce(&mut Self, Message)) {
        if is_of(&message, self.connection) {
            push(self, message);
        } else {
            self.bytes -= message.weight();
        }
    }

    /// The acknowledgements that may be sent now, in order; each is given once.
    pub(crate) fn acknowledgements(&mut self) -> impl Iterator<Item = Acknowledgement> {
        std::iter::from_fn(|| {
            loop {
                let Unacknowledged { acknowledgement, settled: true, filter } =
                    *self.unacknowledged.front()?
                else {
                    return None;
                };
                self.unacknowledged.pop_front();
                self.first += 1;
                self.by_filter[usize::from(filter)] -= 1;
                if let Some(acknowledgement) = acknowledgement {
                    if let Acknowledgement::Rec(pkid) = acknowledgement {
                        self.received.insert(pkid);
                    }
                    return Some(acknowledgement);
                }
            }
        })
    }

    /// The broker has released a message of QoS 2 (PUBREL): its identifier may be used again.
    pub(crate) fn released(&mut self, pkid: u16) {
        self.received.remove(&pkid);
    }

    /// Messages without an acknowledgement.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// The same by filter, as far as one has come by it.
    pub(crate) fn by_filter(&self) -> &[u64] {
        &self.by_filter
    }
}

/// Whether a message is worth sending: what another connection brought comes again on this one, but for QoS 0.
fn is_of(message: &Message, connection: u64) -> bool {
    message.connection == connection || message.is_unacknowledged()
}

#[cfg(test)]
mod tests;
