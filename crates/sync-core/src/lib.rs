//! What the bridges share.
pub mod record;
pub mod pattern;
pub mod payload;
pub mod settings;
pub mod telemetry;
