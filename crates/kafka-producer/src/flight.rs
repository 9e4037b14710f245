//! Records under way to the brokers together, until each has its delivery report. Reports come on the client library's
//! own thread, one for each record, in any order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;

/// See the module.
pub(crate) struct Flight {
    /// Sent or about to be, and not reported yet; and one more until all are sent.
    left: AtomicUsize,
    failed: Mutex<Vec<Failed>>,
    ended: Notify,
    /// Called with the line of each record that failed, before anything else can know of it.
    hears: Box<dyn Fn(usize, RDKafkaErrorCode) + Send + Sync>,
}

/// A record that was not delivered, by its place.
pub(crate) type Failed = (usize, RDKafkaErrorCode);

/// Goes with a record and comes back with its report.
pub(crate) struct Ticket {
    flight: Arc<Flight>,
    line: usize,
    at: usize,
}

impl Flight {
    /// Nothing is under way yet.
    pub(crate) fn new(hears: impl Fn(usize, RDKafkaErrorCode) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(1),
            failed: Mutex::default(),
            ended: Notify::new(),
            hears: Box::new(hears),
        })
    }

    /// For the record at this place, of this line, which is about to be sent.
    pub(crate) fn ticket(self: &Arc<Self>, line: usize, at: usize) -> Box<Ticket> {
        self.left.fetch_add(1, Ordering::Relaxed);
        Box::new(Ticket { flight: self.clone(), line, at })
    }

    /// It was not sent after all.
    pub(crate) fn not_sent(&self) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }

    /// All are sent: returns once each is reported, with those that failed. To be called once.
    pub(crate) async fn end(&self) -> Vec<Failed> {
        self.reported();
        loop {
            let ended = self.ended.notified();
            if self.left.load(Ordering::Acquire) == 0 {
                return std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner));
            }
            ended.await;
        }
    }

    fn reported(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_one();
        }
    }
}

impl Ticket {
    /// The brokers have it, as acks=all defines it.
    pub(crate) fn delivered(self) {
        self.flight.reported();
    }

    /// They do not, or nobody knows.
    pub(crate) fn failed(self, code: RDKafkaErrorCode) {
        (self.flight.hears)(self.line, code);
        self.flight.failed.lock().unwrap_or_else(PoisonError::into_inner).push((self.at, code));
        self.flight.reported();
    }
}
