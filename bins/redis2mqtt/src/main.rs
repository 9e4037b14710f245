//! Redis streams to MQTT topics.
#[allow(dead_code)] // until the sink uses it
mod message;

fn main() {}
