//! The command line.

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use sync_core::commands::check::CheckArguments;
use sync_core::commands::dead_letters::DeadLettersCommand;
use sync_core::commands::monitor::MonitorArguments;
use sync_core::program::SettingsArguments;

use crate::buffer::BufferCommand;
use crate::settings;

/// Moves what arrives in Redis streams to Kafka topics: complete, in order per stream.
#[derive(Debug, Parser)]
#[command(version, after_long_help = settings::help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

/// What to do; `run` when nothing is named.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run until SIGTERM or SIGINT.
    Run,
    /// Print the settings in force and where each comes from; --connect: and what the bridge would do.
    Check(CheckArguments),
    /// Watch the streams until Ctrl-C: lag, pending entries, groups, and what to look after. Changes nothing.
    Monitor(MonitorArguments),
    /// See, deliver again and remove what was refused.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// See what waits in the buffer for Kafka, and have refused messages sent again.
    #[command(subcommand)]
    Buffer(BufferCommand),
    /// Deliver what stands in streams now, and end.
    Process(ProcessArguments),
    /// Store a message in the buffer, to be sent to a topic; prints its key there.
    Send(SendArguments),
    /// Send Kafka what the buffer holds and it does not have, and end.
    Sync {
        /// Of this topic only.
        topic: Option<String>,
    },
    /// Ask the bridge that runs here whether it lives (/healthz on ADMIN_ADDR): for a container's health check.
    Healthcheck,
    /// Print a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

/// What `process` takes.
#[derive(Debug, Args)]
pub(crate) struct ProcessArguments {
    /// Streams whose key matches.
    #[arg(long, default_value = "*")]
    pub(crate) pattern: String,
    /// Of this database.
    #[arg(long, default_value_t = 0)]
    pub(crate) db: u16,
    /// At most so many entries of a stream per read.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) batch_size: u32,
    /// Instead of STREAM_TARGET_TOPIC_MAP, a pattern and its topic; the first that matches counts.
    #[arg(long = "topic", value_name = "PATTERN=TOPIC", value_parser = pair)]
    pub(crate) topics: Vec<(String, String)>,
}

/// What `send` takes.
#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    pub(crate) topic: String,
    /// The message; from standard input where it is absent or `-`.
    pub(crate) message: Option<String>,
    /// Whose message it is: the record's key, and in order with the device's other messages.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(crate) device: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (pattern, topic) = text.rsplit_once('=').ok_or("must be PATTERN=TOPIC")?;
    Ok((pattern.to_owned(), topic.to_owned()))
}

pub(crate) fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut std::io::stdout());
}
