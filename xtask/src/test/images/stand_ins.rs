//! The base images of a test. Public images cannot be had everywhere, and a test that needs the network of a registry
//! fails for reasons of its own: so what the compose files name is replaced by stand-ins, made from Debian's packages on
//! this machine, under names of their own. They are made once and stay.

use std::fs;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::containers::engine::{self, docker};
use crate::install::{self, Tool};
use crate::paths;

/// Counted up when what is in them changes.
const DEBIAN: &str = "redis-sync-test/debian:1";
/// The variable of the compose files, and the target in xtask/stand-ins/Dockerfile.
const SERVERS: [(&str, &str); 4] = [
    ("REDIS_IMAGE", "redis"),
    ("MOSQUITTO_IMAGE", "mosquitto"),
    ("POSTGRES_IMAGE", "postgres"),
    ("PROMETHEUS_IMAGE", "prometheus"),
];

/// The variables that name them, for whatever reads compose files and the Dockerfile.
pub(super) fn ensure(shell: &Shell) -> Result<Vec<(&'static str, String)>> {
    if !engine::has_image(shell, DEBIAN) {
        debian(shell)?;
    }
    let mut variables = vec![("DEBIAN_IMAGE", DEBIAN.to_owned())];
    for (variable, target) in SERVERS {
        let image = format!("redis-sync-test/{target}:1");
        if !engine::has_image(shell, &image) {
            println!("making {image} from Debian's packages");
            let base = format!("DEBIAN_IMAGE={DEBIAN}");
            let build = ["build", "--quiet", "--target", target, "--tag", &image, "--build-arg", &base];
            engine::quietly(docker(shell, &build).arg("xtask/stand-ins"))?;
        }
        variables.push((variable, image));
    }
    Ok(variables)
}

fn debian(shell: &Shell) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making {DEBIAN} takes root (debootstrap); or use the public images: cargo xtask test images --public"
    );
    install::ensure(
        &[Tool { program: "debootstrap", package: "debootstrap" }],
        "to make the base image of the tests",
    )?;
    println!("making {DEBIAN} from Debian's packages");
    let directory = paths::data("docker").join("debian");
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    let log = paths::data("docker").join("debootstrap.log");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let made =
        cmd!(shell, "debootstrap --variant=minbase bookworm {directory}").quiet().ignore_stderr().read();
    let said = made.map(|said| fs::write(&log, said));
    said.with_context(|| {
        format!("debootstrap; see {}", directory.join("debootstrap/debootstrap.log").display())
    })??;
    let archive = paths::data("docker").join("debian.tar");
    cmd!(shell, "tar --create --file {archive} --directory {directory} .").quiet().run()?;
    docker(shell, &["import"]).arg(&archive).arg(DEBIAN).quiet().ignore_stdout().run()?;
    fs::remove_file(&archive).context("remove the archive")?;
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))
}
