//! What the tests of the bridges run with: private servers that may be killed, the real binary, and a ledger of what was
//! written. Nothing sleeps for a guessed time: everything waits for a condition, and says what it saw when that does
//! not come. For tests only: a failure is a panic.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests with real servers keep real time, read their environment, and end at the first surprise"
)]
#![allow(missing_docs, reason = "tests read as they stand; only what surprises is explained")]

pub mod bridge;
pub mod cluster;
pub mod kafka;
pub mod mosquitto;
pub mod oracle;
pub mod postgres;
pub mod redis;
pub mod replicas;
pub mod sentinel;
pub mod writer;

use std::fmt::Debug;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Generous: a busy machine is no failure.
pub const LONG: Duration = Duration::from_secs(60);

/// Polls until `look` finds something. `state` is what the panic shows when it never does.
pub fn wait_for<T, S: Debug>(
    what: &str,
    limit: Duration,
    state: impl Fn() -> S,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}\nseen: {:#?}", state());
        sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(50));
    }
}

/// Polls until a condition holds.
pub fn wait_until<S: Debug>(what: &str, state: impl Fn() -> S, mut holds: impl FnMut() -> bool) {
    wait_for(what, LONG, state, || holds().then_some(()));
}

/// A loopback port that nobody listens on, below the range of outgoing connections' own ports: a server that is
/// down for a while finds it free again. Each is given once per process.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const SPAN: u32 = 12_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = std::process::id().wrapping_mul(397).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + at % SPAN).expect("below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Where `cargo xtask test` says that the shared servers are.
pub fn shared(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `cargo xtask test`"))
}

/// One of the certificates that the shared servers use.
pub fn certificate(name: &str) -> String {
    PathBuf::from(shared("TEST_TLS_DIR")).join(name).display().to_string()
}

/// Unlike any other text: names of keys and topics on shared servers.
pub fn unique(prefix: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{prefix}{}x{}x{}", std::process::id(), now.subsec_nanos(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// Ends a server of ours at once and collects it.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
