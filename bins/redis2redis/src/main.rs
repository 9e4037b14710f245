//! Redis streams to the same streams on another Redis: one sink, wired to the loop that all bridges share.

mod cli;
mod commands;
mod loops;
mod naming;
mod proofs;
mod script;
mod settings;
mod sink;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;
use sync_core::program::{Program, Surroundings, healthcheck, operate, run_bridge};
use sync_core::run::run;

use self::cli::{Cli, Command};
use self::settings::Settings;
use self::sink::RedisSink;

const PROGRAM: Program =
    Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), own_crates: &[] };

fn main() -> ExitCode {
    let cli = Cli::parse();
    let inputs = cli.settings.inputs();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run_bridge(PROGRAM, inputs, bridge),
        Command::Check(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::check(loaded, &arguments).await)
        }
        Command::Verify(arguments) => operate(PROGRAM, &inputs, async |loaded| {
            verify::run(loaded, &arguments, &mut std::io::stdout().lock()).await
        }),
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
    let sink = RedisSink::new(&settings)?;
    tokio::select! {
        checked = sink.refuse_loop() => checked?,
        () = around.stop.requested() => return Ok(()),
    }
    let Settings { redis, streams, target, .. } = settings;
    run(around.bridge(sink, target.redis.retry, redis, streams)).await?;
    Ok(())
}
