//! MQTT topics to Kafka topics.

mod cli;
mod commands;
#[cfg_attr(not(test), expect(dead_code, reason = "what moves messages reads them"))]
mod settings;

use std::process::ExitCode;

use clap::Parser as _;
use sync_core::program::{Process, Program, answer, healthcheck, operate, run_process};

use self::cli::{Cli, Command};
use self::settings::Settings;

const PROGRAM: Program = Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    let cli = Cli::parse();
    let inputs = cli.settings.inputs();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run_process(PROGRAM, inputs, bridge),
        Command::Check(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::check(loaded, &arguments).await)
        }
        Command::Decode(arguments) => answer(PROGRAM, commands::decode(&arguments)),
        Command::Healthcheck => healthcheck::<Settings>(PROGRAM, &inputs),
        Command::Completions { shell } => {
            cli::print_completions(shell);
            ExitCode::SUCCESS
        }
    }
}

async fn bridge(_: Settings, process: Process) -> anyhow::Result<()> {
    process.health.awaited("MQTT broker");
    process.health.awaited("Kafka");
    process.stop.requested().await;
    Ok(())
}
