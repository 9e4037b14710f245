//! The loop against a scripted sink and a real Redis: what the delivery contract says, one test a rule; and what the sweep says of the
//! streams.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod cleanup;
mod cluster;
mod commands;
mod contract;
mod monitor;
mod ownership;
mod proxy;
mod script;
mod sentinel;
mod source;
mod statistics;
