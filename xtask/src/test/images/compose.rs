//! Every combination that a compose file allows: the bridge with all of its servers, with one of them, with none. What it
//! is started without stands in another project, as somebody's own server would, and is named in its settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::destination::Destination;
use super::traffic;
use super::trial::{Kind, Server, Trial};
use super::{LOGIN, Lane, Test};
use crate::containers::compose::Project;
use crate::containers::engine::{self, docker, published};
use crate::paths;
use crate::process::wait_patiently;
use crate::redis::Redis;
use crate::services::free_ports;

/// To each of five streams.
const ENTRIES: usize = 200;
/// What a server of the other project is called on the bridge's network.
const OUTSIDE: &str = "outside-";

/// All of one bridge, or of it and one place for its buffer: so many take their time.
pub(super) fn lanes(trial: &'static Trial) -> Vec<(String, Lane)> {
    let lane = |buffer: Option<(Where, &'static Server)>| -> (String, Lane) {
        let name = format!("compose {}", trial.bridge().name);
        match buffer {
            None => (name, Box::new(move |test| run(test, trial, None))),
            Some((place, _)) => {
                let name = format!("{name}, buffer {}", place.word());
                (name, Box::new(move |test| run(&test.beside(place.word()), trial, buffer)))
            }
        }
    };
    match &trial.buffer {
        None => vec![lane(None)],
        Some(buffer) => {
            [Where::Nowhere, Where::Outside, Where::Own].map(|place| lane(Some((place, buffer)))).into()
        }
    }
}

fn run(test: &Test, trial: &'static Trial, buffer: Option<(Where, &'static Server)>) -> Result<usize> {
    let outside = test.project(trial, "outside")?;
    let servers: Vec<String> = trial.servers().map(|server| server.service.to_owned()).collect();
    outside.up(&servers)?;
    let mut passed = 0;
    for source in [Where::Outside, Where::Own] {
        for destination in [Where::Outside, Where::Own] {
            let mut servers = vec![(source, &trial.source)];
            servers.extend(buffer);
            servers.push((destination, &trial.destination));
            let combination = Combination { test, trial, outside: &outside, servers };
            combination.run().with_context(|| combination.name())?;
            passed += 1;
        }
    }
    outside.down(true)?;
    Ok(passed)
}

/// Where a server is that the bridge's settings name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the bridge's own project.
    Own,
    Outside,
    /// They name none.
    Nowhere,
}

struct Combination<'a> {
    test: &'a Test,
    trial: &'static Trial,
    outside: &'a Project,
    /// From the source to the destination.
    servers: Vec<(Where, &'static Server)>,
}

impl Where {
    fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Outside => "outside",
            Self::Nowhere => "none",
        }
    }
}

impl Combination<'_> {
    fn name(&self) -> String {
        let words = self.servers.iter().map(|(place, server)| match (place, &self.trial.buffer) {
            (Where::Own, _) => format!(" + {}", server.service),
            (Where::Nowhere, _) => ", direct".to_owned(),
            (Where::Outside, Some(buffer)) if buffer.service == server.service => ", buffered".to_owned(),
            (Where::Outside, _) => String::new(),
        });
        format!("compose: {}{}", self.trial.bridge().services[0], words.collect::<String>())
    }

    fn at(&self, place: Where) -> impl Iterator<Item = &'static Server> {
        self.servers.iter().filter(move |(one, _)| *one == place).map(|(_, server)| *server)
    }

    fn run(&self) -> Result<()> {
        let Self { test, trial, .. } = *self;
        let mut changes = Vec::new();
        for (place, server) in &self.servers {
            match place {
                Where::Own => changes.extend(server.address(server.service)),
                Where::Outside => changes.extend(server.address(&format!("{OUTSIDE}{}", server.service))),
                Where::Nowhere => changes.push(server.nowhere()),
            }
        }
        test.settings(trial, &changes)?;
        let project = test.project(trial, "own")?;
        let whole = self.at(Where::Own).count() == self.servers.len();
        let mut services = Vec::new();
        if !whole {
            services.push(trial.bridge().services[0].to_owned());
            services.extend(self.at(Where::Own).map(|server| server.service.to_owned()));
        }
        let network = format!("{}_default", project.name());
        // It is up before it can reach what stands outside: that is no reason to be unhealthy.
        project.up(&services)?;
        for server in self.at(Where::Outside) {
            test.connect(&the_only(self.outside, server.service)?, &network, server)?;
        }
        let port = |server: &'static Server| {
            let own = self.at(Where::Own).any(|own| own.service == server.service);
            let project = if own { &project } else { self.outside };
            published(&test.shell, &the_only(project, server.service)?, server.published)
        };
        let mut source = Redis::connect(port(&trial.source)?)?;
        let mut destination = Destination::watch(trial.kind, port(&trial.destination)?)?;
        let name = self.servers.iter().map(|(place, _)| place.word()).collect::<Vec<_>>().join("-");
        let written = traffic::write(&mut source, &name, ENTRIES)?;
        let tally = destination.judge(&mut source, trial.group, &written)?;
        println!("{}: {tally}", self.name());
        if whole {
            self.reload(&project, &changes)?;
            self.monitor(&project)?;
            self.keep_volumes(&project, &written)?;
        }
        for server in self.at(Where::Outside) {
            test.disconnect(&the_only(self.outside, server.service)?, &network)?;
        }
        project.down(true)
    }

    /// SIGHUP, with another file in the mounted directory.
    fn reload(&self, project: &Project, settings: &[(String, String)]) -> Result<()> {
        let mut changed = settings.to_vec();
        changed.push((self.trial.databases.to_owned(), "0,2".to_owned()));
        self.test.settings(self.trial, &changed)?;
        let service = self.trial.bridge().services[0];
        engine::quietly(project.compose(&["kill", "-s", "HUP", service])?)?;
        await_log(project, service, "Searching Redis databases 0, 2")
    }

    /// The monitor of the streams, where the compose file has one.
    fn monitor(&self, project: &Project) -> Result<()> {
        for service in &self.trial.bridge().services[1..] {
            await_log(project, service, "streams=5 ok=5")?;
        }
        Ok(())
    }

    /// What the servers keep outlives their containers.
    fn keep_volumes(&self, project: &Project, written: &traffic::Written) -> Result<()> {
        project.down(false)?;
        project.up(&[])?;
        let container = the_only(project, self.trial.source.service)?;
        let mut source =
            Redis::connect(published(&self.test.shell, &container, self.trial.source.published)?)?;
        let streams: Vec<&str> = written.streams().collect();
        // What the group has read in all is not in an append-only file; where it stands is.
        for (stream, progress) in streams.iter().zip(source.progress(self.trial.group, &streams)?) {
            let last = written.last(stream);
            ensure!(
                progress.pending == 0 && Some(&progress.last_delivered) == last,
                "{stream} after down and up again: {progress:?}, and not at {last:?}"
            );
        }
        Ok(())
    }
}

impl Test {
    pub(super) fn project(&self, trial: &Trial, which: &str) -> Result<Project> {
        let bridge = trial.bridge();
        let name = format!("{}-{}-{which}", self.name, bridge.name);
        let mut variables = self.variables.clone();
        let conf = self.conf(trial);
        let upper = bridge.name.to_uppercase();
        for (part, directory) in [("CONF", conf.clone()), ("SECRETS", conf.join("secrets"))] {
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
            variables.push((format!("{upper}_{part}").leak(), directory.display().to_string()));
        }
        variables.extend(LOGIN.map(|(name, value)| (name, value.to_owned())));
        if trial.kind == Kind::Records {
            // Kafka tells its clients where to go on, so it has to know its port beforehand.
            let [port] = free_ports(1)?[..] else { bail!("one free port was asked for") };
            variables.push(("KAFKA_PUBLISH", format!("127.0.0.1:{port}")));
            variables.push(("KAFKA_ADVERTISE", format!("localhost:{port}")));
        }
        Project::new(bridge, &name, self.place.clone(), variables)
    }

    pub(super) fn conf(&self, trial: &Trial) -> PathBuf {
        self.dir.join(trial.bridge().name)
    }

    /// The example that stands beside the compose file, with other values here and there. It is made anew, as editors do.
    pub(super) fn settings(&self, trial: &Trial, changes: &[(String, String)]) -> Result<()> {
        let bridge = trial.bridge();
        let example =
            paths::root().join("compose").join(bridge.name).join(format!("{}.example", bridge.settings));
        let mut changes = changes.to_vec();
        if trial.kind == Kind::Rows {
            changes.extend(LOGIN.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        write_settings(&example, &self.conf(trial).join(bridge.settings), &changes)
    }

    fn connect(&self, container: &str, network: &str, server: &Server) -> Result<()> {
        let alias = format!("{OUTSIDE}{}", server.service);
        // Kafka sends its clients on to its own name.
        let aliases = ["--alias", &alias, "--alias", server.service];
        engine::quietly(
            docker(&self.shell, &["network", "connect"]).args(aliases).arg(network).arg(container),
        )
    }

    fn disconnect(&self, container: &str, network: &str) -> Result<()> {
        engine::quietly(docker(&self.shell, &["network", "disconnect", network, container]))
    }
}

/// A settings file with some of its lines replaced, or added where it has none of that name.
pub(super) fn write_settings(from: &Path, to: &Path, changes: &[(String, String)]) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    let is_changed = |line: &&str| {
        !changes.iter().any(|(name, _)| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    };
    let mut lines: Vec<String> = text.lines().filter(is_changed).map(str::to_owned).collect();
    lines.extend(changes.iter().map(|(name, value)| format!("{name}={value}")));
    let directory = to.parent().context("a file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let new = to.with_extension("new");
    fs::write(&new, lines.join("\n") + "\n").with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("write {}", to.display()))
}

pub(super) fn the_only(project: &Project, service: &str) -> Result<String> {
    let mut containers = project.containers(service)?;
    ensure!(containers.len() == 1, "{service} has {} containers", containers.len());
    Ok(containers.remove(0))
}

fn await_log(project: &Project, service: &str, words: &str) -> Result<()> {
    let said =
        wait_patiently(Duration::from_secs(60), || project.log(service).is_ok_and(|log| log.contains(words)));
    ensure!(said, "{service} does not say {words:?} within 60 s");
    Ok(())
}
