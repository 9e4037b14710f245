//! A connection that the broker has accepted: packets are put into a buffer and sent together, and read one by one.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::{self as mqttbytes_five, v5 as five};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::packet::{self, AckKind, Packet};
use crate::transport::Socket;

/// Received at once, in bytes; and how little room may be left for that.
const PIECE: usize = 64 << 10;
const ROOM: usize = 8 << 10;
/// How long connecting may take, and each write to a socket.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest packet that MQTT can express (MQTT 5, 2.1.4).
pub const MAX_PACKET: u32 = 268_435_460;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    Four,
    /// 5.
    Five,
}

/// A connection that the broker has accepted.
pub struct Wire {
    socket: Box<dyn Socket>,
    version: Version,
    max_incoming: u32,
    /// Received, not yet taken apart.
    incoming: BytesMut,
    /// To be sent with the next flush.
    outgoing: BytesMut,
}

/// The connection broke.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Broken {
    /// In words.
    pub reason: String,
    /// The broker closed it in an orderly way, and without a word.
    pub hung_up: bool,
}

impl Broken {
    /// It broke for this reason, or is to be given up for it.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hung_up: false }
    }
}

impl Wire {
    pub(crate) fn on(socket: Box<dyn Socket>, version: Version, max_incoming: u32) -> Self {
        Self { socket, version, max_incoming, incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// Of this connection.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Puts an acknowledgement of success into the buffer. Versions do not differ in these.
    pub fn acknowledge(&mut self, kind: AckKind, pkid: u16) {
        let [high, low] = pkid.to_be_bytes();
        self.outgoing.extend_from_slice(&[kind.first_byte(), 2, high, low]);
    }

    /// Asks whether the server is there.
    pub fn ping(&mut self) {
        match self.version {
            Version::Four => self.put_four(&four::Packet::PingReq),
            Version::Five => self.put_five(&five::Packet::PingReq(five::PingReq)),
        }
    }

    /// Says goodbye: the broker then logs no error.
    pub fn disconnect(&mut self) {
        match self.version {
            Version::Four => self.put_four(&four::Packet::Disconnect),
            Version::Five => {
                let reason_code = five::DisconnectReasonCode::NormalDisconnection;
                self.put_five(&five::Packet::Disconnect(five::Disconnect { reason_code, properties: None }));
            }
        }
    }

    /// Puts any packet of MQTT 3.1.1 into the buffer.
    ///
    /// # Panics
    ///
    /// If it is larger than [`MAX_PACKET`], or has no packet identifier where it needs one. Nothing else is looked at.
    pub fn put_four(&mut self, packet: &four::Packet) {
        packet.write(&mut self.outgoing, usize::MAX).expect("the packet is well formed");
    }

    /// Puts any packet of MQTT 5 into the buffer.
    ///
    /// # Panics
    ///
    /// As [`Self::put_four`].
    pub fn put_five(&mut self, packet: &five::Packet) {
        packet.write(&mut self.outgoing, None).expect("the packet is well formed");
    }

    /// How much waits for a flush, in bytes.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what was put into the buffer.
    pub async fn flush(&mut self) -> Result<(), Broken> {
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

    /// The next packet from the broker. May be dropped before it resolves: nothing read is lost.
    pub async fn read(&mut self) -> Result<Packet, Broken> {
        loop {
            if let Some(packet) = self.next_received()? {
                return Ok(packet);
            }
            self.receive().await?;
        }
    }

    /// A packet that was received already.
    pub fn next_received(&mut self) -> Result<Option<Packet>, Broken> {
        packet::take(&mut self.incoming, self.version, self.max_incoming)
    }

    /// Closes the connection so that the server reads all that was sent: whoever closes with something unread resets the
    /// connection, and with it goes what the other side has not read. What still comes is dropped.
    pub async fn close(mut self, patience: Duration) {
        let close = async {
            if self.flush().await.is_err() || self.socket.shutdown().await.is_err() {
                return;
            }
            loop {
                self.incoming.clear();
                if self.receive().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(patience, close).await;
    }

    async fn receive(&mut self) -> Result<(), Broken> {
        // Whoever keeps a packet keeps the piece of memory that it was received into: a piece is filled before the
        // next one is begun, or many small packets would occupy one each.
        if self.incoming.capacity() - self.incoming.len() < ROOM {
            self.incoming.reserve(PIECE);
        }
        match self.socket.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Broken { reason: "the broker closed the connection".into(), hung_up: true }),
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::because(format!("connection lost: {error}"))),
        }
    }
}

/// rumqttc has two of these.
#[must_use]
pub fn five_qos(qos: QoS) -> mqttbytes_five::QoS {
    match qos {
        QoS::AtMostOnce => mqttbytes_five::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqttbytes_five::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqttbytes_five::QoS::ExactlyOnce,
    }
}
