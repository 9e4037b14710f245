//! `dead-letters`: see, deliver again and remove what was refused. A dead-letter stream belongs to all bridges that
//! read its stream; letters of other consumer groups are counted and left alone.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::source::Source;
use super::table::Table;
use super::{CommandError, Consent, Ended, counted, replay, show};
use crate::bridge::Sink;
use crate::pattern::Pattern;
use crate::record::{Entry, EntryId, StreamName};
use crate::redis::dead_letters::{self, Found};
use crate::redis::discovery;
use crate::redis::entries::{self, PageSize};
use crate::settings::{RedisSettings, StreamSettings};

/// What a page of letters should occupy in memory.
const PAGE_BYTES: usize = 4 << 20;
/// The most letters of a page.
const LARGEST_PAGE: u64 = 1000;
/// Different reasons that are told apart in one stream.
const REASONS: usize = 1000;
/// Letters removed at once.
const REMOVED_AT_ONCE: usize = 1000;

/// What to do with dead letters. Only those of this bridge's consumer group are shown, delivered or removed.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadLettersCommand {
    /// One line for each stream: how many letters, since when, and most often why.
    List {
        /// Only this stream, as key or dbN:key; may be repeated.
        #[arg(long = "stream", value_name = "STREAM")]
        streams: Vec<String>,
        /// One JSON object for each stream.
        #[arg(long)]
        json: bool,
    },
    /// The letters of a stream with all they hold, oldest first.
    Show {
        /// The stream, as key or dbN:key.
        stream: String,
        /// Only the entry with this ID; may be repeated.
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<EntryId>,
        /// At most so many letters.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// One JSON object for each letter.
        #[arg(long)]
        json: bool,
    },
    /// Deliver letters to the destination, in order, and remove what it has confirmed. The source stream is not touched.
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Replay {
        /// Letters of this stream, as key or dbN:key; may be repeated.
        #[arg(long = "stream", value_name = "STREAM", group = "which")]
        streams: Vec<String>,
        /// Only the entry with this ID; may be repeated.
        #[arg(long = "id", value_name = "ID", group = "which")]
        ids: Vec<EntryId>,
        /// All letters of all streams.
        #[arg(long, group = "which", conflicts_with_all = ["streams", "ids"])]
        all: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Remove letters without delivering them.
    Purge {
        /// Only letters of this stream, as key or dbN:key; may be repeated.
        #[arg(long = "stream", value_name = "STREAM")]
        streams: Vec<String>,
        /// Only letters written longer ago than this: 90s, 15m, 12h, 30d.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: Option<Duration>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Carries the command out. `sink` is used by replay alone.
pub async fn run<S: Sink>(
    command: DeadLettersCommand,
    redis: RedisSettings,
    streams: StreamSettings,
    sink: &S,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let consent = match &command {
        DeadLettersCommand::Replay { yes, .. } | DeadLettersCommand::Purge { yes, .. } => {
            Consent::of_terminal(*yes)
        }
        DeadLettersCommand::List { .. } | DeadLettersCommand::Show { .. } => Consent::Given,
    };
    consent.is_possible()?;
    let mut source = Source::connect(redis, streams).await?;
    match command {
        DeadLettersCommand::List { streams, json } => {
            let streams = with_letters(&mut source, &streams).await?;
            list(&mut source, streams, json, out).await
        }
        DeadLettersCommand::Show { stream, ids, limit, json } => {
            let stream = named(&source, &stream)?;
            show::show(&mut source, &stream, &ids, limit, json, out).await
        }
        DeadLettersCommand::Replay { streams, ids, .. } => {
            let streams = with_letters(&mut source, &streams).await?;
            replay::replay(&mut source, streams, &ids, sink, consent, out).await
        }
        DeadLettersCommand::Purge { streams, older_than, .. } => {
            let streams = with_letters(&mut source, &streams).await?;
            purge(&mut source, streams, older_than, consent, out).await
        }
    }
}

/// The streams meant: those named, or all that have dead letters and match the settings.
async fn with_letters(source: &mut Source, names: &[String]) -> Result<BTreeSet<StreamName>, CommandError> {
    if !names.is_empty() {
        return names.iter().map(|name| named(source, name)).collect();
    }
    let (settings, limiter) = (source.settings.clone(), source.limiter.clone());
    let suffix = settings.dead_letter_suffix.as_str();
    let glob = Pattern::new(&format!("*{suffix}")).server_glob();
    let failed = |fault| CommandError::Redis { doing: "looking for dead letters".into(), fault };
    let mut found = BTreeSet::new();
    for db in source.databases().await.map_err(failed)?.0 {
        let named = source.named_in(db);
        let discovery = settings.discovery.as_ref().filter(|discovery| discovery.dbs.contains(&db));
        let wanted = |dead_letters: &[u8]| match dead_letters.strip_suffix(suffix.as_bytes()) {
            Some(stream) => {
                named.iter().any(|named| named == stream)
                    || (discovery::readable(stream, suffix) && discovery.is_some_and(|it| it.takes(stream)))
            }
            None => false,
        };
        let scan = async |client| discovery::scan_streams(&client, &glob, &limiter, wanted).await;
        let keys = source.in_database(db, scan).await.map_err(failed)?;
        found.extend(keys.into_iter().map(|key| StreamName::new(db, key.slice(..key.len() - suffix.len()))));
    }
    Ok(found)
}

/// A stream as a person spells it; the name of its dead-letter stream means the same.
fn named(source: &Source, spelled: &str) -> Result<StreamName, CommandError> {
    let mut stream = StreamName::parse(spelled, source.default_db)
        .map_err(|error| CommandError::Usage(format!("{spelled}: {error}")))?;
    let suffix = source.settings.dead_letter_suffix.as_bytes();
    if stream.key.len() > suffix.len() && stream.key.ends_with(suffix) {
        stream.key.truncate(stream.key.len() - suffix.len());
    }
    Ok(stream)
}

/// The key of the dead-letter stream.
pub(super) fn key_of(source: &Source, stream: &StreamName) -> Bytes {
    [&stream.key, source.settings.dead_letter_suffix.as_bytes()].concat().into()
}

/// A letter of the own group.
pub(super) fn own(source: &Source, letter: Entry) -> Option<Found> {
    Found::parse(letter).filter(|found| found.group() == source.settings.group)
}

/// What stands in a dead-letter stream, page by page and oldest first; the memory it takes is bounded.
pub(super) struct Letters {
    stream: StreamName,
    after: EntryId,
    size: PageSize,
    at_end: bool,
}

impl Letters {
    pub(super) fn of(stream: &StreamName) -> Self {
        let size = PageSize::new(PAGE_BYTES, LARGEST_PAGE);
        Self { stream: stream.clone(), after: EntryId::default(), size, at_end: false }
    }

    /// `None` at the end.
    pub(super) async fn next_page(
        &mut self,
        source: &mut Source,
    ) -> Result<Option<Vec<Entry>>, CommandError> {
        if self.at_end {
            return Ok(None);
        }
        let key = key_of(source, &self.stream);
        source.limiter.take().await;
        let (after, count) = (self.after, self.size.count());
        let read = async |client| entries::page(&client, &key, after, EntryId::MAX, count).await;
        let page = source.in_database(self.stream.db, read).await.map_err(|fault| CommandError::Redis {
            doing: format!("reading the dead letters of {}", source.spell(&self.stream)),
            fault,
        })?;
        self.at_end = (page.len() as u64) < count;
        if let Some(last) = page.last() {
            self.after = last.id;
        }
        self.size.learn(&page);
        Ok(Some(page))
    }
}

/// What `list` says of one stream.
#[derive(Default)]
struct Summary {
    own: u64,
    others: u64,
    oldest: Option<EntryId>,
    newest: Option<EntryId>,
    reasons: HashMap<String, u64>,
}

impl Summary {
    fn count(&mut self, letter: EntryId, own: Option<Found>) {
        let Some(found) = own else {
            self.others += 1;
            return;
        };
        self.own += 1;
        self.oldest = self.oldest.or(Some(letter));
        self.newest = Some(letter);
        if let Some(count) = self.reasons.get_mut(found.reason()) {
            *count += 1;
        } else if self.reasons.len() < REASONS {
            self.reasons.insert(found.reason().to_owned(), 1);
        }
    }

    fn most_frequent_reason(&self) -> Option<&str> {
        let most = self.reasons.iter().max_by_key(|(reason, count)| (**count, std::cmp::Reverse(*reason)));
        most.map(|(reason, _)| reason.as_str())
    }
}

/// The same as JSON.
#[derive(Serialize)]
struct Line<'a> {
    stream: &'a str,
    letters: u64,
    others: u64,
    oldest: Option<String>,
    newest: Option<String>,
    reason: Option<&'a str>,
}

async fn list(
    source: &mut Source,
    streams: BTreeSet<StreamName>,
    json: bool,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let mut table =
        Table::new("", ["STREAM", "LETTERS", "OTHERS", "OLDEST", "NEWEST", "MOST FREQUENT REASON"]);
    let mut listed = 0;
    for stream in streams {
        let mut summary = Summary::default();
        let mut letters = Letters::of(&stream);
        while let Some(page) = letters.next_page(source).await? {
            for letter in page {
                summary.count(letter.id, own(source, letter));
            }
        }
        if summary.own + summary.others == 0 {
            continue;
        }
        listed += 1;
        let (spelled, reason) = (source.spell(&stream), summary.most_frequent_reason());
        let (oldest, newest) = (summary.oldest.map(time_of), summary.newest.map(time_of));
        if json {
            let (letters, others) = (summary.own, summary.others);
            let line = Line { stream: &spelled, letters, others, oldest, newest, reason };
            show::write_line(&line, out)?;
        } else {
            let (own, others) = (summary.own.to_string(), summary.others.to_string());
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let reason = reason.map(str::to_owned);
            table.row([spelled, own, others, or_dash(oldest), or_dash(newest), or_dash(reason)]);
        }
    }
    match listed {
        _ if json => {}
        0 => writeln!(out, "no dead letters")?,
        _ => {
            table.write(out)?;
            writeln!(out, "\nLETTERS are of the consumer group {}, OTHERS are not.", source.settings.group)?;
        }
    }
    Ok(Ended::Well)
}

async fn purge(
    source: &mut Source,
    streams: BTreeSet<StreamName>,
    older_than: Option<Duration>,
    consent: Consent,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    // A letter's ID is the server's time of writing.
    let before = older_than.map(|age| {
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    });
    let mut doomed: Vec<(StreamName, Vec<EntryId>)> = Vec::new();
    for stream in streams {
        let mut ids = Vec::new();
        let mut letters = Letters::of(&stream);
        while let Some(page) = letters.next_page(source).await? {
            let old = page.into_iter().filter(|letter| before.is_none_or(|before| letter.id.ms < before));
            ids.extend(old.filter_map(|letter| own(source, letter)).map(|found| found.letter));
        }
        if !ids.is_empty() {
            doomed.push((stream, ids));
        }
    }
    let (letters, places) = (doomed.iter().map(|(_, ids)| ids.len()).sum(), doomed.len());
    if letters == 0 {
        writeln!(out, "nothing to remove")?;
        return Ok(Ended::Well);
    }
    let (letters, places) = (counted(letters, "letter"), counted(places, "stream"));
    if !consent.to(&format!("Remove {letters} of {places} for good?"))? {
        writeln!(out, "nothing was removed")?;
        return Ok(Ended::Badly);
    }
    for (stream, ids) in doomed {
        let mut removed = 0;
        for ids in ids.chunks(REMOVED_AT_ONCE) {
            removed += remove(source, &stream, ids).await?;
        }
        writeln!(out, "{}: {removed} removed", crate::telemetry::log::escape(&source.spell(&stream)))?;
    }
    Ok(Ended::Well)
}

/// Takes letters away; how many were still there.
pub(super) async fn remove(
    source: &mut Source,
    stream: &StreamName,
    ids: &[EntryId],
) -> Result<u64, CommandError> {
    let key = key_of(source, stream);
    source.limiter.take().await;
    let remove = async |client| dead_letters::remove(&client, &key, ids).await;
    source.in_database(stream.db, remove).await.map_err(|fault| CommandError::Redis {
        doing: format!("removing dead letters of {}", source.spell(stream)),
        fault,
    })
}

/// When a letter was written, by its ID.
fn time_of(letter: EntryId) -> String {
    let time = i64::try_from(letter.ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| letter.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// `90s`, `15m`, `12h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let rule = || "a whole number and a unit, s, m, h or d, as in 30d".to_owned();
    let unit = text.chars().next_back().ok_or_else(rule)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(rule()),
    };
    let digits = &text[..text.len() - 1];
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u64> = number.and_then(|digits| digits.parse().ok());
    number.and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "10", "+1s", "1.5h", "-1d", "1w", "1 d", "99999999999999999999d", "1ä"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_time_in_a_letters_id() {
        assert_eq!(time_of(EntryId { ms: 1_700_000_000_000, seq: 3 }), "2023-11-14T22:13:20Z");
        assert_eq!(time_of(EntryId { ms: u64::MAX, seq: 3 }), "18446744073709551615-3");
    }
}
