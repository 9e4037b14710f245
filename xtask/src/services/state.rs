//! What runs, as a file: the only thing that remembers servers between two commands.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::Ports;
use crate::process::Process;

/// Every service that was started and not stopped, by name. A name that this version does not know is kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) services: BTreeMap<String, Running>,
}

/// One service's processes and ports.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) processes: Vec<Process>,
    pub(super) ports: Ports,
}

impl State {
    pub(super) fn load(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).with_context(|| {
                format!(
                    "read {}; if it is beyond repair, end the servers by hand and remove it",
                    file.display()
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("it is not what this command writes")
    }

    /// Whole or not at all: a killed command leaves the old file.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("write {}", file.display()))
    }

    /// The service, if all of it still runs.
    pub(super) fn alive(&self, name: &str) -> Option<&Running> {
        self.services.get(name).filter(|running| running.is_alive())
    }
}

impl Running {
    pub(super) fn is_alive(&self) -> bool {
        self.processes.iter().all(Process::is_alive)
    }

    pub(super) fn end(&self, signal: Signal) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.end_by(signal, Duration::from_secs(5)))
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<String> = self.processes.iter().map(|process| process.pid.to_string()).collect();
        write!(f, "pid {}", pids.join(", "))?;
        self.ports.iter().try_for_each(|(name, port)| write!(f, "  {name} {port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_saved() {
        let file = std::env::temp_dir().join(format!("xtask-state-{}.json", std::process::id()));
        assert_eq!(State::load(&file).unwrap(), State::default(), "no file: nothing runs");
        let mut state = State::default();
        let running = Running {
            processes: vec![Process::of(std::process::id()).unwrap()],
            ports: Ports::from([("plain".to_owned(), 20_001), ("tls".to_owned(), 20_002)]),
        };
        assert!(running.to_string().ends_with("plain 20001  tls 20002"), "{running}");
        state.services.insert("redis".into(), running);
        state.save(&file).unwrap();
        assert_eq!(State::load(&file).unwrap(), state);
        assert!(state.alive("redis").is_some());
        assert!(state.alive("kafka").is_none());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_of_another_make_is_an_error() {
        for text in ["", "{}", "{\"services\": {\"redis\": {\"pid\": 1}}}", "[]"] {
            assert!(State::parse(text).is_err(), "{text}");
        }
        assert_eq!(State::parse("{\"services\": {}}").unwrap(), State::default());
    }
}
