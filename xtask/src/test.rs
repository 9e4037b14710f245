//! `cargo xtask test`: the servers up, then every test of the workspace, with the servers' addresses in its
//! environment. A server that cannot be had is a failure, never a skip.

use anyhow::Result;

use crate::install;
use crate::paths;
use crate::services::{Fleet, Service};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains one of these
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
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
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        fleet.down(&Service::SHARED)?;
    } else {
        println!("the servers stay up for the next run; stop them with: cargo xtask services down");
    }
    Ok(tested?)
}
