//! From settings to what the loop is made of. The settings are checked: nothing is found here.

use kafka_producer::Kafka;
use mqtt_client::{Address, MAX_PACKET, Options, SessionWish};
use sync_core::program::Process;

use crate::bridge::Parts;
use crate::broker::{Broker, Wish};
use crate::counts::Counts;
use crate::filter::Filter;
use crate::route::Routes;
use crate::settings::{MqttSettings, Settings};
use crate::topic::Topics;
use crate::value::Converter;

/// The most that the broker may send without an acknowledgement. How much of that is in memory is bounded by its size
/// (`queue.rs`).
const RECEIVE_MAX: u16 = u16::MAX;

/// All of it.
pub(crate) fn parts(settings: Settings, process: Process) -> Parts {
    let Settings { mqtt, kafka, .. } = settings;
    let Process { health, metrics, stop, shutdown_timeout, .. } = process;
    let broker = Broker::new(wish(&mqtt), mqtt.retry, mqtt.reconnect_on_failure);
    Parts {
        broker,
        kafka: Kafka::new(&kafka.client, Some(health.clone())),
        kafka_retry: kafka.retry,
        routes: Routes::new(Topics::new(kafka.mapping), Counts::new(mqtt.topics, &metrics)),
        converter: Converter::new(mqtt.ignored_attributes, Some(mqtt.timestamp_attribute), kafka.non_json),
        dead_letters: kafka.dead_letter_topic.into(),
        longest: kafka.client.max_request_size(),
        health,
        metrics,
        stop,
        shutdown_timeout,
    }
}

/// What is asked of the broker.
pub(crate) fn wish(mqtt: &MqttSettings) -> Wish {
    let expiry = u32::try_from(mqtt.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let credentials = mqtt.credentials.as_ref();
    let options = Options {
        address: Address {
            host: mqtt.host.clone(),
            port: mqtt.port,
            tls: mqtt.tls.clone(),
            websocket_path: mqtt.websocket_path.clone(),
            names: mqtt_client::Names { tls: "mqtt.tls", ca: "mqtt.tls.ca_certs" },
        },
        client_id: mqtt.client_id.clone(),
        credentials: credentials.map(|(user, password)| (user.clone(), password.expose().to_owned())),
        keep_alive: mqtt.keep_alive,
        session: if mqtt.clean_session { SessionWish::Anew } else { SessionWish::Resume { expiry } },
        receive_max: Some(RECEIVE_MAX),
        max_packet: None,
        max_incoming: MAX_PACKET,
    };
    let filters = mqtt.topics.iter().map(Filter::as_str).map(str::to_owned).collect();
    Wish { options, version: mqtt.version, filters, qos: mqtt.qos }
}
