//! What the binary does: its command line, wired to the loop that all bridges share.

use std::process::ExitCode;

use clap::Parser as _;
use kafka_producer::Kafka;
use sync_core::program::{Program, Surroundings, healthcheck, operate, run_bridge};
use sync_core::run::run;

use crate::buffer::{BufferSink, SHARDS, Sender, Wake};
use crate::cli::{self, Cli, Command};
use crate::commands;
use crate::settings::Settings;
use crate::sink::KafkaSink;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    own_crates: &["kafka_producer"],
};

/// The `main` of the binary.
pub fn main() -> ExitCode {
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
        Command::Buffer(command) => {
            operate(PROGRAM, &inputs, async |loaded| commands::buffer(loaded, command).await)
        }
        Command::Process(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::process(loaded, arguments).await)
        }
        Command::Send(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::send(loaded, arguments).await)
        }
        Command::Sync { topic } => {
            operate(PROGRAM, &inputs, async |loaded| commands::sync(loaded, topic).await)
        }
        Command::Healthcheck => healthcheck::<Settings>(PROGRAM, &inputs),
        Command::Completions { shell } => {
            cli::print_completions(shell);
            ExitCode::SUCCESS
        }
    }
}

async fn bridge(settings: Settings, around: Surroundings) -> anyhow::Result<()> {
    let kafka = Kafka::new(&settings.kafka.client, Some(around.health().clone()));
    let retry = settings.kafka.retry;
    match &settings.buffer {
        None => {
            let sink = KafkaSink::new(&settings, kafka);
            run(around.bridge(sink, retry, settings.redis, settings.streams)).await?;
        }
        Some(buffer) => {
            let wake = Wake::default();
            let health = around.health();
            let sink = BufferSink::new(&settings, buffer, kafka.clone(), wake.clone(), Some(health.clone()))?;
            sink.refuse_unsafe().await?;
            let sender = Sender::new(buffer, retry, kafka, (wake, sink.intake()), health, around.metrics())?;
            let bridge = around.bridge(sink, buffer.redis.retry, settings.redis, settings.streams);
            run(bridge.beside_in_shards(SHARDS, |shards| sender.run(shards))).await?;
        }
    }
    Ok(())
}
