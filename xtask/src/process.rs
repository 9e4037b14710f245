//! Operating-system processes that outlive this program: started in the background, found again, ended.
//!
//! A process is known by PID, start time and boot, because a PID alone is used again. Nothing here signals a
//! process that it has not first found to be the very same. Linux only (proc(5)).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process, for good: no other process of this machine ever equals it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks between boot and start.
    start_ticks: u64,
    /// Which boot that was.
    boot: String,
}

/// What `/proc/PID/stat` says, as far as we ask.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    /// User and system time, in clock ticks.
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Process {
    /// The process that has this PID now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = stat(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid, start_ticks: stat.start_ticks, boot: boot()? })
    }

    /// Whether it still runs. A zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        self.stat().is_some() && boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Sends the signal, if the process still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (self.is_alive(), pid) {
            // The one failure left is that it ended this very moment, which is what a signal is for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, waits, then insists.
    pub(crate) fn end(&self, patience: Duration) -> Result<()> {
        self.end_by(Signal::TERM, patience)
    }

    /// The same for a program that has another signal for it.
    pub(crate) fn end_by(&self, signal: Signal, patience: Duration) -> Result<()> {
        for (signal, patience) in [(signal, patience), (Signal::KILL, Duration::from_secs(5))] {
            self.signal(signal);
            if wait_until(patience, || !self.is_alive()) {
                return Ok(());
            }
        }
        bail!("process {} does not end", self.pid)
    }

    /// User and system time since its start, all threads. The kernel counts in steps of 10 ms.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.stat().with_context(|| format!("process {} is gone", self.pid))?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(stat.cpu_ticks as f64 / per_second as f64))
    }

    /// The most memory it ever had resident, in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid)).context("read the process's status")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in the status")?;
        line.trim().trim_end_matches("kB").trim().parse().context("VmHWM is a number of kB")
    }

    fn stat(&self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name stands in parentheses and may itself hold any character, so fields count from the last `)`.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    // proc(5) numbers from 1 and the state is field 3: utime 14, stime 15, starttime 22.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
    })
}

fn boot() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot ID")?;
    Ok(id.trim().to_owned())
}

/// Starts the command in the background: in a process group of its own, so that Ctrl-C in the terminal reaches
/// only this program, and with both outputs in `log`.
pub(crate) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}"))
}

/// Asks `done` every few milliseconds until it says yes; false once `patience` is over.
pub(crate) fn wait_until(patience: Duration, done: impl FnMut() -> bool) -> bool {
    ask_every(Duration::from_millis(10), patience, done)
}

/// The same for a question that takes a process or two, which would leave what is waited for no time to happen.
pub(crate) fn wait_patiently(patience: Duration, done: impl FnMut() -> bool) -> bool {
    ask_every(Duration::from_millis(250), patience, done)
}

fn ask_every(pause: Duration, patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(pause);
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(2000)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(10)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_any_program_name() {
        let rest = "S 1 77 77 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 4 0 987654 1000000 500";
        let expected = || Some(Stat { state: 'S', cpu_ticks: 150, start_ticks: 987_654 });
        for name in ["redis-server", "a b", "x) S 1 (y", ""] {
            assert_eq!(parse_stat(&format!("77 ({name}) {rest}")), expected(), "{name}");
        }
        assert_eq!(parse_stat("77 (cut) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_recycled_pid_is_somebody_else() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let before = Process { start_ticks: me.start_ticks - 1, ..me.clone() };
        assert!(!before.is_alive());
        // Would end this very test if it were taken for the process it claims to be.
        before.end(Duration::ZERO).unwrap();
        let other_boot = Process { boot: "another".into(), ..me };
        assert!(!other_boot.is_alive());
    }
}
