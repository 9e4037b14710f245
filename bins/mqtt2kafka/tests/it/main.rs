//! mqtt2kafka as its users run it: the real binary between a real Mosquitto and a real Kafka. Each test says in its name
//! which rule it holds the bridge to.

// A test that fails to set itself up should say where; clippy takes only the test functions for tests.
#![allow(clippy::unwrap_used, clippy::print_stderr)]
// Real servers keep real time.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "no runtime and no paused clock here"
)]

mod check;
mod crash;
mod delivery;
mod harness;
mod outage;
mod publisher;
mod refused;
mod session;
mod settings;
