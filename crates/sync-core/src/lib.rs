//! What the bridges share.
pub mod record;
pub mod pattern;
pub mod rate_limit;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
