//! Writers, and whether all that they wrote is settled in the bridge's group.

pub(crate) use test_kit::writer::{Target, Writer, targets, write};

use super::bridge::GROUP;
use super::redis::Redis;

/// Waits until nothing is pending on any of these.
pub(crate) fn wait_settled(redis: &Redis, targets: &[Target]) {
    test_kit::writer::wait_settled(redis, GROUP, targets);
}
