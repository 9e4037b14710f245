//! What the bridges share.
pub mod bridge;
mod budget;
mod cleaning;
pub mod commands;
mod lane;
mod lease;
pub mod pattern;
pub mod payload;
pub mod program;
pub mod rate_limit;
pub mod record;
pub mod redis;
pub mod retry;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
