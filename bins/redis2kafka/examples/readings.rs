//! A program that stores readings of its own in the buffer, and moves what devices wrote to streams:
//!
//! ```sh
//! SOURCE_REDIS_HOST=localhost TARGET_REDIS_HOST=redis-cache KAFKA_BOOTSTRAP_SERVERS=localhost:9092 \
//!     cargo run --package redis2kafka --example readings
//! ```

use redis2kafka::{Inputs, Redis2Kafka};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = Redis2Kafka::start(&Inputs::from_process()).await?;
    let topics = [("device:*:stream", "device-data-topic"), ("*-stream", "default-stream-topic")];
    let processed = bridge.process_source_streams(&topics, "*stream", 0, 100).await?;
    println!("{processed} entries of streams are on their way");
    let key = bridge.send_message("device-data-topic", r#"{"temperature": 21.5}"#, "device-123").await?;
    println!("stored as {key}");
    let synced = bridge.sync_unsynced_keys(None).await?;
    println!("{synced} messages were sent to Kafka");
    bridge.stop().await;
    Ok(())
}
