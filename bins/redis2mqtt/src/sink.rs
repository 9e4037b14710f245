//! The sink: groups go to the session of the moment; sessions come and go with their connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use mqtt_client::{Address, Certainty, Granted, Names, Options, SessionWish, Version, Wire};
use rumqttc::QoS;
use rustls::ClientConfig;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Unreachable};
use sync_core::payload::Encoder;
use sync_core::settings::Ownership;
use sync_core::tls::{self, TlsError};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::http::Uri;

use crate::messages::Messages;
use crate::mqtt::publisher::{self, MAX_INCOMING};
use crate::mqtt::session::{Batch, Rules, Session};
use crate::mqtt::suspicion::Suspicion;
use crate::settings::{MqttSettings, Transport, Version as WantedVersion};

/// Groups that may wait for the session at once: two for each of many lanes.
const GROUPS: usize = 4096;

/// MQTT as a sink.
pub(crate) struct MqttSink {
    options: Options,
    rules: Rules,
    wanted: WantedVersion,
    messages: Messages,
    suspicion: Suspicion,
    session: Mutex<Option<Queue>>,
    /// Set once a broker has said that it does not speak version 5.
    only_four: Mutex<bool>,
}

/// The way into a session.
struct Queue {
    batches: mpsc::Sender<Batch>,
    /// Groups that went this way.
    handed_over: Arc<AtomicU64>,
}

impl MqttSink {
    /// Reads TLS files; connects to nothing.
    pub(crate) fn new(
        settings: &MqttSettings,
        ownership: Ownership,
        encoder: Encoder,
    ) -> Result<Self, TlsError> {
        let tls = match &settings.tls {
            Some(files) => Some(tls::client_config(files)?.into()),
            None => None,
        };
        let address = address(settings, tls);
        let qos = match settings.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let options = Options {
            address,
            client_id: client_id(&settings.client_id, ownership),
            credentials: settings.username.as_ref().map(|user| {
                (user.clone(), settings.password.as_ref().map_or_else(String::new, |p| p.expose().to_owned()))
            }),
            keep_alive: settings.keep_alive,
            // What an earlier session left is pending in the source.
            session: SessionWish::Anew,
            receive_max: None,
            max_packet: None,
            max_incoming: MAX_INCOMING,
        };
        let rules = Rules {
            qos,
            retain: settings.retain,
            max_inflight: settings.max_inflight,
            max_packet: settings.max_packet_size,
            own_client_id: ownership == Ownership::Exclusive,
        };
        Ok(Self {
            options,
            rules,
            wanted: settings.version,
            messages: Messages::new(settings.base_topic.clone(), encoder),
            suspicion: Suspicion::default(),
            session: Mutex::new(None),
            only_four: Mutex::new(false),
        })
    }

    /// Lets the session finish and say goodbye to the broker.
    fn close_session(&self) {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    async fn connect_any(&self) -> Result<(Wire, Granted), Unreachable> {
        let only_four = *self.only_four.lock().unwrap_or_else(PoisonError::into_inner);
        let version = match self.wanted {
            WantedVersion::V4 => Version::Four,
            WantedVersion::Auto if only_four => Version::Four,
            WantedVersion::V5 | WantedVersion::Auto => Version::Five,
        };
        let refused = match mqtt_client::connect(&self.options, version).await {
            Ok(connected) => return Ok(connected),
            Err(refused) => refused,
        };
        let Some(certainty) = refused.version.filter(|_| self.wanted == WantedVersion::Auto && !only_four)
        else {
            return Err(refused.unreachable);
        };
        // Where 3.1.1 does not work either, the first answer says more.
        let connected = mqtt_client::connect(&self.options, Version::Four)
            .await
            .map_err(|_| refused.unreachable.clone())?;
        tracing::warn!(
            "the broker does not take MQTT 5 ({}): MQTT 3.1.1 is used, which cannot say why a publish is denied; MQTT_VERSION=4 is without this warning",
            refused.unreachable.reason
        );
        *self.only_four.lock().unwrap_or_else(PoisonError::into_inner) = certainty == Certainty::Said;
        Ok(connected)
    }
}

impl Sink for MqttSink {
    fn destination(&self) -> String {
        format!("MQTT broker {}:{}", self.options.address.host, self.options.address.port)
    }

    fn identity(&self) -> String {
        let Address { host, port, .. } = &self.options.address;
        format!("{host}:{port} {}", self.messages.base())
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let connected = self.connect_any().await.and_then(|(wire, granted)| {
            publisher::check(&granted, self.rules.qos, self.rules.retain)?;
            Ok((wire, granted))
        });
        let (wire, granted) = connected.inspect_err(|_| self.suspicion.broker_is_away())?;
        tracing::debug!(version = ?wire.version(), ?granted, "MQTT connection");
        let (sender, batches) = mpsc::channel(GROUPS);
        let handed_over = Arc::new(AtomicU64::new(0));
        let queue = Queue { batches: sender, handed_over: handed_over.clone() };
        let (messages, suspicion) = (self.messages.clone(), self.suspicion.clone());
        let session = Session::new(wire, granted, self.rules, messages, suspicion, handed_over);
        let (tell, lost) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tell.send(session.run(batches).await);
        });
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
        let gone = || Lost { reason: "the session ended".into(), by_conflict: false };
        Ok(lost.map(move |lost| lost.unwrap_or_else(|_| gone())).boxed())
    }

    fn deliver(&self, group: Group) -> Delivery {
        let records = group.len();
        let unknown = move || vec![Fate::Unknown; records];
        let (batch, fates) = Batch::new(group);
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = session.as_ref().is_some_and(|queue| {
            let taken = queue.batches.try_send(batch).is_ok();
            queue.handed_over.fetch_add(u64::from(taken), Ordering::SeqCst);
            taken
        });
        if taken {
            fates.map(move |fates| fates.unwrap_or_else(|_| unknown())).boxed()
        } else {
            std::future::ready(unknown()).boxed()
        }
    }

    async fn disconnect(&self) {
        self.close_session();
    }
}

/// With websockets the settings have a whole URL for a host.
fn address(settings: &MqttSettings, tls: Option<Arc<ClientConfig>>) -> Address {
    let port = settings.port;
    let names = Names { tls: "MQTT_USE_TLS", ca: "MQTT_TLS_CA" };
    let url = match settings.transport {
        Transport::Tcp => None,
        Transport::Websockets => settings.host.parse::<Uri>().ok(),
    };
    match url {
        None => Address { host: settings.host.clone(), port, tls, websocket_path: None, names },
        Some(url) => Address {
            host: url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(port),
            tls,
            websocket_path: Some(url.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)),
            names,
        },
    }
}

/// Replicas need names of their own, or each would take the session of the others.
fn client_id(configured: &str, ownership: Ownership) -> String {
    match ownership {
        Ownership::Exclusive => configured.to_owned(),
        Ownership::Shared => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{configured}-{}-{:08x}", host.trim(), rand_suffix())
        }
    }
}

/// Not a secret: only unlikely to be drawn twice.
fn rand_suffix() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    (RandomState::new().hash_one(std::process::id()) >> 32) as u32
}
