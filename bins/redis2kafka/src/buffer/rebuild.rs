//! After a start: messages that are in the buffer, are not synced and stand in no queue (somebody removed the queue, or
//! part of the data is older than the rest) are found by a scan, and put back into their queues. All lost ones of a queue
//! come back at once, so that none is sent before those that stand before it.

use std::time::Duration;

use fred::types::Value;
use sync_core::redis::Fault;
use tokio::time::sleep;

use super::books::Books;
use super::keys::MessageKey;

/// Between two pages, so that the scan takes a small part of the server's time.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns how many messages were lost and are not any more.
pub(super) async fn rebuild(books: &Books) -> Result<usize, Fault> {
    let mut scanned = 0;
    for matching in ["message:*", "direct:*"] {
        let mut cursor = Some(Value::from("0"));
        while let Some(from) = cursor {
            let (next, keys) = books.scan(from, matching).await?;
            let messages = keys.iter().filter_map(|text| {
                let key = MessageKey::parse(text)?;
                Some([text.as_str().into(), key.queue.as_str().into(), key.member().into()])
            });
            let arguments: Vec<Value> = messages.flatten().collect();
            scanned += arguments.len() / 3;
            if !arguments.is_empty() {
                books.seek(arguments).await?;
            }
            cursor = next;
            sleep(PAUSE).await;
        }
    }
    let restored = books.restore().await?;
    tracing::debug!(scanned, restored, "looked through the buffer");
    Ok(restored)
}
