//! `verify`: whether the target has what the source has, entry by entry; `--repair` copies what can still be copied.
//! One attempt at each server, one stream after the other, and the same memory whatever the streams hold.

mod compare;
mod repair;

use std::future::Future;
use std::io::Write;

use fred::clients::Client;
use fred::interfaces::ServerInterface as _;
use sync_core::bridge::Unreachable;
use sync_core::commands::source::Source;
use sync_core::commands::verify::{Lines, Total, counted, named};
use sync_core::commands::{CommandError, Ended};
use sync_core::record::StreamName;
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connection, Connector};
use sync_core::settings::Loaded;

use self::compare::{Compared, Pair, Trouble, compare};
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
    let (mut total, mut copied, mut beyond_repair) = (Total::default(), 0, false);
    for name in &selected {
        let spelled = source.spell(name);
        let mut lines = Lines::new(out, &spelled, arguments.all);
        let place = naming.place(name);
        match one(&mut source, &mut target, name, &place, arguments.repair, &mut lines).await {
            Ok(One { compared, copied: now }) => {
                total.take(&compared.tally, &mut lines)?;
                copied += now;
                beyond_repair |= compared.beyond_repair;
            }
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
    }
    if beyond_repair {
        writeln!(
            out,
            "Redis adds no entry below a stream's newest ID. Delete such a stream at the target, and verify --repair \
             copies all that the source holds of it."
        )?;
    }
    let note = match copied {
        0 => String::new(),
        copied => format!("; {} copied", counted(copied, "entry", "entries")),
    };
    total.write(&note, out)
}

/// One stream, compared.
struct One {
    compared: Compared,
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
    Ok(One { compared: compare(pair, repair, lines).await?, copied })
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
