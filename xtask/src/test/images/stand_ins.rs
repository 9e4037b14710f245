//! The base images of a test. Public images cannot be had everywhere, and a test that needs the network of a registry
//! fails for reasons of its own: so what the compose files name is replaced by stand-ins, made from Debian's packages on
//! this machine (and Kafka's programs, as the other tests have them), under names of their own. They are made once and stay.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::containers::engine::{self, docker};
use crate::install::{self, Tool};
use crate::paths;
use crate::services::kafka;

/// Counted up when what is in them changes.
const VERSION: u32 = 2;
/// The variable of the compose files, and the target in xtask/stand-ins/Dockerfile.
const SERVERS: [(&str, &str); 5] = [
    ("REDIS_IMAGE", "redis"),
    ("MOSQUITTO_IMAGE", "mosquitto"),
    ("POSTGRES_IMAGE", "postgres"),
    ("KAFKA_IMAGE", "kafka"),
    ("PROMETHEUS_IMAGE", "prometheus"),
];

/// The variables that name them, for whatever reads compose files and the Dockerfile.
pub(super) fn ensure(shell: &Shell) -> Result<Vec<(&'static str, String)>> {
    let debian = name("debian");
    if !engine::has_image(shell, &debian) {
        make_debian(shell, &debian)?;
    }
    let base = format!("DEBIAN_IMAGE={debian}");
    let mut variables = vec![("DEBIAN_IMAGE", debian)];
    let mut directory = None;
    for (variable, target) in SERVERS {
        let image = name(target);
        if !engine::has_image(shell, &image) {
            println!("making {image}");
            if directory.is_none() {
                directory = Some(prepare()?);
            }
            let build = ["build", "--quiet", "--target", target, "--tag", &image, "--build-arg", &base];
            engine::quietly(docker(shell, &build).args(&directory))?;
        }
        variables.push((variable, image));
    }
    Ok(variables)
}

fn name(target: &str) -> String {
    format!("redis-sync-test/{target}:{VERSION}")
}

fn make_debian(shell: &Shell, image: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making {image} takes root (mmdebstrap); or use the public images: cargo xtask test images --public"
    );
    install::ensure(
        &[Tool { program: "mmdebstrap", package: "mmdebstrap" }],
        "to make the base image of the tests",
    )?;
    println!("making {image} from Debian's packages");
    let archive = paths::data("docker").join("debian.tar");
    engine::quietly(cmd!(shell, "mmdebstrap --variant=apt --dpkgopt=force-unsafe-io bookworm {archive}"))?;
    docker(shell, &["import"]).arg(&archive).arg(image).quiet().ignore_stdout().run()?;
    fs::remove_file(&archive).context("remove the archive")
}

/// A directory to build from: what is in xtask/stand-ins, and the programs of Kafka.
fn prepare() -> Result<PathBuf> {
    let directory = paths::data("docker").join("stand-ins");
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    install::ensure(kafka::TOOLS, "for the programs of Kafka")?;
    copy(&paths::root().join("xtask/stand-ins"), &directory)?;
    copy(&kafka::programs()?, &directory.join("kafka-libs"))?;
    Ok(directory)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for file in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))
            .with_context(|| format!("copy {}", file.path().display()))?;
    }
    Ok(())
}
