//! The real binary, between a real Redis and a real PostgreSQL.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests with real servers keep real time, read their environment, and end at the first surprise"
)]

mod conflicts;
mod crash;
mod faults;
mod harness;
mod key_values;
mod partitions;
mod replicas;
mod rows;
mod start;
mod verify;
