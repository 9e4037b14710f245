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
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum as _;
use xshell::Shell;

use crate::bridge::{self, Profile};
use crate::containers::catalog;
use crate::containers::engine::{self, docker};
use crate::containers::image::{self, Place};
use crate::install::{self, Tool};
use crate::paths;
use crate::postgres::DATABASE;
use crate::services::postgres::{PASSWORD, USER};
use trial::{Kind, Trial};

/// What judges a bridge from outside of its container.
const TOOLS: &[Tool] = &[
    Tool { program: "mosquitto_sub", package: "mosquitto-clients" },
    Tool { program: "psql", package: "postgresql-client" },
    Tool { program: "kcat", package: "kcat" },
];

/// User, password and database of every PostgreSQL here: those that the judge of rows knows.
const LOGIN: [(&str, &str); 3] =
    [("POSTGRES_USER", USER), ("POSTGRES_PASSWORD", PASSWORD), ("POSTGRES_DB", DATABASE)];

/// A lane waits more than it works.
const LANES_FOR_EACH_CORE: usize = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts (otherwise all)
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Use the public base images, which the engine may pull, instead of stand-ins made from Debian's packages
    #[arg(long)]
    public: bool,
    /// Where no container engine can be had, say so, and test nothing
    #[arg(long)]
    where_possible: bool,
}

/// Those that take long stand first.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// All bridges in one stack, under load: scaled, updated, killed
    Swarm,
    /// Prometheus beside a bridge: each query of the dashboard answered, each alert made to fire
    Monitoring,
    /// Every combination of a bridge and the servers of its compose file
    Compose,
}

impl Part {
    /// What it does side by side: most of a test's time passes in waiting for health checks, alerts and hand-overs.
    fn lanes(self) -> Vec<(String, Lane)> {
        match self {
            Self::Compose => {
                let (long, short): (Vec<_>, Vec<_>) =
                    Trial::existing().partition(|trial| trial.kind == Kind::Records);
                [long, short].into_iter().flatten().flat_map(compose::lanes).collect()
            }
            Self::Swarm => vec![("swarm".to_owned(), Box::new(swarm::run))],
            Self::Monitoring => vec![
                ("monitoring".to_owned(), Box::new(monitoring::run)),
                ("monitoring of the buffer".to_owned(), Box::new(monitoring::run_buffered)),
            ],
        }
    }
}

/// Returns how many things it tested.
type Lane = Box<dyn FnOnce(&Test) -> Result<usize> + Send>;

/// What every part needs.
#[derive(Clone)]
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
    match engine::ensure() {
        Err(error) if args.where_possible => {
            println!(
                "NOT TESTED, since no container engine can be had here: images, compose files, Swarm stacks, monitoring\n\
                 ({error:#})"
            );
            return Ok(());
        }
        there => there?,
    }
    install::ensure(TOOLS, "to look at what arrives")?;
    let test = Test::prepare(args.public)?;
    let result = test.build().and_then(|()| test.run(&args.parts));
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

    /// Another one with the same bridge at the same time: its files and what it makes in the engine are its own.
    fn beside(&self, what: &str) -> Self {
        Self { name: format!("{}-{what}", self.name), dir: self.dir.join(what), ..self.clone() }
    }

    fn second(&self) -> Place {
        Place { tag: "second".to_owned(), ..self.place.clone() }
    }

    /// These parts, or all, some lanes at a time. A failure ends its own lane.
    fn run(&self, parts: &[Part]) -> Result<usize> {
        let wanted = Part::value_variants().iter().filter(|part| parts.is_empty() || parts.contains(part));
        let lanes: Vec<(String, Lane)> = wanted.flat_map(|part| part.lanes()).collect();
        let at_once = LANES_FOR_EACH_CORE * thread::available_parallelism()?.get();
        let left = Mutex::new(lanes.into_iter());
        let work = |test: Self| {
            let next = || left.lock().expect("nobody panics with it").next();
            std::iter::from_fn(next).map(|(what, lane)| (test.timed(&what, lane), what)).collect::<Vec<_>>()
        };
        let results: Vec<(Result<usize>, String)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once)
                .map(|_| {
                    let test = self.clone();
                    scope.spawn(move || work(test))
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("lanes do not panic")).collect()
        });
        let failed: Vec<&str> =
            results.iter().filter(|(result, _)| result.is_err()).map(|(_, what)| what.as_str()).collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(results.into_iter().filter_map(|(result, _)| result.ok()).sum())
    }

    fn timed(&self, what: &str, lane: Lane) -> Result<usize> {
        let begun = Instant::now();
        let result = lane(self);
        let seconds = begun.elapsed().as_secs();
        match &result {
            Ok(passed) => println!("{what}: {passed} passed in {seconds} s"),
            Err(error) => eprintln!("{what}: FAILED after {seconds} s: {error:#}"),
        }
        result
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
