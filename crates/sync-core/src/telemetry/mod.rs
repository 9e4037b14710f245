//! What a person sees of a running bridge: log lines, health, metrics and the pages that serve them.
//!
//! Nothing here decides anything about records, and nothing here names a destination.

pub mod admin;
pub mod health;
pub mod log;
pub mod metrics;
pub mod status;
