//! `cargo xtask check`: everything about the source that needs no server.

use anyhow::{Result, ensure};
use xshell::Shell;

use crate::install;
use crate::paths::{self, cargo};

pub(crate) fn run() -> Result<()> {
    let shell = paths::shell()?;
    need_component(&shell, "fmt", "rustfmt")?;
    need_component(&shell, "clippy", "clippy")?;
    install::ensure_build_tools()?;
    cargo(&shell, &["fmt", "--all", "--check"]).run()?;
    cargo(&shell, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]).run()?;
    cargo(&shell, &["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()?;
    if responds(&shell, "deny") {
        cargo(&shell, &["deny", "--workspace", "check"]).run()?;
    } else {
        println!("cargo deny: skipped, it is not installed (cargo install cargo-deny --locked)");
    }
    println!("check: OK");
    Ok(())
}

fn need_component(shell: &Shell, command: &str, component: &str) -> Result<()> {
    ensure!(responds(shell, command), "`cargo {command}` is missing; run: rustup component add {component}");
    Ok(())
}

fn responds(shell: &Shell, command: &str) -> bool {
    cargo(shell, &[command, "--version"]).quiet().ignore_stdout().ignore_stderr().run().is_ok()
}
