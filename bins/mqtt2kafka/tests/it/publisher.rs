//! Publishes numbered messages at QoS 1 or 2, in order for each topic, whatever the broker does meanwhile: what it did not
//! confirm is published again on the next connection.

use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use bytes::Bytes;
use mqtt_client::{AckKind, Address, Broken, MAX_PACKET, Names, Options, Packet, SessionWish, Version, Wire};
use rumqttc::QoS;
use rumqttc::mqttbytes::v4 as four;
use test_kit::oracle::Ledger;
use test_kit::unique;

/// Published and not confirmed.
pub(crate) const WINDOW: usize = 500;

/// What is to be published.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) port: u16,
    pub(crate) qos: QoS,
    pub(crate) topics: Vec<String>,
    /// Of all topics, in turn.
    pub(crate) messages: usize,
    /// Between two windows.
    pub(crate) pause: Duration,
}

/// A thread that publishes.
pub(crate) struct Publisher(JoinHandle<Ledger>);

impl Publisher {
    pub(crate) fn start(plan: Plan) -> Self {
        Self(spawn(move || run(&plan)))
    }

    /// Waits until all is published and confirmed.
    pub(crate) fn finish(self) -> Ledger {
        self.0.join().expect("the publisher does not panic")
    }
}

/// Publishes all of it.
pub(crate) fn publish(plan: Plan) -> Ledger {
    Publisher::start(plan).finish()
}

/// One message, confirmed.
pub(crate) fn publish_one(port: u16, topic: &str, payload: &[u8], retain: bool) {
    let packet = packet(1, QoS::AtLeastOnce, retain, topic, payload);
    block_on(async {
        let mut wire = connect(port).await;
        wire.put_four(&packet);
        wire.flush().await.expect("the broker is there");
        while !matches!(wire.read().await.expect("the broker is there"), Packet::Ack { .. }) {}
        wire.disconnect();
        wire.flush().await.expect("the broker is there");
    });
}

/// The payload of a message.
fn payload(number: usize) -> String {
    format!(r#"{{"n":{number},"text":"{}"}}"#, "x".repeat(100))
}

fn run(plan: &Plan) -> Ledger {
    let mut confirmed = 0;
    while confirmed < plan.messages {
        // The broker may be down for the moment.
        if let Err(broken) = block_on(go_on(plan, &mut confirmed)) {
            eprintln!("publisher: {broken}");
            sleep(Duration::from_millis(100));
        }
    }
    let mut ledger = Ledger::default();
    for number in 0..plan.messages {
        ledger.wrote(&plan.topics[number % plan.topics.len()], &format!("{}-0", number + 1));
    }
    ledger
}

async fn go_on(plan: &Plan, confirmed: &mut usize) -> Result<(), Broken> {
    let mut wire = try_connect(plan.port).await.map_err(Broken::because)?;
    while *confirmed < plan.messages {
        let window = WINDOW.min(plan.messages - *confirmed);
        for offset in 0..window {
            let number = *confirmed + offset;
            let topic = &plan.topics[number % plan.topics.len()];
            let pkid = u16::try_from(offset + 1).expect("a small window");
            wire.put_four(&packet(pkid, plan.qos, false, topic, payload(number + 1).as_bytes()));
        }
        wire.flush().await?;
        // All of the window, in order: what is behind a lost one is published again, too.
        let mut done = 0;
        while done < window {
            match wire.read().await? {
                Packet::Ack { kind: AckKind::PubAck | AckKind::PubComp, .. } => done += 1,
                Packet::Ack { kind: AckKind::PubRec, pkid, .. } => {
                    wire.acknowledge(AckKind::PubRel, pkid);
                    wire.flush().await?;
                }
                _ => {}
            }
        }
        *confirmed += window;
        tokio::time::sleep(plan.pause).await;
    }
    Ok(())
}

fn packet(pkid: u16, qos: QoS, retain: bool, topic: &str, payload: &[u8]) -> four::Packet {
    let mut publish = four::Publish::from_bytes(topic, qos, Bytes::copy_from_slice(payload));
    (publish.pkid, publish.retain) = (pkid, retain);
    four::Packet::Publish(publish)
}

async fn connect(port: u16) -> Wire {
    try_connect(port).await.expect("the broker is there")
}

async fn try_connect(port: u16) -> Result<Wire, String> {
    let options = Options {
        address: Address {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
            websocket_path: None,
            names: Names { tls: "tls", ca: "ca" },
        },
        client_id: unique("publisher-"),
        credentials: None,
        keep_alive: Duration::ZERO,
        session: SessionWish::Anew,
        receive_max: None,
        max_packet: None,
        max_incoming: MAX_PACKET,
    };
    let connected = mqtt_client::connect(&options, Version::Four).await;
    connected.map(|(wire, _)| wire).map_err(|refused| refused.unreachable.reason)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
