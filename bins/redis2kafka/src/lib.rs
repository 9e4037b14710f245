//! Redis streams to Kafka topics: complete, in order per stream, directly or through a durable buffer. The binary
//! `redis2kafka` does that for as long as it runs; a program does it piece by piece with [`Redis2Kafka`].
//!
//! ```no_run
//! use redis2kafka::{Inputs, Redis2Kafka};
//!
//! # async fn example() -> Result<(), redis2kafka::Error> {
//! // From the environment and ./env.conf, as the binary has it.
//! let bridge = Redis2Kafka::start(&Inputs::from_process()).await?;
//! // What stands in streams now; the first pattern that matches says the topic.
//! let topics = [("device:123:stream", "device-data-topic"), ("*-analytics-stream", "analytics-topic")];
//! let processed = bridge.process_source_streams(&topics, "*-stream", 0, 100).await?;
//! // A message of the program's own, stored in the buffer.
//! let key = bridge.send_message("your-target-topic", r#"{"data": "example"}"#, "device123").await?;
//! // What the buffer holds and Kafka does not have.
//! let synced = bridge.sync_unsynced_keys(None).await?;
//! bridge.stop().await;
//! # Ok(())
//! # }
//! ```

mod buffer;
mod cli;
mod client;
mod commands;
mod kafka_settings;
mod message;
mod process;
#[doc(hidden)]
pub mod program;
mod settings;
mod sink;
mod topic;

pub use client::{Error, Redis2Kafka};
pub use sync_core::settings::Inputs;
