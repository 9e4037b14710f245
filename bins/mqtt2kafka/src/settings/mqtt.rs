//! How the broker is reached, and what is read there.

use std::sync::Arc;
use std::time::Duration;

use mqtt_client::Version;
use rumqttc::QoS;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Reader, RetrySettings, Secret, TlsSettings, TlsTable};
use sync_core::tls::{self, TlsExtras};

use super::Parts;
use super::gather::display;
use super::node::Value;
use super::table::*;
use crate::attributes::Path;
use crate::filter::Filter;

/// The longest text that MQTT has room for, in bytes (MQTT 5, 1.5.4).
const LONGEST: usize = 65_535;

/// The broker.
#[derive(Clone, Debug)]
pub(crate) struct MqttSettings {
    /// Name or address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, Secret)>,
    /// Each once.
    pub(crate) topics: Vec<Filter>,
    pub(crate) qos: QoS,
    /// Whole seconds, 1 to 65535.
    pub(crate) keep_alive: Duration,
    /// `false`: a lost connection ends the process.
    pub(crate) reconnect_on_failure: bool,
    pub(crate) version: Version,
    /// Over websockets: the URL's path.
    pub(crate) websocket_path: Option<String>,
    pub(crate) client_id: String,
    /// Whole seconds, at least 1.
    pub(crate) session_expiry: Duration,
    pub(crate) clean_session: bool,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Filter, and the attributes that messages of its topics lose.
    pub(crate) ignored_attributes: Vec<(Filter, Vec<Path>)>,
    pub(crate) timestamp_attribute: Path,
    pub(crate) retry: RetrySettings,
}

impl MqttSettings {
    pub(super) fn read(parts: &mut Parts<'_, '_>) -> Self {
        parts.require(&HOST);
        let tls = read_tls(parts);
        let topics = topics(parts);
        let ignored_attributes = ignored_attributes(parts);
        let reader = &mut *parts.reader;
        let host = reader.optional(&HOST, host).unwrap_or_default();
        if tls.is_some() && reader.is_good(&HOST) && ServerName::try_from(host.as_str()).is_err() {
            reader
                .mistake(&HOST, "must be a name that a certificate can be for, or an address, with mqtt.tls");
        }
        let port = reader.value(&PORT, rules::port);
        let port = match tls {
            Some(_) if !reader.is_set(&PORT) => {
                reader.replace(PORT.name, "8883", "default with mqtt.tls");
                8883
            }
            _ => port,
        };
        let qos = reader.value(&QOS, qos);
        if qos == QoS::AtMostOnce {
            let named = reader.named(&QOS);
            reader.warn(format!("{named} is 0: nothing is sent again, so messages may be lost"));
        }
        let clean_session = reader.value(&CLEAN_SESSION, rules::boolean);
        if clean_session {
            let named = reader.named(&CLEAN_SESSION);
            reader.warn(format!("{named} is true: what is published while the bridge is away is lost"));
        }
        Self {
            host,
            port,
            credentials: credentials(reader),
            topics,
            qos,
            keep_alive: reader.value(&KEEP_ALIVE, whole_seconds(65535)),
            reconnect_on_failure: reader.value(&RECONNECT, rules::boolean),
            version: reader.value(&VERSION, version),
            websocket_path: websocket_path(reader),
            client_id: reader.value(&CLIENT_ID, mqtt_text),
            session_expiry: reader.value(&SESSION_EXPIRY, whole_seconds(u64::from(u32::MAX))),
            clean_session,
            tls,
            ignored_attributes,
            timestamp_attribute: reader.value(&TIMESTAMP_ATTRIBUTE, |given| Path::new(given.text)),
            retry: RetrySettings::read(reader, &MQTT_MAX_RETRIES, &MQTT_BACKOFF_BASE, &MQTT_BACKOFF_MAX),
        }
    }
}

fn host(given: &Given<'_>) -> Ruled<String> {
    rules::host(given).map_err(|rule| match given.text.split_once("://") {
        Some(("ws" | "wss", _)) => {
            format!("{rule}; mqtt.transport is websockets then, and mqtt.websocket_path the path")
        }
        Some(("mqtts" | "ssl" | "tls", _)) => format!("{rule}; mqtt.tls switches TLS on"),
        _ => rule,
    })
}

fn whole_seconds(most: u64) -> impl Fn(&Given<'_>) -> Ruled<Duration> {
    move |given| {
        let seconds = rules::integer::<u64>(1..=most)(given);
        seconds.map(Duration::from_secs).map_err(|_| format!("must be whole seconds from 1 to {most}"))
    }
}

fn qos(given: &Given<'_>) -> Ruled<QoS> {
    Ok(match rules::integer(0..=2)(given)? {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    })
}

fn version(given: &Given<'_>) -> Ruled<Version> {
    match given.text {
        "5" | "5.0" => Ok(Version::Five),
        "4" | "3.1.1" => Ok(Version::Four),
        "3" | "3.1" => {
            Err("must be 5 or 4: MQTT 3.1 is not spoken here; brokers that know it know 4 (3.1.1) too"
                .to_owned())
        }
        _ => Err("must be 5, or 4 (which is 3.1.1)".to_owned()),
    }
}

/// A text as MQTT has them.
fn mqtt_text(given: &Given<'_>) -> Ruled<String> {
    match given.text.len() <= LONGEST && !given.text.contains('\0') {
        true => Ok(given.text.to_owned()),
        false => Err(format!("must be at most {LONGEST} bytes, without the character U+0000")),
    }
}

/// Any bytes, as many as there is room for.
fn mqtt_password(given: &Given<'_>) -> Ruled<Secret> {
    match given.text.len() <= LONGEST {
        true => rules::secret(given),
        false => Err(format!("must be at most {LONGEST} bytes")),
    }
}

fn credentials(reader: &mut Reader) -> Option<(String, Secret)> {
    let username = reader.optional(&USERNAME, mqtt_text);
    let password = reader.optional(&PASSWORD, mqtt_password);
    for (one, other) in [(&USERNAME, &PASSWORD), (&PASSWORD, &USERNAME)] {
        if reader.is_set(one) && !reader.is_set(other) {
            reader.mistake(one, format!("needs {} beside it", other.name));
        }
    }
    username.zip(password)
}

fn websocket_path(reader: &mut Reader) -> Option<String> {
    let websockets = reader.value(&TRANSPORT, rules::one_of(&[("tcp", false), ("websockets", true)]));
    let path = reader.value(&WEBSOCKET_PATH, |given| {
        // RFC 3986, 3.3 and 3.4.
        let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte);
        let fits = given.text.starts_with('/') && given.text.bytes().all(is_of_path);
        if fits { Ok(given.text.to_owned()) } else { Err("must be a URL's path, such as /mqtt".to_owned()) }
    });
    if !websockets && reader.is_set(&WEBSOCKET_PATH) {
        let named = reader.named(&WEBSOCKET_PATH);
        reader.warn(format!("{named} has no effect without mqtt.transport=websockets"));
    }
    websockets.then_some(path)
}

/// A map at `mqtt.tls`, be it an empty one, means TLS.
fn read_tls(parts: &mut Parts<'_, '_>) -> Option<Arc<ClientConfig>> {
    let section = parts.tree.at("mqtt.tls").filter(|node| matches!(node.value, Value::Map(_)))?;
    let reader = &mut *parts.reader;
    let table = TlsTable {
        switch: "mqtt.tls",
        ca: &CA_CERTS,
        cert: &CERTFILE,
        key: &KEYFILE,
        insecure: &INSECURE_CERT,
    };
    let settings = TlsSettings::read(reader, true, &table).unwrap_or_default();
    let key_password = reader.optional(&KEYFILE_PASSWORD, rules::secret);
    if key_password.is_some() && !reader.is_set(&KEYFILE) {
        reader.mistake(&KEYFILE_PASSWORD, format!("needs {} beside it", KEYFILE.name));
    }
    let cipher_suites = reader.optional(&CIPHERS, |given| tls::cipher_suites(given.text)).unwrap_or_default();
    cert_reqs(reader, settings.insecure);
    let used = [&CA_CERTS, &CERTFILE, &KEYFILE, &KEYFILE_PASSWORD, &CIPHERS];
    if used.iter().any(|setting| reader.is_set(setting) && !reader.is_good(setting)) {
        return None;
    }
    match tls::client_config_with(&settings, &TlsExtras { key_password, cipher_suites }) {
        Ok(config) => Some(Arc::new(config)),
        Err(error) => {
            reader.mistake_in(section.mistake(error.to_string()));
            None
        }
    }
}

/// What Python's ssl module has this for is either what is done anyway, or said by `insecure_cert`.
fn cert_reqs(reader: &mut Reader, insecure: bool) {
    let required = reader.optional(&CERT_REQS, |given| match given.text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "2" | "required" | "cert_required" | "ssl.cert_required" => Ok(()),
        _ => Err("must be true or left out: certificates are verified unless mqtt.tls.insecure_cert is true"
            .to_owned()),
    });
    if required.is_some() && insecure {
        reader.mistake(&CERT_REQS, "contradicts mqtt.tls.insecure_cert, which accepts any certificate");
    }
}

fn topics(parts: &mut Parts<'_, '_>) -> Vec<Filter> {
    let Some(node) = parts.node(&TOPICS) else {
        return vec![Filter::new("spBv1.0/#").expect("it is a filter")];
    };
    let mut topics: Vec<Filter> = Vec::new();
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        parts.reader.mistake_in(node.mistake("must hold at least one topic filter"));
    }
    for item in items {
        match item.text().ok_or_else(|| "must be a topic filter".to_owned()).and_then(Filter::new) {
            Ok(filter) if topics.contains(&filter) => {
                parts.reader.warn(format!("{} ({}) stands there twice", item.key, item.origin));
            }
            Ok(filter) => topics.push(filter),
            Err(rule) => parts.reader.mistake_in(item.mistake_shown(rule)),
        }
    }
    topics
}

fn ignored_attributes(parts: &mut Parts<'_, '_>) -> Vec<(Filter, Vec<Path>)> {
    let Some(node) = parts.node(&IGNORED_ATTRIBUTES) else { return Vec::new() };
    let Value::Map(entries) = &node.value else {
        parts.reader.mistake_in(node.mistake("must be a map of topic filters to attributes"));
        return Vec::new();
    };
    let mut ignored = Vec::new();
    for (filter, node) in entries {
        parts.show(&IGNORED_ATTRIBUTES, &format!(".{filter}"), display(node, ""), node);
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut attributes = Vec::new();
        for item in items {
            match item.text().ok_or_else(|| "must be an attribute".to_owned()).and_then(Path::new) {
                Ok(attribute) => attributes.push(attribute),
                Err(rule) => parts.reader.mistake_in(item.mistake_shown(rule)),
            }
        }
        match Filter::new(filter) {
            Ok(filter) => ignored.push((filter, attributes)),
            Err(rule) => parts
                .reader
                .mistake_in(node.mistake(format!("must have a topic filter for its key, which {rule}"))),
        }
    }
    ignored
}
