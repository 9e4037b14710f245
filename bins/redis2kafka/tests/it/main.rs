//! redis2kafka as its users run it: the real binary between real servers. Each test says in its name which rule it
//! holds the bridge to; most start servers of their own, because they kill them.

// A test that fails to set itself up should say where; clippy takes only the test functions for tests.
#![allow(clippy::unwrap_used)]
// Real servers keep real time.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "no runtime and no paused clock here, and what was measured is to be seen"
)]

mod buffer;
mod buffer_crash;
mod buffer_damage;
mod buffer_room;
mod cleanup;
mod crash;
mod first_batch;
mod harness;
mod library;
mod order;
mod outages;
mod refused;
mod security;
mod shape;
