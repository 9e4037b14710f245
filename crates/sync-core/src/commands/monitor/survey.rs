//! One look at all streams: which there are, and what Redis says of each, asked in pipelines of bounded answers. An idle
//! stream costs three commands, XINFO STREAM, XINFO GROUPS and XLEN; XPENDING and XINFO CONSUMERS are asked only where
//! something is pending or waits.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::StreamsInterface as _;
use tokio::time::Instant;

use super::judge::{self, Health, Rules, State, Warning};
use super::look::{Ahead, GroupRow, Look, OldestPending, Row};
use super::memory::Memory;
use crate::commands::source::Source;
use crate::record::{EntryId, StreamName};
use crate::redis::Fault;
use crate::redis::connection::key;
use crate::redis::statistics::ask::{self, Details, GroupSurvey, Survey as Answer};
use crate::redis::statistics::{Lag, Onlooker, age_ms, chunks, unix_ms};
use crate::settings::{Cleanup, StreamSettings};

/// A stream that is gone is shown for so long: somebody is to see it.
const MOURNED: Duration = Duration::from_secs(600);
/// No more of them are kept, where streams come and go.
const MOST_MOURNED: usize = 1000;

/// The streams that are watched.
#[derive(Debug)]
pub(super) struct Survey {
    streams: BTreeMap<StreamName, Memory>,
    settings: StreamSettings,
    once: bool,
    /// When streams were last looked for,
    searched: Option<Instant>,
    /// and what kept them from being found.
    problems: Vec<String>,
}

impl Survey {
    /// `once`: there will be one look.
    pub(super) fn new(settings: &StreamSettings, once: bool) -> Self {
        let settings = settings.clone();
        Self { streams: BTreeMap::new(), settings, once, searched: None, problems: Vec::new() }
    }

    /// One look at all streams; looks for new ones as often as the bridge does.
    pub(super) async fn look(&mut self, source: &mut Source) -> Result<Look, Fault> {
        let began = Instant::now();
        let interval = self.settings.discovery_interval;
        if self.searched.is_none_or(|searched| began.saturating_duration_since(searched) >= interval) {
            self.search(source).await?;
            self.searched = Some(began);
        }
        let mut rows = Vec::with_capacity(self.streams.len());
        for chunk in chunks(self.streams.iter().map(|(name, memory)| (name, memory.weight))) {
            self.look_at(source, &chunk, &mut rows).await?;
        }
        let mut mourned = 0;
        self.streams.retain(|_, memory| {
            let gone = memory.gone.is_some();
            mourned += usize::from(gone);
            !gone || (mourned <= MOST_MOURNED && memory.gone.is_some_and(|gone| gone.elapsed() < MOURNED))
        });
        let (group, problems) = (self.settings.group.clone(), self.problems.clone());
        let mut look = Look::new(source.address.clone(), group, rows, problems);
        look.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(look)
    }

    async fn search(&mut self, source: &mut Source) -> Result<(), Fault> {
        self.problems.clear();
        if !self.settings.enabled {
            return Ok(());
        }
        for db in source.databases().await?.0 {
            match source.streams_in(db).await {
                Ok(found) => found.into_iter().for_each(|name| {
                    self.streams.entry(name).or_default();
                }),
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => return Err(fault),
                // The server has fewer databases than the settings name, and may not say how many.
                Err(Fault::Other(words)) if words.contains("out of range") => {}
                Err(fault) => self.problems.push(format!("database {db}: {fault}")),
            }
        }
        Ok(())
    }

    /// A chunk is of one database.
    async fn look_at(
        &mut self,
        source: &mut Source,
        names: &[StreamName],
        rows: &mut Vec<Row>,
    ) -> Result<(), Fault> {
        let Some(db) = names.first().map(|name| name.db) else { return Ok(()) };
        let limiter = source.limiter.clone();
        limiter.take().await;
        let answers = source.in_database(db, async |client| ask::surveys(&client, names).await).await?;
        limiter.take().await;
        let letters = source.in_database(db, async |client| self.letters(&client, names).await).await?;
        let mut answers: Vec<(Found, Option<u64>)> = names
            .iter()
            .zip(answers)
            .zip(letters)
            .map(|((name, answer), letters)| (self.found(name, answer), letters))
            .collect();
        let wanted: Vec<(&StreamName, bool, bool)> = names
            .iter()
            .zip(&answers)
            .filter_map(|(name, (found, _))| {
                let (own, lag) = found.own()?;
                let wanted = (name, own.pending > 0, lag.is_some() && own.consumers > 0);
                (wanted.1 || wanted.2).then_some(wanted)
            })
            .collect();
        let mut details: HashMap<&StreamName, Details> = HashMap::new();
        if !wanted.is_empty() {
            limiter.take().await;
            let group = &self.settings.group;
            let ask = async |client: Client| ask::details(&client, group, &wanted).await;
            for ((name, ..), answer) in wanted.iter().zip(source.in_database(db, ask).await?) {
                match answer {
                    Ok(answer) => {
                        details.insert(name, answer);
                    }
                    Err(fault) => {
                        let at = names.iter().position(|it| it == *name);
                        if let Some((found, _)) = at.and_then(|at| answers.get_mut(at)) {
                            *found = Found::Not(State::Unreadable(fault.to_string()));
                        }
                    }
                }
            }
        }
        for (name, (found, letters)) in names.iter().zip(answers) {
            let details = details.remove(name).unwrap_or_default();
            // Found by a search and gone before anybody looked.
            if !matches!(found, Found::Not(State::Absent)) || self.settings.named.contains(name) {
                rows.push(self.row(source, name, found, details, letters));
            } else {
                self.streams.remove(name);
            }
        }
        Ok(())
    }

    /// How many letters each has; none where that cannot be asked.
    async fn letters(&self, client: &Client, names: &[StreamName]) -> Result<Vec<Option<u64>>, Fault> {
        let suffix = self.settings.dead_letter_suffix.as_bytes();
        let pipeline = client.pipeline();
        for name in names {
            let letters: Bytes = [&name.key, suffix].concat().into();
            let _: () = pipeline.xlen(key(&letters)).await?;
        }
        let replies = pipeline.try_all::<u64>().await;
        if replies.len() != names.len() {
            return Err(Fault::Lost("a pipeline's answers are missing".into()));
        }
        let number = |reply: Result<u64, fred::error::Error>| match reply.map_err(Fault::from) {
            Ok(number) => Ok(Some(number)),
            Err(fault @ Fault::Lost(_)) => Err(fault),
            Err(_) => Ok(None),
        };
        replies.into_iter().map(number).collect()
    }

    fn found(&mut self, name: &StreamName, answer: Result<Answer, Fault>) -> Found {
        let group = self.settings.group.as_bytes();
        let memory = self.streams.entry(name.clone()).or_default();
        match answer {
            Ok(answer) => {
                (memory.seen, memory.gone, memory.weight) = (true, None, answer.weight);
                let own = answer.groups.iter().position(|it| it.name == group);
                let own = own.and_then(|at| Some((at, memory.lag(&answer.groups.get(at)?.snapshot))));
                Found::There(answer, own)
            }
            Err(Fault::Other(words)) if words.contains("no such key") => {
                memory.forget();
                if memory.seen {
                    memory.gone.get_or_insert_with(Instant::now);
                }
                Found::Not(if memory.seen { State::Vanished } else { State::Absent })
            }
            Err(Fault::WrongType(_)) => {
                memory.forget();
                // Nobody named it: it is no stream of ours any more.
                if !self.settings.named.contains(name) {
                    memory.gone.get_or_insert_with(Instant::now);
                }
                Found::Not(State::OtherType)
            }
            Err(fault) => Found::Not(State::Unreadable(fault.to_string())),
        }
    }

    fn row(
        &mut self,
        source: &Source,
        name: &StreamName,
        found: Found,
        (oldest, consumers): Details,
        letters: Option<u64>,
    ) -> Row {
        let own = &self.settings.group;
        let rules = Rules { group: own, auto_create_groups: self.settings.auto_create_groups };
        let memory = self.streams.entry(name.clone()).or_default();
        let mut row = Row {
            stream: source.spell(name),
            health: Health::Ok,
            length: None,
            first: None,
            last: None,
            lag: Ahead::of(None),
            pending: None,
            consumers: None,
            oldest_pending: None,
            dead_letters: letters,
            groups: Vec::new(),
            warnings: Vec::new(),
        };
        let state = match found {
            Found::Not(state) => state,
            Found::There(answer, ours) => {
                let text = |id: Option<EntryId>| id.map(|id| id.to_string());
                row.length = Some(answer.length);
                (row.first, row.last) = (text(answer.first), text(answer.last));
                row.groups = answer
                    .groups
                    .iter()
                    .enumerate()
                    .map(|(at, group)| {
                        let own = ours.filter(|(ours, _)| *ours == at);
                        let lag =
                            own.map_or_else(|| Onlooker::default().lag(&group.snapshot), |(_, lag)| lag);
                        group_row(group, own.is_some(), lag)
                    })
                    .collect();
                let ours = ours.and_then(|(at, lag)| Some((answer.groups.get(at)?, lag)));
                if ours.is_none() {
                    memory.forget();
                }
                State::There(ours.map(|(group, lag)| {
                    row.lag = Ahead::of(Some(lag));
                    (row.pending, row.consumers) = (Some(group.pending), Some(group.consumers));
                    let mut group = memory.group(&group.snapshot, lag, oldest, &consumers, self.once);
                    if self.settings.cleanup != Cleanup::Ack {
                        group.is_cleaned_up();
                    }
                    row.oldest_pending =
                        oldest.zip(group.oldest).map(|(oldest, (id, since))| OldestPending {
                            id: id.to_string(),
                            age_ms: Some(age_ms(Some(id), unix_ms())).filter(|age| *age > 0),
                            pending_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
                            deliveries: oldest.times,
                        });
                    group
                }))
            }
        };
        row.warnings = judge::judge(&state, letters, rules);
        row.health = row.warnings.iter().map(|warning: &Warning| warning.health).max().unwrap_or(Health::Ok);
        row
    }
}

/// What was found of a stream.
enum Found {
    /// With the own group's place among all, and its lag.
    There(Answer, Option<(usize, Lag)>),
    Not(State),
}

impl Found {
    fn own(&self) -> Option<(&GroupSurvey, Lag)> {
        match self {
            Self::There(answer, own) => own.and_then(|(at, lag)| Some((answer.groups.get(at)?, lag))),
            Self::Not(_) => None,
        }
    }
}

fn group_row(group: &GroupSurvey, own: bool, lag: Lag) -> GroupRow {
    GroupRow {
        name: String::from_utf8_lossy(&group.name).into_owned(),
        own,
        consumers: group.consumers,
        pending: group.pending,
        lag: Ahead::of(Some(lag)),
    }
}
