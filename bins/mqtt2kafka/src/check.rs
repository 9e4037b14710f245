//! `check --connect`: what broker and Kafka say to the settings. Nothing is changed, and a bridge that runs is left alone:
//! the client ID is another one, the session ends with the connection, and no group of a shared subscription is joined.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::Write;
use std::time::Duration;

use kafka_producer::Kafka;
use mqtt_client::{Granted, Options, SessionWish, Version, Wire};
use rumqttc::v5::mqttbytes::v5 as five;
use sync_core::commands::{CommandError, Ended};
use sync_core::telemetry::log::escape;
use tokio::time::timeout;

use crate::assemble;
use crate::broker::Wish;
use crate::settings::{KafkaSettings, Settings};
use crate::subscriber::{Incoming, Subscriber};

/// How long the broker may take to answer the subscriptions.
const ANSWER: Duration = Duration::from_secs(10);
/// Retained messages that it may send before its answer; they are not looked at.
const UNREAD: u16 = 20;

/// Tells what both servers say; `topics` are Kafka topics to look for. [`Ended::Badly`] where something is missing, refused
/// or out of reach.
pub(crate) async fn connect(
    settings: &Settings,
    topics: &[String],
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let wish = assemble::wish(&settings.mqtt);
    let name = wish.name();
    let broker = match broker(wish, out).await {
        Ok(ended) => ended,
        Err(Failure::Output(error)) => return Err(error),
        Err(Failure::Broker(reason)) => {
            writeln!(out, "cannot use the {name}: {reason}")?;
            Ended::Badly
        }
    };
    writeln!(out)?;
    let kafka = kafka(&settings.kafka, topics, out).await?;
    Ok(if broker == Ended::Well { kafka } else { broker })
}

enum Failure {
    Broker(String),
    Output(CommandError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error.into())
    }
}

async fn broker(wish: Wish, out: &mut impl Write) -> Result<Ended, Failure> {
    let suffix = format!("check-{:08x}", RandomState::new().hash_one(()) & 0xffff_ffff);
    let options = Options {
        client_id: format!("{}-{suffix}", wish.options.client_id),
        session: SessionWish::Anew,
        receive_max: Some(UNREAD),
        ..wish.options.clone()
    };
    let (wire, granted) = connection(&options, wish.version).await?;
    let version = match wish.version {
        Version::Four => "3.1.1",
        Version::Five => "5",
    };
    writeln!(out, "{}: connected as {}, MQTT {version}", wish.name(), escape(&options.client_id))?;
    write_granted(&wish, &granted, out)?;
    let mut subscriber = Subscriber::new(wire, granted.keep_alive);
    let answers = timeout(ANSWER, subscriptions(&mut subscriber, &wish, &suffix)).await;
    let answers = answers.map_err(|_| Failure::Broker("no answer to the subscriptions".to_owned()))??;
    subscriber.disconnect().await;
    let mut ended = Ended::Well;
    for (filter, answer) in wish.filters.iter().zip(answers) {
        let filter = escape(filter);
        match answer {
            Ok(qos) if qos < wish.qos as u8 => {
                writeln!(out, "  subscription {filter}: QoS {qos}, and mqtt.qos is {}", wish.qos as u8)?;
            }
            Ok(qos) => writeln!(out, "  subscription {filter}: QoS {qos}")?,
            Err(reason) => {
                writeln!(out, "  subscription {filter}: refused: {}", escape(&reason))?;
                ended = Ended::Badly;
            }
        }
    }
    write_session(&wish, &options, out).await?;
    Ok(ended)
}

async fn connection(options: &Options, version: Version) -> Result<(Wire, Granted), Failure> {
    let connected = mqtt_client::connect(options, version).await;
    connected.map_err(|refused| Failure::Broker(refused.unreachable.to_string()))
}

/// What 3.1.1 has no word for is not told.
fn write_granted(wish: &Wish, granted: &Granted, out: &mut impl Write) -> Result<(), Failure> {
    if wish.version == Version::Four {
        return Ok(());
    }
    let Granted { max_qos, receive_max, keep_alive, .. } = granted;
    let has = |has: bool| if has { "" } else { "no " };
    writeln!(
        out,
        "  QoS at most {max_qos}, receive maximum {receive_max}, keep-alive {} s, {}shared subscriptions, {}wildcards",
        keep_alive.as_secs(),
        has(granted.shared_subscriptions),
        has(granted.wildcard_subscriptions),
    )?;
    Ok(())
}

/// What the broker says of each filter. Whoever is in a group gets messages in place of the others there, so that this is
/// another group.
async fn subscriptions(
    subscriber: &mut Subscriber,
    wish: &Wish,
    group: &str,
) -> Result<Vec<Result<u8, String>>, Failure> {
    let elsewhere =
        |filter: &String| match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((_, filter)) => format!("$share/{group}/{filter}"),
            None => filter.clone(),
        };
    let filters: Vec<String> = wish.filters.iter().map(elsewhere).collect();
    let gone = |gone: crate::subscriber::Gone| Failure::Broker(gone.reason);
    subscriber.subscribe(&filters, wish.qos).await.map_err(gone)?;
    loop {
        if let Incoming::Subscribed(answers) = subscriber.receive().await.map_err(gone)? {
            return Ok(answers);
        }
    }
}

/// How long, and with how much, the broker keeps the session while the bridge is away.
async fn write_session(wish: &Wish, options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    match (wish.options.session, wish.version) {
        (SessionWish::Anew, _) => {
            writeln!(out, "  no session is kept (mqtt.clean_session): what is published meanwhile is lost")?;
            return Ok(());
        }
        (SessionWish::Resume { .. }, Version::Four) => {
            writeln!(out, "  how long a session is kept, the broker does not say in MQTT 3.1.1")?;
        }
        (SessionWish::Resume { expiry }, Version::Five) => {
            // Only who asks for a session is told. This one has no subscriptions, and ends at once.
            let options = Options { session: wish.options.session, ..options.clone() };
            let (mut wire, granted) = connection(&options, wish.version).await?;
            let properties = five::DisconnectProperties {
                session_expiry_interval: Some(0),
                reason_string: None,
                user_properties: Vec::new(),
                server_reference: None,
            };
            let reason_code = five::DisconnectReasonCode::NormalDisconnection;
            wire.put_five(&five::Packet::Disconnect(five::Disconnect {
                reason_code,
                properties: Some(properties),
            }));
            let _ = wire.flush().await;
            let kept = granted.session_expiry.unwrap_or(expiry);
            let asked = if kept < expiry {
                format!(", and mqtt.session_expiry is {expiry} s")
            } else {
                String::new()
            };
            writeln!(out, "  a session is kept for {kept} s{asked}")?;
        }
    }
    writeln!(
        out,
        "  what it queues for a bridge that is away is bounded by the broker's own limits, which it does not tell: of \
         Mosquitto max_queued_messages (1000 by default; what comes beyond is lost), and max_inflight_messages (20) \
         bounds what is on its way without an acknowledgement, and so the rate"
    )?;
    Ok(())
}

async fn kafka(
    settings: &KafkaSettings,
    topics: &[String],
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let kafka = Kafka::new(&settings.client, None);
    let dead_letters = settings.dead_letter_topic.as_str();
    let mut asked: Vec<&str> = vec![dead_letters];
    for topic in topics {
        if !asked.contains(&topic.as_str()) {
            asked.push(topic);
        }
    }
    let absent = match kafka.absent(&asked).await {
        Ok(absent) => absent,
        Err(unreachable) => {
            writeln!(out, "cannot reach the {}: {unreachable}", kafka.destination())?;
            return Ok(Ended::Badly);
        }
    };
    writeln!(out, "{}: connected", kafka.destination())?;
    for topic in asked {
        let what = if topic == dead_letters { "dead-letter topic" } else { "topic" };
        match absent.contains(&topic) {
            false => writeln!(out, "  {what} {topic}: exists")?,
            true => writeln!(
                out,
                "  {what} {topic}: does not exist; somebody makes it, or the brokers do (auto.create.topics.enable) when \
                 something is sent there"
            )?,
        }
    }
    Ok(if absent.is_empty() { Ended::Well } else { Ended::Badly })
}
