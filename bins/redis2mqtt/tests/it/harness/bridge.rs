//! The real binary between a Redis and a broker.

pub(crate) use test_kit::bridge::{Bridge, Setup};

/// The group that entries are acknowledged in.
pub(crate) const GROUP: &str = "mqtt-group";

/// redis2mqtt with nothing set, in an empty working directory.
pub(crate) fn bare() -> Setup {
    Setup::of(env!("CARGO_BIN_EXE_redis2mqtt"))
        .set("REDIS_RETRY_INTERVAL", "0.1")
        .set("SOURCE_REDIS_BACKOFF_MAX", "0.5")
        .set("MQTT_BACKOFF_BASE", "0.1")
        .set("MQTT_BACKOFF_MAX", "0.5")
}

/// From a Redis to a broker on loopback.
pub(crate) fn setup(redis: u16, broker: u16) -> Setup {
    bare()
        .set("REDIS_HOST", "127.0.0.1")
        .set("REDIS_PORT", redis)
        .set("MQTT_BROKER_HOST", "127.0.0.1")
        .set("MQTT_BROKER_PORT", broker)
}
