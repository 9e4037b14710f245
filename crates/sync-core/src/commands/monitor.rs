//! `monitor`: what becomes of the streams that a bridge with these settings reads, look by look. It reads, and changes
//! nothing: it makes no group, is no consumer, and needs no right to write.
//!
//! It shows what Redis says and what follows from it, never a number that may be wrong without saying so (the lag is
//! that of `redis/statistics`). Unlike the other commands it goes on until it is told to end, so a server that goes
//! away meanwhile is waited for.

mod judge;
mod lines;
mod look;
mod memory;
mod screen;
mod survey;

use std::future::Future;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep};

use self::look::Look;
use self::survey::Survey;
use super::source::Source;
use super::{CommandError, Ended};
use crate::redis::Fault;
use crate::retry::Backoff;
use crate::settings::{RedisSettings, StreamSettings};
use crate::shutdown;

/// What may stand behind `monitor`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Exit code: 0 ended as asked, with --once 0 nothing to warn of and 1 warnings; 1 failed, 2 usage, \
    78 settings. Changes nothing in Redis."
)]
pub struct MonitorArguments {
    /// One JSON object for each look, on one line.
    #[arg(long)]
    pub json: bool,
    /// Look once and end: with exit code 1 where there is anything to warn of.
    #[arg(long)]
    pub once: bool,
    /// Name every stream, also where that is more than the terminal holds (with --once), and those without a warning.
    #[arg(long)]
    pub all: bool,
}

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table; drawn anew at each look, unless there is but one.
    Screen,
    /// Lines as in a log.
    Lines,
    /// One JSON object for each look.
    Json,
}

/// Looks every so often until SIGTERM, SIGINT or SIGHUP: a table where standard output is a terminal, else lines.
pub async fn run(
    redis: RedisSettings,
    streams: StreamSettings,
    every: Duration,
    arguments: &MonitorArguments,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let (stop, mut hangups) = shutdown::signals().map_err(io::Error::other)?;
    let asked = async {
        tokio::select! {
            () = stop.requested() => {}
            // The terminal is gone.
            () = hangups.next() => {}
        }
    };
    let output = match () {
        () if arguments.json => Output::Json,
        () if io::stdout().is_terminal() => Output::Screen,
        () => Output::Lines,
    };
    watch(redis, streams, every, output, arguments, asked, out).await
}

/// The same until `stop` is ready.
pub async fn watch(
    redis: RedisSettings,
    streams: StreamSettings,
    every: Duration,
    output: Output,
    arguments: &MonitorArguments,
    stop: impl Future<Output = ()>,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let mut monitor = Monitor {
        every,
        output,
        once: arguments.once,
        all: arguments.all,
        survey: Survey::new(&streams, arguments.once),
        backoff: Backoff::new(redis.retry),
        failures: 0,
        away: false,
        looked: false,
        last: None,
    };
    tokio::select! {
        biased;
        // Who is asked for one look and gives none has not found that all is well.
        () = stop => Ok(if arguments.once { Ended::Badly } else { Ended::Well }),
        ended = monitor.watch(redis, streams, out) => ended,
    }
}

struct Monitor {
    every: Duration,
    output: Output,
    once: bool,
    all: bool,
    survey: Survey,
    backoff: Backoff,
    /// One after the other.
    failures: u32,
    /// The source does not answer, and that was said.
    away: bool,
    /// The source has answered once.
    looked: bool,
    /// For the screen, while the source is away.
    last: Option<Look>,
}

impl Monitor {
    async fn watch(
        &mut self,
        redis: RedisSettings,
        streams: StreamSettings,
        out: &mut impl Write,
    ) -> Result<Ended, CommandError> {
        loop {
            let error = match Source::connect(redis.clone(), streams.clone()).await {
                Ok(mut source) => match self.look_on(&mut source, out).await {
                    Ok(ended) => return Ok(ended),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.failures += 1;
            let passes = match &error {
                // A password that was changed may be changed back; at start it is better said at once.
                CommandError::Source { fault, .. } | CommandError::Redis { fault, .. } => {
                    self.looked || (!fault.needs_human() && self.failures < redis.retry.max_retries)
                }
                _ => false,
            };
            if self.once || !passes {
                return Err(error);
            }
            if !self.away {
                self.away = true;
                self.say_away(&error, out)?;
            }
            sleep(self.backoff.next_delay()).await;
        }
    }

    /// Look after look, until the connection is lost.
    async fn look_on(&mut self, source: &mut Source, out: &mut impl Write) -> Result<Ended, CommandError> {
        loop {
            let began = Instant::now();
            let look = self.survey.look(source).await.map_err(|fault| failed(source, fault))?;
            if self.away {
                self.say_back(source, out)?;
            }
            (self.away, self.failures, self.looked) = (false, 0, true);
            self.backoff.reset();
            self.write(&look, out)?;
            if self.once {
                return Ok(if look.is_well() { Ended::Well } else { Ended::Badly });
            }
            self.last = (self.output == Output::Screen).then_some(look);
            // A source for which one look takes so long has other things to do as well.
            sleep(self.every.saturating_sub(began.elapsed()).max(self.every / 2)).await;
        }
    }

    fn write(&self, look: &Look, out: &mut impl Write) -> io::Result<()> {
        match self.output {
            Output::Json => lines::write_json(look, out),
            Output::Lines => lines::write(look, self.all, out),
            Output::Screen if self.once => screen::print(look, self.all, out),
            Output::Screen => screen::draw(look, None, self.every, out),
        }
    }

    fn say_away(&self, error: &CommandError, out: &mut impl Write) -> io::Result<()> {
        let now = Utc::now();
        match (self.output, &self.last) {
            (Output::Json, _) => lines::write_json_error(now, error, out),
            (Output::Screen, Some(look)) => screen::draw(look, Some((now, error)), self.every, out),
            (Output::Screen | Output::Lines, _) => lines::write_away(now, error, out),
        }
    }

    /// On a screen and in JSON the next look says so.
    fn say_back(&self, source: &Source, out: &mut impl Write) -> io::Result<()> {
        match self.output {
            Output::Lines => lines::write_back(Utc::now(), &source.address, out),
            Output::Json | Output::Screen => Ok(()),
        }
    }
}

fn failed(source: &Source, fault: Fault) -> CommandError {
    match fault {
        Fault::Lost(_) => CommandError::Source { address: source.address.clone(), fault },
        fault => CommandError::Redis { doing: "looking at the streams".into(), fault },
    }
}
