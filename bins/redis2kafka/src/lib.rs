//! Redis streams to Kafka topics: complete, in order per stream.

mod buffer;
mod cli;
mod commands;
mod kafka;
mod message;
mod process;
#[doc(hidden)]
pub mod program;
mod settings;
mod sink;
mod topic;
