//! The command line.

use clap::{CommandFactory as _, Parser, Subcommand};
use sync_core::commands::check::CheckArguments;
use sync_core::commands::dead_letters::DeadLettersCommand;
use sync_core::commands::monitor::MonitorArguments;
use sync_core::program::SettingsArguments;

use crate::settings;
use crate::verify::VerifyArguments;

/// Moves what arrives in Redis streams, and what stands in other keys, to PostgreSQL tables: complete, each entry once.
#[derive(Debug, Parser)]
#[command(version, after_long_help = settings::help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// sync: the bridge. monitor: watch its streams and write nothing, as the command of that name does.
    #[arg(long, value_enum, default_value_t = Mode::Sync)]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) monitor: MonitorArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

impl Cli {
    /// Options of the monitor are no use to anything else.
    pub(crate) fn checked() -> Self {
        let cli = Self::parse();
        let MonitorArguments { json, once, all } = cli.monitor;
        let runs = matches!(cli.command, None | Some(Command::Run));
        if (json || once || all) && !(runs && cli.mode == Mode::Monitor) {
            let words = "--json, --once and --all go with --mode monitor";
            Self::command().error(clap::error::ErrorKind::ArgumentConflict, words).exit();
        }
        cli
    }
}

/// What `run` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    Sync,
    Monitor,
}

/// What to do; `run` when nothing is named.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run until SIGTERM or SIGINT.
    Run,
    /// Print the settings in force and where each comes from; --connect: and what the bridge would do.
    Check(CheckArguments),
    /// Print the SQL that makes the tables, and the grants that a role needs which does nothing else.
    Schema,
    /// Watch the streams at the source: health, length, groups, pending entries, lag, warnings. Writes nothing.
    Monitor(MonitorArguments),
    /// Compare the table of stream entries with the source, entry by entry.
    Verify(VerifyArguments),
    /// See, deliver again and remove what was refused.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Ask the bridge that runs here whether it lives (/healthz on ADMIN_ADDR): for a container's health check.
    Healthcheck,
    /// Print a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

pub(crate) fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut std::io::stdout());
}
