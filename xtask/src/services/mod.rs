//! The real servers: started once on free loopback ports, found again by a state file, ended only if we started
//! them. A server that belongs to the system, or to somebody else, is never touched.
//!
//! A [`Fleet`] is one set of servers with one directory. The tests share `target/services`; the demo and the bench
//! have their own. A new kind of server is a variant of [`Service`] and a file beside `redis.rs`.

pub(crate) mod kafka;
mod mosquitto;
mod ports;
pub(crate) mod postgres;
mod redis;
mod state;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use rustix::process::Signal;

use crate::install::{self, Tool};
use crate::paths;
use crate::process::Process;
pub(crate) use ports::free_ports;
use state::{Running, State};

/// A kind of server. One may be several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// One Redis: plain, TLS and unix socket, a user with a password
    Redis,
    /// One broker: plain, with users and an ACL, TLS with client certificates, websockets
    Mosquitto,
    /// One PostgreSQL, plain and TLS on one port, a superuser with a password
    Postgres,
    /// One Apache Kafka: plain, TLS, users with passwords, and both
    Kafka,
    /// A second Redis, to be written to: the demo's and the bench's
    Target,
}

/// Where one service runs: all that its start needs to know.
pub(crate) struct Place {
    /// Its data; exists.
    dir: PathBuf,
    /// Certificates, see [`tls`].
    tls: PathBuf,
    ports: Ports,
    /// Of a broker, see [`mosquitto::WINDOW`].
    window: u32,
}

/// A service's ports by name ("plain", "tls").
type Ports = BTreeMap<String, u16>;

impl Service {
    const ALL: [Self; 5] = [Self::Redis, Self::Mosquitto, Self::Postgres, Self::Kafka, Self::Target];
    /// What the tests share; of everything else they start their own.
    pub(crate) const SHARED: [Self; 4] = [Self::Redis, Self::Mosquitto, Self::Postgres, Self::Kafka];

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Mosquitto => "mosquitto",
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::Target => "target",
        }
    }

    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Redis | Self::Target => redis::TOOLS,
            Self::Mosquitto => mosquitto::TOOLS,
            Self::Postgres => postgres::TOOLS,
            Self::Kafka => kafka::TOOLS,
        }
    }

    fn ports(self) -> &'static [&'static str] {
        match self {
            Self::Redis | Self::Target => redis::PORTS,
            Self::Mosquitto => mosquitto::PORTS,
            Self::Postgres => postgres::PORTS,
            Self::Kafka => kafka::PORTS,
        }
    }

    /// Starts it and returns once it answers. An error leaves nothing running.
    fn start(self, place: &Place) -> Result<Vec<Child>> {
        match self {
            Self::Redis | Self::Target => Ok(vec![redis::start(place)?]),
            Self::Mosquitto => Ok(vec![mosquitto::start(place)?]),
            Self::Postgres => Ok(vec![postgres::start(place)?]),
            Self::Kafka => Ok(vec![kafka::start(place)?]),
        }
    }

    /// What asks it to end now, whoever is connected.
    fn stop_signal(self) -> Signal {
        match self {
            Self::Redis | Self::Mosquitto | Self::Kafka | Self::Target => Signal::TERM,
            Self::Postgres => postgres::STOP_SIGNAL,
        }
    }

    /// What a test reads from its environment to find it.
    fn exports(self, place: &Place) -> Result<Vec<(&'static str, String)>> {
        Ok(match self {
            Self::Redis => redis::exports(place),
            Self::Mosquitto => mosquitto::exports(place),
            Self::Postgres => postgres::exports(place)?,
            Self::Kafka => kafka::exports(place)?,
            Self::Target => Vec::new(),
        })
    }
}

/// A set of servers whose data and state lie in one directory.
pub(crate) struct Fleet {
    dir: PathBuf,
    window: u32,
}

/// A fleet of one command's own: its servers end with the value.
pub(crate) struct Private(Fleet);

impl Fleet {
    /// The servers of the tests: they stay up between runs.
    pub(crate) fn shared() -> Self {
        Self { dir: paths::data("services"), window: mosquitto::WINDOW }
    }

    /// Fresh servers with their data in `dir`; what an earlier, killed command left running there is ended first.
    pub(crate) fn private(dir: &Path, services: &[Service]) -> Result<Private> {
        Self::private_with_window(dir, services, mosquitto::WINDOW)
    }

    /// The same with a broker of this window; 0: without a limit.
    pub(crate) fn private_with_window(dir: &Path, services: &[Service], window: u32) -> Result<Private> {
        let fleet = Private(Self { dir: dir.to_path_buf(), window });
        fleet.0.down(&Service::ALL)?;
        fleet.0.up(services)?;
        Ok(fleet)
    }

    /// Starts what does not run yet.
    pub(crate) fn up(&self, services: &[Service]) -> Result<()> {
        let mut tools = tls::TOOLS.to_vec();
        tools.extend(services.iter().flat_map(|service| service.tools()));
        install::ensure(&tools, "to run the real servers that this project is tested against")?;
        let _lock = self.lock()?;
        tls::ensure(&self.tls())?;
        let mut state = self.state()?;
        for &service in services {
            let known = state.services.get(service.name());
            if known.is_some_and(Running::is_alive) {
                continue;
            }
            let running = self.start(service, known)?;
            state.services.insert(service.name().to_owned(), running);
            // After each one: whatever goes wrong next, this one is found again.
            state.save(&self.state_file())?;
        }
        Ok(())
    }

    /// Ends what runs, and forgets it.
    pub(crate) fn down(&self, services: &[Service]) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        for service in services {
            if let Some(running) = state.services.get(service.name()) {
                running.end(service.stop_signal())?;
                state.services.remove(service.name());
                state.save(&self.state_file())?;
            }
        }
        Ok(())
    }

    /// The environment variables by which tests find the servers that run.
    pub(crate) fn exports(&self) -> Result<Vec<(&'static str, String)>> {
        let state = self.state()?;
        let mut exports = vec![("TEST_TLS_DIR", self.tls().display().to_string())];
        for service in Service::ALL {
            if let Some(running) = state.alive(service.name()) {
                exports.extend(service.exports(&self.place(service, running.ports.clone()))?);
            }
        }
        Ok(exports)
    }

    /// A port of a service that runs.
    pub(crate) fn port(&self, service: Service, name: &str) -> Result<u16> {
        let state = self.state()?;
        let running =
            state.alive(service.name()).with_context(|| format!("{} does not run", service.name()))?;
        running.ports.get(name).copied().with_context(|| format!("{} has no port {name}", service.name()))
    }

    /// A free port may be gone by the time that the server asks for it, hence several attempts.
    fn start(&self, service: Service, before: Option<&Running>) -> Result<Running> {
        if let Some(running) = before {
            running.end(service.stop_signal())?; // of several processes, some may be left
        }
        let mut failure = None;
        for attempt in 0..3 {
            let known = before.filter(|_| attempt == 0).map(|running| &running.ports);
            let place = self.place(service, ports::free(service.ports(), known)?);
            fs::create_dir_all(&place.dir).with_context(|| format!("create {}", place.dir.display()))?;
            match service.start(&place) {
                Ok(children) => {
                    let processes =
                        children.iter().map(|child| Process::of(child.id())).collect::<Result<_>>()?;
                    return Ok(Running { processes, ports: place.ports });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("three attempts failed")).with_context(|| format!("start {}", service.name()))
    }

    fn place(&self, service: Service, ports: Ports) -> Place {
        Place { dir: self.dir.join(service.name()), tls: self.tls(), ports, window: self.window }
    }

    fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }

    fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn state(&self) -> Result<State> {
        State::load(&self.state_file())
    }

    /// One command at a time; released when the file closes.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let file = File::create(self.dir.join("lock")).context("create the lock file")?;
        file.lock().context("wait for the other command that starts or stops servers here")?;
        Ok(file)
    }
}

impl Private {
    /// A port of a service that runs.
    pub(crate) fn port(&self, service: Service, name: &str) -> Result<u16> {
        self.0.port(service, name)
    }

    /// What the broker says.
    pub(crate) fn broker_log(&self) -> PathBuf {
        self.0.dir.join(Service::Mosquitto.name()).join(mosquitto::LOG)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = self.0.down(&Service::ALL) {
            eprintln!("stop the servers: {error:#}");
        }
    }
}

impl Place {
    fn port(&self, name: &str) -> u16 {
        *self.ports.get(name).expect("a service asks for ports that it named")
    }

    fn certificate(&self, name: &str) -> String {
        self.tls.join(name).display().to_string()
    }
}

/// Waits until a server that was just started says that it is ready; if it ends or stays silent, it is ended and
/// its log is the reason.
fn await_ready(mut child: Child, log: &Path, mut ready: impl FnMut(u32) -> bool) -> Result<Child> {
    let mut ended = false;
    let pid = child.id();
    let up = crate::process::wait_until(Duration::from_secs(60), || {
        ended = !matches!(child.try_wait(), Ok(None));
        ended || ready(pid)
    });
    if up && !ended {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    let what = if ended { "ended at once" } else { "does not answer" };
    bail!("the server {what}; {}", crate::process::tail(log))
}

/// `cargo xtask services …`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start what does not run yet; without a name, what the tests share
    Up { services: Vec<Service> },
    /// Stop what was started here
    Down { services: Vec<Service> },
    /// What runs, where, and how tests find it
    Status { services: Vec<Service> },
    /// Only the variables: eval "$(cargo xtask services env)"
    Env,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let fleet = Fleet::shared();
    match &args.action {
        Action::Up { services } => {
            let services = if services.is_empty() { &Service::SHARED } else { services.as_slice() };
            fleet.up(services)?;
            print_status(&fleet, services)
        }
        Action::Down { services } => {
            fleet.down(or_all(services))?;
            print_status(&fleet, or_all(services))
        }
        Action::Status { services } => print_status(&fleet, or_all(services)),
        Action::Env => {
            for service in Service::SHARED {
                let running = fleet.port(service, service.ports()[0]);
                running.map_err(|error| error.context("start the servers with: cargo xtask services up"))?;
            }
            print_all(&exports_as_text(&fleet)?);
            Ok(())
        }
    }
}

fn or_all(services: &[Service]) -> &[Service] {
    if services.is_empty() { &Service::ALL } else { services }
}

fn print_status(fleet: &Fleet, services: &[Service]) -> Result<()> {
    let state = fleet.state()?;
    let mut lines = String::new();
    for service in services {
        let name = service.name();
        match state.alive(name) {
            None => writeln!(lines, "{name:10} down")?,
            Some(running) => writeln!(lines, "{name:10} up    {running}")?,
        }
    }
    if services.iter().any(|service| state.alive(service.name()).is_some()) {
        writeln!(lines, "data in {}", fleet.dir.display())?;
        lines += &exports_as_text(fleet)?;
    }
    print_all(&lines);
    Ok(())
}

fn exports_as_text(fleet: &Fleet) -> Result<String> {
    Ok(fleet.exports()?.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect())
}

/// A reader that has seen enough (`| head -1`) is no error.
fn print_all(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// One word to any POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_survive_the_shell() {
        assert_eq!(quoted("redis://127.0.0.1:1"), "'redis://127.0.0.1:1'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_server_that_ends_at_once_shows_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-await-{}.log", std::process::id()));
        let child = crate::process::spawn(
            std::process::Command::new("sh").args(["-c", "echo cannot bind; exit 1"]),
            &log,
        );
        let error = await_ready(child.unwrap(), &log, |_| false).unwrap_err().to_string();
        assert!(error.contains("ended at once") && error.contains("cannot bind"), "{error}");
        fs::remove_file(log).unwrap();
    }
}
