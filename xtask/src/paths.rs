//! Where things lie. Server data is always under `target/` of the workspace, whatever Cargo's target directory is:
//! two checkouts that share one build directory must not share servers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // `cargo run` says where the package lies now; the path at compile time is for a binary started by hand.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// `target/NAME` of the workspace: servers' data, logs.
pub(crate) fn data(name: &str) -> PathBuf {
    root().join("target").join(name)
}

/// A shell that stands in the workspace's root.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new().context("open a shell")?;
    shell.change_dir(root());
    Ok(shell)
}

/// `cargo ARGUMENTS`, as if typed in a terminal. `cargo run` tells this program about itself in variables that build
/// scripts watch: with them ring, and all that depends on it, would be built anew at each change between
/// `cargo xtask` and `cargo`.
pub(crate) fn cargo<'a>(shell: &'a Shell, arguments: &[&str]) -> Cmd<'a> {
    std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(is_about_this_package))
        .fold(cmd!(shell, "cargo {arguments...}"), |command, (name, _)| command.env_remove(name))
}

fn is_about_this_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// Where Cargo puts what it builds.
pub(crate) fn build_dir(shell: &Shell) -> Result<PathBuf> {
    let metadata =
        cargo(shell, &["metadata", "--no-deps", "--format-version", "1", "--locked"]).quiet().read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo's metadata name no target directory")?;
    Ok(directory.into())
}
