//! How the broker is reached, and what is read there.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Reader, RetrySettings, Secret, TlsSettings, TlsTable};
use sync_core::tls::{self, TlsExtras};

use super::Parts;
use super::gather::display;
use super::node::{Node, Value};
use super::table::*;

/// The broker.
#[derive(Clone, Debug)]
pub(crate) struct MqttSettings {
    /// Name or address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, Secret)>,
    /// Filters, each once, `$share/group/filter` among them.
    pub(crate) topics: Vec<String>,
    /// 0, 1 or 2.
    pub(crate) qos: u8,
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
    pub(crate) ignored_attributes: Vec<(String, Vec<String>)>,
    pub(crate) timestamp_attribute: String,
    pub(crate) retry: RetrySettings,
}

/// Protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1, which is level 4 on the wire.
    V4,
}

impl MqttSettings {
    pub(super) fn read(parts: &mut Parts<'_, '_>) -> Self {
        parts.require(&HOST);
        let tls = read_tls(parts);
        let topics = topics(parts);
        let ignored_attributes = ignored_attributes(parts);
        let reader = &mut *parts.reader;
        let host = reader.optional(&HOST, host).unwrap_or_default();
        let port = reader.value(&PORT, rules::port);
        let port = match tls {
            Some(_) if !reader.is_set(&PORT) => {
                reader.replace(PORT.name, "8883", "default with mqtt.tls");
                8883
            }
            _ => port,
        };
        let qos = reader.value(&QOS, rules::integer(0..=2));
        if qos == 0 {
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
            client_id: reader.value(&CLIENT_ID, client_id),
            session_expiry: reader.value(&SESSION_EXPIRY, whole_seconds(u64::from(u32::MAX))),
            clean_session,
            tls,
            ignored_attributes,
            timestamp_attribute: reader.value(&TIMESTAMP_ATTRIBUTE, rules::text),
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

fn version(given: &Given<'_>) -> Ruled<Version> {
    match given.text {
        "5" | "5.0" => Ok(Version::V5),
        "4" | "3.1.1" => Ok(Version::V4),
        "3" | "3.1" => {
            Err("must be 5 or 4: MQTT 3.1 is not spoken here; brokers that know it know 4 (3.1.1) too"
                .to_owned())
        }
        _ => Err("must be 5, or 4 (which is 3.1.1)".to_owned()),
    }
}

fn client_id(given: &Given<'_>) -> Ruled<String> {
    // MQTT counts 65535 bytes at most (MQTT-1.5.3).
    match given.text.len() <= 65_535 {
        true => Ok(given.text.to_owned()),
        false => Err("must be at most 65535 bytes".to_owned()),
    }
}

fn credentials(reader: &mut Reader) -> Option<(String, Secret)> {
    let username = reader.optional(&USERNAME, rules::text);
    let password = reader.optional(&PASSWORD, rules::secret);
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
        let fits = given.text.starts_with('/') && given.text.bytes().all(|byte| byte.is_ascii_graphic());
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

fn topics(parts: &mut Parts<'_, '_>) -> Vec<String> {
    let Some(node) = parts.node(&TOPICS) else {
        return vec!["spBv1.0/#".to_owned()];
    };
    let mut topics = Vec::new();
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        parts.reader.mistake_in(node.mistake("must hold at least one topic filter"));
    }
    for item in items {
        match item.text().ok_or_else(|| "must be a topic filter".to_owned()).and_then(|text| {
            check_subscription(text)?;
            Ok(text)
        }) {
            Ok(text) if topics.iter().any(|topic| topic == text) => {
                parts.reader.warn(format!("{} ({}) stands there twice", item.key, item.origin));
            }
            Ok(text) => topics.push(text.to_owned()),
            Err(rule) => parts.reader.mistake_in(item.mistake_shown(rule)),
        }
    }
    topics
}

fn ignored_attributes(parts: &mut Parts<'_, '_>) -> Vec<(String, Vec<String>)> {
    let Some(node) = parts.node(&IGNORED_ATTRIBUTES) else { return Vec::new() };
    let Value::Map(entries) = &node.value else {
        parts.reader.mistake_in(node.mistake("must be a map of topic filters to attributes"));
        return Vec::new();
    };
    let mut ignored = Vec::new();
    for (filter, node) in entries {
        if let Err(rule) = check_filter(filter) {
            parts.reader.mistake_in(node.mistake(format!("must have a topic filter for its key: {rule}")));
        }
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut attributes = Vec::new();
        for item in items {
            match attribute(item) {
                Some(attribute) => attributes.push(attribute),
                None => parts
                    .reader
                    .mistake_in(item.mistake_shown("must be an attribute such as a, or a.b for b in a")),
            }
        }
        parts.show(&IGNORED_ATTRIBUTES, &format!(".{filter}"), display(node, ""), node);
        ignored.push((filter.clone(), attributes));
    }
    ignored
}

fn attribute(node: &Node) -> Option<String> {
    let text = node.text()?;
    text.split('.').all(|part| !part.is_empty()).then(|| text.to_owned())
}

/// What may be subscribed to.
fn check_subscription(text: &str) -> Result<(), String> {
    let Some(shared) = text.strip_prefix("$share/") else { return check_filter(text) };
    match shared.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => check_filter(filter),
        _ => Err("must be $share/group/filter".to_owned()),
    }
}

/// MQTT 5, chapter 4.7.
pub(super) fn check_filter(text: &str) -> Result<(), String> {
    let levels: Vec<_> = text.split('/').collect();
    let last = levels.len() - 1;
    let wildcards_stand_alone = levels.iter().enumerate().all(|(index, level)| match *level {
        "#" => index == last,
        "+" => true,
        level => !level.contains(['+', '#']),
    });
    if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
        Err("must be 1 to 65535 bytes without NUL".to_owned())
    } else if !wildcards_stand_alone {
        Err("must be a topic filter: + is a whole level, # the whole last one".to_owned())
    } else {
        Ok(())
    }
}
