//! Redis streams to MQTT topics.
mod message;
mod messages;
mod mqtt;
mod settings;
mod sink;
use std::time::Duration;
use settings::*;
use sync_core::settings::*;
fn env(k: &str, d: &str) -> String { std::env::var(k).unwrap_or(d.to_owned()) }
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    sync_core::tls::install_provider();
    let retry = RetrySettings { max_retries: 5, base: Duration::from_millis(200), cap: Duration::from_secs(5) };
    let mqtt = MqttSettings { host: env("MQTT_BROKER_HOST", "127.0.0.1"), port: env("MQTT_BROKER_PORT", "1883").parse()?, client_id: "r2m".into(), username: None, password: None, tls: None,
        version: match env("MQTT_VERSION","auto").as_str() { "4" => Version::V4, "5" => Version::V5, _ => Version::Auto}, transport: Transport::Tcp, qos: env("MQTT_QOS","1").parse()?, retain: false, base_topic: "redis".into(), keep_alive: Duration::from_secs(60), max_inflight: 1000, max_packet_size: None, retry };
    let redis = RedisSettings { url: None, host: "127.0.0.1".into(), port: env("REDIS_PORT","6379").parse()?, username: None, password: None, tls: None, db: 0, pool_size: 10, retry, health_check_interval: Duration::from_secs(60) };
    let discovery = Some(Discovery { dbs: vec![0,1,2], patterns: vec![sync_core::pattern::Pattern::new("*")], exclude: vec![] });
    let streams = StreamSettings { enabled: true, named: vec![], discovery: discovery.clone(), discovery_interval: Duration::from_secs(10), auto_create_groups: true, start_id: StartId::After(Default::default()), group: "mqtt-group".into(), consumer: format!("c-{}", std::process::id()), batch_size: env("STREAM_BATCH_SIZE","100").parse()?, poll_interval: Duration::from_secs(1), filter: None, dead_letter_suffix: ":dead-letter".into(), dead_letter_maxlen: 0, ownership: Ownership::Exclusive, source_name: None, max_deliveries: 0, rate_limit: 0 };
    let encoder = sync_core::payload::Encoder::new(Default::default(), encoding_rs::UTF_8);
    let sink = sink::MqttSink::new(&mqtt, Ownership::Exclusive, encoder)?;
    let (stop, _hup) = sync_core::shutdown::signals()?; let _log = sync_core::telemetry::log::install(sync_core::telemetry::log::LogSetup { level: tracing::level_filters::LevelFilter::INFO, format: None, dir: None, program: "redis2mqtt", own_crates: &[] })?;
    let (_ltx, live) = tokio::sync::watch::channel(sync_core::run::Live { discovery, interval: Duration::from_secs(10) });
    sync_core::run::run(sync_core::run::Bridge { name: "redis2mqtt", sink, sink_retry: retry, redis, streams, live, limiter: sync_core::rate_limit::RateLimiter::new(0), health: Default::default(), metrics: Default::default(), stop, shutdown_timeout: Duration::from_secs(8) }).await?;
    Ok(())
}
