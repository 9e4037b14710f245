//! `verify`: whether the target has what the source has, entry by entry; `--repair` copies what can still be copied.
//! One attempt at each server, one stream after the other, and the same memory whatever the streams hold.

mod compare;
mod pages;
mod repair;
mod report;
mod tally;

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write;

use fred::clients::Client;
use fred::interfaces::ServerInterface as _;
use sync_core::bridge::Unreachable;
use sync_core::commands::source::Source;
use sync_core::commands::{CommandError, Ended};
use sync_core::record::StreamName;
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connection, Connector};
use sync_core::settings::Loaded;

use self::compare::{Pair, Trouble, compare};
use self::report::Lines;
use self::tally::{Tally, counted};
use crate::naming::{Naming, Place};
use crate::settings::{Settings, TargetSettings};

/// What may stand behind `verify`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit code: 0 the same, 1 different or not to be compared, 2 usage, 78 settings.\n\
    A running bridge does no harm, with --repair neither: what it has yet to bring is counted as not yet replicated, \
    and that is a difference as well.")]
pub(crate) struct VerifyArguments {
    /// Only this stream, as key or dbN:key; may be repeated. Else all that the settings select at the source.
    #[arg(long = "stream", value_name = "STREAM")]
    streams: Vec<String>,
    /// Copy to the target what it lacks above its newest ID, then compare. Never deletes, never overwrites.
    #[arg(long)]
    repair: bool,
    /// Name every difference, not only 20 of each stream, and also the streams that are the same.
    #[arg(long)]
    all: bool,
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
    let naming = Naming::of(&loaded.settings);
    let Settings { redis, streams, target, .. } = loaded.settings;
    let named = named(&arguments.streams, redis.db)?;
    let mut source = Source::connect(redis, streams).await?;
    let mut target = Target::connect(target).await?;
    let selected = if named.is_empty() {
        let lost = |fault| CommandError::Redis { doing: "looking for streams".into(), fault };
        source.streams().await.map_err(lost)?
    } else {
        named.clone()
    };
    let mut total = Total::default();
    for name in &selected {
        let spelled = source.spell(name);
        let mut lines = Lines::new(out, &spelled, arguments.all, arguments.repair);
        let place = naming.place(name);
        match one(&mut source, &mut target, name, &place, arguments.repair, &mut lines).await {
            Ok(one) => total.take(one, arguments, &mut lines)?,
            Err(Trouble::Output(error)) => return Err(error.into()),
            Err(Trouble::Source(fault @ Fault::Lost(_))) => {
                return Err(CommandError::Redis { doing: format!("comparing {spelled}"), fault });
            }
            Err(Trouble::Target(fault @ Fault::Lost(_))) => return Err(target.unreachable(&fault)),
            // The settings may name what is yet to come.
            Err(Trouble::Absent) if named.is_empty() => {}
            Err(Trouble::Absent) => total.fail(&mut lines, "there is no such stream on either side")?,
            Err(Trouble::Source(Fault::WrongType(_))) => {
                total.fail(&mut lines, "the key holds something else than a stream")?;
            }
            Err(Trouble::Target(Fault::WrongType(_))) => {
                total.fail(
                    &mut lines,
                    &format!("the {} holds something else than a stream", target.spell(&place)),
                )?;
            }
            Err(Trouble::Source(fault)) => total.fail(&mut lines, &format!("source: {fault}"))?,
            Err(Trouble::Target(fault)) => {
                total.fail(&mut lines, &format!("{}: {fault}", target.spell(&place)))?
            }
        }
        total.beyond_repair |= lines.beyond_repair;
    }
    total.write(out)
}

/// The streams named on the command line.
fn named(spelled: &[String], default_db: u16) -> Result<BTreeSet<StreamName>, CommandError> {
    let parse = |spelled: &String| {
        StreamName::parse(spelled, default_db)
            .map_err(|error| CommandError::Usage(format!("{spelled}: {error}")))
    };
    spelled.iter().map(parse).collect()
}

/// One stream, compared.
struct One {
    tally: Tally,
    copied: u64,
}

async fn one(
    source: &mut Source,
    target: &mut Target,
    name: &StreamName,
    place: &Place,
    repair: bool,
    lines: &mut Lines<'_>,
) -> Result<One, Trouble> {
    let (settings, limiter) = (source.settings.clone(), source.limiter.clone());
    let (target_is_cluster, maxlen) = (target.settings.is_cluster(), target.settings.maxlen);
    // Whichever connection ends, so does everything that waits for an answer on it.
    let both = source.in_database(name.db, async |source| {
        let there = target.in_database(place.db, async |target| {
            let (settings, limiter) = (&settings, &limiter);
            let pair = Pair { name, source, place, target, target_is_cluster, maxlen, settings, limiter };
            Ok(work(&pair, repair, lines).await)
        });
        Ok(there.await)
    });
    both.await.map_err(Trouble::Source)?.map_err(Trouble::Target)?
}

async fn work(pair: &Pair<'_>, repair: bool, lines: &mut Lines<'_>) -> Result<One, Trouble> {
    let mut copied = 0;
    if repair {
        let repaired = repair::copy(pair).await?;
        copied = repaired.entries;
        if copied > 0 {
            lines
                .remark(&format!("{} copied to the target", counted(copied, "entry", "entries")))
                .map_err(Trouble::Output)?;
        }
        if let Some(reason) = repaired.stopped {
            lines.remark(&format!("not all could be copied: {reason}")).map_err(Trouble::Output)?;
        }
    }
    Ok(One { tally: compare(pair, lines).await?, copied })
}

/// Of all streams.
#[derive(Default)]
struct Total {
    streams: u64,
    different: u64,
    tally: Tally,
    copied: u64,
    beyond_repair: bool,
}

impl Total {
    fn take(&mut self, one: One, arguments: &VerifyArguments, lines: &mut Lines<'_>) -> std::io::Result<()> {
        let One { tally, copied } = one;
        self.streams += 1;
        self.tally.add(&tally);
        self.copied += copied;
        let (same, notes) = (tally.same(), tally.notes());
        if tally.differs() {
            self.different += 1;
            lines.conclude(&format!("different: {}; {same} the same{notes}", tally.differences()))?;
        } else if arguments.all {
            lines.conclude(&format!("same: {same}{notes}"))?;
        }
        Ok(())
    }

    fn fail(&mut self, lines: &mut Lines<'_>, words: &str) -> std::io::Result<()> {
        self.streams += 1;
        self.different += 1;
        lines.conclude(&format!("cannot be compared: {words}"))
    }

    fn write(&self, out: &mut impl Write) -> Result<Ended, CommandError> {
        if self.streams == 0 {
            writeln!(out, "nothing to compare: the settings select no stream that is there")?;
            return Ok(Ended::Badly);
        }
        if self.beyond_repair {
            writeln!(
                out,
                "Redis adds no entry below a stream's newest ID. Delete such a stream at the target, and verify --repair \
                 copies all that the source holds of it."
            )?;
        }
        let streams = counted(self.streams, "stream", "streams");
        let (same, notes) = (self.tally.same(), self.tally.notes());
        let copied = match self.copied {
            0 => String::new(),
            copied => format!("; {} copied", counted(copied, "entry", "entries")),
        };
        if self.different == 0 {
            writeln!(out, "same: {streams}, {same}{notes}{copied}")?;
            return Ok(Ended::Well);
        }
        let differences = match self.tally.differences() {
            none if none.is_empty() => none,
            differences => format!(": {differences}"),
        };
        writeln!(
            out,
            "different: {} of {streams}{differences}; {same} the same{notes}{copied}",
            self.different
        )?;
        Ok(Ended::Badly)
    }
}

/// The target: one connection, made once.
struct Target {
    connection: Connection,
    address: String,
    settings: TargetSettings,
}

impl Target {
    async fn connect(settings: TargetSettings) -> Result<Self, CommandError> {
        let connector = Connector::to_target(settings.redis.clone())?;
        let address = connector.address();
        match connector.connection(settings.redis.db).await {
            Ok(connection) => Ok(Self { connection, address, settings }),
            Err(fault) => Err(unreachable(&address, &fault)),
        }
    }

    fn unreachable(&self, fault: &Fault) -> CommandError {
        unreachable(&self.address, fault)
    }

    /// A key of the target, for people.
    fn spell(&self, place: &Place) -> String {
        format!("target key {}", StreamName::new(place.db, place.key.clone()).spell(self.settings.redis.db))
    }

    /// Does something in one database. A Cluster has no other, and no SELECT.
    async fn in_database<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        db: u16,
        work: impl FnOnce(Client) -> F,
    ) -> Result<T, Fault> {
        let is_cluster = self.settings.is_cluster();
        self.connection
            .run(async |client| {
                if !is_cluster {
                    client.select(i64::from(db)).await?;
                }
                work(client).await
            })
            .await
    }
}

fn unreachable(address: &str, fault: &Fault) -> CommandError {
    CommandError::Sink {
        destination: format!("target Redis at {address}"),
        reason: Unreachable { reason: fault.to_string(), needs_human: fault.needs_human() },
    }
}
