//! The packets of a publisher: what it sends, what the broker's answers mean to it, and what it needs to be granted.

use bytes::Bytes;
use mqtt_client::{AckKind, Granted, Packet, Properties, Version, Wire, code_name, five_qos};
use rumqttc::QoS;
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::v5 as five;
use sync_core::bridge::Unreachable;

/// What a broker may send a publisher is small; some answer with long reasons.
pub(crate) const MAX_INCOMING: u32 = 1 << 20;

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

/// Puts a publish into the buffer.
pub(crate) fn publish(wire: &mut Wire, publish: Publish<'_>) {
    let Publish { topic, payload, qos, retain, pkid, id } = publish;
    match wire.version() {
        Version::Four => {
            let mut packet = four::Publish::from_bytes(topic, qos, payload);
            (packet.pkid, packet.retain) = (pkid, retain);
            wire.put_four(&four::Packet::Publish(packet));
        }
        Version::Five => {
            let properties = five::PublishProperties {
                user_properties: vec![("id".to_owned(), id.to_owned())],
                ..five::PublishProperties::default()
            };
            wire.put_five(&five::Packet::Publish(five::Publish {
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

/// What the broker says of a publish, or of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// PUBACK or PUBCOMP with a success code.
    Confirmed(u16),
    /// PUBREC with a success code: to be released.
    Received(u16),
    /// PUBACK, PUBREC or PUBCOMP with a reason code of 0x80 or above.
    Negative { pkid: u16, code: u8, reason: String },
    /// PUBACK or PUBREC with a code that MQTT 5 does not list for it.
    Unlisted { pkid: u16, code: u8 },
    /// The broker ends the connection and says why.
    Closing { code: u8, reason: String },
    /// PINGRESP, or what is no concern of a publisher.
    Other,
}

/// What a packet from the broker means.
pub(crate) fn answer(packet: Packet, version: Version) -> Answer {
    match packet {
        Packet::Ack { kind: AckKind::PubComp, pkid, code: 0, .. } => Answer::Confirmed(pkid),
        // The broker forgot the message between PUBREC and PUBREL: it is published again.
        Packet::Ack { kind: AckKind::PubComp, pkid, properties, .. } => {
            Answer::Negative { pkid, code: 0x92, reason: reason(0x92, &properties) }
        }
        Packet::Ack { kind: kind @ (AckKind::PubAck | AckKind::PubRec), pkid, code, properties } => {
            match code {
                0 | 0x10 if kind == AckKind::PubAck => Answer::Confirmed(pkid),
                0 | 0x10 => Answer::Received(pkid),
                // Those of MQTT 5, 3.4.2.1 and 3.5.2.1, and 0x95, which Mosquitto has for what is too large.
                0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x95 | 0x97 | 0x99 => {
                    Answer::Negative { pkid, code, reason: reason(code, &properties) }
                }
                code => Answer::Unlisted { pkid, code },
            }
        }
        // No packet for a server to send under 3.1.1: the end of the connection says what is to be said.
        Packet::Disconnect { code, properties } if version == Version::Five => {
            Answer::Closing { code, reason: reason(code, &properties) }
        }
        _ => Answer::Other,
    }
}

fn reason(code: u8, properties: &Properties) -> String {
    let name = code_name(code);
    match properties.reason() {
        Some(words) => format!("{name} ({words})"),
        None => name.to_owned(),
    }
}

/// Whether publishes as they are wanted may be sent on this connection.
pub(crate) fn check(granted: &Granted, qos: QoS, retain: bool) -> Result<(), Unreachable> {
    let refused = |reason: String| Err(Unreachable { reason, needs_human: true });
    if qos as u8 > granted.max_qos {
        return refused(format!("takes QoS {} at most, and MQTT_QOS is {}", granted.max_qos, qos as u8));
    }
    if retain && !granted.retain_available {
        return refused("keeps no retained messages, and MQTT_RETAIN is true".into());
    }
    Ok(())
}
