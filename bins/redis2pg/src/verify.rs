//! `verify`: whether the table has what the source has, stream by stream and ID by ID. Changes nothing on either side,
//! makes one attempt at each server, and takes the same memory whatever the streams hold.

use std::io::{self, Write};

use fred::clients::Client;
use sqlx::Row as _;
use sync_core::bridge::Unreachable;
use sync_core::commands::source::Source;
use sync_core::commands::verify::{Letters, Lines, Pages, Tally, Total, Verdict, left_out, named, waiting};
use sync_core::commands::{CommandError, Ended};
use sync_core::rate_limit::RateLimiter;
use sync_core::record::{Entry, EntryId, StreamName};
use sync_core::redis::Fault as RedisFault;
use sync_core::redis::entries::{self, StreamFacts};
use sync_core::settings::{Loaded, StreamSettings};
use sync_core::telemetry::metrics::Counter;

use crate::postgres::connection::{Connection, Connector, statement};
use crate::postgres::fault::Fault;
use crate::postgres::timestamp::Timestamp;
use crate::schema::{self, StreamTable, Wanted};
use crate::settings::Settings;
use crate::streams::row::{RowEncoder, Rows, unfit};
use crate::streams::write::{Standing, Statements};

/// Rows that are looked for at the source at once.
const LISTED: i64 = 500;

/// What may stand behind `verify`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit code: 0 the same, 1 different or not to be compared, 2 usage, 78 settings.\n\
    A running bridge does no harm: what it has yet to bring is counted as not yet replicated, and that is a difference \
    as well. Rows older than all that the source still holds are trimmed there, and no difference.")]
pub(crate) struct VerifyArguments {
    /// Only this stream, as key or dbN:key; may be repeated. Else all that the settings select at the source.
    #[arg(long = "stream", value_name = "STREAM")]
    streams: Vec<String>,
    /// Name every difference, not only 20 of each stream, and also the streams that are the same.
    #[arg(long)]
    all: bool,
}

/// What keeps a stream from being compared.
enum Trouble {
    Source(RedisFault),
    Postgres(Fault),
    Output(io::Error),
    /// There is no such stream at the source.
    Absent,
}

impl From<RedisFault> for Trouble {
    fn from(fault: RedisFault) -> Self {
        Self::Source(fault)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Postgres(fault)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Compares, and writes what it finds.
pub(crate) async fn run(
    loaded: Loaded<Settings>,
    arguments: &VerifyArguments,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut table = Table::connect(&loaded.settings).await?;
    let Settings { redis, streams, .. } = loaded.settings;
    let named = named(&arguments.streams, redis.db)?;
    let mut source = Source::connect(redis, streams).await?;
    let selected = if named.is_empty() {
        let lost = |fault| CommandError::Redis { doing: "looking for streams".into(), fault };
        source.streams().await.map_err(lost)?
    } else {
        named.clone()
    };
    let mut total = Total::default();
    for name in &selected {
        let spelled = source.spell(name);
        let mut lines = Lines::new(out, &spelled, arguments.all);
        match one(&mut source, &mut table, name, &mut lines).await {
            Ok(tally) => total.take(&tally, &mut lines)?,
            Err(Trouble::Output(error)) => return Err(error.into()),
            Err(Trouble::Source(fault @ RedisFault::Lost(_))) => {
                return Err(CommandError::Redis { doing: format!("comparing {spelled}"), fault });
            }
            Err(Trouble::Postgres(fault @ Fault::Lost(_))) => return Err(table.unreachable(&fault)),
            // The settings may name what is yet to come.
            Err(Trouble::Absent) if named.is_empty() => {}
            Err(Trouble::Absent) => total.fail(&mut lines, "there is no such stream at the source")?,
            Err(Trouble::Source(RedisFault::WrongType(_))) => {
                total.fail(&mut lines, "the key holds something else than a stream")?;
            }
            Err(Trouble::Source(fault)) => total.fail(&mut lines, &format!("source: {fault}"))?,
            Err(Trouble::Postgres(fault)) => total.fail(&mut lines, &format!("PostgreSQL: {fault}"))?,
        }
    }
    total.write("", out)
}

async fn one(
    source: &mut Source,
    table: &mut Table,
    name: &StreamName,
    lines: &mut Lines<'_>,
) -> Result<Tally, Trouble> {
    let (settings, limiter) = (source.settings.clone(), source.limiter.clone());
    let prefix = settings.source_name.clone().unwrap_or_default();
    let spelled = format!("{prefix}{}", source.spell(name));
    let compared = source
        .in_database(name.db, async |client| {
            let stream = Stream { name, spelled: &spelled, client, settings: &settings, limiter: &limiter };
            Ok(stream.compare(table, lines).await)
        })
        .await;
    compared.map_err(Trouble::Source)?
}

/// One stream at the source; the client has its database selected.
struct Stream<'a> {
    name: &'a StreamName,
    spelled: &'a str,
    client: Client,
    settings: &'a StreamSettings,
    limiter: &'a RateLimiter,
}

impl Stream<'_> {
    async fn compare(&self, table: &mut Table, lines: &mut Lines<'_>) -> Result<Tally, Trouble> {
        self.limiter.take().await;
        // What comes after this is not compared.
        let Some(facts) = entries::facts(&self.client, &self.name.key).await? else {
            return Err(Trouble::Absent);
        };
        let (mut tally, mut letters) = (Tally::default(), Letters::of(self.name, self.settings));
        let mut pages = Pages::read(
            self.client.clone(),
            self.name.key.clone(),
            EntryId::default(),
            facts.newest,
            Some(self.limiter.clone()),
        );
        while let Some(page) = pages.next_page().await? {
            let mut expected = Vec::with_capacity(page.len());
            for entry in page {
                match left_out(self.settings, &entry) {
                    Some(verdict) => tally.count(verdict),
                    None => expected.push(entry),
                }
            }
            let standings = table.standings(self.spelled, &expected).await?;
            let (same, suspects): (Vec<_>, Vec<_>) =
                expected.into_iter().zip(standings).partition(|(_, standing)| *standing == Standing::Same);
            same.iter().for_each(|_| tally.count(Verdict::Same));
            let suspects = suspects.into_iter().map(|(entry, _)| entry).collect();
            self.judge(table, suspects, &mut letters, &mut tally, lines).await?;
        }
        self.count_the_rest(table, facts, &mut tally, lines).await?;
        Ok(tally)
    }

    /// Entries that are not in the table as they should be. In this order: what is acknowledged now is in the table, or
    /// among the letters, from now on.
    async fn judge(
        &self,
        table: &mut Table,
        suspects: Vec<Entry>,
        letters: &mut Letters,
        tally: &mut Tally,
        lines: &mut Lines<'_>,
    ) -> Result<(), Trouble> {
        if suspects.is_empty() {
            return Ok(());
        }
        let ids: Vec<EntryId> = suspects.iter().map(|entry| entry.id).collect();
        let waiting = waiting(&self.client, &self.name.key, self.settings, &ids).await?;
        let standings = table.standings(self.spelled, &suspects).await?;
        letters.read_on(&self.client, self.limiter).await?;
        for (id, standing) in ids.into_iter().zip(standings) {
            let buried = letters.contains(id);
            let verdict = match standing {
                Standing::Same => Verdict::Same,
                _ if waiting.contains(&id) => Verdict::Waiting,
                Standing::Differs => Verdict::Differs,
                Standing::Absent if buried => Verdict::DeadLettered,
                Standing::Absent => Verdict::Missing,
            };
            tally.count(verdict);
            let note = if buried && verdict == Verdict::Differs { ", and dead-lettered" } else { "" };
            lines.entry(id, verdict, note)?;
        }
        Ok(())
    }

    /// Rows that the source has nothing for.
    async fn count_the_rest(
        &self,
        table: &mut Table,
        facts: StreamFacts,
        tally: &mut Tally,
        lines: &mut Lines<'_>,
    ) -> Result<(), Trouble> {
        let oldest = facts.first.unwrap_or(facts.newest);
        let (older, rest) = table.count(self.spelled, oldest, facts.newest).await?;
        for _ in 0..older {
            tally.count(Verdict::TrimmedAtSource);
        }
        if rest == tally.of(Verdict::Same) + tally.of(Verdict::Differs) {
            return Ok(());
        }
        let mut after = None;
        loop {
            let listed = table.list(self.spelled, oldest, facts.newest, after).await?;
            let Some(last) = listed.last().cloned() else { return Ok(()) };
            let ids: Vec<EntryId> = listed.iter().filter_map(|id| id.parse().ok()).collect();
            self.limiter.take().await;
            let here = entries::among(&self.client, &self.name.key, &ids).await?;
            for id in ids.into_iter().filter(|id| *id <= facts.newest) {
                if here.iter().any(|entry| entry.id == id) {
                    continue;
                }
                let verdict = if id < oldest { Verdict::TrimmedAtSource } else { Verdict::Extra };
                tally.count(verdict);
                lines.entry(id, verdict, "")?;
            }
            after = Some(last);
        }
    }
}

/// The table: one connection, made once.
struct Table {
    connection: Connection,
    destination: String,
    table: StreamTable,
    statements: Statements,
    encoder: RowEncoder,
}

impl Table {
    async fn connect(settings: &Settings) -> Result<Self, CommandError> {
        let destination = format!("PostgreSQL server at {}", settings.postgres.address());
        let failed = |reason: Unreachable| CommandError::Sink { destination: destination.clone(), reason };
        let asked = |fault: Fault| {
            failed(Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() })
        };
        let connector = Connector::new(&settings.postgres, Counter::default());
        let mut connection = connector.connect().await.map_err(asked)?;
        let found = schema::look(&mut connection, &Wanted::streams_of(settings)).await.map_err(failed)?;
        let Some(table) = found.tables.streams else {
            let table = found.absent.join(", ");
            return Err(CommandError::Destination(format!(
                "{table} is not there: nothing has been copied yet"
            )));
        };
        let statements = Statements::new(&table, &settings.tables);
        Ok(Self { connection, destination, table, statements, encoder: RowEncoder::new(settings) })
    }

    fn unreachable(&self, fault: &Fault) -> CommandError {
        CommandError::Sink {
            destination: self.destination.clone(),
            reason: Unreachable { reason: fault.to_string(), needs_human: fault.needs_human() },
        }
    }

    /// How the table stands to each of these entries.
    async fn standings(&mut self, spelled: &str, entries: &[Entry]) -> Result<Vec<Standing>, Fault> {
        let mut standings = vec![Standing::Absent; entries.len()];
        let fit = entries.iter().enumerate().filter(|(_, entry)| unfit(entry).is_none());
        let (rows, _) = Rows::of(fit.map(|(at, entry)| (at, spelled, entry)), self.encoder);
        if rows.len() > 0 {
            let all: Vec<usize> = (0..rows.len()).collect();
            let found = self.statements.compare(&mut self.connection, &rows, &all).await?;
            for (&at, standing) in rows.places.iter().zip(found) {
                standings[at] = standing;
            }
        }
        Ok(standings)
    }

    /// How many rows the stream has before `oldest`, and from there to `newest`: by time, so some of the same
    /// millisecond may be more.
    async fn count(&mut self, stream: &str, oldest: EntryId, newest: EntryId) -> Result<(u64, u64), Fault> {
        let StreamTable { name, .. } = &self.table;
        let sql = format!(
            r#"SELECT count(*) FILTER (WHERE "timestamp" < $2), count(*) FILTER (WHERE "timestamp" >= $2)
            FROM {name} WHERE stream_key = $1 AND "timestamp" <= $3"#
        );
        let query = statement(&sql).bind(stream).bind(time(oldest)).bind(time(newest));
        let rows = self.connection.fetch(query).await?;
        let Some(row) = rows.first() else { return Ok((0, 0)) };
        let number = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
        Ok((number(0)?, number(1)?))
    }

    /// IDs of the stream's rows between two IDs, in the order of their texts, after one of them.
    async fn list(
        &mut self,
        stream: &str,
        oldest: EntryId,
        newest: EntryId,
        after: Option<String>,
    ) -> Result<Vec<String>, Fault> {
        let StreamTable { name, .. } = &self.table;
        let sql = format!(
            r#"SELECT message_id FROM {name} WHERE stream_key = $1 AND "timestamp" BETWEEN $2 AND $3
            AND message_id > $4 ORDER BY message_id LIMIT {LISTED}"#
        );
        let query = statement(&sql)
            .bind(stream)
            .bind(time(oldest))
            .bind(time(newest))
            .bind(after.unwrap_or_default());
        let rows = self.connection.fetch(query).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// The end of `timestamptz` where an ID lies beyond it.
fn time(id: EntryId) -> Timestamp {
    Timestamp::of_unix_ms(id.ms).unwrap_or(Timestamp::LAST)
}
