//! MQTT topics to Kafka topics.

#![allow(dead_code, reason = "the session that uses these modules is still to come")]

mod attributes;
mod filter;
mod ignored;
mod json;
mod recent;
mod sparkplug;
mod timestamp;
mod topic;
mod value;

fn main() {}
