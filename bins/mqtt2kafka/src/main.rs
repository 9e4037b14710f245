//! MQTT topics to Kafka topics.

fn main() {}
