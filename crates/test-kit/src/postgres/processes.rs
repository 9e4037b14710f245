//! The processes of a server of ours: PostgreSQL has one for each connection, and each leads a session of its own, so
//! nothing but descent tells whose they are. Linux only (proc(5)).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::wait_until;

/// The processes that a process has started, and that run.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// None if there is no such process, or it has ended and waits to be collected.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z" && state != "X")
}

/// Sends a signal to processes of ours; some may have ended.
pub(super) fn signal_all(pids: &[u32], name: &str) {
    for pid in pids {
        let _ =
            Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    }
}

pub(super) fn wait_until_gone(pids: &[u32]) {
    let left = || pids.iter().copied().filter(|pid| parent_of(*pid).is_some()).collect::<Vec<_>>();
    wait_until("the server's processes end", left, || left().is_empty());
}

/// A killed server leaves its segment of System V shared memory behind, which only its next start in the same directory
/// would remove, and the system has room for few. The seventh line of its file names it: key and ID.
pub(super) fn remove_shared_memory(data: &Path) {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let segment = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = segment {
        let _ = Command::new("ipcrm").args(["--shmem-id", id]).stderr(Stdio::null()).status();
    }
}
