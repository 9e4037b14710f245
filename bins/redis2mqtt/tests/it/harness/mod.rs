//! What the tests of every bridge run with (`test_kit`), and a broker, a subscriber and what is said to them.

pub(crate) mod bridge;
pub(crate) mod fake_broker;
pub(crate) mod mosquitto;
pub(crate) mod oracle;
pub(crate) mod packets;
pub(crate) mod subscriber;
pub(crate) mod writer;

pub(crate) use test_kit::{
    LONG, certificate, end, free_port, redis, shared, signal, unique, wait_for, wait_until,
};
