//! One MQTT connection, version 3.1.1 or 5, packet by packet. It does not know what a record is. rumqttc codes the
//! packets; its event loop is not used, since what it replays and drops when a connection ends cannot be seen.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::QoS;
use rumqttc::mqttbytes::{self, v4 as four};
use rumqttc::v5::mqttbytes::{self as mqttbytes_five, v5 as five};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::transport::Socket;

/// How long connecting may take, and each write to a socket.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// What a broker may send a publisher is small; some answer with long reasons.
const MAX_INCOMING: u32 = 1 << 20;
/// The largest packet that MQTT can express (MQTT 5, 2.1.4).
pub(crate) const MAX_PACKET: u32 = 268_435_460;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    Four,
    /// 5.
    Five,
}

/// A connection that the broker has accepted.
pub(crate) struct Wire {
    socket: Box<dyn Socket>,
    version: Version,
    /// Received, not yet taken apart.
    incoming: BytesMut,
    /// To be sent with the next flush.
    outgoing: BytesMut,
}

/// What the broker grants on this connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    /// Publishes that may be unconfirmed at once.
    pub(crate) receive_max: u16,
    /// Largest packet that it takes, in bytes.
    pub(crate) max_packet: u32,
    /// Something must be sent at least this often; zero is never. The broker may overrule the setting.
    pub(crate) keep_alive: Option<Duration>,
}

/// What the broker says of a publish, or of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// PUBACK or PUBCOMP with a success code.
    Confirmed(u16),
    /// PUBREC with a success code: to be released.
    Received(u16),
    /// PUBACK, PUBREC or PUBCOMP with a reason code of 0x80 or above.
    Negative { pkid: u16, code: u8, reason: String },
    /// PUBACK with a code that MQTT 5 does not list for it; rumqttc keeps back which publish it was for.
    Unlisted { code: u8 },
    /// The broker ends the connection and says why.
    Closing { code: u8, reason: String },
    /// PINGRESP, or what is no concern of a publisher.
    Other,
}

/// The connection broke.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Broken {
    pub(crate) reason: String,
    /// The broker closed it in an orderly way, and without a word.
    pub(crate) hung_up: bool,
}

impl Broken {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hung_up: false }
    }
}

impl Wire {
    pub(super) fn on(socket: Box<dyn Socket>, version: Version) -> Self {
        Self { socket, version, incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Puts a publish into the buffer.
    pub(crate) fn publish(&mut self, publish: Publish<'_>) {
        let Publish { topic, payload, qos, retain, pkid, id } = publish;
        match self.version {
            Version::Four => {
                let mut packet = four::Publish::from_bytes(topic, qos, payload);
                (packet.pkid, packet.retain) = (pkid, retain);
                self.put_four(&four::Packet::Publish(packet));
            }
            Version::Five => {
                let properties = five::PublishProperties {
                    user_properties: vec![("id".to_owned(), id.to_owned())],
                    ..five::PublishProperties::default()
                };
                self.put_five(&five::Packet::Publish(five::Publish {
                    qos: five_qos(qos),
                    retain,
                    pkid,
                    topic: Bytes::copy_from_slice(topic.as_bytes()),
                    payload,
                    properties: Some(properties),
                    ..five::Publish::default()
                }));
            }
        }
    }

    /// Puts the answer to a PUBREC into the buffer.
    pub(crate) fn release(&mut self, pkid: u16) {
        match self.version {
            Version::Four => self.put_four(&four::Packet::PubRel(four::PubRel::new(pkid))),
            Version::Five => {
                let reason = five::PubRelReason::Success;
                self.put_five(&five::Packet::PubRel(five::PubRel { pkid, reason, properties: None }));
            }
        }
    }

    pub(crate) fn ping(&mut self) {
        match self.version {
            Version::Four => self.put_four(&four::Packet::PingReq),
            Version::Five => self.put_five(&five::Packet::PingReq(five::PingReq)),
        }
    }

    /// Says goodbye: the broker then logs no error.
    pub(crate) fn disconnect(&mut self) {
        match self.version {
            Version::Four => self.put_four(&four::Packet::Disconnect),
            Version::Five => {
                let reason_code = five::DisconnectReasonCode::NormalDisconnection;
                self.put_five(&five::Packet::Disconnect(five::Disconnect { reason_code, properties: None }));
            }
        }
    }

    // Nothing that is put here is larger than MQTT allows: the session checks a publish's size before.
    pub(super) fn put_four(&mut self, packet: &four::Packet) {
        packet.write(&mut self.outgoing, usize::MAX).expect("the packet is well formed");
    }

    pub(super) fn put_five(&mut self, packet: &five::Packet) {
        packet.write(&mut self.outgoing, None).expect("the packet is well formed");
    }

    /// How much waits for a flush, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what was put into the buffer.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        let send = async {
            self.socket.write_all_buf(&mut self.outgoing).await?;
            self.socket.flush().await
        };
        match tokio::time::timeout(TIMEOUT, send).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken::because(format!("connection lost: {error}"))),
            Err(_) => {
                Err(Broken::because(format!("connection lost: the broker took nothing for {TIMEOUT:?}")))
            }
        }
    }

    /// The next answer from the broker. May be dropped before it resolves: nothing read is lost.
    pub(crate) async fn read(&mut self) -> Result<Answer, Broken> {
        loop {
            if let Some(answer) = self.next_received()? {
                return Ok(answer);
            }
            self.receive().await?;
        }
    }

    /// An answer that was received already.
    pub(crate) fn next_received(&mut self) -> Result<Option<Answer>, Broken> {
        match self.version {
            Version::Four => Ok(four_packet(&mut self.incoming)?.map(|packet| answer_four(&packet))),
            Version::Five => match read_five(&mut self.incoming) {
                Ok(packet) => Ok(Some(answer_five(packet))),
                Err(mqttbytes_five::Error::InsufficientBytes(_)) => Ok(None),
                Err(mqttbytes_five::Error::InvalidConnectReturnCode(code)) => {
                    Ok(Some(Answer::Unlisted { code }))
                }
                Err(error) => Err(nonsense(&error)),
            },
        }
    }

    pub(super) async fn packet<P>(
        &mut self,
        next: fn(&mut BytesMut) -> Result<Option<P>, Broken>,
    ) -> Result<P, Broken> {
        loop {
            if let Some(packet) = next(&mut self.incoming)? {
                return Ok(packet);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Broken> {
        self.incoming.reserve(16 << 10);
        match self.socket.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Broken { reason: "the broker closed the connection".into(), hung_up: true }),
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::because(format!("connection lost: {error}"))),
        }
    }
}

pub(super) fn four_packet(received: &mut BytesMut) -> Result<Option<four::Packet>, Broken> {
    match four::Packet::read(received, MAX_INCOMING as usize) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(nonsense(&error)),
    }
}

/// rumqttc drops a DISCONNECT that ends with its reason code, as MQTT 5 lets it (3.14.2.2.1) and Mosquitto writes it:
/// the length of no properties is put behind it.
fn read_five(received: &mut BytesMut) -> Result<five::Packet, mqttbytes_five::Error> {
    const DISCONNECT: u8 = 0xE0;
    if let [DISCONNECT, 1, code, ..] = received[..] {
        let rest = received.split_off(3);
        received.clear();
        received.extend_from_slice(&[DISCONNECT, 2, code, 0]);
        received.extend_from_slice(&rest);
    }
    five::Packet::read(received, Some(MAX_INCOMING))
}

pub(super) fn five_packet(received: &mut BytesMut) -> Result<Option<five::Packet>, Broken> {
    match read_five(received) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes_five::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(nonsense(&error)),
    }
}

fn nonsense(error: &dyn std::fmt::Debug) -> Broken {
    Broken::because(format!("the broker sent what is no MQTT: {error:?}"))
}

/// One message to publish.
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) pkid: u16,
    /// The entry's ID: a user property under MQTT 5.
    pub(crate) id: &'a str,
}

fn answer_four(packet: &four::Packet) -> Answer {
    match packet {
        four::Packet::PubAck(ack) => Answer::Confirmed(ack.pkid),
        four::Packet::PubRec(received) => Answer::Received(received.pkid),
        four::Packet::PubComp(complete) => Answer::Confirmed(complete.pkid),
        _ => Answer::Other,
    }
}

/// PUBACK and PUBREC have the same reason codes (MQTT 5, 3.4.2.1 and 3.5.2.1), in two types.
macro_rules! code_of {
    ($reason:expr, $Reason:ty) => {
        match $reason {
            <$Reason>::Success => 0,
            <$Reason>::NoMatchingSubscribers => 0x10,
            <$Reason>::UnspecifiedError => 0x80,
            <$Reason>::ImplementationSpecificError => 0x83,
            <$Reason>::NotAuthorized => 0x87,
            <$Reason>::TopicNameInvalid => 0x90,
            <$Reason>::PacketIdentifierInUse => 0x91,
            <$Reason>::QuotaExceeded => 0x97,
            <$Reason>::PayloadFormatInvalid => 0x99,
        }
    };
}
fn answer_five(packet: five::Packet) -> Answer {
    match packet {
        five::Packet::PubAck(ack) => match ack.reason {
            five::PubAckReason::Success | five::PubAckReason::NoMatchingSubscribers => {
                Answer::Confirmed(ack.pkid)
            }
            reason => negative(
                ack.pkid,
                code_of!(reason, five::PubAckReason),
                &reason,
                ack.properties.and_then(|p| p.reason_string),
            ),
        },
        five::Packet::PubRec(rec) => match rec.reason {
            five::PubRecReason::Success | five::PubRecReason::NoMatchingSubscribers => {
                Answer::Received(rec.pkid)
            }
            reason => negative(
                rec.pkid,
                code_of!(reason, five::PubRecReason),
                &reason,
                rec.properties.and_then(|p| p.reason_string),
            ),
        },
        five::Packet::PubComp(complete) => match complete.reason {
            five::PubCompReason::Success => Answer::Confirmed(complete.pkid),
            // The broker forgot the message between PUBREC and PUBREL: it is published again.
            reason => negative(complete.pkid, 0x92, &reason, None),
        },
        five::Packet::Disconnect(goodbye) => {
            let said = goodbye.properties.and_then(|properties| properties.reason_string);
            let reason = with_words(format!("{:?}", goodbye.reason_code), said);
            Answer::Closing { code: goodbye.reason_code as u8, reason }
        }
        _ => Answer::Other,
    }
}

fn negative(pkid: u16, code: u8, reason: &dyn std::fmt::Debug, said: Option<String>) -> Answer {
    Answer::Negative { pkid, code, reason: with_words(format!("{reason:?}"), said) }
}

fn with_words(reason: String, said: Option<String>) -> String {
    match said {
        Some(said) => format!("{reason} ({said})"),
        None => reason,
    }
}

fn five_qos(qos: QoS) -> mqttbytes_five::QoS {
    match qos {
        QoS::AtMostOnce => mqttbytes_five::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqttbytes_five::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqttbytes_five::QoS::ExactlyOnce,
    }
}
