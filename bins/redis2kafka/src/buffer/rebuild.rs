//! After a start, and when the books do not agree with each other: messages that are in the buffer, are not synced and stand
//! in no queue (somebody removed the queue, or part of the data is older than the rest) are found by a scan, and put back into
//! their queues. Nothing of a queue is sent past what was found of it, before that is back in its place (`heads.lua`).

use std::future::pending;
use std::time::Duration;

use fred::types::Value;
use sync_core::redis::Fault;
use sync_core::retry::Backoff;
use sync_core::settings::RetrySettings;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::books::Books;
use super::keys::MessageKey;

/// Between two pages, so that the scan takes a small part of the server's time.
const PAUSE: Duration = Duration::from_millis(5);

/// Where it stands. It is done by the process that has shard 0, once it has it, and again when it is asked for.
#[derive(Default)]
pub(super) enum Rebuilding {
    #[default]
    NotYet,
    UnderWay(JoinHandle<usize>),
    Done,
}

impl Rebuilding {
    /// Whether it was not done yet.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::NotYet)
    }

    /// Unless it is under way.
    pub(super) fn begin(&mut self, books: &Books, retry: RetrySettings) {
        if !matches!(self, Self::UnderWay(_)) {
            let books = books.clone();
            *self = Self::UnderWay(tokio::spawn(async move { until_done(&books, retry).await }));
        }
    }

    /// Another process does it. What this one has put aside stays aside for it.
    pub(super) fn is_anothers(&mut self) {
        if let Self::UnderWay(task) = std::mem::take(self) {
            task.abort();
        }
    }

    /// How many messages were put back. May be dropped at any time.
    pub(super) async fn ended(&mut self) -> usize {
        let Self::UnderWay(task) = self else { return pending().await };
        let ended = task.await;
        *self = Self::Done;
        ended.unwrap_or_else(|error| {
            tracing::error!("looking through the buffer for messages in no queue has failed: {error}");
            0
        })
    }
}

/// Again and again, until it was done once; that it cannot be done is told once.
async fn until_done(books: &Books, retry: RetrySettings) -> usize {
    let mut backoff = Backoff::new(retry);
    let mut told = false;
    loop {
        match rebuild(books).await {
            Ok(restored) => return restored,
            Err(fault) if told => {
                tracing::debug!("cannot look through the buffer for messages in no queue: {fault}")
            }
            Err(fault) => {
                told = true;
                tracing::error!(
                    "cannot look through the buffer for messages in no queue, so it is tried again and again: {fault}"
                );
            }
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Returns how many messages were lost and are not any more.
async fn rebuild(books: &Books) -> Result<usize, Fault> {
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
