//! Every combination that a compose file allows: the bridge with all of its servers, with one of them, with none. What it
//! is started without stands in another project, as somebody's own server would, and is named in its settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::destination::Destination;
use super::traffic;
use super::trial::{Kind, Server, Trial};
use super::{LOGIN, Test};
use crate::containers::compose::Project;
use crate::containers::engine::{self, docker, published};
use crate::paths;
use crate::process::wait_until;
use crate::redis::Redis;

/// To each of five streams.
const ENTRIES: usize = 200;
/// What a server of the other project is called on the bridge's network.
const OUTSIDE: &str = "outside-";

pub(super) fn run(test: &Test) -> Result<usize> {
    let mut passed = 0;
    for trial in Trial::existing() {
        let outside = test.project(trial, "outside")?;
        outside.up(&[trial.source.service.into(), trial.destination.service.into()])?;
        for (own_source, own_destination) in [(false, false), (true, false), (false, true), (true, true)] {
            let combination = Combination { test, trial, outside: &outside, own_source, own_destination };
            combination.run().with_context(|| combination.name())?;
            passed += 1;
        }
        outside.down(true)?;
    }
    Ok(passed)
}

struct Combination<'a> {
    test: &'a Test,
    trial: &'static Trial,
    outside: &'a Project,
    own_source: bool,
    own_destination: bool,
}

impl Combination<'_> {
    fn name(&self) -> String {
        let own = |own, server: &Server| if own { format!(" + {}", server.service) } else { String::new() };
        format!(
            "compose: {}{}{}",
            self.trial.bridge().services[0],
            own(self.own_source, &self.trial.source),
            own(self.own_destination, &self.trial.destination)
        )
    }

    fn servers(&self) -> [(bool, &'static Server); 2] {
        [(self.own_source, &self.trial.source), (self.own_destination, &self.trial.destination)]
    }

    fn run(&self) -> Result<()> {
        let Self { test, trial, .. } = *self;
        let mut hosts = Vec::new();
        for (own, server) in self.servers() {
            let host = if own { server.service.to_owned() } else { format!("{OUTSIDE}{}", server.service) };
            hosts.push((server.host, host));
        }
        test.settings(trial, &hosts)?;
        let project = test.project(trial, "own")?;
        let whole = self.own_source && self.own_destination;
        let mut services = Vec::new();
        if !whole {
            services.push(trial.bridge().services[0].to_owned());
            services.extend(
                self.servers().iter().filter(|(own, _)| *own).map(|(_, server)| server.service.to_owned()),
            );
        }
        let network = format!("{}_default", project.name());
        // It is up before it can reach what stands outside: that is no reason to be unhealthy.
        project.up(&services)?;
        for (_, server) in self.servers().iter().filter(|(own, _)| !own) {
            test.connect(&the_only(self.outside, server.service)?, &network, server)?;
        }
        let port = |own: bool, server: &Server| {
            let project = if own { &project } else { self.outside };
            published(&test.shell, &the_only(project, server.service)?, server.port)
        };
        let mut source = Redis::connect(port(self.own_source, &trial.source)?)?;
        let destination_port = port(self.own_destination, &trial.destination)?;
        let mut destination = Destination::watch(trial.kind, destination_port)?;
        let name = format!("{}{}", u8::from(self.own_source), u8::from(self.own_destination));
        let written = traffic::write(&mut source, &name, ENTRIES)?;
        let tally = destination.judge(&mut source, trial.group, &written)?;
        println!("{}: {tally}", self.name());
        if whole {
            self.reload(&project, &hosts)?;
            self.monitor(&project)?;
            self.keep_volumes(&project, &written)?;
        }
        for (_, server) in self.servers().iter().filter(|(own, _)| !own) {
            test.disconnect(&the_only(self.outside, server.service)?, &network)?;
        }
        project.down(true)
    }

    /// SIGHUP, with another file in the mounted directory.
    fn reload(&self, project: &Project, hosts: &[(&str, String)]) -> Result<()> {
        let mut changed = hosts.to_vec();
        changed.push((self.trial.databases, "0,2".to_owned()));
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
        let mut source = Redis::connect(published(&self.test.shell, &container, self.trial.source.port)?)?;
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
        Project::new(bridge, &name, self.place.clone(), variables)
    }

    pub(super) fn conf(&self, trial: &Trial) -> PathBuf {
        self.dir.join(trial.bridge().name)
    }

    /// The example that stands beside the compose file, with other values here and there. It is made anew, as editors do.
    pub(super) fn settings(&self, trial: &Trial, changes: &[(&str, String)]) -> Result<()> {
        let bridge = trial.bridge();
        let example =
            paths::root().join("compose").join(bridge.name).join(format!("{}.example", bridge.settings));
        let mut changes = changes.to_vec();
        if trial.kind == Kind::Rows {
            changes.extend(LOGIN.map(|(name, value)| (name, value.to_owned())));
        }
        write_settings(&example, &self.conf(trial).join(bridge.settings), &changes)
    }

    fn connect(&self, container: &str, network: &str, server: &Server) -> Result<()> {
        let alias = format!("{OUTSIDE}{}", server.service);
        engine::quietly(docker(&self.shell, &["network", "connect", "--alias", &alias, network, container]))
    }

    fn disconnect(&self, container: &str, network: &str) -> Result<()> {
        engine::quietly(docker(&self.shell, &["network", "disconnect", network, container]))
    }
}

/// A settings file with some of its lines replaced, or added where it has none of that name.
pub(super) fn write_settings(from: &Path, to: &Path, changes: &[(&str, String)]) -> Result<()> {
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
    let said = wait_until(Duration::from_secs(60), || {
        let log = project
            .compose(&["logs", service])
            .and_then(|command| Ok(command.quiet().ignore_stderr().read()?));
        log.is_ok_and(|log| log.contains(words))
    });
    ensure!(said, "{service} does not say {words:?} within 60 s");
    Ok(())
}
