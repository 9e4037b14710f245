//! `cargo xtask test`: the servers up, then every test of the workspace, with the servers' addresses in its
//! environment. A server that cannot be had is a failure, never a skip. `cargo xtask test images` is what needs a
//! container engine.

mod images;

use anyhow::Result;
use clap::Subcommand;

use crate::install;
use crate::paths;
use crate::services::{Fleet, Service};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Run only tests whose name contains one of these
    filter: Vec<String>,
}

#[derive(Subcommand)]
enum What {
    /// The bridges in containers: images, every compose combination, a Swarm under load, monitoring
    Images(images::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(What::Images(args)) = &args.what {
        return images::run(args);
    }
    install::ensure_build_tools()?;
    let fleet = Fleet::shared();
    fleet.up(&Service::SHARED)?;
    let shell = paths::shell()?;
    for (name, value) in fleet.exports()? {
        shell.set_var(name, value);
    }
    let mut command = vec!["test", "--workspace", "--locked", "--no-fail-fast", "--"];
    command.extend(args.filter.iter().map(String::as_str));
    let tested = paths::cargo(&shell, &command).run();
    if in_ci() {
        fleet.down(&Service::SHARED)?;
    } else {
        println!("the servers stay up for the next run; stop them with: cargo xtask services down");
    }
    Ok(tested?)
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}
