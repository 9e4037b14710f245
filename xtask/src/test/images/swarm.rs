//! All bridges in one stack, on the one node that there is, while devices write: scaled up and down, updated, killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::destination::Destination;
use super::prometheus::Prometheus;
use super::traffic::Load;
use super::trial::{Kind, Trial};
use super::{LOGIN, Test, compose};
use crate::containers::catalog::Bridge;
use crate::containers::engine::{self, docker, published};
use crate::containers::image::{Names, Place};
use crate::containers::swarm::Stack;
use crate::paths;
use crate::process::wait_until;
use crate::redis::{Redis, Reply};
use crate::services::free_ports;

/// Streams that the devices write to.
const STREAMS: usize = 60;
/// Between two batches of 20: some 1,500 entries a second, which leaves the processor to what is tested.
const PAUSE: Duration = Duration::from_millis(12);
/// So many are written between two things that happen.
const BETWEEN: usize = 3_000;
/// A password that a settings file would have to quote.
const PASSWORD: &str = "of # the source's";

/// What the buffer is called.
const BUFFER: &str = "buffer";

/// The variable of the compose files, and the image if it is not set.
const REDIS: (&str, &str) = ("REDIS_IMAGE", "redis:7");

pub(super) fn run(test: &Test) -> Result<usize> {
    test.join_swarm()?;
    let mut swarm = Swarm::start(test)?;
    swarm.under_load()?;
    swarm.stack.remove()?;
    Ok(6)
}

/// The stack and the swarm, if the test made it; called at the beginning and at the end, whatever happened.
pub(super) fn clean(test: &Test) {
    let stacks =
        docker(&test.shell, &["stack", "ls", "--format", "{{.Name}}"]).quiet().ignore_stderr().read();
    if stacks.is_ok_and(|stacks| stacks.lines().any(|stack| stack == test.name)) {
        match test.stack(&test.place).and_then(|stack| stack.remove()) {
            Ok(()) => {}
            Err(error) => eprintln!("remove the stack: {error:#}"),
        }
    }
    let marker = test.dir.join("swarm");
    if marker.exists() {
        let leave = ["swarm", "leave", "--force"];
        let _ = docker(&test.shell, &leave).quiet().ignore_stdout().ignore_stderr().run();
        let _ = fs::remove_file(marker);
    }
}

impl Test {
    fn join_swarm(&self) -> Result<()> {
        let state = docker(&self.shell, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).quiet().read()?;
        if state == "active" {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        // Whoever made it ends it.
        fs::write(self.dir.join("swarm"), "").context("remember that the swarm is ours")?;
        let init = ["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"];
        Ok(docker(&self.shell, &init).quiet().ignore_stdout().run()?)
    }

    fn stack(&self, place: &Place) -> Result<Stack> {
        let stack = Stack::new(&self.name, &self.network(), &Names::of(place))?;
        self.variables.iter().for_each(|(name, value)| stack.set(name, value));
        Ok(stack)
    }

    fn swarm_settings(&self) -> PathBuf {
        self.dir.join("swarm-settings")
    }

    /// The example settings that we ship, with our servers; passwords as secrets.
    fn settings_in_a_swarm(&self, trial: &Trial) -> Result<()> {
        let bridge = trial.bridge();
        let directory = self.swarm_settings().join(bridge.name);
        let secrets = directory.join("secrets");
        fs::create_dir_all(&secrets).with_context(|| format!("create {}", secrets.display()))?;
        let mut changes = trial.source.address(&self.host("source"));
        changes.push((trial.source.password.to_owned(), String::new()));
        changes.extend(trial.destination.address(&self.host(trial.kind.server())));
        if let Some(buffer) = &trial.buffer {
            changes.extend(buffer.address(&self.host(BUFFER)));
            // The other bridges' copies are compared with what the source has.
            changes.push(("STREAM_CLEANUP".to_owned(), "ack".to_owned()));
        }
        if trial.kind == Kind::Rows {
            changes.extend(LOGIN.map(|(name, value)| (name.to_owned(), value.to_owned())));
            // The secret goes before it.
            changes.push(("POSTGRES_PASSWORD".to_owned(), "not this".to_owned()));
            fs::write(secrets.join("postgres_password"), LOGIN[1].1).context("write a secret")?;
        }
        let file = trial.source.password.to_lowercase();
        fs::write(secrets.join(file), PASSWORD).context("write a secret")?;
        let example = paths::root().join(format!("deploy/examples/{}.env.conf", bridge.name));
        compose::write_settings(&example, &directory.join(bridge.settings), &changes)
    }

    fn host(&self, server: &str) -> String {
        format!("{}-{server}", self.name)
    }

    /// A server on the stack's network, under its container's name. Returns the port that it has on this machine.
    fn serve(&self, server: &str, image: (&str, &str), port: u16, command: &[&str]) -> Result<u16> {
        let image = self.shell.var(image.0).unwrap_or_else(|_| image.1.to_owned());
        let name = self.host(server);
        let publish = format!("127.0.0.1::{port}");
        let config = format!(
            "{}:/mosquitto/config/mosquitto.conf:ro",
            paths::root().join("compose/mosquitto.conf").display()
        );
        let login = LOGIN.map(|(name, value)| format!("{name}={value}"));
        let mut run = vec!["run", "--detach", "--name", &name, "--network"];
        let network = self.network();
        run.extend([network.as_str(), "--publish", &publish, "--volume", &config]);
        run.extend(login.iter().flat_map(|variable| ["--env", variable]));
        run.push(&image);
        run.extend(command);
        docker(&self.shell, &run).quiet().ignore_stdout().run()?;
        published(&self.shell, &name, port)
    }

    /// The same for Kafka, which takes a dozen settings: those of its compose file.
    fn serve_kafka(&self, trial: &'static Trial) -> Result<u16> {
        let project = self.project(trial, "served")?;
        let server = &trial.destination;
        project.up(&[server.service.to_owned()])?;
        let kafka = compose::the_only(&project, server.service)?;
        let alias = self.host(trial.kind.server());
        // It sends its clients on to the name of its service.
        let aliases = ["--alias", &alias, "--alias", server.service];
        engine::quietly(
            docker(&self.shell, &["network", "connect"]).args(aliases).arg(self.network()).arg(&kafka),
        )?;
        published(&self.shell, &kafka, server.published)
    }

    fn network(&self) -> String {
        format!("{}-net", self.name)
    }
}

/// A stack, and servers on its network.
struct Swarm<'a> {
    test: &'a Test,
    stack: Stack,
    /// Where the source is published on this machine.
    source: u16,
    destinations: Vec<(&'static Trial, Destination)>,
}

impl<'a> Swarm<'a> {
    fn start(test: &'a Test) -> Result<Self> {
        let network = test.network();
        let make = ["network", "create", "--driver", "overlay", "--attachable", &network];
        docker(&test.shell, &make).quiet().ignore_stdout().run()?;
        let source = test.serve("source", REDIS, 6379, &["redis-server", "--requirepass", PASSWORD])?;
        let mut destinations = Vec::new();
        for trial in Trial::existing() {
            if trial.buffer.is_some() {
                test.serve(BUFFER, REDIS, 6379, &["redis-server", "--appendonly", "yes"])?;
            }
            let of =
                |image, command| test.serve(trial.kind.server(), image, trial.destination.published, command);
            let port = match trial.kind {
                Kind::Topics => of(("MOSQUITTO_IMAGE", "eclipse-mosquitto:2"), &[]),
                Kind::Copies => of(REDIS, &["redis-server"]),
                Kind::Rows => of(("POSTGRES_IMAGE", "postgres:15"), &[]),
                Kind::Records => test.serve_kafka(trial),
            }?;
            destinations.push((trial, Destination::watch(trial.kind, port)?));
            test.settings_in_a_swarm(trial)?;
        }
        let stack = test.stack(&test.place)?;
        Ok(Self { test, stack, source, destinations })
    }

    fn connect(&self) -> Result<Redis> {
        let mut redis = Redis::connect(self.source)?;
        redis.call(&["AUTH", PASSWORD])?;
        Ok(redis)
    }

    fn deploy(&self) -> Result<()> {
        let bridges: Vec<&Bridge> = self.destinations.iter().map(|(trial, _)| trial.bridge()).collect();
        self.stack.deploy(&bridges, &self.test.swarm_settings(), true)
    }

    fn under_load(&mut self) -> Result<()> {
        let [port] = free_ports(1)?[..] else { bail!("one free port was asked for") };
        self.stack.set("PROMETHEUS_PORT", &port.to_string());
        let prometheus = Prometheus(port);
        self.stack.set("REDIS2MQTT_REPLICAS", "1");
        self.deploy()?;
        let load = Load::start(self.connect()?, "swarm", STREAMS, PAUSE);
        self.await_owners(1)?;
        load.await_more(BETWEEN)?;
        self.step(&load, "scaled from 1 to 3", |swarm| {
            swarm.stack.scale("redis-mqtt-sync", 3)?;
            swarm.await_owners(3)
        })?;
        prometheus.await_series("count(up{job=\"redis2mqtt\"} == 1) == 3", Duration::from_secs(60))?;
        println!("swarm: Prometheus sees 3 replicas");
        self.stack = self.test.stack(&self.test.second())?;
        self.stack.set("REDIS2MQTT_REPLICAS", "3");
        self.stack.set("PROMETHEUS_PORT", &port.to_string());
        self.step(&load, "updated all bridges, replica by replica", |swarm| {
            swarm.deploy()?;
            swarm.await_owners(3)
        })?;
        self.step(&load, "killed a container", |swarm| {
            let victim = swarm.containers("redis-mqtt-sync")?.pop().context("replicas run")?;
            docker(&swarm.test.shell, &["kill", &victim]).quiet().ignore_stdout().run()?;
            swarm.stack.await_settled()?;
            swarm.await_owners(3)
        })?;
        self.step(&load, "scaled from 3 to 1", |swarm| {
            swarm.stack.scale("redis-mqtt-sync", 1)?;
            swarm.await_owners(1)
        })?;
        let written = load.stop()?;
        let mut source = self.connect()?;
        for (trial, destination) in &mut self.destinations {
            let tally = destination.judge(&mut source, trial.group, &written)?;
            println!("swarm: {}: {tally}", trial.bridge().name);
        }
        Ok(())
    }

    /// Something happens while the devices write, and then they go on for a while.
    fn step(&self, load: &Load, what: &str, act: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let (begun, before) = (Instant::now(), load.count());
        act(self).with_context(|| what.to_owned())?;
        println!(
            "swarm: {what} within {:.1} s, while {} entries were written",
            begun.elapsed().as_secs_f64(),
            load.count() - before
        );
        load.await_more(BETWEEN)
    }

    /// Until so many replicas of redis2mqtt share the streams, each with some of them.
    fn await_owners(&self, replicas: usize) -> Result<()> {
        let mut redis = self.connect()?;
        let mut last = String::new();
        let shared = wait_until(Duration::from_secs(60), || match books(&mut redis) {
            Ok((members, owners)) => {
                last = format!("{members} replicas, of which {} read", owners.len());
                members == replicas && owners.len() == replicas
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        ensure!(shared, "{replicas} replicas do not share the streams after 60 s, but there are {last}");
        Ok(())
    }

    fn containers(&self, service: &str) -> Result<Vec<String>> {
        let label = format!("label=com.docker.swarm.service.name={}_{service}", self.test.name);
        let containers = docker(&self.test.shell, &["ps", "--quiet", "--filter", &label]).quiet().read()?;
        Ok(containers.lines().map(str::to_owned).collect())
    }
}

/// How many replicas of redis2mqtt there are, and which of them read any stream, by the books that they keep.
fn books(redis: &mut Redis) -> Result<(usize, BTreeSet<String>)> {
    let mut hash =
        |name: &str| match redis.call(&["HGETALL", &format!("redis-sync:{{mqtt-group}}:{name}")])? {
            Reply::List(fields) => Ok(fields),
            other => bail!("HGETALL answers with fields, not {other:?}"),
        };
    let text = |reply: &Reply| match reply {
        Reply::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let members = hash("members")?;
    let members = members.chunks_exact(2).filter(|pair| text(&pair[0]).starts_with("member ")).count();
    let owners = hash("owners")?.chunks_exact(2).map(|pair| text(&pair[1])).collect();
    Ok((members, owners))
}
