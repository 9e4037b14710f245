//! `cargo xtask test images`: the bridges as users run them, in containers. What is tested are the files that we ship:
//! Dockerfile, compose files, stack files, example settings, monitoring. Entries are moved through each, and judged as in
//! the other tests: all of them, in order, and nothing that nobody wrote.
//!
//! What it makes in the engine has names of its own, and is removed at the end, also after a failure; what a killed run
//! left is removed at the next one's beginning. Base images stay, see [`stand_ins`].

mod compose;
mod destination;
mod monitoring;
mod prometheus;
mod stand_ins;
mod swarm;
mod traffic;
mod trial;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use xshell::Shell;

use crate::bridge::{self, Profile};
use crate::containers::catalog;
use crate::containers::engine::{self, docker};
use crate::containers::image::{self, Place};
use crate::install::{self, Tool};
use crate::paths;
use crate::postgres::DATABASE;
use crate::services::postgres::{PASSWORD, USER};
use trial::Trial;

/// What judges a bridge from outside of its container.
const TOOLS: &[Tool] = &[
    Tool { program: "mosquitto_sub", package: "mosquitto-clients" },
    Tool { program: "psql", package: "postgresql-client" },
];

/// User, password and database of every PostgreSQL here: those that the judge of rows knows.
const LOGIN: [(&str, &str); 3] =
    [("POSTGRES_USER", USER), ("POSTGRES_PASSWORD", PASSWORD), ("POSTGRES_DB", DATABASE)];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts (otherwise all)
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Use the public base images, which the engine may pull, instead of stand-ins made from Debian's packages
    #[arg(long)]
    public: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Every combination of a bridge and the servers of its compose file
    Compose,
    /// All bridges in one stack, under load: scaled, updated, killed
    Swarm,
    /// Prometheus beside a bridge: each query of the dashboard answered, each alert made to fire
    Monitoring,
}

/// What every part needs.
struct Test {
    shell: Shell,
    /// Names base images and published ports, for compose files and the Dockerfile.
    variables: Vec<(&'static str, String)>,
    place: Place,
    /// Begins every name in the engine; another checkout has another one.
    name: String,
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    engine::ensure()?;
    install::ensure(TOOLS, "to look at what arrives")?;
    let test = Test::prepare(args.public)?;
    let is_wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    let result = test.build().and_then(|()| {
        let mut passed = 0;
        if is_wanted(Part::Compose) {
            passed += test.timed("compose", compose::run)?;
        }
        if is_wanted(Part::Swarm) {
            passed += test.timed("swarm", swarm::run)?;
        }
        if is_wanted(Part::Monitoring) {
            passed += test.timed("monitoring", monitoring::run)?;
        }
        Ok(passed)
    });
    test.clean();
    if super::in_ci() {
        engine::stop_if_started()?;
    }
    let passed = result?;
    ensure!(passed > 0, "nothing was tested");
    println!("images: {passed} passed, 0 failed");
    Ok(())
}

impl Test {
    fn prepare(public: bool) -> Result<Self> {
        let shell = paths::shell()?;
        let mut variables = if public { Vec::new() } else { stand_ins::ensure(&shell)? };
        // Any free port: other servers may have the well-known ones.
        for publish in
            ["REDIS_CACHE", "SOURCE_REDIS", "TARGET_REDIS", "MQTT_BROKER", "POSTGRES", "PROMETHEUS"]
        {
            variables.push((format!("{publish}_PUBLISH").leak(), "127.0.0.1:".to_owned()));
        }
        for trial in Trial::existing() {
            variables
                .push((format!("{}_ADMIN", trial.bridge().name.to_uppercase()).leak(), "127.0.0.1:".into()));
        }
        for (name, value) in &variables {
            shell.set_var(name, value);
        }
        let mut hash = DefaultHasher::new();
        paths::root().hash(&mut hash);
        let name = format!("redis-sync-{:06x}", hash.finish() & 0xff_ffff);
        let place = Place { registry: name.clone(), tag: "first".to_owned() };
        let test = Self { shell, variables, place, name, dir: paths::data("docker").join("test") };
        test.clean();
        Ok(test)
    }

    /// The images under test, around binaries of the profile that the other tests have built already. The second tag is
    /// for updates.
    fn build(&self) -> Result<()> {
        let programs = bridge::build(Profile::Dev)?;
        for bridge in catalog::existing() {
            let image = self.place.image(bridge);
            image::build(&self.shell, bridge, &image, Some(&programs))?;
            // Its health check is there: where there is nothing to ask, it says so.
            let ask = ["run", "--rm", "--read-only", "--env", "ADMIN_ADDR=off", &image, "healthcheck"];
            let said = docker(&self.shell, &ask).quiet().read()?;
            ensure!(said.starts_with("ADMIN_ADDR is off"), "{image} healthcheck: {said}");
            docker(&self.shell, &["tag", &image, &self.second().image(bridge)]).quiet().run()?;
        }
        Trial::ensure_all()?;
        Ok(())
    }

    fn second(&self) -> Place {
        Place { tag: "second".to_owned(), ..self.place.clone() }
    }

    fn timed(&self, what: &str, part: impl FnOnce(&Self) -> Result<usize>) -> Result<usize> {
        let begun = Instant::now();
        let passed = part(self)?;
        println!("{what}: {passed} passed in {} s", begun.elapsed().as_secs());
        Ok(passed)
    }

    /// Removes all that has our name: containers, networks, volumes, stacks and images.
    fn clean(&self) {
        let list = |arguments: &[&str]| {
            let listed = docker(&self.shell, arguments).quiet().ignore_stderr().read().unwrap_or_default();
            let ours = |name: &&str| name.contains(&self.name);
            listed.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
        };
        let remove = |command: &[&str], names: Vec<String>| {
            for name in names {
                // What is in use a moment longer is in the next run's way only, and that begins with this.
                let _ = docker(&self.shell, command).arg(name).quiet().ignore_stdout().ignore_stderr().run();
            }
        };
        swarm::clean(self);
        remove(&["rm", "--force", "--volumes"], list(&["ps", "--all", "--format", "{{.Names}}"]));
        remove(&["volume", "rm"], list(&["volume", "ls", "--quiet"]));
        remove(&["network", "rm"], list(&["network", "ls", "--format", "{{.Name}}"]));
        remove(&["rmi"], list(&["images", "--format", "{{.Repository}}:{{.Tag}}"]));
    }
}
