//! One bridge process, as a user would start it: built, given a settings file and an environment, stopped with
//! SIGTERM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::install;
use crate::paths;
use crate::postgres::DATABASE;
use crate::process::{self, Process, tail, wait_until};
use crate::services::postgres::{PASSWORD, USER};
use crate::services::{Private, Service};

/// A bridge's SHUTDOWN_TIMEOUT is 8 s; beyond this it did not stop as promised.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Which bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Streams to MQTT topics
    Redis2mqtt,
    /// Streams to the same streams on another Redis
    Redis2redis,
    /// Streams and key-values to PostgreSQL tables
    Redis2pg,
    /// Streams to Kafka topics
    Redis2kafka,
    /// MQTT topics to Kafka topics
    Mqtt2kafka,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis2mqtt => "redis2mqtt",
            Self::Redis2redis => "redis2redis",
            Self::Redis2pg => "redis2pg",
            Self::Redis2kafka => "redis2kafka",
            Self::Mqtt2kafka => "mqtt2kafka",
        }
    }

    /// Where it takes them from.
    pub(crate) fn source(self) -> Service {
        match self {
            Self::Redis2mqtt | Self::Redis2redis | Self::Redis2pg | Self::Redis2kafka => Service::Redis,
            Self::Mqtt2kafka => Service::Mosquitto,
        }
    }

    /// Where it moves entries to.
    pub(crate) fn destination(self) -> Service {
        match self {
            Self::Redis2mqtt => Service::Mosquitto,
            Self::Redis2redis => Service::Target,
            Self::Redis2pg => Service::Postgres,
            Self::Redis2kafka | Self::Mqtt2kafka => Service::Kafka,
        }
    }

    /// The settings by which it finds its servers, and is found itself.
    pub(crate) fn addresses(self, servers: &Private, admin: u16) -> Result<Vec<(String, String)>> {
        let mut settings = vec![("ADMIN_ADDR".to_owned(), format!("127.0.0.1:{admin}"))];
        let source = servers.port(self.source(), "plain")?;
        let destination = servers.port(self.destination(), "plain")?;
        if self.source() == Service::Redis {
            settings.extend(at("SOURCE_REDIS", source));
        }
        match self {
            Self::Redis2mqtt => settings.extend(at("MQTT_BROKER", destination)),
            Self::Redis2redis => settings.extend(at("TARGET_REDIS", destination)),
            Self::Redis2pg => settings.extend(at("PG", destination)),
            Self::Redis2kafka => {
                settings.push(("KAFKA_BOOTSTRAP_SERVERS".to_owned(), format!("127.0.0.1:{destination}")));
            }
            Self::Mqtt2kafka => {
                settings.push(uns("mqtt__host", "127.0.0.1"));
                settings.push(uns("mqtt__port", source));
                let config = format!("@json {{\"bootstrap.servers\": \"127.0.0.1:{destination}\"}}");
                settings.push(uns("kafka__config", config));
            }
        }
        if self == Self::Redis2pg {
            let login = [("PG_USER", USER), ("PG_PASSWORD", PASSWORD), ("PG_DATABASE", DATABASE)];
            settings.extend(login.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        Ok(settings)
    }
}

/// The settings that name a server on this machine.
pub(crate) fn at(server: &str, port: u16) -> [(String, String); 2] {
    [(format!("{server}_HOST"), "127.0.0.1".to_owned()), (format!("{server}_PORT"), port.to_string())]
}

/// A setting of mqtt2kafka, whose settings are a tree.
pub(crate) fn uns(path: &str, value: impl ToString) -> (String, String) {
    (format!("UNS_{path}"), value.to_string())
}

/// Which of Cargo's profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build, shared with the tests.
    Dev,
    /// What is shipped.
    Release,
}

/// A running bridge; killed with the value unless stopped before.
pub(crate) struct Bridge {
    child: Child,
    process: Process,
    log: PathBuf,
}

/// Builds all bridges and returns the directory that they are in. One by one, each would need its own build of the
/// crates that they share, with just the features that it asks for.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    install::ensure_build_tools()?;
    let shell = paths::shell()?;
    let (flag, directory) = match profile {
        Profile::Dev => (None, "debug"),
        Profile::Release => (Some("--release"), "release"),
    };
    let mut command = vec!["build", "--locked"];
    command.extend(Kind::value_variants().iter().flat_map(|kind| ["--package", kind.name()]));
    command.extend(flag);
    paths::cargo(&shell, &command).run()?;
    Ok(paths::build_dir(&shell)?.join(directory))
}

impl Bridge {
    /// Starts it in `dir`, where its log goes. It sees no environment but `variables`, so that the settings of
    /// whoever runs this do not leak in.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        dir: &Path,
    ) -> Result<Self> {
        let name = program.file_name().context("a program has a name")?.to_string_lossy().into_owned();
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        end_leftover(&dir.join("bridge.json"))?;
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let child = process::spawn(&mut command, &log)?;
        let process = Process::of(child.id())?;
        fs::write(dir.join("bridge.json"), serde_json::to_string(&process)?)
            .context("remember the bridge's process")?;
        Ok(Self { child, process, log })
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// An error, with the end of its log, if it no longer runs.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the bridge ended by itself ({status}); {}", tail(&self.log)),
        }
    }

    /// SIGTERM, and exit code 0 in time.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.ensure_running()?;
        self.process.signal(Signal::TERM);
        let mut ended: Option<ExitStatus> = None;
        wait_until(STOP_WITHIN, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        match ended {
            None => {
                bail!("the bridge still runs {} s after SIGTERM; {}", STOP_WITHIN.as_secs(), tail(&self.log))
            }
            Some(status) => {
                ensure!(status.success(), "the bridge stopped with {status}; {}", tail(&self.log))
            }
        }
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Nothing happens to one that has ended: its status was collected, and the handle knows.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A killed demo or bench may have left its bridge behind, which would take part in this one.
fn end_leftover(file: &Path) -> Result<()> {
    if let Ok(text) = fs::read_to_string(file) {
        if let Ok(process) = serde_json::from_str::<Process>(&text) {
            process.end(STOP_WITHIN)?;
        }
        fs::remove_file(file).with_context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}

/// Ctrl-C and SIGTERM, as a question to ask now and then.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("watch for Ctrl-C")?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn ensure_not(&self) -> Result<()> {
        ensure!(!self.came(), "interrupted");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Bridge {
        let dir = std::env::temp_dir().join(format!("xtask-bridge-{}-{:p}", std::process::id(), script));
        Bridge::start(Path::new("/bin/sh"), &["-c", script], &[("ONLY".into(), "this".into())], &dir).unwrap()
    }

    #[test]
    fn a_clean_stop_is_told_from_any_other() {
        let clean = run("trap 'exit 0' TERM; while :; do sleep 0.05; done");
        std::thread::sleep(Duration::from_millis(200)); // until the trap is set
        clean.stop().unwrap();
        let failing = run("trap 'echo cannot; exit 3' TERM; while :; do sleep 0.05; done");
        std::thread::sleep(Duration::from_millis(200));
        let error = failing.stop().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("cannot"), "{error}");
    }

    #[test]
    fn an_early_end_is_noticed() {
        let mut bridge = run("echo $ONLY, $HOME.; exit 78");
        assert!(wait_until(Duration::from_secs(5), || bridge.ensure_running().is_err()));
        let error = bridge.ensure_running().unwrap_err().to_string();
        assert!(error.contains("78") && error.contains("this, ."), "{error}");
    }
}
