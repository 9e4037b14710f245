//! `cargo xtask swarm`: bridges in a Docker Swarm. A stack holds the bridges alone; their servers are elsewhere, or join
//! the network.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, ValueEnum};
use xshell::Shell;

use super::catalog::{self, Bridge};
use super::engine::{self, docker};
use super::image::{Names, Place};
use super::settings;
use crate::paths;
use crate::process::wait_patiently;

/// An update watches each replica for 30 s before it goes on with the next.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

/// `cargo xtask swarm …`
#[derive(clap::Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub(crate) struct Args {
    /// What to do
    #[arg(value_enum, group = "what")]
    action: Option<Action>,
    /// The same, as an option
    #[arg(long = "action", value_enum, group = "what", id = "option", value_name = "ACTION")]
    option: Option<Action>,
    /// What the stack is called; several may stand side by side
    #[arg(long, default_value = "redis-sync", value_parser = stack_name)]
    stack_name: String,
    /// Which bridges, by their own name or their service's (otherwise all that have settings in deploy/swarm)
    #[arg(long, num_args = 1.., value_parser = catalog::parse)]
    bridges: Vec<&'static Bridge>,
    /// Also Prometheus, at port 9090 of a manager
    #[arg(long)]
    monitoring: bool,
    #[command(flatten)]
    names: Names,
}

/// A Swarm's names have at most 64 characters, and the longest of ours adds 43.
fn stack_name(name: &str) -> Result<String> {
    ensure!((1..=21).contains(&name.len()), "must have at most 21 characters");
    Ok(name.to_owned())
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Start the stack, or bring it up to date, and wait until all replicas are healthy
    Deploy,
    /// Stop and remove it, with its settings and secrets
    Remove,
    /// What runs, and where
    Status,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    engine::ensure()?;
    let shell = paths::shell()?;
    let state =
        docker(&shell, &["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}"]);
    ensure!(
        state.quiet().read()? == "active true",
        "this node manages no Swarm; make it one with: docker swarm init (or join one as a manager)"
    );
    let stack = Stack::new(&args.stack_name, &network(), &args.names)?;
    match args.action.or(args.option).context("an action is asked for")? {
        Action::Deploy => stack.deploy(&chosen(&args.bridges)?, &directory(), args.monitoring),
        Action::Remove => stack.remove(),
        Action::Status => stack.status(),
    }
}

fn directory() -> PathBuf {
    paths::root().join("deploy/swarm")
}

/// The network that the stack files name.
fn network() -> String {
    std::env::var("NETWORK").unwrap_or_else(|_| "redis-sync".to_owned())
}

fn chosen(bridges: &[&'static Bridge]) -> Result<Vec<&'static Bridge>> {
    if !bridges.is_empty() {
        return Ok(bridges.to_vec());
    }
    let has_settings = |bridge: &&Bridge| directory().join(bridge.name).join(bridge.settings).is_file();
    let found: Vec<_> = catalog::existing().filter(has_settings).collect();
    ensure!(
        !found.is_empty(),
        "no bridge has settings here; for redis2mqtt: mkdir deploy/swarm/redis2mqtt, copy \
         deploy/examples/redis2mqtt.env.conf to env.conf in it, and name your servers there"
    );
    Ok(found)
}

/// A stack of bridges.
pub(crate) struct Stack {
    name: String,
    network: String,
    names: Names,
    /// Has the variables that the stack files ask for.
    shell: Shell,
}

impl Stack {
    pub(crate) fn new(name: &str, network: &str, names: &Names) -> Result<Self> {
        let shell = paths::shell()?;
        shell.set_var("STACK", name);
        shell.set_var("NETWORK", network);
        Ok(Self { name: name.to_owned(), network: network.to_owned(), names: names.clone(), shell })
    }

    /// A variable of the stack files.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.shell.set_var(name, value);
    }

    /// Each bridge's settings and secrets lie in `directory`, in a directory of its name.
    pub(crate) fn deploy(&self, bridges: &[&Bridge], directory: &Path, monitoring: bool) -> Result<()> {
        self.ensure_network()?;
        let mut command = vec!["stack".to_owned(), "deploy".into(), "--with-registry-auth".into()];
        for bridge in bridges {
            let place = self.prepare(bridge, &directory.join(bridge.name))?;
            // One set of stack files has one of each.
            self.shell.set_var("REGISTRY", &place.registry);
            self.shell.set_var("TAG", &place.tag);
            command.extend(["--compose-file".into(), format!("deploy/swarm/{}.yml", bridge.name)]);
        }
        if monitoring {
            let files = paths::root().join("deploy/monitoring");
            let mut hash = DefaultHasher::new();
            for file in ["prometheus.swarm.yml", "alerts.yml"] {
                read(&files.join(file))?.hash(&mut hash);
            }
            self.shell.set_var("MONITORING_VERSION", version(&hash));
            command.extend(["--compose-file".into(), "deploy/swarm/monitoring.yml".into()]);
        }
        command.push(self.name.clone());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        docker(&self.shell, &command).run()?;
        self.await_settled()?;
        self.status()
    }

    pub(crate) fn remove(&self) -> Result<()> {
        docker(&self.shell, &["stack", "rm", &self.name]).run()?;
        let label = format!("label=com.docker.stack.namespace={}", self.name);
        let gone = wait_patiently(Duration::from_secs(60), || {
            let left = docker(&self.shell, &["ps", "--all", "--quiet", "--filter", &label]).quiet().read();
            left.is_ok_and(|left| left.is_empty())
        });
        ensure!(gone, "containers of {} are still there a minute later", self.name);
        Ok(())
    }

    fn status(&self) -> Result<()> {
        docker(&self.shell, &["stack", "services", &self.name]).run()?;
        Ok(docker(&self.shell, &["stack", "ps", &self.name]).run()?)
    }

    /// So many replicas of a service from now on; returns when they are there.
    pub(crate) fn scale(&self, service: &str, replicas: u32) -> Result<()> {
        let target = format!("{}_{service}={replicas}", self.name);
        docker(&self.shell, &["service", "scale", "--detach", &target]).run()?;
        self.await_settled()
    }

    fn ensure_network(&self) -> Result<()> {
        let inspect = ["network", "inspect", "--format", "{{.Driver}}", &self.network];
        match docker(&self.shell, &inspect).quiet().ignore_stderr().read() {
            Ok(driver) if driver == "overlay" => Ok(()),
            Ok(driver) => {
                bail!("the network {} is of the kind {driver}; a Swarm needs overlay", self.network)
            }
            Err(_) => {
                let make = ["network", "create", "--driver", "overlay", "--attachable", &self.network];
                Ok(docker(&self.shell, &make).run()?)
            }
        }
    }

    /// Its files, and the variables that say where they are and which.
    fn prepare(&self, bridge: &Bridge, directory: &Path) -> Result<Place> {
        let file = directory.join(bridge.settings);
        ensure!(
            file.is_file(),
            "{} is missing; begin with a copy of {}",
            file.display(),
            match bridge.settings {
                "env.conf" => format!("deploy/examples/{}.env.conf", bridge.name),
                _ => format!("compose/{}/{}.example", bridge.name, bridge.settings),
            }
        );
        let mut hash = DefaultHasher::new();
        read(&file)?.hash(&mut hash);
        let secrets = directory.join("secrets");
        fs::create_dir_all(&secrets).with_context(|| format!("create {}", secrets.display()))?;
        for secret in bridge.secrets {
            let file = secrets.join(secret);
            if !file.exists() {
                // A Swarm takes no empty secret, and a bridge takes an empty line for none.
                fs::write(&file, "\n").with_context(|| format!("create {}", file.display()))?;
                println!("made {} with an empty line: not used until something stands in it", file.display());
            }
            read(&file)?.hash(&mut hash);
        }
        let name = bridge.name.to_uppercase();
        self.shell.set_var(format!("{name}_CONF"), directory);
        self.shell.set_var(format!("{name}_VERSION"), version(&hash));
        let variables = settings::variables(&file)?;
        Ok(self.names.settle(|name| variables.get(name).cloned()))
    }

    /// Until every service has the replicas that it should have, and no update is under way.
    pub(crate) fn await_settled(&self) -> Result<()> {
        let mut services = Vec::new();
        let settled = wait_patiently(SETTLED_WITHIN, || {
            services = self.services().unwrap_or_default();
            !services.is_empty()
                && services.iter().all(|service| service.is_settled() || service.has_failed())
        });
        let ill: Vec<_> = services.iter().filter(|service| !service.is_settled()).collect();
        if settled && ill.is_empty() {
            return Ok(());
        }
        docker(&self.shell, &["stack", "ps", "--no-trunc", &self.name]).quiet().run()?;
        let ill: Vec<String> = ill
            .iter()
            .map(|service| {
                format!("{} ({}/{}, {})", service.name, service.new, service.wanted, service.update)
            })
            .collect();
        bail!("not up to date: {}; its log: docker service logs NAME", ill.join(", "))
    }

    fn services(&self) -> Result<Vec<Service>> {
        let list = docker(&self.shell, &["stack", "services", "--format", "{{.Name}}", &self.name]);
        list.quiet().read()?.lines().map(|name| self.service(name)).collect()
    }

    fn service(&self, name: &str) -> Result<Service> {
        let ask = |arguments: &[&str]| docker(&self.shell, arguments).quiet().read();
        // Of a container's description, what a deployment changes; the rest is spelled differently here and there.
        let parts = |of: &str| {
            ["Image", "Env", "Secrets", "Configs"].map(|part| format!("{{{{json {of}.{part}}}}}")).concat()
        };
        let format = format!(
            "{{{{.Spec.Mode.Replicated.Replicas}}}} {{{{if .UpdateStatus}}}}{{{{.UpdateStatus.State}}}}{{{{end}}}} {}",
            parts(".Spec.TaskTemplate.ContainerSpec")
        );
        let answer = ask(&["service", "inspect", "--format", &format, name])?;
        let [wanted, update, spec] = <[&str; 3]>::try_from(answer.splitn(3, ' ').collect::<Vec<_>>())
            .ok()
            .context("docker prints what it is asked for")?;
        let tasks =
            ask(&["service", "ps", "--quiet", "--no-trunc", "--filter", "desired-state=running", name])?;
        let format = format!("{{{{.Status.State}}}} {}", parts(".Spec.ContainerSpec"));
        let mut command = vec!["inspect", "--format", &format];
        command.extend(tasks.lines());
        let tasks = if tasks.is_empty() { String::new() } else { ask(&command)? };
        let is_new =
            |task: &&str| task.split_once(' ').is_some_and(|(state, of)| state == "running" && of == spec);
        Ok(Service {
            name: name.to_owned(),
            wanted: wanted.parse().context("a number of replicas")?,
            tasks: tasks.lines().count(),
            new: tasks.lines().filter(is_new).count(),
            update: update.to_owned(),
        })
    }
}

/// One service of a stack.
struct Service {
    name: String,
    /// How many replicas it should have.
    wanted: usize,
    /// How many there are or soon will be, of whatever version.
    tasks: usize,
    /// How many of them are as the service is described now, and healthy.
    new: usize,
    /// Of the last update; empty if there was none.
    update: String,
}

impl Service {
    fn is_settled(&self) -> bool {
        let over = ["", "completed"].contains(&self.update.as_str());
        over && self.new == self.wanted && self.tasks == self.wanted
    }

    /// The new version was not taken: Swarm went back to the one before, or stands still.
    fn has_failed(&self) -> bool {
        ["paused", "rollback_completed", "rollback_paused"].contains(&self.update.as_str())
    }
}

/// Short, since names have few characters.
fn version(hash: &DefaultHasher) -> String {
    format!("{:08x}", hash.finish() >> 32)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_up_to_date() {
        let check = |(new, tasks, wanted), update: &str, settled, failed| {
            let service = Service { name: String::new(), wanted, tasks, new, update: update.into() };
            assert_eq!(
                (service.is_settled(), service.has_failed()),
                (settled, failed),
                "{new} {tasks} {update}"
            );
        };
        check((2, 2, 2), "", true, false);
        check((2, 2, 2), "completed", true, false);
        check((2, 2, 2), "updating", false, false);
        check((1, 1, 2), "", false, false);
        // The update has not begun yet.
        check((0, 2, 2), "", false, false);
        // One that is to go is still there.
        check((1, 3, 1), "", false, false);
        check((2, 2, 2), "rollback_completed", false, true);
        check((0, 2, 2), "paused", false, true);
    }
}
