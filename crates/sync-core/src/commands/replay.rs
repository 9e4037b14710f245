//! `dead-letters replay`: letters go straight to the sink, never back into their stream, where other groups would
//! see them. A letter is removed once the sink has confirmed it: if we die in between it is delivered again.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::check::GOODBYE;
use super::dead_letters::{Letters, key_of, own, remove};
use super::source::Source;
use super::{CommandError, Consent, Ended, counted};
use crate::bridge::{Fate, Group, Lost, Record, Sink, Stream};
use crate::record::{EntryId, StreamName};
use crate::redis::dead_letters::Found;
use crate::redis::entries;
use crate::telemetry::log::escape;

/// A group's bounds.
const GROUP_LETTERS: usize = 500;
const GROUP_BYTES: usize = 4 << 20;
/// Refused letters that are named, in each stream.
const NAMED: usize = 10;

/// One letter to deliver: little enough to know all of them before the first goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Planned {
    /// The entry's ID comes first: it is the order in which letters go, whatever order they were written in.
    entry: EntryId,
    letter: EntryId,
    size: usize,
}

/// What became of a stream's letters.
#[derive(Default)]
struct Tally {
    delivered: usize,
    refused: usize,
    /// Why the stream was left.
    stopped: Option<String>,
    /// The sink's connection is gone.
    disconnected: bool,
}

pub(super) async fn replay<S: Sink>(
    source: &mut Source,
    streams: BTreeSet<StreamName>,
    ids: &[EntryId],
    sink: &S,
    consent: Consent,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let mut plan = Vec::new();
    for stream in streams {
        let letters = plan_stream(source, &stream, ids).await?;
        if !letters.is_empty() {
            plan.push((stream, letters));
        }
    }
    let total: usize = plan.iter().map(|(_, letters)| letters.len()).sum();
    if total == 0 {
        writeln!(out, "nothing to deliver")?;
        return Ok(Ended::Well);
    }
    let destination = sink.destination();
    let (letters, places) = (counted(total, "letter"), counted(plan.len(), "stream"));
    if !consent.to(&format!("Deliver {letters} of {places} to the {destination}?"))? {
        writeln!(out, "nothing was delivered")?;
        return Ok(Ended::Badly);
    }
    let mut lost = sink
        .connect()
        .await
        .map_err(|reason| CommandError::Sink { destination: destination.clone(), reason })?;
    let (mut delivered, mut disconnected) = (0, false);
    let mut result = Ok(());
    for (stream, letters) in plan {
        match deliver_stream(source, &stream, &letters, sink, &mut lost, out).await {
            Ok(tally) => {
                delivered += tally.delivered;
                let spelled = source.spell(&stream);
                write_tally(&spelled, letters.len(), &tally, out)?;
                disconnected = tally.disconnected;
                if disconnected {
                    break;
                }
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    sink.disconnect().await;
    if !disconnected {
        let _ = timeout(GOODBYE, lost).await;
    }
    result?;
    let stayed = total - delivered;
    writeln!(out, "{} delivered and removed, {stayed} stayed", counted(delivered, "letter"))?;
    Ok(if stayed == 0 { Ended::Well } else { Ended::Badly })
}

/// The letters of the own group that are there now, in the order of their entries. What is written meanwhile is for
/// the next time.
async fn plan_stream(
    source: &mut Source,
    stream: &StreamName,
    ids: &[EntryId],
) -> Result<Vec<Planned>, CommandError> {
    let mut planned = Vec::new();
    let mut letters = Letters::of(stream);
    while let Some(page) = letters.next_page(source).await? {
        for letter in page {
            let size = letter.size();
            let found = own(source, letter).filter(|it| ids.is_empty() || ids.contains(&it.entry.id));
            planned.extend(found.map(|it| Planned { entry: it.entry.id, letter: it.letter, size }));
        }
    }
    planned.sort_unstable();
    Ok(planned)
}

/// One group at a time, so that nothing overtakes what comes back.
async fn deliver_stream<S: Sink>(
    source: &mut Source,
    stream: &StreamName,
    planned: &[Planned],
    sink: &S,
    lost: &mut BoxFuture<'static, Lost>,
    out: &mut impl Write,
) -> Result<Tally, CommandError> {
    let spelled = source.spell(stream);
    let spelled_there = format!("{}{spelled}", source.settings.source_name.as_deref().unwrap_or_default());
    let at_sink = Arc::new(Stream {
        name: stream.clone(),
        spelled: spelled_there,
        metrics: Arc::default(),
        progress: Default::default(),
    });
    let mut tally = Tally::default();
    let mut rest = planned;
    while !rest.is_empty() && tally.stopped.is_none() {
        let (now, later) = rest.split_at(group_length(rest));
        rest = later;
        let (group, letters) = fetch(source, stream, &at_sink, now).await?;
        if group.is_empty() {
            continue;
        }
        let fates = sink.deliver(group.clone()).await;
        let mut confirmed = Vec::with_capacity(letters.len());
        for ((record, letters), fate) in group.iter().zip(&letters).zip(fates) {
            let id = record.entry.id;
            match fate {
                Fate::Delivered => confirmed.extend_from_slice(letters),
                Fate::Unfit(reason) | Fate::Refused(reason) => {
                    tally.refused += letters.len();
                    if tally.refused <= NAMED {
                        writeln!(out, "{}: entry {id} refused again: {}", escape(&spelled), escape(&reason))?;
                    }
                }
                Fate::Held(reason) | Fate::Busy(reason) | Fate::Shut(reason) => {
                    tally.stopped.get_or_insert_with(|| format!("entry {id} not taken: {reason}"));
                }
                Fate::Unknown => {
                    tally.stopped.get_or_insert_with(|| format!("entry {id} not confirmed"));
                }
            }
        }
        if !confirmed.is_empty() {
            remove(source, stream, &confirmed).await?;
            tally.delivered += confirmed.len();
        }
        if let Some(stopped) = &mut tally.stopped
            && let Some(lost) = lost.now_or_never()
        {
            *stopped = format!("{stopped}: connection lost: {}", lost.reason);
            tally.disconnected = true;
        }
    }
    Ok(tally)
}

/// How many of these make a group.
fn group_length(planned: &[Planned]) -> usize {
    let mut bytes = 0;
    let fits = |letter: &&Planned| {
        let first = bytes == 0;
        bytes += letter.size;
        first || bytes <= GROUP_BYTES
    };
    planned.iter().take(GROUP_LETTERS).take_while(fits).count()
}

/// The letters as records, and which letters each record stands for: a letter that was written twice is delivered
/// once.
async fn fetch(
    source: &mut Source,
    stream: &StreamName,
    at_sink: &Arc<Stream>,
    planned: &[Planned],
) -> Result<(Group, Vec<Vec<EntryId>>), CommandError> {
    let key = key_of(source, stream);
    let ids: Vec<EntryId> = planned.iter().map(|planned| planned.letter).collect();
    source.limiter.take().await;
    let fetch = async |client| entries::among(&client, &key, &ids).await;
    let found = source.in_database(stream.db, fetch).await.map_err(|fault| CommandError::Redis {
        doing: format!("reading the dead letters of {}", source.spell(stream)),
        fault,
    })?;
    let mut found: HashMap<EntryId, Found> = found
        .into_iter()
        .filter_map(|letter| own(source, letter))
        .map(|found| (found.letter, found))
        .collect();
    let mut records: Vec<Record> = Vec::with_capacity(planned.len());
    let mut letters: Vec<Vec<EntryId>> = Vec::with_capacity(planned.len());
    for found in planned.iter().filter_map(|planned| found.remove(&planned.letter)) {
        match (records.last(), letters.last_mut()) {
            (Some(last), Some(letters)) if last.entry == found.entry => letters.push(found.letter),
            _ => {
                records.push(Record { stream: at_sink.clone(), entry: found.entry, slot: 0 });
                letters.push(vec![found.letter]);
            }
        }
    }
    Ok((Arc::new(records), letters))
}

fn write_tally(
    spelled: &str,
    planned: usize,
    tally: &Tally,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let Tally { delivered, refused, stopped, .. } = tally;
    let spelled = escape(spelled);
    if *refused > NAMED {
        writeln!(out, "{spelled}: … and {} more refused again", refused - NAMED)?;
    }
    if let Some(reason) = stopped {
        let rest = planned - delivered - refused;
        writeln!(out, "{spelled}: stopped, {} not delivered: {}", counted(rest, "letter"), escape(reason))?;
    }
    writeln!(out, "{spelled}: {delivered} of {} delivered and removed", counted(planned, "letter"))?;
    Ok(())
}
