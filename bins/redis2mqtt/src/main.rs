//! Redis streams to MQTT topics: one sink, wired to the loop that all bridges share.

mod cli;
mod commands;
mod message;
mod messages;
mod mqtt;
mod settings;
mod sink;

use std::process::ExitCode;

use clap::Parser as _;
use sync_core::payload::Encoder;
use sync_core::program::{Program, Surroundings, healthcheck, operate, run_bridge};
use sync_core::run::run;

use self::cli::{Cli, Command};
use self::settings::Settings;
use self::sink::MqttSink;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    own_crates: &["mqtt_client"],
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let inputs = cli.settings.inputs();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run_bridge(PROGRAM, inputs, bridge),
        Command::Check(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::check(loaded, &arguments).await)
        }
        Command::Monitor(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::monitor(loaded, &arguments).await)
        }
        Command::DeadLetters(command) => {
            operate(PROGRAM, &inputs, async |loaded| commands::dead_letters(loaded, command).await)
        }
        Command::Healthcheck => healthcheck::<Settings>(PROGRAM, &inputs),
        Command::Completions { shell } => {
            cli::print_completions(shell);
            ExitCode::SUCCESS
        }
    }
}

async fn bridge(settings: Settings, around: Surroundings) -> anyhow::Result<()> {
    let Settings { redis, streams, text, mqtt, .. } = settings;
    let encoder = Encoder::new(text.value_format, text.encoding);
    let sink = MqttSink::new(&mqtt, streams.ownership, encoder)?;
    run(around.bridge(sink, mqtt.retry, redis, streams)).await?;
    Ok(())
}
