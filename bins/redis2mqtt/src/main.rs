//! Redis streams to MQTT topics.
fn main() {}
