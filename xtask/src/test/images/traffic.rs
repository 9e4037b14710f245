//! What is written: by one thread, to a set of streams in turn, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::process::wait_until;
use crate::redis::{Redis, Reply};

/// Written in one go: one entry to each of so many streams.
const BATCH: usize = 20;
/// One batch reaches all of these.
const FEW: usize = 5;

/// Entries in the order of writing.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<(String, Vec<String>)>);

impl Written {
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|(_, ids)| ids.len()).sum()
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(stream, _)| stream.as_str())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &String)> {
        self.0.iter().flat_map(|(stream, ids)| ids.iter().map(move |id| (stream.as_str(), id)))
    }

    /// The newest entry of a stream.
    pub(super) fn last(&self, stream: &str) -> Option<&String> {
        self.0.iter().find(|(name, _)| name == stream)?.1.last()
    }

    fn streams_of(name: &str, streams: usize) -> Self {
        Self((0..streams).map(|number| (format!("device:{name}-{number}:stream"), Vec::new())).collect())
    }

    /// One entry more to each of some streams.
    fn add(&mut self, redis: &mut Redis, round: usize) -> Result<()> {
        let from = round * BATCH % self.0.len();
        let to = (from + BATCH).min(self.0.len());
        let number = round.to_string();
        let commands: Vec<_> = self.0[from..to]
            .iter()
            .map(|(stream, _)| ["XADD", stream, "*", "round", &number, "state", "running"].map(str::to_owned))
            .collect();
        for ((stream, ids), reply) in self.0[from..to].iter_mut().zip(redis.pipeline(&commands)?) {
            match reply {
                Reply::Text(id) => ids.push(id),
                other => bail!("XADD {stream}: {other:?}"),
            }
        }
        Ok(())
    }
}

/// So many entries to each of a few streams.
pub(super) fn write(redis: &mut Redis, name: &str, each: usize) -> Result<Written> {
    let mut written = Written::streams_of(name, FEW);
    (0..each).try_for_each(|round| written.add(redis, round))?;
    Ok(written)
}

/// Devices that go on writing while something happens to the bridges.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    writer: JoinHandle<Result<Written>>,
}

impl Load {
    /// One batch, then a pause, again and again.
    pub(super) fn start(mut redis: Redis, name: &str, streams: usize, pause: Duration) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut written = Written::streams_of(name, streams);
        let (over, so_far) = (Arc::clone(&stop), Arc::clone(&count));
        let writer = std::thread::spawn(move || {
            for round in 0.. {
                if over.load(Relaxed) {
                    break;
                }
                written.add(&mut redis, round)?;
                so_far.fetch_add(BATCH, Relaxed);
                sleep(pause);
            }
            Ok(written)
        });
        Self { stop, count, writer }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Returns when so many more have been written: so that something happens before the next step.
    pub(super) fn await_more(&self, entries: usize) -> Result<()> {
        let goal = self.count() + entries;
        let went_on =
            wait_until(Duration::from_secs(60), || self.count() >= goal || self.writer.is_finished());
        ensure!(went_on && !self.writer.is_finished(), "the devices stopped writing");
        Ok(())
    }

    pub(super) fn stop(self) -> Result<Written> {
        self.stop.store(true, Relaxed);
        self.writer.join().expect("the writer does not panic")
    }
}
