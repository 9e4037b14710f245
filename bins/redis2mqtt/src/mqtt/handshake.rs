//! CONNECT and CONNACK: how a connection begins, in either version, and what it means when it does not.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::v5 as five;
use sync_core::bridge::Unreachable;

use super::transport::{self, Address};
use super::wire::{Broken, Granted, MAX_PACKET, TIMEOUT, Version, Wire, five_packet, four_packet};

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
        let mut wire = Wire::on(socket, version);
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
    /// CONNECT and CONNACK. Every session begins anew: what an earlier one left is pending in the source.
    async fn introduce(&mut self, options: &Options) -> Result<Granted, Refused> {
        let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let client_id = options.client_id.clone();
        let answer = match self.version() {
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
