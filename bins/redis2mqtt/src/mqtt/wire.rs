//! One MQTT connection, version 3.1.1 or 5, packet by packet. It does not know what a record is. rumqttc codes the
//! packets; its event loop is not used, since what it replays and drops when a connection ends cannot be seen.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::QoS;
use rumqttc::mqttbytes::{self, v4 as four};
use rumqttc::v5::mqttbytes::{self as mqttbytes_five, v5 as five};
use sync_core::bridge::Unreachable;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::transport::{self, Address, Socket};

/// How long connecting may take, and each write to a socket.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a broker may send a publisher is small; some answer with long reasons.
const MAX_INCOMING: u32 = 1 << 20;
/// The largest packet that MQTT can express (MQTT 5, 2.1.4).
pub(crate) const MAX_PACKET: u32 = 268_435_460;

/// What to connect with.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) address: Address,
    pub(crate) client_id: String,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) keep_alive: Duration,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

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

/// Why connecting failed.
pub(crate) struct Refused {
    pub(crate) unreachable: Unreachable,
    /// The broker may not know this version of the protocol: it said so, or it closed the connection or answered
    /// something else than the version's CONNACK.
    pub(crate) version: Option<Certainty>,
}

/// How sure it is that the version was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// The broker said so.
    Said,
    /// It hung up, or answered something else.
    Suspected,
}

/// One attempt to connect.
pub(crate) async fn connect(options: &Options, version: Version) -> Result<(Wire, Granted), Refused> {
    let attempt = async {
        let socket = match transport::connect(&options.address).await {
            Ok(socket) => socket,
            Err(unreachable) => return Err(Refused { unreachable, version: None }),
        };
        let mut wire = Wire { socket, version, incoming: BytesMut::new(), outgoing: BytesMut::new() };
        let granted = wire.introduce(options).await?;
        Ok((wire, granted))
    };
    tokio::time::timeout(TIMEOUT, attempt)
        .await
        .unwrap_or_else(|_| Err(refused(format!("no answer within {TIMEOUT:?}"), false, None)))
}

fn refused(reason: String, needs_human: bool, version: Option<Certainty>) -> Refused {
    Refused { unreachable: Unreachable { reason, needs_human }, version }
}

impl Wire {
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// CONNECT and CONNACK. Every session begins anew: what an earlier one left is pending in the source.
    async fn introduce(&mut self, options: &Options) -> Result<Granted, Refused> {
        let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let client_id = options.client_id.clone();
        let answer = match self.version {
            Version::Four => {
                let mut connect = four::Connect::new(client_id);
                connect.keep_alive = keep_alive;
                if let Some((user, password)) = &options.credentials {
                    connect.set_login(user, password);
                }
                self.put_four(&four::Packet::Connect(connect));
                self.flush().await.and(self.packet(four_packet).await).map(granted_by_four)
            }
            Version::Five => {
                let connect = five::Connect { keep_alive, client_id, clean_start: true, properties: None };
                let login =
                    options.credentials.as_ref().map(|(user, password)| five::Login::new(user, password));
                self.put_five(&five::Packet::Connect(connect, None, login));
                self.flush().await.and(self.packet(connack_five).await).map(|answer| match answer {
                    ConnAckFive::Five(packet) => granted_by_five(*packet, options),
                    ConnAckFive::Older(code) => Err(refused_by_older(code)),
                })
            }
        };
        let mut granted = answer.unwrap_or_else(|Broken { reason, .. }| {
            let hint = if options.address.tls.is_none() {
                " (does it expect TLS? MQTT_USE_TLS is false)"
            } else {
                ""
            };
            Err(refused(format!("no CONNACK: {reason}{hint}"), false, Some(Certainty::Suspected)))
        })?;
        granted.keep_alive = granted.keep_alive.or(Some(options.keep_alive));
        Ok(granted)
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
    fn put_four(&mut self, packet: &four::Packet) {
        packet.write(&mut self.outgoing, usize::MAX).expect("the packet is well formed");
    }

    fn put_five(&mut self, packet: &five::Packet) {
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

    async fn packet<P>(&mut self, next: fn(&mut BytesMut) -> Result<Option<P>, Broken>) -> Result<P, Broken> {
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

fn four_packet(received: &mut BytesMut) -> Result<Option<four::Packet>, Broken> {
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

fn five_packet(received: &mut BytesMut) -> Result<Option<five::Packet>, Broken> {
    match read_five(received) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes_five::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(nonsense(&error)),
    }
}

/// What answers a CONNECT of version 5.
enum ConnAckFive {
    Five(Box<five::Packet>),
    /// A CONNACK as 3.1.1 has it, with its code: from a broker that knows nothing newer.
    Older(u8),
}

fn connack_five(received: &mut BytesMut) -> Result<Option<ConnAckFive>, Broken> {
    const CONNACK: u8 = 0x20;
    if let [CONNACK, 2, _, code, ..] = received[..] {
        return Ok(Some(ConnAckFive::Older(code)));
    }
    Ok(five_packet(received)?.map(|packet| ConnAckFive::Five(Box::new(packet))))
}

/// MQTT 3.1.1, 3.2.2.3: 1 is an unacceptable protocol version.
fn refused_by_older(code: u8) -> Refused {
    let version = if code == 1 { Certainty::Said } else { Certainty::Suspected };
    refused(format!("refused the connection in the words of MQTT 3.1.1 (code {code})"), false, Some(version))
}

fn nonsense(error: &dyn std::fmt::Debug) -> Broken {
    Broken::because(format!("the broker sent what is no MQTT: {error:?}"))
}

fn granted_by_four(packet: four::Packet) -> Result<Granted, Refused> {
    use four::ConnectReturnCode as Code;
    match packet {
        four::Packet::ConnAck(ack) => match ack.code {
            Code::Success => Ok(Granted { receive_max: u16::MAX, max_packet: MAX_PACKET, keep_alive: None }),
            code => {
                let needs_human =
                    matches!(code, Code::BadUserNamePassword | Code::NotAuthorized | Code::BadClientId);
                let version = matches!(code, Code::RefusedProtocolVersion).then_some(Certainty::Said);
                Err(refused(format!("refused the connection: {code:?}"), needs_human, version))
            }
        },
        other => Err(refused(format!("answered CONNECT with {other:?}"), false, Some(Certainty::Suspected))),
    }
}

fn granted_by_five(packet: five::Packet, options: &Options) -> Result<Granted, Refused> {
    use five::ConnectReturnCode as Code;
    let ack = match packet {
        five::Packet::ConnAck(ack) => ack,
        other => {
            return Err(refused(
                format!("answered CONNECT with {other:?}"),
                false,
                Some(Certainty::Suspected),
            ));
        }
    };
    let said = |said: Option<String>| said.map(|said| format!(" ({said})")).unwrap_or_default();
    if ack.code != Code::Success {
        let version = matches!(ack.code, Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion)
            .then_some(Certainty::Said);
        let needs_human = matches!(
            ack.code,
            Code::BadUserNamePassword
                | Code::NotAuthorized
                | Code::Banned
                | Code::BadAuthenticationMethod
                | Code::ClientIdentifierNotValid
                | Code::BadClientId
        );
        let words = said(ack.properties.and_then(|properties| properties.reason_string));
        return Err(refused(format!("refused the connection: {:?}{words}", ack.code), needs_human, version));
    }
    let properties = ack.properties.as_ref();
    let max_qos = properties.and_then(|p| p.max_qos).unwrap_or(2);
    if options.qos as u8 > max_qos {
        return Err(refused(
            format!("takes QoS {max_qos} at most, and MQTT_QOS is {}", options.qos as u8),
            true,
            None,
        ));
    }
    if options.retain && properties.and_then(|p| p.retain_available) == Some(0) {
        return Err(refused("keeps no retained messages, and MQTT_RETAIN is true".into(), true, None));
    }
    Ok(Granted {
        receive_max: properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX).max(1),
        max_packet: properties.and_then(|p| p.max_packet_size).unwrap_or(MAX_PACKET),
        keep_alive: properties
            .and_then(|p| p.server_keep_alive)
            .map(|seconds| Duration::from_secs(seconds.into())),
    })
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
