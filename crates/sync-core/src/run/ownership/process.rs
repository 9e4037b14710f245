//! Who this process is among its replicas, and whether another one on the same machine has ended.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::redis::ownership::Member;

/// The start of this machine, and the process namespace in it.
pub(super) fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// When a process started, in the kernel's ticks, where that can be seen.
pub(super) fn started(pid: u32) -> Option<u64> {
    seen(pid).map(|(_, started)| started)
}

/// State and start of a process. `None` says nothing: /proc may hide other users' processes.
fn seen(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): pid, (name), state, and the start is the 22nd. The name may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Whether this member's process, on this very machine, has ended for certain.
pub(super) fn is_dead(member: &Member, machine: &str) -> bool {
    // Who could not see when it started itself says nothing that could be compared.
    if member.machine != machine || member.started == 0 {
        return false;
    }
    let Some(pid) = i32::try_from(member.pid).ok().and_then(Pid::from_raw) else { return false };
    match seen(member.pid) {
        // Nothing is left but an exit code that nobody has asked for, or the ID was used again.
        Some((state, started)) => matches!(state, 'Z' | 'X') || started != member.started,
        // kill(2) with no signal: a process that may not be signalled is one.
        None => test_kill_process(pid) == Err(Errno::SRCH),
    }
}

/// A name that nobody ever had: a process that joins again is somebody else.
pub(super) fn new_name(host: &str) -> String {
    let host: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let random = RandomState::new().build_hasher().finish();
    format!("{host}-{}-{:08x}", std::process::id(), random >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_has_ended_is_dead() {
        let me = Member {
            bridge: String::new(),
            sink: String::new(),
            reads: String::new(),
            consumer: String::new(),
            host: String::new(),
            machine: machine(),
            pid: std::process::id(),
            started: started(std::process::id()).expect("this process runs"),
            version: String::new(),
        };
        assert!(!is_dead(&me, &machine()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let started = started(child.id()).expect("it runs");
        let other = Member { pid: child.id(), started, ..me.clone() };
        assert!(!is_dead(&other, &machine()));
        assert!(
            is_dead(&Member { started: started + 1, ..other.clone() }, &machine()),
            "the ID was used again"
        );
        child.kill().expect("it can be killed");
        while !is_dead(&other, &machine()) {
            // Until it has ended; nobody has asked for its exit code yet.
            std::thread::yield_now();
        }
        child.wait().expect("it ended");
        assert!(is_dead(&other, &machine()));
        assert!(!is_dead(&other, "elsewhere"), "another machine's processes cannot be seen");
        assert!(!is_dead(&Member { started: 0, ..other }, &machine()), "it could not see itself");
    }

    #[test]
    fn names_hold_no_space_and_are_used_once() {
        let name = new_name("a host\n{x}");
        assert!(name.starts_with("a-host--x--"), "{name}");
        assert_ne!(name, new_name("a host\n{x}"));
    }
}
