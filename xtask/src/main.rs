//! The project's own commands, run as `cargo xtask …`.
//!
//! Each command is one module. What several of them share: `services` (the real servers), `process` (a process
//! found again after a restart of this program), `bridge` (one that runs), `admin` (what one says of itself), `redis`,
//! `postgres` and `kafka` (small clients), `mqtt` (a subscriber and a publisher), `sparkplug` (payloads), `ledger` (what was
//! written against what arrived), `copies` and `rows` (what was written against what stands there). Nothing here is part
//! of a bridge.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks through these")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are for the bridges: this program is synchronous, sleeps, and reads its own environment"
)]

mod admin;
mod bench;
mod bridge;
mod check;
mod containers;
mod copies;
mod demo;
mod install;
mod kafka;
mod ledger;
mod mqtt;
mod paths;
mod postgres;
mod process;
mod redis;
mod rows;
mod services;
mod sparkplug;
mod test;
mod truststore;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The project's own commands", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints with warnings denied, documentation, and licences if cargo-deny is installed
    Check,
    /// Start the servers that the tests need and run every test of the workspace
    Test(test::Args),
    /// The real servers on loopback ports of their own, with their data under target/services
    Services(services::Args),
    /// Simulated devices, a bridge, and what arrives: to watch, with a tally at the end
    Demo(demo::Args),
    /// How fast a bridge moves entries, on real servers
    Bench(bench::Args),
    /// The PEM file for KAFKA_SSL_CA, of a Java trust store
    Truststore(truststore::Args),
    /// Build the bridges' container images
    Image(containers::image::Args),
    /// Bridges in containers on this machine, with servers of their own or yours
    Compose(containers::compose::Args),
    /// Bridges in a Docker Swarm, several replicas of each
    Swarm(containers::swarm::Args),
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Check => check::run(),
        Command::Test(args) => test::run(args),
        Command::Services(args) => services::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Truststore(args) => truststore::run(args),
        Command::Image(args) => containers::image::run(args),
        Command::Compose(args) => containers::compose::run(args),
        Command::Swarm(args) => containers::swarm::run(args),
    }
}
