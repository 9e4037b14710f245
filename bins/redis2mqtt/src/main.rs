//! Redis streams to MQTT topics.
#[cfg_attr(not(test), expect(dead_code, reason = "the bridge itself is not written yet"))]
mod settings;

fn main() {}
