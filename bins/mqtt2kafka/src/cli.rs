//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use sync_core::settings::Inputs;

use crate::settings;

/// Moves MQTT messages, JSON and Sparkplug B, to Kafka topics: complete, in order.
#[derive(Debug, Parser)]
#[command(version, after_long_help = settings::help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

/// Where settings come from.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SettingsArguments {
    /// Directory of settings.yaml and .secrets.yaml; else ./conf if it is there.
    #[arg(long, global = true, value_name = "DIR")]
    conf: Option<PathBuf>,
    /// DEBUG, INFO, WARNING, ERROR, CRITICAL or TRACE.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// A setting, before all other places, such as mqtt.host=broker; again for more.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// What to do; `run` when nothing is named.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run until SIGTERM or SIGINT.
    Run,
    /// Print the settings in force and where each comes from; --topic: what becomes of MQTT topics; --connect:
    /// what both servers say.
    Check(CheckArguments),
    /// Print a Sparkplug B payload as the JSON that Kafka gets.
    Decode(DecodeArguments),
    /// Ask the bridge that runs here whether it lives (/healthz on ADMIN_ADDR): for a container's health check.
    Healthcheck,
    /// Print a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

/// What may stand behind `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Also connect to both servers and tell what they say: nothing is changed, and a bridge that runs is left alone.
    #[arg(long)]
    pub(crate) connect: bool,
    /// Tell which Kafka topic and key messages of these MQTT topics get.
    #[arg(long, value_name = "TOPIC", num_args = 1..)]
    pub(crate) topic: Vec<String>,
}

/// What stands behind `decode`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DecodeArguments {
    /// The payload in hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: Option<String>,
    /// A file that holds the payload; - is standard input.
    pub(crate) file: Option<PathBuf>,
}

impl SettingsArguments {
    /// With what the process was started with beside them.
    pub(crate) fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::from_process();
        if let Some(conf) = &self.conf {
            inputs = inputs.set(settings::CONF, &conf.to_string_lossy());
        }
        for (key, value) in &self.set {
            inputs = inputs.set(key, value);
        }
        match &self.log_level {
            Some(level) => inputs.set("LOG_LEVEL", level),
            None => inputs,
        }
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !key.starts_with('-') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("must be KEY=VALUE, such as mqtt.host=broker".to_owned()),
    }
}

pub(crate) fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut std::io::stdout());
}
