//! One MQTT connection, version 3.1.1 or 5, packet by packet, over TCP, TLS or websockets. It knows nothing of records,
//! nor of who publishes or subscribes: what waits for which acknowledgement is its users' business, and so is what
//! becomes of it when the connection ends. That is why no client with an event loop of its own is used: what such a one
//! replays and drops when a connection ends cannot be seen.
//!
//! [`connect`] makes the one attempt that [`Options`] describe, and gives a [`Wire`] with what the server [`Granted`].
//! Packets to the server are rumqttc's, which writes them. [`Packet`]s from it are taken apart here (`packet.rs`):
//! rumqttc's reader copies topics, refuses codes that the standard lists, and takes some malformed packets for
//! incomplete ones and drops them without a word.

mod codes;
mod handshake;
mod packet;
mod properties;
mod transport;
mod wire;

pub use codes::code_name;
pub use handshake::{Certainty, Granted, Options, Refused, SessionWish, connect};
pub use packet::{AckKind, Packet, Publish};
pub use properties::{Properties, Property};
pub use transport::{Address, Names};
pub use wire::{Broken, MAX_PACKET, Version, Wire, five_qos};

#[cfg(test)]
mod tests;
