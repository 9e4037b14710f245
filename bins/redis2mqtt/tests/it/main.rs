//! redis2mqtt as its users run it: the real binary against real servers. Each test says in its name which rule it
//! holds the bridge to. `cargo xtask test` starts the servers that are shared; most tests start their own, because
//! they kill them.

// A test that fails to set itself up should say where; clippy takes only the test functions for tests.
#![allow(clippy::unwrap_used, clippy::print_stderr)]
// Real servers keep real time.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "no runtime and no paused clock here"
)]

mod crash;
mod delivery;
mod harness;
mod keys;
mod outage;
mod refusals;
mod replicas;
mod settings;
mod sizes;
mod start;
mod stop;
