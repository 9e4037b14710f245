//! The container engine and its commands. Where none answers, root gets one started, after being told so; everybody
//! else is told what to do. It is left running, as everything is that was started in it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::install::{self, Tool};
use crate::paths;
use crate::process::{self, Process, tail, wait_until};

/// dockerd needs iptables for its networks, and Debian only recommends it.
const TOOLS: &[Tool] = &[
    Tool { program: "dockerd", package: "docker.io" },
    Tool { program: "docker", package: "docker.io" },
    Tool { program: "iptables", package: "iptables" },
];
const COMPOSE: &[Tool] = &[Tool { program: "docker-compose", package: "docker-compose" }];

/// A daemon that finds many containers of an earlier life takes its time.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// Makes sure that `docker` works, for whoever runs this.
pub(crate) fn ensure() -> Result<()> {
    if install::find("docker").is_some() && answers() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "no container engine answers `docker info`; install one and start it \
             (Debian: sudo apt-get install docker.io), with you in the group docker"
        );
    }
    install::ensure(TOOLS, "to build and run containers")?;
    if !answers() {
        start()?;
    }
    Ok(())
}

/// Ends the daemon that [`ensure`] started, if it did: for where nothing may stay behind.
pub(crate) fn stop_if_started() -> Result<()> {
    let file = state();
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let daemon: Process = serde_json::from_str(&text).context("read which dockerd was started")?;
    daemon.end(Duration::from_secs(60))?;
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

fn answers() -> bool {
    succeeds(&["info"])
}

fn succeeds(arguments: &[&str]) -> bool {
    Command::new("docker")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn start() -> Result<()> {
    let dir = paths::data("docker");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let log = dir.join("dockerd.log");
    println!("starting dockerd, since no container engine answers (log: {})", log.display());
    let mut child = process::spawn(&mut Command::new(install::path_of("dockerd")?), &log)?;
    fs::write(state(), serde_json::to_string(&Process::of(child.id())?)?).context("remember dockerd")?;
    let mut ended = false;
    let up = wait_until(UP_WITHIN, || {
        ended = !matches!(child.try_wait(), Ok(None));
        ended || answers()
    });
    if up && !ended {
        return Ok(());
    }
    bail!("dockerd {}; {}", if ended { "ended at once" } else { "does not answer" }, tail(&log))
}

fn state() -> PathBuf {
    paths::data("docker").join("dockerd.json")
}

/// Asked once: what is installed while this program runs is not these.
static HAS_BUILDX: LazyLock<bool> = LazyLock::new(|| has_plugin("buildx"));
static HAS_COMPOSE: LazyLock<bool> = LazyLock::new(|| has_plugin("compose"));

fn has_plugin(plugin: &str) -> bool {
    succeeds(&[plugin, "version"])
}

/// `docker ARGUMENTS`. Without buildx the classic builder does it, and need not be told that it is old.
pub(crate) fn docker<'a>(shell: &'a Shell, arguments: &[&str]) -> Cmd<'a> {
    let command = cmd!(shell, "docker {arguments...}");
    if arguments.first() == Some(&"build") && !*HAS_BUILDX {
        return command.env("DOCKER_BUILDKIT", "0");
    }
    command
}

/// `docker compose ARGUMENTS` where the plugin is installed, else `docker-compose ARGUMENTS`.
pub(crate) fn compose<'a>(shell: &'a Shell, arguments: &[&str]) -> Result<Cmd<'a>> {
    if *HAS_COMPOSE {
        return Ok(cmd!(shell, "docker compose {arguments...}"));
    }
    install::ensure(COMPOSE, "to run containers together, since docker has no plugin for that")?;
    Ok(cmd!(shell, "docker-compose {arguments...}"))
}

/// Runs a command whose output is of interest only if it fails.
pub(crate) fn quietly(command: Cmd<'_>) -> Result<()> {
    let words = command.to_string();
    let output = command.quiet().ignore_status().output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim_end())
}

/// Whether an image is here under this name.
pub(crate) fn has_image(shell: &Shell, image: &str) -> bool {
    docker(shell, &["image", "inspect", image]).quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

/// Where on this machine a port of a container is published.
pub(crate) fn published(shell: &Shell, container: &str, port: u16) -> Result<u16> {
    let addresses = docker(shell, &["port", container, &port.to_string()]).quiet().read()?;
    let address =
        addresses.lines().next().with_context(|| format!("{container} publishes no port {port}"))?;
    let (_, port) = address.rsplit_once(':').context("an address and a port")?;
    port.parse().context("a port is a number")
}
