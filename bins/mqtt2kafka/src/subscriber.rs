//! One connection to the broker as a subscriber has it: subscribes, hands on what comes, acknowledges what it is told to.
//! It keeps no message, and decides nothing about when a connection is made (`broker.rs`).

use std::time::Duration;

use mqtt_client::{AckKind, Broken, Packet, Publish, Version, Wire, code_name, five_qos};
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{QoS, SubscribeFilter};
use tokio::time::Instant;

use crate::queue::Acknowledgement;

/// One subscription is asked for at a time.
const SUBSCRIPTION: u16 = 1;
/// How long the broker may take to answer it.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the broker may take to read what was sent, at the end.
const GOODBYE: Duration = Duration::from_secs(3);
/// MQTT 5, 2.4: another client has connected with the same client ID.
const SESSION_TAKEN_OVER: u8 = 0x8E;

/// See the module.
pub(crate) struct Subscriber {
    wire: Wire,
    /// Something must be sent at least that often; zero is never.
    keep_alive: Duration,
    /// Something came, or was sent, last at.
    heard: Instant,
    spoke: Instant,
    /// Since when an answer to the subscription is awaited.
    subscribing: Option<Instant>,
}

/// What the broker sends.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Publish),
    /// PUBREL: a message of QoS 2 is released, and its PUBCOMP is in the buffer.
    Released(u16),
    /// What the broker says of each filter: the QoS that it grants, or why it does not.
    Subscribed(Vec<Result<u8, String>>),
    Other,
}

/// The connection has ended.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) reason: String,
    /// Another client uses the same client ID: the broker said so.
    pub(crate) taken_over: bool,
    /// In an orderly way, and without a word.
    pub(crate) hung_up: bool,
}

impl From<Broken> for Gone {
    fn from(Broken { reason, hung_up }: Broken) -> Self {
        Self { reason, taken_over: false, hung_up }
    }
}

impl Gone {
    fn because(reason: String) -> Self {
        Self { reason, taken_over: false, hung_up: false }
    }
}

impl Subscriber {
    /// On a connection just made.
    pub(crate) fn new(wire: Wire, keep_alive: Duration) -> Self {
        let now = Instant::now();
        Self { wire, keep_alive, heard: now, spoke: now, subscribing: None }
    }

    /// Asks for these filters. The answer comes between messages: with a session, these do not wait for it.
    pub(crate) async fn subscribe(&mut self, filters: &[String], qos: QoS) -> Result<(), Gone> {
        match self.wire.version() {
            Version::Four => {
                let filters =
                    filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), qos)).collect();
                self.wire.put_four(&four::Packet::Subscribe(four::Subscribe { pkid: SUBSCRIPTION, filters }));
            }
            Version::Five => {
                let filter = |filter: &String| five::Filter {
                    // Retained messages come with a subscription that is new, and not with each start.
                    retain_forward_rule: five::RetainForwardRule::OnNewSubscribe,
                    preserve_retain: true,
                    ..five::Filter::new(filter.clone(), five_qos(qos))
                };
                let filters = filters.iter().map(filter).collect();
                let subscribe = five::Subscribe { pkid: SUBSCRIPTION, filters, properties: None };
                self.wire.put_five(&five::Packet::Subscribe(subscribe));
            }
        }
        self.subscribing = Some(Instant::now());
        self.flush().await
    }

    /// What comes next. May be dropped before it resolves: nothing is lost.
    pub(crate) async fn receive(&mut self) -> Result<Incoming, Gone> {
        let packet = self.wire.read().await?;
        self.heard = Instant::now();
        self.take(packet)
    }

    /// What has come already.
    pub(crate) fn received(&mut self) -> Result<Option<Incoming>, Gone> {
        match self.wire.next_received()? {
            Some(packet) => self.take(packet).map(Some),
            None => Ok(None),
        }
    }

    fn take(&mut self, packet: Packet) -> Result<Incoming, Gone> {
        Ok(match packet {
            Packet::Publish(publish) => Incoming::Message(publish),
            Packet::Ack { kind: AckKind::PubRel, pkid, .. } => {
                // There is nothing to wait for: what was to be done with it was done before the PUBREC.
                self.wire.acknowledge(AckKind::PubComp, pkid);
                Incoming::Released(pkid)
            }
            Packet::SubAck { codes, properties, .. } => {
                self.subscribing = None;
                let said = properties.reason().map(|said| format!(" ({said})")).unwrap_or_default();
                let granted =
                    |code| if code < 0x80 { Ok(code) } else { Err(format!("{}{said}", code_name(code))) };
                Incoming::Subscribed(codes.iter().copied().map(granted).collect())
            }
            Packet::Disconnect { code, properties } => {
                let said = properties.reason().map(|said| format!(" ({said})")).unwrap_or_default();
                let taken_over = code == SESSION_TAKEN_OVER;
                let hint = if taken_over { ": another client uses this mqtt.client_id" } else { "" };
                let reason = format!("the broker ended the connection: {}{said}{hint}", code_name(code));
                return Err(Gone { reason, taken_over, hung_up: false });
            }
            _ => Incoming::Other,
        })
    }

    /// Puts an acknowledgement behind those before it.
    pub(crate) fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        match acknowledgement {
            Acknowledgement::Ack(pkid) => self.wire.acknowledge(AckKind::PubAck, pkid),
            Acknowledgement::Rec(pkid) => self.wire.acknowledge(AckKind::PubRec, pkid),
        }
    }

    /// Sends what was put.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        if self.wire.buffered() > 0 {
            self.spoke = Instant::now();
            self.wire.flush().await?;
        }
        Ok(())
    }

    /// To be called now and then: pings, and finds out that nobody answers. `reads` is whether what comes is read now: else
    /// an answer may be there, behind what waits.
    pub(crate) async fn look(&mut self, reads: bool) -> Result<(), Gone> {
        if !reads {
            self.heard = Instant::now();
            self.subscribing = self.subscribing.map(|_| self.heard);
        }
        if self.subscribing.is_some_and(|since| since.elapsed() > ANSWER) {
            return Err(Gone::because(format!(
                "the broker did not answer the subscription within {ANSWER:?}"
            )));
        }
        if self.keep_alive.is_zero() {
            return Ok(());
        }
        let silence = self.heard.elapsed();
        if silence > self.keep_alive * 3 / 2 {
            return Err(Gone::because(format!(
                "nothing was heard of the broker for {} s",
                silence.as_secs()
            )));
        }
        if silence.max(self.spoke.elapsed()) >= self.keep_alive / 2 {
            self.wire.ping();
        }
        self.flush().await
    }

    /// How often to look.
    pub(crate) fn rhythm(&self) -> Duration {
        (self.keep_alive / 8).clamp(Duration::from_millis(250), ANSWER / 4)
    }

    /// Says goodbye, behind the acknowledgements; the broker keeps the session. What it still sends it will send again.
    pub(crate) async fn disconnect(mut self) {
        self.wire.disconnect();
        self.wire.close(GOODBYE).await;
    }
}
