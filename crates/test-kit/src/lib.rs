//! Private servers for the tests of several packages: real processes on free loopback ports, which end with the value
//! that stands for them. What is missing or does not come up is a panic that says what was seen.

// Real servers keep real time.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "no runtime and no paused clock here"
)]

pub mod deployment;
