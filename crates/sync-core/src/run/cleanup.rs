//! The sweeps of STREAM_CLEANUP: now and then each stream of this process is rid of what no consumer group needs any
//! more. What was kept when it was acknowledged goes so, whoever acknowledged it and however long ago: nothing is
//! remembered of entries, so no restart forgets one. Which other group keeps something back is told here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::time::sleep;

use crate::bridge::{Sink, Stream};
use crate::lane::Shared;
use crate::record::{EntryId, StreamName};
use crate::redis::Fault;
use crate::redis::cleanup::Deleted;
use crate::redis::commands::Commands;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Gauge;

/// Streams swept in one pipeline.
const CHUNK: usize = 200;
/// After so many sweeps that found another group waiting for the very same entry, it is taken to be left behind: 5
/// minutes. A bridge that is restarted, or a destination that is away for a moment, is nothing to warn of.
const LEFT_BEHIND: u32 = 10;
/// Names in a line of the log, of groups and of streams of each.
const NAMED: usize = 5;

/// See the module.
pub(super) struct Sweeper<S> {
    shared: Arc<Shared<S>>,
    /// By database.
    commands: HashMap<u16, Commands>,
    kept: HashMap<StreamName, Kept>,
    /// Groups of which it was said that they keep something back.
    said: BTreeSet<Bytes>,
    settled: Gauge,
    held_back: Gauge,
}

/// Something is kept for another group.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    group: Bytes,
    /// What it needs first,
    needs: EntryId,
    /// and so many sweeps before the last one it was the same.
    sweeps: u32,
}

impl<S: Sink> Sweeper<S> {
    /// None where nothing is to be deleted.
    pub(super) fn new(shared: Arc<Shared<S>>) -> Option<Self> {
        let gauge = |name, help| shared.metrics.gauge(name, help);
        shared.cleaning.sweeps().then(|| Self {
            commands: HashMap::new(),
            kept: HashMap::new(),
            said: BTreeSet::new(),
            settled: gauge(
                "kept_entries",
                "Entries that the own group has done with and that still stand: others need them, or the next sweep of \
                 clean-up deletes them",
            ),
            held_back: gauge(
                "cleanup_held_back_streams",
                "Streams of which clean-up keeps entries for another consumer group that has not moved for 5 minutes",
            ),
            shared: shared.clone(),
        })
    }

    /// Until a stop is requested. A script that is under way then takes effect or does not.
    pub(super) async fn run(mut self, stop: Shutdown) {
        let sweeping = async {
            loop {
                sleep(self.shared.settings.cleanup_interval).await;
                self.sweep().await;
            }
        };
        tokio::select! {
            () = sweeping => {}
            () = stop.requested() => {}
        }
    }

    async fn sweep(&mut self) {
        let read = self.shared.statistics.read_now();
        self.kept.retain(|name, _| read.contains_key(name));
        let mut by_db: BTreeMap<u16, Vec<Arc<Stream>>> = BTreeMap::new();
        for (name, (client, stream)) in read {
            self.commands.entry(name.db).or_insert_with(|| Commands::new(&self.shared.connector, client));
            by_db.entry(name.db).or_default().push(stream);
        }
        let settled: u64 = by_db.values().flatten().map(|stream| stream.metrics.settled.load(Relaxed)).sum();
        self.settled.set(i64::try_from(settled).unwrap_or(i64::MAX));
        for (db, streams) in &by_db {
            for chunk in streams.chunks(CHUNK) {
                self.sweep_some(*db, chunk.to_vec()).await;
            }
        }
        let spelled: HashMap<&StreamName, &str> =
            by_db.values().flatten().map(|stream| (&stream.name, stream.spelled.as_str())).collect();
        let left_behind = left_behind(&self.kept, &spelled);
        self.held_back.set(left_behind.values().map(|streams| streams.len() as i64).sum());
        say(&mut self.said, &left_behind);
    }

    /// One call deletes only so much: where there is more, another one follows.
    async fn sweep_some(&mut self, db: u16, mut streams: Vec<Arc<Stream>>) {
        while !streams.is_empty() {
            let Some(commands) = self.commands.get_mut(&db) else { return };
            let keys: Vec<Bytes> = streams.iter().map(|stream| stream.name.key.clone()).collect();
            self.shared.limiter.take().await;
            let answers = commands.sweep(&self.shared.settings.group, &keys).await;
            let mut more = Vec::new();
            for (stream, answer) in streams.into_iter().zip(answers) {
                match answer {
                    Ok(swept) => {
                        self.shared.cleaning.deleted(Deleted { entries: swept.entries, problem: None });
                        if swept.more {
                            more.push(stream);
                        } else {
                            note(&mut self.kept, &stream.name, swept.kept_for);
                        }
                    }
                    Err(fault) if fault.needs_human() => self.shared.cleaning.refused(&fault.to_string()),
                    Err(Fault::Lost(reason) | Fault::Busy(reason)) => {
                        tracing::debug!(stream = stream.spelled, "not swept now: {reason}");
                    }
                    // No stream any more: the lane sees to it.
                    Err(_) => {}
                }
            }
            streams = more;
        }
    }
}

/// What a sweep said of one stream.
fn note(kept: &mut HashMap<StreamName, Kept>, stream: &StreamName, kept_for: Option<(Bytes, EntryId)>) {
    match (kept_for, kept.get_mut(stream)) {
        (None, _) => {
            kept.remove(stream);
        }
        (Some((group, needs)), Some(before)) if before.group == group && before.needs == needs => {
            before.sweeps = before.sweeps.saturating_add(1);
        }
        (Some((group, needs)), _) => {
            kept.insert(stream.clone(), Kept { group, needs, sweeps: 0 });
        }
    }
}

/// Groups that have not moved for long, and the streams of which they keep something back.
fn left_behind<'a>(
    kept: &HashMap<StreamName, Kept>,
    spelled: &HashMap<&StreamName, &'a str>,
) -> BTreeMap<Bytes, BTreeSet<&'a str>> {
    let mut found: BTreeMap<Bytes, BTreeSet<&str>> = BTreeMap::new();
    for (name, kept) in kept.iter().filter(|(_, kept)| kept.sweeps >= LEFT_BEHIND) {
        found.entry(kept.group.clone()).or_default().extend(spelled.get(name).copied());
    }
    found
}

/// One line when groups come to be left behind, and one when they no longer are.
fn say(said: &mut BTreeSet<Bytes>, left_behind: &BTreeMap<Bytes, BTreeSet<&str>>) {
    let new = left_behind.iter().filter(|(group, _)| !said.contains(*group));
    let new = new.map(|(group, streams)| {
        let named = some_of(streams.iter().map(|stream| (*stream).to_owned()));
        format!("{} on {named}", String::from_utf8_lossy(group))
    });
    let new = some_of(new);
    if !new.is_empty() {
        tracing::warn!(
            "clean-up is held back by consumer groups that have not moved for 5 minutes, so that what they have not \
             acknowledged stays: {new}; start what reads there, or destroy a group that nobody needs (XGROUP DESTROY)"
        );
    }
    let gone = said.iter().filter(|group| !left_behind.contains_key(*group));
    let gone = some_of(gone.map(|group| String::from_utf8_lossy(group).into_owned()));
    if !gone.is_empty() {
        tracing::info!("clean-up is no longer held back by the consumer group {gone}");
    }
    *said = left_behind.keys().cloned().collect();
}

/// A few names, and how many more there are.
fn some_of(names: impl Iterator<Item = String>) -> String {
    let mut names = names;
    let first: Vec<String> = names.by_ref().take(NAMED).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::telemetry::log::capture::capture;

    fn name(key: &str) -> StreamName {
        StreamName::new(0, key.to_owned())
    }

    fn needing(group: &'static str, ms: u64) -> Option<(Bytes, EntryId)> {
        Some((group.into(), EntryId { ms, seq: 0 }))
    }

    #[test]
    fn a_group_that_does_not_move_is_told_once_and_once_more_when_it_does() {
        let log = capture(LevelFilter::INFO);
        let names: Vec<StreamName> = (0..7).map(|number| name(&format!("s{number}"))).collect();
        let spelled: HashMap<&StreamName, String> = names.iter().map(|name| (name, name.spell(0))).collect();
        let spelled = spelled.iter().map(|(name, spelled)| (*name, spelled.as_str())).collect();
        let (mut kept, mut said) = (HashMap::new(), BTreeSet::new());
        let mut sweep = |kept_for: Option<(Bytes, EntryId)>| {
            names.iter().for_each(|name| note(&mut kept, name, kept_for.clone()));
            let left_behind = left_behind(&kept, &spelled);
            say(&mut said, &left_behind);
            left_behind.values().map(BTreeSet::len).sum::<usize>()
        };
        // It goes on, if slowly.
        for moved in 1..30 {
            assert_eq!(sweep(needing("slow", moved)), 0);
        }
        // Another one comes to be the last.
        for _ in 0..LEFT_BEHIND {
            assert_eq!(sweep(needing("stuck", 5)), 0);
        }
        assert_eq!(log.take(), [""; 0]);
        for _ in 0..3 {
            assert_eq!(sweep(needing("stuck", 5)), 7);
        }
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("stuck on s0, s1, s2, s3, s4 and 2 more;"), "{lines:?}");
        assert_eq!(sweep(needing("stuck", 6)), 0);
        assert_eq!(sweep(None), 0);
        assert_eq!(log.take(), ["INFO clean-up is no longer held back by the consumer group stuck"]);
    }
}
