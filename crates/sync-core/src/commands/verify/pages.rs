//! A stream of Redis, read ahead in bounded pages while earlier ones are compared.

use std::vec::IntoIter;

use bytes::Bytes;
use fred::clients::Client;
use tokio::sync::mpsc;

use crate::rate_limit::RateLimiter;
use crate::record::{Entry, EntryId};
use crate::redis::Fault;
use crate::redis::entries::{self, PageSize};

/// What a page should occupy in memory. Three are there at once: compared, waiting, and being read.
const PAGE_BYTES: usize = 1 << 20;
/// The most entries of a page; more at once are not faster, and a sudden change of size costs less.
pub(super) const LARGEST_PAGE: u64 = 500;

/// The entries of a stream between two IDs, in order. About 3 MB in memory, or three entries where one is larger.
#[derive(Debug)]
pub struct Pages {
    page: IntoIter<Entry>,
    next: mpsc::Receiver<Result<Vec<Entry>, Fault>>,
}

impl Pages {
    /// What stands after `after` up to `until`. The client has the stream's database selected. Each page waits for the
    /// rate limit, where there is one.
    pub fn read(
        client: Client,
        key: Bytes,
        after: EntryId,
        until: EntryId,
        limiter: Option<RateLimiter>,
    ) -> Self {
        let (to, next) = mpsc::channel(1);
        // It ends when nobody takes its pages any more.
        tokio::spawn(async move {
            let (mut after, mut size) = (after, PageSize::new(PAGE_BYTES, LARGEST_PAGE));
            loop {
                if let Some(limiter) = &limiter {
                    limiter.take().await;
                }
                let page = entries::page(&client, &key, after, until, size.count()).await;
                if let Ok(page) = &page {
                    let Some(last) = page.last() else { return };
                    after = last.id;
                    size.learn(page);
                }
                if page.is_err() || after >= until {
                    let _ = to.send(page).await;
                    return;
                }
                if to.send(page).await.is_err() {
                    return;
                }
            }
        });
        Self { page: Vec::new().into_iter(), next }
    }

    /// The next entry, which stays.
    pub async fn peek(&mut self) -> Result<Option<&Entry>, Fault> {
        if self.page.as_slice().is_empty() {
            self.page = self.next_page().await?.unwrap_or_default().into_iter();
        }
        Ok(self.page.as_slice().first())
    }

    /// The entry that was peeked at.
    pub fn take(&mut self) -> Option<Entry> {
        self.page.next()
    }

    /// A page at once; never an empty one.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, Fault> {
        self.next.recv().await.transpose()
    }
}
