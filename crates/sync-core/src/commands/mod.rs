//! What an operator asks of a bridge besides running it: `check`, `monitor`, `dead-letters` and `healthcheck`. Every bridge has them;
//! none of them names a destination. They write to whatever they are given, make one attempt at each server, and never
//! sleep or retry: a person is there to try again. Only [`monitor`] goes on until it is told to end.
//!
//! [`verify`] is not a command but what a bridge makes one of, which knows how to read its destination.
//!
//! [`check`] and [`monitor`] change nothing anywhere. [`dead_letters`] takes away letters of its own consumer group and touches
//! nothing else.

pub mod check;
pub mod dead_letters;
pub mod healthcheck;
pub mod monitor;
mod permissions;
mod replay;
mod show;
pub mod source;
pub mod table;
pub mod verify;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::bridge::Unreachable;
use crate::redis::Fault;
use crate::redis::connection::ConnectorError;

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left to be done.
    Well,
    /// Something stayed undelivered, or is missing: the output says what.
    Badly,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Well => Self::SUCCESS,
            Ended::Badly => Self::FAILURE,
        }
    }
}

/// Why a command could not do its work: one clear line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The Redis settings cannot be used.
    #[error(transparent)]
    Settings(#[from] ConnectorError),
    /// The sink's settings cannot be used, or it does not do what it is asked.
    #[error("{0}")]
    Destination(String),
    /// The source does not answer.
    #[error("cannot reach the source Redis at {address}: {fault}")]
    Source {
        /// Host and port.
        address: String,
        /// What it said.
        fault: Fault,
    },
    /// The source does not do what it is asked.
    #[error("source Redis, {doing}: {fault}")]
    Redis {
        /// What was under way.
        doing: String,
        /// What it said.
        fault: Fault,
    },
    /// The sink does not answer.
    #[error("cannot reach the {destination}: {reason}")]
    Sink {
        /// What it is.
        destination: String,
        /// What it said.
        reason: Unreachable,
    },
    /// The command line asks for what there is not.
    #[error("{0}")]
    Usage(String),
    /// What there is to say cannot be written.
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// 2 for what is wrong with the command line, 1 for everything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// The reader of the output has gone, as `head` does: nobody is left to be told.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Whether a person agrees to what a command is about to do.
#[derive(Clone, Copy, Debug)]
pub enum Consent {
    /// `--yes`.
    Given,
    /// The question is put to somebody.
    Ask(fn(&str) -> io::Result<bool>),
    /// There is nobody to ask.
    Missing,
}

impl Consent {
    /// `yes` is given; without it the terminal is asked, if standard input and standard error are one.
    pub fn of_terminal(yes: bool) -> Self {
        if yes {
            Self::Given
        } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
            Self::Ask(ask)
        } else {
            Self::Missing
        }
    }

    /// Before anything is connected: an error where there is nobody to ask.
    fn is_possible(self) -> Result<(), CommandError> {
        match self {
            Self::Missing => Err(CommandError::Usage("without a terminal to ask on, --yes is needed".into())),
            Self::Given | Self::Ask(_) => Ok(()),
        }
    }

    fn to(self, question: &str) -> Result<bool, CommandError> {
        match self {
            Self::Given => Ok(true),
            Self::Ask(ask) => Ok(ask(question)?),
            Self::Missing => Ok(false),
        }
    }
}

fn ask(question: &str) -> io::Result<bool> {
    let mut out = io::stderr();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `1 letter`, `2 letters`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
