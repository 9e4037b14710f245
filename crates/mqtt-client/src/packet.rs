//! Packets from the server, taken apart: of either version into the same few, without a copy of a topic or a payload.
//! What is not well formed is an error; codes are as received, listed by the standard or not.

use bytes::{Buf as _, Bytes, BytesMut};
use rumqttc::QoS;

use crate::properties::{Properties, Property, variable};
use crate::wire::{Broken, Version};

/// What a server may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The answer to CONNECT.
    ConnAck {
        /// The server goes on with an earlier session of this client.
        session_present: bool,
        /// 3.1.1: a return code; 5: a reason code.
        code: u8,
        /// None: it is a CONNACK as 3.1.1 has it, also where one of version 5 was due.
        properties: Option<Properties>,
    },
    /// A message.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which of them.
        kind: AckKind,
        /// The message's packet identifier.
        pkid: u16,
        /// Success below 0x80. Always zero under 3.1.1, which has no word for anything else.
        code: u8,
        /// The server's words, perhaps.
        properties: Properties,
    },
    /// The answer to SUBSCRIBE.
    SubAck {
        /// The packet identifier of the SUBSCRIBE.
        pkid: u16,
        /// One for each filter, in their order: the QoS granted, or an error of 0x80 or above.
        codes: Bytes,
        /// The server's words, perhaps.
        properties: Properties,
    },
    /// The answer to UNSUBSCRIBE.
    UnsubAck {
        /// The packet identifier of the UNSUBSCRIBE.
        pkid: u16,
        /// One for each filter, in their order. None under 3.1.1.
        codes: Bytes,
        /// The server's words, perhaps.
        properties: Properties,
    },
    /// The answer to a ping.
    PingResp,
    /// The server ends the connection.
    Disconnect {
        /// Why.
        code: u8,
        /// The server's words, perhaps.
        properties: Properties,
    },
}

/// A message. Its parts share the memory that it was received into, with what was received before and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Not empty. The standard wants UTF-8, and nobody has looked.
    pub topic: Bytes,
    /// Anything.
    pub payload: Bytes,
    /// At which it was sent to this client.
    pub qos: QoS,
    /// Zero with QoS 0, and never else.
    pub pkid: u16,
    /// The server may have sent it before.
    pub dup: bool,
    /// It was kept for whoever subscribes (or published so, where the subscription asks for that).
    pub retain: bool,
    /// None under 3.1.1.
    pub properties: Properties,
}

/// The four packets that acknowledge a message. In either direction they look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// QoS 1: it is yours now.
    PubAck,
    /// QoS 2: received.
    PubRec,
    /// QoS 2: released.
    PubRel,
    /// QoS 2: complete.
    PubComp,
}

impl AckKind {
    /// The first byte of the packet, with the flags that it must have.
    pub(crate) fn first_byte(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }
}

/// Takes the packet from the front of what was received. None: not all of it is there.
pub(crate) fn take(
    received: &mut BytesMut,
    version: Version,
    max_incoming: u32,
) -> Result<Option<Packet>, Broken> {
    let Some((first, body)) = frame(received, max_incoming)? else { return Ok(None) };
    let packet = match first >> 4 {
        2 => connack(body, version),
        3 => publish(first, body, version),
        4 => ack(AckKind::PubAck, body, version),
        5 => ack(AckKind::PubRec, body, version),
        6 => ack(AckKind::PubRel, body, version),
        7 => ack(AckKind::PubComp, body, version),
        9 => suback(body, version),
        11 => unsuback(body, version),
        13 => Some(Packet::PingResp),
        14 => disconnect(body, version),
        other => {
            return Err(nonsense(&format!("a packet of type {other}, which is not for a server to send")));
        }
    };
    packet.map(Some).ok_or_else(|| nonsense(&format!("a malformed packet of type {}", first >> 4)))
}

fn nonsense(what: &str) -> Broken {
    Broken::because(format!("the broker sent what is no MQTT: {what}"))
}

/// The first byte of a packet, and what comes behind its length.
fn frame(received: &mut BytesMut, max: u32) -> Result<Option<(u8, Bytes)>, Broken> {
    /// A first byte, and a length of four.
    const LONGEST_HEADER: usize = 5;
    let Some((&first, mut rest)) = received.split_first() else { return Ok(None) };
    let Some(length) = variable(&mut rest) else {
        return if received.len() < LONGEST_HEADER {
            Ok(None)
        } else {
            Err(nonsense("a length without end"))
        };
    };
    let header = received.len() - rest.len();
    let size = header + length as usize;
    if size > max as usize {
        return Err(Broken::because(format!(
            "the broker sent a packet of {size} bytes, and {max} are allowed"
        )));
    }
    if received.len() < size {
        return Ok(None);
    }
    let mut body = received.split_to(size).freeze();
    body.advance(header);
    Ok(Some((first, body)))
}

fn two(body: &mut Bytes) -> Option<u16> {
    (body.len() >= 2).then(|| body.get_u16())
}

/// The properties that stand here under version 5.
fn properties(body: &mut Bytes, version: Version) -> Option<Properties> {
    match version {
        Version::Four => Some(Properties::default()),
        Version::Five => Properties::take(body),
    }
}

fn connack(mut body: Bytes, version: Version) -> Option<Packet> {
    let [flags, code] = two(&mut body)?.to_be_bytes();
    let properties = match version {
        Version::Five if !body.is_empty() => Some(Properties::take(&mut body)?),
        _ => None,
    };
    body.is_empty().then_some(Packet::ConnAck { session_present: flags & 1 == 1, code, properties })
}

fn publish(first: u8, mut body: Bytes, version: Version) -> Option<Packet> {
    let qos = match first >> 1 & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return None,
    };
    let length = usize::from(two(&mut body)?);
    if length == 0 || length > body.len() {
        return None;
    }
    let topic = body.split_to(length);
    let pkid = if qos == QoS::AtMostOnce { 0 } else { two(&mut body).filter(|pkid| *pkid != 0)? };
    let properties = properties(&mut body, version)?;
    // None was offered (3.1.2.11.5), so this is for a topic that nobody here knows.
    if properties.iter().any(|property| matches!(property, Property::TopicAlias(_))) {
        return None;
    }
    let (dup, retain) = (first & 8 != 0, first & 1 != 0);
    Some(Packet::Publish(Publish { topic, payload: body, qos, pkid, dup, retain, properties }))
}

/// Code and properties that may be left out, from behind (MQTT 5, 3.4.2.1, 3.14.2.1).
fn code_and_properties(mut body: Bytes, version: Version) -> Option<(u8, Properties)> {
    // Brokers of 3.1.1 have nothing here; what one sends nevertheless has no meaning.
    if version == Version::Four || body.is_empty() {
        return Some((0, Properties::default()));
    }
    let code = body.get_u8();
    let properties = if body.is_empty() { Properties::default() } else { Properties::take(&mut body)? };
    body.is_empty().then_some((code, properties))
}

fn ack(kind: AckKind, mut body: Bytes, version: Version) -> Option<Packet> {
    let pkid = two(&mut body)?;
    let (code, properties) = code_and_properties(body, version)?;
    Some(Packet::Ack { kind, pkid, code, properties })
}

fn suback(mut body: Bytes, version: Version) -> Option<Packet> {
    let pkid = two(&mut body)?;
    let properties = properties(&mut body, version)?;
    (!body.is_empty()).then_some(Packet::SubAck { pkid, codes: body, properties })
}

fn unsuback(mut body: Bytes, version: Version) -> Option<Packet> {
    let pkid = two(&mut body)?;
    let properties = properties(&mut body, version)?;
    let as_it_must = body.is_empty() == (version == Version::Four);
    as_it_must.then_some(Packet::UnsubAck { pkid, codes: body, properties })
}

fn disconnect(body: Bytes, version: Version) -> Option<Packet> {
    let (code, properties) = code_and_properties(body, version)?;
    Some(Packet::Disconnect { code, properties })
}
