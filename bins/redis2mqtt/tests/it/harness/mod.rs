//! What the tests of every bridge run with (`test_kit`), and a broker, a subscriber and what is said to them.

pub(crate) mod bridge;
pub(crate) mod fake_broker;
pub(crate) mod oracle;
pub(crate) mod packets;
pub(crate) mod subscriber;
pub(crate) mod writer;

pub(crate) use test_kit::{
    LONG, certificate, free_port, mosquitto, redis, shared, unique, wait_for, wait_until,
};
