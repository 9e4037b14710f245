//! `cargo xtask image`: the bridges' images, from source or around binaries that are already built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use super::catalog::{self, Bridge};
use super::engine::{self, docker};
use crate::paths;

const DOCKERFILE: &str = "docker/Dockerfile";
/// Base images that somebody may have elsewhere; the Dockerfile names the public ones.
const BASES: [&str; 2] = ["DEBIAN_IMAGE", "RUST_IMAGE"];

/// `cargo xtask image`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which bridges, by their own name or their service's (otherwise all)
    #[arg(value_parser = catalog::parse)]
    bridges: Vec<&'static Bridge>,
    #[command(flatten)]
    names: Names,
    /// Push them to the registry afterwards
    #[arg(long)]
    push: bool,
    /// Pack binaries that are already built (in target/release, or DIRECTORY) instead of building from source. They
    /// must run on Debian 12, as the image does
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, require_equals = true)]
    prebuilt: Option<Option<PathBuf>>,
}

/// What images are called: REGISTRY/BRIDGE:TAG.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct Names {
    /// What stands before the bridge's name [default: $REGISTRY, else localhost:5000]
    #[arg(long)]
    registry: Option<String>,
    /// What stands after it [default: $TAG, else latest]
    #[arg(long)]
    tag: Option<String>,
}

/// The names, settled.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) registry: String,
    pub(crate) tag: String,
}

impl Names {
    /// These, whatever the environment says.
    pub(crate) fn of(place: &Place) -> Self {
        Self { registry: Some(place.registry.clone()), tag: Some(place.tag.clone()) }
    }

    /// The command line goes before the environment, and that before `otherwise` (a settings file).
    pub(crate) fn settle(&self, otherwise: impl Fn(&str) -> Option<String>) -> Place {
        let settled = |given: &Option<String>, name: &str, default: &str| {
            let given = given.clone().or_else(|| std::env::var(name).ok());
            given
                .filter(|value| !value.is_empty())
                .or_else(|| otherwise(name))
                .unwrap_or_else(|| default.into())
        };
        Place {
            registry: settled(&self.registry, "REGISTRY", "localhost:5000"),
            tag: settled(&self.tag, "TAG", "latest"),
        }
    }
}

impl Place {
    pub(crate) fn image(&self, bridge: &Bridge) -> String {
        format!("{}/{}:{}", self.registry, bridge.name, self.tag)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    engine::ensure()?;
    let shell = paths::shell()?;
    let place = args.names.settle(|_| None);
    let bridges: Vec<_> =
        if args.bridges.is_empty() { catalog::existing().collect() } else { args.bridges.clone() };
    let prebuilt = match &args.prebuilt {
        None => None,
        Some(Some(directory)) => Some(directory.clone()),
        Some(None) => Some(paths::build_dir(&shell)?.join("release")),
    };
    for bridge in bridges {
        let image = place.image(bridge);
        build(&shell, bridge, &image, prebuilt.as_deref())?;
        if args.push {
            docker(&shell, &["push", &image]).run()?;
        }
    }
    Ok(())
}

/// Builds one image, and has it say which version it is: so a binary that does not run in it is not found out later.
pub(crate) fn build(shell: &Shell, bridge: &Bridge, image: &str, prebuilt: Option<&Path>) -> Result<()> {
    let mut command =
        vec!["build".to_owned(), "--target".into(), bridge.name.into(), "--tag".into(), image.into()];
    for (name, value) in build_arguments(shell)? {
        command.extend(["--build-arg".into(), format!("{name}={value}")]);
    }
    match prebuilt {
        None => command.extend(["--file".into(), DOCKERFILE.into(), ".".into()]),
        Some(binaries) => command.extend(["--quiet".into(), pack(bridge, binaries)?.display().to_string()]),
    }
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let built = docker(shell, &command);
    if prebuilt.is_some() {
        engine::quietly(built)?;
    } else {
        built.run()?;
    }
    let version = docker(shell, &["run", "--rm", "--read-only", "--network", "none", image, "--version"])
        .quiet()
        .read()
        .with_context(|| format!("{} does not run in the image that was built around it", bridge.name))?;
    let size = docker(shell, &["image", "inspect", "--format", "{{.Size}}", image]).quiet().read()?;
    let megabytes = size.trim().parse::<u64>().context("an image has a size")? / 1_000_000;
    println!("{image}: {version}, {megabytes} MB");
    Ok(())
}

/// What the labels say, and base images that the environment names.
fn build_arguments(shell: &Shell) -> Result<Vec<(&'static str, String)>> {
    let mut arguments = vec![("VERSION", env!("CARGO_PKG_VERSION").to_owned())];
    // An archive of the sources has no history, and its user perhaps no git.
    if let Ok(revision) =
        cmd!(shell, "git describe --always --dirty --abbrev=40 --exclude *").quiet().ignore_stderr().read()
    {
        arguments.push(("REVISION", revision));
    }
    arguments.extend(BASES.iter().filter_map(|name| Some((*name, shell.var(name).ok()?))));
    Ok(arguments)
}

/// A directory to build from that holds the binary and the part of the Dockerfile that is about it.
fn pack(bridge: &Bridge, binaries: &Path) -> Result<PathBuf> {
    let binary = binaries.join(bridge.name);
    ensure!(
        binary.is_file(),
        "{} is missing; build it: cargo build --release --package {}",
        binary.display(),
        bridge.name
    );
    let dockerfile = fs::read_to_string(paths::root().join(DOCKERFILE)).context("read the Dockerfile")?;
    let directory = paths::data("docker").join("images").join(bridge.name);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    fs::copy(&binary, directory.join(bridge.name)).with_context(|| format!("copy {}", binary.display()))?;
    fs::write(directory.join("Dockerfile"), without_build(&dockerfile, bridge.name))
        .context("write the Dockerfile without the build")?;
    Ok(directory)
}

/// The stages that an image has besides the build: the classic builder would go through all that stand before. What is
/// copied comes from the directory then.
fn without_build(dockerfile: &str, target: &str) -> String {
    let stages = stages(dockerfile);
    let kept = |name: &str| name.is_empty() || name == "runtime" || name == target;
    let text: String = stages.iter().filter(|(name, _)| kept(name)).map(|(_, text)| text.as_str()).collect();
    text.replace("COPY --from=build /out/", "COPY ")
}

/// The Dockerfile's stages by name, with the lines of each; what stands before the first has none.
fn stages(dockerfile: &str) -> Vec<(&str, String)> {
    let mut stages = vec![("", String::new())];
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["FROM", _, "AS", name] = words[..] {
            stages.push((name, String::new()));
        }
        let (_, text) = stages.last_mut().expect("never empty");
        text.push_str(line);
        text.push('\n');
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dockerfile() -> String {
        fs::read_to_string(paths::root().join(DOCKERFILE)).unwrap()
    }

    #[test]
    fn a_packed_image_differs_in_where_its_binary_is_from() {
        let packed = without_build(&dockerfile(), "redis2pg");
        let froms: Vec<&str> = packed.lines().filter(|line| line.starts_with("FROM ")).collect();
        assert_eq!(froms, ["FROM ${DEBIAN_IMAGE} AS runtime", "FROM runtime AS redis2pg"]);
        assert!(packed.contains("\nCOPY redis2pg /usr/local/bin/\n"), "{packed}");
        assert!(
            packed.contains("\nUSER 10001:10001\n") && packed.contains("\nARG DEBIAN_IMAGE="),
            "{packed}"
        );
        assert!(!packed.contains("--from"), "{packed}");
    }

    #[test]
    fn the_build_has_a_compiler_that_is_new_enough() {
        let needed = concat!("\nARG RUST_IMAGE=rust:", env!("CARGO_PKG_RUST_VERSION"), "-slim-bookworm\n");
        assert!(dockerfile().contains(needed), "{needed}");
    }

    #[test]
    fn every_image_is_alike() {
        let dockerfile = dockerfile();
        for bridge in &catalog::ALL {
            let (_, stage) =
                stages(&dockerfile).into_iter().find(|(name, _)| *name == bridge.name).expect("a stage");
            for part in ["ENV ADMIN_ADDR=0.0.0.0:", "EXPOSE ", "HEALTHCHECK ", "image.title="] {
                assert!(stage.contains(part), "{}: {part}", bridge.name);
            }
            assert!(
                stage.contains(&format!(
                    "CMD [\"{0}\", \"healthcheck\"]\nENTRYPOINT [\"{0}\"]\n",
                    bridge.name
                ))
            );
        }
    }

    #[test]
    fn names() {
        let names = Names { registry: Some("registry.example".into()), tag: None };
        let place = names.settle(|name| (name == "TAG").then(|| "1.2".into()));
        assert_eq!(place.image(&catalog::ALL[0]), "registry.example/redis2mqtt:1.2");
    }
}
