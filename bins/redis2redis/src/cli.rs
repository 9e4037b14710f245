//! The command line.

use clap::{CommandFactory as _, Parser, Subcommand};
use sync_core::commands::check::CheckArguments;
use sync_core::commands::dead_letters::DeadLettersCommand;
use sync_core::commands::monitor::MonitorArguments;
use sync_core::program::SettingsArguments;

use crate::settings;
use crate::verify::VerifyArguments;

/// Moves what arrives in Redis streams to the same streams on another Redis: same IDs, complete, in order.
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
    /// Compare the target with the source, entry by entry; --repair: and copy what can be copied.
    Verify(VerifyArguments),
    /// Watch the streams until Ctrl-C: lag, pending entries, groups, and what to look after. Changes nothing.
    Monitor(MonitorArguments),
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
