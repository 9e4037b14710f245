//! MQTT topics to Kafka topics: a session of the broker's, wired to a producer that keeps order.

mod assemble;
mod attributes;
mod bridge;
mod broker;
mod check;
mod cli;
mod commands;
mod counts;
mod filter;
mod ignored;
mod json;
mod message;
mod queue;
mod recent;
mod route;
mod settings;
mod sparkplug;
mod subscriber;
mod timestamp;
mod topic;
mod value;

use std::process::ExitCode;

use clap::Parser as _;
use sync_core::program::{Process, Program, answer, healthcheck, operate, run_process};

use self::cli::{Cli, Command};
use self::settings::Settings;

/// The client library allocates on one thread and frees on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    own_crates: &["kafka_producer", "mqtt_client"],
};

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

async fn bridge(settings: Settings, process: Process) -> anyhow::Result<()> {
    bridge::run(assemble::parts(settings, process)).await
}
