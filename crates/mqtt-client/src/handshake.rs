//! CONNECT and CONNACK: how a connection begins, in either version, and what it means when it does not.

use std::time::Duration;

use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::v5 as five;
use sync_core::bridge::Unreachable;

use crate::codes::code_name;
use crate::packet::Packet;
use crate::properties::{Properties, Property};
use crate::transport::{self, Address};
use crate::wire::{Broken, MAX_PACKET, TIMEOUT, Version, Wire};

/// What to connect with.
#[derive(Clone)]
pub struct Options {
    /// Where to.
    pub address: Address,
    /// Empty: the server makes one up, which 3.1.1 allows for a session that begins anew.
    pub client_id: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Something is sent at least this often. Counted in seconds; zero is never.
    pub keep_alive: Duration,
    /// With or without what an earlier connection left.
    pub session: SessionWish,
    /// Publishes of QoS 1 and 2 that the server may send without an acknowledgement. 3.1.1 has no word for it.
    pub receive_max: Option<u16>,
    /// The server drops a larger packet instead of sending it. 3.1.1 has no word for it.
    pub max_packet: Option<u32>,
    /// A larger packet ends the connection, in bytes: [`MAX_PACKET`] at most.
    pub max_incoming: u32,
}

/// What is to become of an earlier session of the same client, and of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionWish {
    /// The server forgets what was before, and this one as soon as the connection ends.
    Anew,
    /// It goes on where an earlier one ended, if the server has it, and outlives the connection.
    Resume {
        /// By so many seconds (`u32::MAX` is for ever). How long a session under 3.1.1 is kept, the server says.
        expiry: u32,
    },
}

/// What the server grants on a connection. What 3.1.1 has no word for is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The server has kept an earlier session and goes on with it.
    pub session_present: bool,
    /// Seconds that the session outlives the connection, where the server does not take the client's word for it.
    pub session_expiry: Option<u32>,
    /// What the server calls a client that came without a name.
    pub assigned_client_id: Option<String>,
    /// Publishes that may be unconfirmed at once.
    pub receive_max: u16,
    /// Largest packet that it takes, in bytes.
    pub max_packet: u32,
    /// Something must be sent at least this often; zero is never. The server may overrule the client.
    pub keep_alive: Duration,
    /// Highest QoS of a publish.
    pub max_qos: u8,
    /// Retained messages are kept.
    pub retain_available: bool,
    /// `+` and `#` may stand in a filter.
    pub wildcard_subscriptions: bool,
    /// `$share/…` may stand before a filter.
    pub shared_subscriptions: bool,
}

/// Why connecting failed.
#[derive(Clone, Debug)]
pub struct Refused {
    /// In words, and whether waiting may help.
    pub unreachable: Unreachable,
    /// The broker may not know this version of the protocol: it said so, or it closed the connection or answered
    /// something else than the version's CONNACK.
    pub version: Option<Certainty>,
}

/// How sure it is that the version was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The broker said so.
    Said,
    /// It hung up, or answered something else.
    Suspected,
}

/// One attempt to connect.
pub async fn connect(options: &Options, version: Version) -> Result<(Wire, Granted), Refused> {
    let attempt = async {
        let socket = match transport::connect(&options.address).await {
            Ok(socket) => socket,
            Err(unreachable) => return Err(Refused { unreachable, version: None }),
        };
        let mut wire = Wire::on(socket, version, options.max_incoming);
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
    /// CONNECT and CONNACK.
    async fn introduce(&mut self, options: &Options) -> Result<Granted, Refused> {
        match self.version() {
            Version::Four => self.put_four(&four::Packet::Connect(connect_four(options))),
            Version::Five => {
                let login =
                    options.credentials.as_ref().map(|(user, password)| five::Login::new(user, password));
                self.put_five(&five::Packet::Connect(connect_five(options), None, login));
            }
        }
        let answer = match self.flush().await {
            Ok(()) => self.read().await,
            Err(broken) => Err(broken),
        };
        match answer {
            Ok(packet) => granted(packet, options, self.version()),
            Err(Broken { reason, .. }) => {
                let hint = match &options.address {
                    Address { tls: None, names, .. } => {
                        format!(" (does it expect TLS? {} is false)", names.tls)
                    }
                    _ => String::new(),
                };
                Err(refused(format!("no CONNACK: {reason}{hint}"), false, Some(Certainty::Suspected)))
            }
        }
    }
}

fn keep_alive(options: &Options) -> u16 {
    u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX)
}

fn connect_four(options: &Options) -> four::Connect {
    let mut connect = four::Connect::new(options.client_id.clone());
    connect.keep_alive = keep_alive(options);
    connect.clean_session = options.session == SessionWish::Anew;
    if let Some((user, password)) = &options.credentials {
        connect.set_login(user, password);
    }
    connect
}

fn connect_five(options: &Options) -> five::Connect {
    let session_expiry_interval = match options.session {
        SessionWish::Anew => None,
        SessionWish::Resume { expiry } => Some(expiry),
    };
    let mut properties = five::ConnectProperties::new();
    properties.session_expiry_interval = session_expiry_interval;
    // Zero would be a protocol error (MQTT 5, 3.1.2.11.3 and 3.1.2.11.4).
    properties.receive_maximum = options.receive_max.map(|max| max.max(1));
    properties.max_packet_size = options.max_packet.map(|max| max.max(1));
    five::Connect {
        keep_alive: keep_alive(options),
        client_id: options.client_id.clone(),
        clean_start: session_expiry_interval.is_none(),
        properties: Some(properties),
    }
}

fn granted(packet: Packet, options: &Options, version: Version) -> Result<Granted, Refused> {
    let Packet::ConnAck { session_present, code, properties } = packet else {
        let reason = "answered CONNECT with another packet than CONNACK".to_owned();
        return Err(refused(reason, false, Some(Certainty::Suspected)));
    };
    let properties = match (version, properties) {
        (Version::Four, _) if code != 0 => return Err(refused_by_four(code)),
        (Version::Four, _) => Properties::default(),
        (Version::Five, None) => return Err(refused_by_older(code)),
        (Version::Five, Some(properties)) if code != 0 => return Err(refused_by_five(code, &properties)),
        (Version::Five, Some(properties)) => properties,
    };
    let mut granted = Granted {
        session_present,
        session_expiry: None,
        assigned_client_id: None,
        receive_max: u16::MAX,
        max_packet: MAX_PACKET,
        keep_alive: options.keep_alive,
        max_qos: 2,
        retain_available: true,
        wildcard_subscriptions: true,
        shared_subscriptions: true,
    };
    for property in properties.iter() {
        match property {
            Property::SessionExpiry(seconds) => granted.session_expiry = Some(seconds),
            Property::AssignedClientId(id) => {
                granted.assigned_client_id = Some(String::from_utf8_lossy(id).into_owned());
            }
            Property::ReceiveMaximum(max) => granted.receive_max = max.max(1),
            Property::MaximumPacketSize(max) => granted.max_packet = max,
            Property::ServerKeepAlive(seconds) => granted.keep_alive = Duration::from_secs(seconds.into()),
            Property::MaximumQos(max) => granted.max_qos = max,
            Property::RetainAvailable(available) => granted.retain_available = available,
            Property::WildcardSubscriptions(available) => granted.wildcard_subscriptions = available,
            Property::SharedSubscriptions(available) => granted.shared_subscriptions = available,
            _ => {}
        }
    }
    Ok(granted)
}

/// MQTT 3.1.1, 3.2.2.3.
fn refused_by_four(code: u8) -> Refused {
    let name = match code {
        1 => "RefusedProtocolVersion",
        2 => "BadClientId",
        3 => "ServiceUnavailable",
        4 => "BadUserNamePassword",
        5 => "NotAuthorized",
        _ => "a code that MQTT 3.1.1 does not list",
    };
    let version = (code == 1).then_some(Certainty::Said);
    refused(format!("refused the connection: {name} ({code})"), matches!(code, 2 | 4 | 5), version)
}

/// From a broker that knows nothing newer, to a CONNECT of version 5.
fn refused_by_older(code: u8) -> Refused {
    let version = if code == 1 { Certainty::Said } else { Certainty::Suspected };
    refused(format!("refused the connection in the words of MQTT 3.1.1 (code {code})"), false, Some(version))
}

/// MQTT 5, 3.2.2.2.
fn refused_by_five(code: u8, properties: &Properties) -> Refused {
    let words = properties.reason().map(|words| format!(" ({words})")).unwrap_or_default();
    let name = code_name(code);
    // Client identifier, user and password, authorization, banned, authentication method.
    let needs_human = matches!(code, 0x85..=0x87 | 0x8A | 0x8C);
    let version = (code == 0x84).then_some(Certainty::Said);
    refused(format!("refused the connection: {name} (0x{code:02X}){words}"), needs_human, version)
}
