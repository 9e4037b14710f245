//! `cargo xtask compose`: bridges in containers on this machine, each in a project of its own, with all the servers of
//! its compose file beside it or with those that somebody chose.

use std::cell::OnceCell;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use xshell::{Cmd, Shell};

use super::catalog::{self, Bridge};
use super::engine::{self, docker};
use super::image::{self, Names, Place};
use super::settings;
use crate::paths;
use crate::process::wait_patiently;

/// The slowest server needs half a minute on a busy machine.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);

/// `cargo xtask compose …`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build what is missing, start, and wait until all of it is healthy
    Up {
        #[command(flatten)]
        which: Which,
        /// Only these services of the compose file, such as the bridge without its servers
        #[arg(long, num_args = 1..)]
        services: Vec<String>,
        /// Also Prometheus and Grafana, at localhost:9090 and localhost:3000
        #[arg(long)]
        monitoring: bool,
        #[command(flatten)]
        names: Names,
    },
    /// Stop and remove the containers; asks about the volumes, which hold what the servers keep
    Down {
        #[command(flatten)]
        which: Which,
        /// Remove the volumes too: what the servers keep is lost
        #[arg(long, conflicts_with = "keep_volumes")]
        volumes: bool,
        /// Keep the volumes
        #[arg(long)]
        keep_volumes: bool,
    },
    /// What they write to their logs
    Logs {
        #[command(flatten)]
        which: Which,
        /// Only these services
        #[arg(long, num_args = 1..)]
        services: Vec<String>,
        /// Go on until Ctrl-C
        #[arg(long, short)]
        follow: bool,
    },
    /// What runs
    Ps {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Which bridge, by its own name or its service's (otherwise all)
    #[arg(value_parser = catalog::parse)]
    bridge: Option<&'static Bridge>,
}

impl Which {
    fn bridges(&self) -> Vec<&'static Bridge> {
        self.bridge.map_or_else(|| catalog::existing().collect(), |bridge| vec![bridge])
    }

    fn projects(&self) -> Result<Vec<Project>> {
        self.bridges().into_iter().map(|bridge| Project::of(bridge, &Names::default())).collect()
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    engine::ensure()?;
    match &args.action {
        Action::Up { which, services, monitoring, names } => {
            ensure!(
                services.is_empty() || which.bridge.is_some(),
                "--services needs a bridge: each has services of its own"
            );
            for bridge in which.bridges() {
                ensure_settings(bridge)?;
                let project = Project::of(bridge, names)?;
                build_missing(&project)?;
                let mut services = if services.is_empty() { project.usual()? } else { services.clone() };
                services
                    .extend(MONITORING.iter().filter(|_| *monitoring).map(|service| (*service).to_owned()));
                project.up(&services)?;
                project.compose(&["ps"])?.run()?;
            }
        }
        Action::Down { which, volumes, keep_volumes } => {
            let volumes = *volumes || !keep_volumes && asked_to_remove_volumes()?;
            which.projects()?.iter().try_for_each(|project| project.down(volumes))?;
        }
        Action::Logs { which, services, follow } => {
            let projects = which.projects()?;
            ensure!(!follow || projects.len() == 1, "--follow needs a bridge: it shows one project's log");
            for project in projects {
                let mut command = vec!["logs"];
                command.extend(follow.then_some("--follow"));
                command.extend(services.iter().map(String::as_str));
                project.compose(&command)?.run()?;
            }
        }
        Action::Ps { which } => {
            for project in which.projects()? {
                project.compose(&["ps"])?.run()?;
            }
        }
    }
    Ok(())
}

fn asked_to_remove_volumes() -> Result<bool> {
    ensure!(
        std::io::stdin().is_terminal(),
        "without a terminal to ask on, say what is to become of the volumes: --volumes (remove) or --keep-volumes"
    );
    print!("Remove the volumes too? What the servers keep is lost. [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A bridge and what stands beside it.
pub(crate) struct Project {
    bridge: &'static Bridge,
    name: String,
    place: Place,
    /// Whether a person watches.
    tells: bool,
    /// Has the variables that the compose file asks for.
    shell: Shell,
    usual: OnceCell<Vec<String>>,
}

impl Project {
    /// As a user has it: its settings lie beside the compose file.
    fn of(bridge: &'static Bridge, names: &Names) -> Result<Self> {
        let file = paths::root().join("compose").join(bridge.name).join(bridge.settings);
        let variables = if file.is_file() { settings::variables(&file)? } else { Default::default() };
        let place = names.settle(|name| variables.get(name).cloned());
        // Whoever sets a variable by hand means it.
        let variables = variables.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
        Ok(Self { tells: true, ..Self::new(bridge, bridge.name, place, variables)? })
    }

    /// Under another name, without a word, with other values for the variables that the compose file asks for.
    pub(crate) fn new<'a>(
        bridge: &'static Bridge,
        name: &str,
        place: Place,
        variables: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Self> {
        let shell = paths::shell()?;
        variables.into_iter().for_each(|(name, value)| shell.set_var(name, value));
        shell.set_var("REGISTRY", &place.registry);
        shell.set_var("TAG", &place.tag);
        Ok(Self { bridge, name: name.to_owned(), place, tells: false, shell, usual: OnceCell::new() })
    }

    /// The services of the bridge's own compose file.
    fn usual(&self) -> Result<Vec<String>> {
        if let Some(usual) = self.usual.get() {
            return Ok(usual.clone());
        }
        let all = self.compose(&["config", "--services"])?.quiet().read()?;
        let is_usual = |service: &&str| !MONITORING.contains(service);
        let usual = all.lines().filter(is_usual).map(str::to_owned).collect();
        Ok(self.usual.get_or_init(|| usual).clone())
    }

    /// Starts the chosen services, or the usual ones: servers first, so that the bridge finds them.
    pub(crate) fn up(&self, services: &[String]) -> Result<()> {
        let usual = self.usual()?;
        let chosen = if services.is_empty() { &usual } else { services };
        let known = |service: &str| usual.iter().any(|one| one == service) || MONITORING.contains(&service);
        if let Some(unknown) = chosen.iter().find(|service| !known(service)) {
            bail!("{} has no service {unknown}; it has {}", self.file(), usual.join(", "));
        }
        let (bridges, servers): (Vec<&str>, Vec<&str>) =
            chosen.iter().map(String::as_str).partition(|service| self.bridge.services.contains(service));
        for part in [servers, bridges].iter().filter(|part| !part.is_empty()) {
            let mut command = vec!["up", "--detach", "--no-build", "--no-deps"];
            command.extend(part);
            self.run(&command)?;
            part.iter().try_for_each(|service| self.await_health(service))?;
        }
        Ok(())
    }

    pub(crate) fn down(&self, volumes: bool) -> Result<()> {
        let mut command = vec!["down", "--remove-orphans"];
        command.extend(volumes.then_some("--volumes"));
        self.run(&command)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let command = self.compose(arguments)?;
        if self.tells { Ok(command.run()?) } else { engine::quietly(command) }
    }

    /// `docker compose ARGUMENTS` for this project.
    pub(crate) fn compose(&self, arguments: &[&str]) -> Result<Cmd<'_>> {
        let file = self.file();
        let mut command =
            vec!["--project-name", &self.name, "--file", &file, "--file", "compose/monitoring.yml"];
        command.extend(arguments);
        engine::compose(&self.shell, &command)
    }

    /// A variable of the compose files.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.shell.set_var(name, value);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The containers of a service, by the labels that either command of compose gives them: the engine answers at once,
    /// where the command takes its time.
    pub(crate) fn containers(&self, service: &str) -> Result<Vec<String>> {
        let labels = [("project", self.name.as_str()), ("service", service)]
            .map(|(label, value)| format!("label=com.docker.compose.{label}={value}"));
        let mut command = vec!["ps", "--all", "--quiet", "--no-trunc"];
        command.extend(labels.iter().flat_map(|label| ["--filter", label]));
        let containers = docker(&self.shell, &command).quiet().read()?;
        Ok(containers.lines().map(str::to_owned).collect())
    }

    /// What a service has written to its log.
    pub(crate) fn log(&self, service: &str) -> Result<String> {
        let mut log = String::new();
        for container in self.containers(service)? {
            let output = docker(&self.shell, &["logs", &container]).quiet().output()?;
            log.extend(
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            );
        }
        Ok(log)
    }

    fn file(&self) -> String {
        format!("compose/{}.yml", self.bridge.name)
    }

    fn await_health(&self, service: &str) -> Result<()> {
        let mut worst = String::new();
        let healthy = wait_patiently(HEALTHY_WITHIN, || match self.health(service) {
            Ok(states) => {
                let ill = states.iter().find(|state| !["healthy", "running"].contains(&state.as_str()));
                worst = ill.cloned().unwrap_or_default();
                // Settings that are wrong stay wrong.
                worst.is_empty() || worst == MISCONFIGURED
            }
            Err(error) => {
                worst = format!("{error:#}");
                false
            }
        });
        if healthy && worst.is_empty() {
            return Ok(());
        }
        self.compose(&["logs", "--tail", "20", service])?.quiet().run()?;
        bail!("{service} does not become healthy: {worst}")
    }

    /// Of each of its containers: its health, or what it does where there is no health check.
    fn health(&self, service: &str) -> Result<Vec<String>> {
        let containers = self.containers(service)?;
        ensure!(!containers.is_empty(), "it has no container");
        let format = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}} {{.State.ExitCode}}";
        let mut command = vec!["inspect", "--format", format];
        command.extend(containers.iter().map(String::as_str));
        let states = docker(&self.shell, &command).quiet().read()?;
        let state = |line: &str| match line.split_once(' ') {
            Some((_, "78")) => MISCONFIGURED.to_owned(),
            Some((state, _)) => state.to_owned(),
            None => line.to_owned(),
        };
        Ok(states.lines().map(state).collect())
    }
}

/// The services of compose/monitoring.yml, which is the second file of every project.
const MONITORING: [&str; 2] = ["prometheus", "grafana"];

/// Exit code 78: the settings are wrong, and the log says which.
const MISCONFIGURED: &str = "its settings are wrong";

/// An image that is not here under its name is built from source.
fn build_missing(project: &Project) -> Result<()> {
    let image = project.place.image(project.bridge);
    if engine::has_image(&project.shell, &image) {
        return Ok(());
    }
    println!("{image} is not here and is built from source, which takes some minutes (cargo xtask image)");
    image::build(&project.shell, project.bridge, &image, None)
}

/// The first start makes the settings file from the example that we ship.
fn ensure_settings(bridge: &Bridge) -> Result<()> {
    let file = paths::root().join("compose").join(bridge.name).join(bridge.settings);
    if file.is_file() {
        return Ok(());
    }
    let example = file.with_file_name(format!("{}.example", bridge.settings));
    fs::copy(&example, &file).with_context(|| format!("copy {} to {}", example.display(), file.display()))?;
    println!("made compose/{}/{} from the example beside it", bridge.name, bridge.settings);
    Ok(())
}
