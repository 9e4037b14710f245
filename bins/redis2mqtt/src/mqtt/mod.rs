//! MQTT as a publisher needs it, on a connection of the crate `mqtt-client`: [`publisher`] what is sent and what an
//! answer means, [`session`] what is under way in one connection.

pub(crate) mod publisher;
pub(crate) mod session;
pub(crate) mod suspicion;
