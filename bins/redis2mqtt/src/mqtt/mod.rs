//! MQTT as a publisher needs it: [`wire`] speaks the two versions, [`session`] keeps what is under way in one
//! connection. rumqttc codes the packets; which publish was confirmed is counted here, because its own
//! event loop replays and drops what it likes when a connection ends.

pub(crate) mod handshake;
pub(crate) mod session;
pub(crate) mod suspicion;
pub(crate) mod transport;
pub(crate) mod wire;
