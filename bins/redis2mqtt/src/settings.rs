//! temporary
use std::time::Duration;
use sync_core::settings::{RetrySettings, Secret, TlsSettings};
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version { Auto, V5, V4 }
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport { Tcp, Websockets }
pub struct MqttSettings { pub host: String, pub port: u16, pub client_id: String, pub username: Option<String>, pub password: Option<Secret>, pub tls: Option<TlsSettings>, pub version: Version, pub transport: Transport, pub qos: u8, pub retain: bool, pub base_topic: String, pub keep_alive: Duration, pub max_inflight: u16, pub max_packet_size: Option<u32>, pub retry: RetrySettings }
