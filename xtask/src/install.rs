//! Installs with apt-get what a command needs and the machine lacks, after saying so. Anyone but root is told the
//! exact command instead.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::paths;

/// A program, and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// What builds librdkafka, which asks for a C++ compiler too, and the OpenSSL within it. Who runs this program has a C
/// compiler already.
const BUILD: &[Tool] = &[
    Tool { program: "c++", package: "g++" },
    Tool { program: "make", package: "make" },
    Tool { program: PERL, package: "perl" },
];
const PERL: &str = "perl";

/// Where Debian keeps servers; not in everybody's PATH.
const SERVER_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where Debian keeps PostgreSQL: a directory for each version, none of them in PATH.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// The program's path, wherever it lies.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SERVER_DIRECTORIES.map(PathBuf::from))
        .chain(postgres_directories(Path::new(POSTGRES_VERSIONS)))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The newest version first. What is not named like a version is none.
fn postgres_directories(versions: &Path) -> Vec<PathBuf> {
    let version =
        |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse::<f64>().ok()?, entry.path()));
    let mut found: Vec<_> =
        fs::read_dir(versions).into_iter().flatten().flatten().filter_map(version).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, path)| path.join("bin")).collect()
}

/// The program's path; [`ensure`] ran before.
pub(crate) fn path_of(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program} is not installed"))
}

/// Makes sure that all packages of this workspace can be built.
pub(crate) fn ensure_build_tools() -> Result<()> {
    ensure(BUILD, "to build librdkafka, the client library of Kafka")
}

/// Every Debian has a perl, without the modules that OpenSSL's Configure uses.
fn is_there(program: &str) -> bool {
    let modules = ["-MFindBin", "-MIPC::Cmd", "-MFile::Compare", "-MFile::Copy", "-MPod::Usage", "-e", "1"];
    let has_modules = |perl| Command::new(perl).args(modules).stderr(Stdio::null()).status();
    match find(program) {
        Some(perl) if program == PERL => has_modules(perl).is_ok_and(|status| status.success()),
        found => found.is_some(),
    }
}

/// Makes sure that every tool is there. `why` completes the sentence "… is needed …".
pub(crate) fn ensure(tools: &[Tool], why: &str) -> Result<()> {
    let packages = missing(tools, is_there);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("needed {why}, and this machine has no apt-get to install it with (Debian's names): {list}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "needed {why}; run: sudo apt-get update && sudo apt-get install --no-install-recommends --yes {list}"
        );
    }
    println!("installing {list} with apt-get: needed {why}");
    let shell = paths::shell()?;
    let _quiet = NoServiceStarts::begin(Path::new("/usr/sbin/policy-rc.d"))?;
    shell.set_var("DEBIAN_FRONTEND", "noninteractive");
    cmd!(shell, "apt-get update -qq").quiet().run()?;
    cmd!(shell, "apt-get install -qq --no-install-recommends --yes {packages...}")
        .quiet()
        .ignore_stdout()
        .run()?;
    match missing(tools, is_there).as_slice() {
        [] => Ok(()),
        still => bail!("apt-get succeeded, yet these packages brought no program: {}", still.join(" ")),
    }
}

fn missing(tools: &[Tool], there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let packages: BTreeSet<_> =
        tools.iter().filter(|tool| !there(tool.program)).map(|tool| tool.package).collect();
    packages.into_iter().collect()
}

/// Debian's packages start their service at once, on the well-known port. `policy-rc.d` is Debian's switch against
/// that (invoke-rc.d(8)); a machine that has one already decides for itself.
struct NoServiceStarts(Option<PathBuf>);

impl NoServiceStarts {
    fn begin(policy: &Path) -> Result<Self> {
        if policy.exists() {
            return Ok(Self(None));
        }
        let mut file =
            fs::File::create_new(policy).with_context(|| format!("create {}", policy.display()))?;
        let guard = Self(Some(policy.to_path_buf()));
        file.write_all(b"#!/bin/sh\nexit 101\n")?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("remove {} by hand: {error}", policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_missing_package_once() {
        let tools = [
            Tool { program: "redis-server", package: "redis-server" },
            Tool { program: "mosquitto", package: "mosquitto" },
            Tool { program: "mosquitto_passwd", package: "mosquitto" },
        ];
        assert_eq!(missing(&tools, |program| program == "redis-server"), ["mosquitto"]);
        assert!(missing(&tools, |_| true).is_empty());
    }

    #[test]
    fn the_newest_postgresql_goes_first() {
        let versions = std::env::temp_dir().join(format!("xtask-versions-{}", std::process::id()));
        for version in ["9.6", "15", "7", "101", "common"] {
            fs::create_dir_all(versions.join(version)).unwrap();
        }
        let found = postgres_directories(&versions);
        assert_eq!(found, ["101", "15", "9.6", "7"].map(|version| versions.join(version).join("bin")));
        fs::remove_dir_all(&versions).unwrap();
        assert!(postgres_directories(&versions).is_empty());
    }

    #[test]
    fn service_starts_are_allowed_again_afterwards() {
        let policy = std::env::temp_dir().join(format!("policy-rc.d-{}", std::process::id()));
        let guard = NoServiceStarts::begin(&policy).unwrap();
        assert!(policy.exists());
        let second = NoServiceStarts::begin(&policy).unwrap();
        drop(second);
        assert!(policy.exists(), "only who made it removes it");
        drop(guard);
        assert!(!policy.exists());
    }
}
