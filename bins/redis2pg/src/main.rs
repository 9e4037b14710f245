//! Redis streams and key-values to PostgreSQL tables: one sink, wired to the loop that all bridges share.

mod cli;
mod commands;
mod key_values;
mod postgres;
mod schema;
mod settings;
mod sink;
mod streams;
mod summary;
mod verify;

use std::process::ExitCode;

use sync_core::commands::monitor::MonitorArguments;
use sync_core::program::{Program, Surroundings, healthcheck, operate, run_bridge};
use sync_core::run::{Bridge, run};
use sync_core::settings::Inputs;

use self::cli::{Cli, Command, Mode};
use self::settings::Settings;
use self::sink::PgSink;
use self::summary::Summary;

const PROGRAM: Program =
    Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), own_crates: &[] };

fn main() -> ExitCode {
    let cli = Cli::checked();
    let inputs = cli.settings.inputs();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run if cli.mode == Mode::Sync => run_bridge(PROGRAM, inputs, bridge),
        Command::Run => monitor(&inputs, &cli.monitor),
        Command::Monitor(arguments) => monitor(&inputs, &arguments),
        Command::Check(arguments) => {
            operate(PROGRAM, &inputs, async |loaded| commands::check(loaded, &arguments).await)
        }
        Command::Schema => operate(PROGRAM, &inputs, async |loaded| commands::schema(&loaded)),
        Command::Verify(arguments) => operate(PROGRAM, &inputs, async |loaded| {
            verify::run(loaded, &arguments, &mut std::io::stdout().lock()).await
        }),
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

fn monitor(inputs: &Inputs, arguments: &MonitorArguments) -> ExitCode {
    operate(PROGRAM, inputs, async |loaded| commands::monitor(loaded, arguments).await)
}

async fn bridge(settings: Settings, around: Surroundings) -> anyhow::Result<()> {
    let sink = PgSink::new(&settings, around.metrics());
    let summary = Summary::new(around.metrics(), around.health());
    let telling = tokio::spawn(summary.tell(around.stop.clone()));
    let beside = key_values::beside(sink.clone(), &settings);
    let Settings { redis, streams, postgres, .. } = settings;
    run(Bridge { beside, ..around.bridge(sink, postgres.retry, redis, streams) }).await?;
    // It was told to stop with the bridge.
    let _ = telling.await;
    Ok(())
}
