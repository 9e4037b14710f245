//! Packets as bytes, and a server at the other end of a pipe.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes::v5 as five;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::packet::take;
use crate::*;

const BOTH: [Version; 2] = [Version::Four, Version::Five];

fn taken(bytes: &[u8], version: Version) -> Result<Option<Packet>, String> {
    let mut received = BytesMut::from(bytes);
    let packet = take(&mut received, version, MAX_PACKET).map_err(|broken| broken.reason)?;
    assert!(packet.is_none() || received.is_empty(), "{received:?} is left");
    Ok(packet)
}

fn packet(bytes: &[u8], version: Version) -> Packet {
    taken(bytes, version).expect("well formed").expect("whole")
}

fn written(packet: &five::Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).expect("well formed");
    bytes.to_vec()
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zä/ ]{1,300}"
}

prop_compose! {
    fn any_publish()(
        topic in topic(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        qos in qos(),
        (dup, retain) in any::<(bool, bool)>(),
        pkid in 1..=u16::MAX,
    ) -> Publish {
        let pkid = if qos == QoS::AtMostOnce { 0 } else { pkid };
        let (topic, payload) = (Bytes::from(topic), Bytes::from(payload));
        Publish { topic, payload, qos, pkid, dup, retain, properties: Properties::default() }
    }
}

prop_compose! {
    fn any_properties()(
        payload_format_indicator in any::<Option<u8>>(),
        message_expiry_interval in any::<Option<u32>>(),
        response_topic in prop::option::of(topic()),
        correlation_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from)),
        user_properties in prop::collection::vec((topic(), topic()), 0..4),
        subscription_identifiers in prop::collection::vec(1..200_000_000_usize, 0..3),
        content_type in prop::option::of(topic()),
    ) -> five::PublishProperties {
        five::PublishProperties {
            payload_format_indicator, message_expiry_interval, topic_alias: None, response_topic, correlation_data,
            user_properties, subscription_identifiers, content_type,
        }
    }
}

/// As rumqttc has them, whose writer is the other opinion here.
fn as_theirs(properties: &Properties) -> five::PublishProperties {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut theirs = five::PublishProperties::default();
    for property in properties.iter() {
        match property {
            Property::PayloadFormat(format) => theirs.payload_format_indicator = Some(format),
            Property::MessageExpiry(seconds) => theirs.message_expiry_interval = Some(seconds),
            Property::ContentType(name) => theirs.content_type = Some(text(name)),
            Property::ResponseTopic(topic) => theirs.response_topic = Some(text(topic)),
            Property::CorrelationData(data) => theirs.correlation_data = Some(Bytes::copy_from_slice(data)),
            Property::User(name, value) => theirs.user_properties.push((text(name), text(value))),
            Property::SubscriptionIdentifier(id) => theirs.subscription_identifiers.push(id as usize),
            other => panic!("{other:?}"),
        }
    }
    theirs
}

proptest! {
    #[test]
    fn a_publish_of_3_1_1_is_read_as_written(publish in any_publish()) {
        let topic = std::str::from_utf8(&publish.topic).expect("UTF-8");
        let mut theirs = four::Publish::from_bytes(topic, publish.qos, publish.payload.clone());
        (theirs.pkid, theirs.dup, theirs.retain) = (publish.pkid, publish.dup, publish.retain);
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("well formed");
        prop_assert_eq!(packet(&bytes, Version::Four), Packet::Publish(publish));
    }

    #[test]
    fn a_publish_of_5_is_read_as_written_whole_and_not_before(
        publish in any_publish(),
        properties in any_properties(),
        cut in any::<prop::sample::Index>(),
    ) {
        let theirs = five::Publish {
            dup: publish.dup, qos: five_qos(publish.qos), retain: publish.retain, topic: publish.topic.clone(),
            pkid: publish.pkid, payload: publish.payload.clone(), properties: Some(properties.clone()),
        };
        let bytes = written(&five::Packet::Publish(theirs));
        prop_assert_eq!(taken(&bytes[..cut.index(bytes.len())], Version::Five), Ok(None));
        let Packet::Publish(read) = packet(&bytes, Version::Five) else { panic!("no PUBLISH") };
        prop_assert_eq!(as_theirs(&read.properties), properties);
        prop_assert_eq!(Publish { properties: Properties::default(), ..read }, publish);
    }

    #[test]
    fn whatever_comes_is_read_refused_or_waited_for(
        first in 0x20..=0xFF_u8,
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        // A right length, so that it gets past the frame; nothing is waited for then.
        let bytes = [&[first, u8::try_from(body.len()).expect("short")], &body[..]].concat();
        for version in BOTH {
            prop_assert_ne!(taken(&bytes, version), Ok(None));
            // And what is read is whole: whoever looks at it finds nothing broken.
            if let Ok(Some(Packet::Publish(publish))) = taken(&bytes, version) {
                prop_assert_eq!(publish.properties.iter().count() == 0, publish.properties.is_empty());
            }
        }
    }

    #[test]
    fn one_byte_of_a_publish_changed_does_no_harm(
        publish in any_publish(),
        properties in any_properties(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let theirs = five::Publish {
            dup: false, qos: five_qos(publish.qos), retain: false, topic: publish.topic.clone(),
            pkid: publish.pkid, payload: publish.payload, properties: Some(properties),
        };
        let mut bytes = written(&five::Packet::Publish(theirs));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = take(&mut BytesMut::from(&bytes[..]), Version::Five, MAX_PACKET).map_err(|broken| broken.reason);
    }
}

#[test]
fn malformed_packets_are_errors_and_not_waited_for() {
    let cases: &[(&str, &[u8])] = &[
        ("properties longer than the packet", &[0x30, 4, 0, 1, b't', 9]),
        ("a length of properties without end, at the end of the packet", &[0x30, 4, 0, 1, b't', 0x80]),
        ("a property longer than the properties", &[0x30, 8, 0, 1, b't', 2, 2, 0, 0, 1]),
        ("a property that the standard does not have", &[0x30, 6, 0, 1, b't', 2, 0x77, 0]),
        ("a topic alias, which was not offered", &[0x30, 7, 0, 1, b't', 3, 35, 0, 1]),
        ("no topic", &[0x30, 3, 0, 0, 0]),
        ("a topic longer than the packet", &[0x30, 3, 0, 9, 0]),
        ("QoS 3", &[0x36, 6, 0, 1, b't', 0, 1, 0]),
        ("packet identifier zero", &[0x32, 6, 0, 1, b't', 0, 0, 0]),
        ("a SUBACK without codes", &[0x90, 3, 0, 1, 0]),
        ("a SUBACK with its codes in its properties", &[0x90, 7, 0, 1, 2, 0x1F, 0, 0, 0]),
        ("a PUBACK without an identifier", &[0x40, 1, 0]),
        ("a PUBACK with something behind its end", &[0x40, 5, 0, 1, 0, 0, 9]),
        ("an UNSUBACK without codes", &[0xB0, 3, 0, 1, 0]),
        ("a length of five bytes", &[0x30, 0x80, 0x80, 0x80, 0x80, 1]),
        ("a CONNECT", &[0x10, 0]),
        ("AUTH, which nobody began", &[0xF0, 0]),
    ];
    for (what, bytes) in cases {
        let reason = taken(bytes, Version::Five).expect_err(what);
        assert!(reason.starts_with("the broker sent what is no MQTT: "), "{what}: {reason}");
    }
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let disconnect = |code| Packet::Disconnect { code, properties: Properties::default() };
    assert_eq!(packet(&[0xE0, 0], Version::Five), disconnect(0));
    assert_eq!(packet(&[0xE0, 1, 0x8E], Version::Five), disconnect(0x8E), "as Mosquitto writes it");
    assert_eq!(packet(&[0xE0, 2, 0x8C, 0], Version::Five), disconnect(0x8C), "rumqttc does not know it");
    let ack = |kind, code| Packet::Ack { kind, pkid: 0x0102, code, properties: Properties::default() };
    assert_eq!(packet(&[0x40, 2, 1, 2], Version::Five), ack(AckKind::PubAck, 0));
    assert_eq!(packet(&[0x50, 3, 1, 2, 0x95], Version::Five), ack(AckKind::PubRec, 0x95));
    assert_eq!(packet(&[0x62, 4, 1, 2, 0x92, 0], Version::Five), ack(AckKind::PubRel, 0x92));
    assert_eq!(packet(&[0x70, 2, 1, 2], Version::Four), ack(AckKind::PubComp, 0));
    assert_eq!(packet(&[0xD0, 0], Version::Four), Packet::PingResp);
}

#[test]
fn words_and_codes_are_handed_on() {
    let bytes = [&[0x90, 11, 0, 7, 6, 0x1F, 0, 3][..], b"why", &[1, 0xA2]].concat();
    let Packet::SubAck { pkid: 7, codes, properties } = packet(&bytes, Version::Five) else {
        panic!("no SUBACK")
    };
    assert_eq!((&codes[..], properties.reason().as_deref()), (&[1, 0xA2][..], Some("why")));
    let suback = packet(&[0x90, 4, 0, 7, 2, 0x80], Version::Four);
    assert!(matches!(&suback, Packet::SubAck { pkid: 7, codes, .. } if codes[..] == [2, 0x80]), "{suback:?}");
    let unsuback = packet(&[0xB0, 4, 0, 7, 0, 0x11], Version::Five);
    assert!(
        matches!(&unsuback, Packet::UnsubAck { pkid: 7, codes, .. } if codes[..] == [0x11]),
        "{unsuback:?}"
    );
    let unsuback = packet(&[0xB0, 2, 0, 7], Version::Four);
    assert!(matches!(&unsuback, Packet::UnsubAck { pkid: 7, codes, .. } if codes.is_empty()), "{unsuback:?}");
}

#[test]
fn a_packet_over_the_limit_is_refused_before_it_is_received() {
    // 3 MB and 5 bytes of header are announced, one byte is there.
    let mut received = BytesMut::from(&[0x30, 0x80, 0x80, 0xC0, 1, 0][..]);
    let size = 5 + (3 << 20);
    assert!(take(&mut received, Version::Five, size).expect("allowed").is_none());
    let broken = take(&mut received, Version::Five, size - 1).expect_err("too large");
    assert!(broken.reason.contains("3145733 bytes, and 3145732 are allowed"), "{}", broken.reason);
}

fn pipe(version: Version) -> (Wire, DuplexStream) {
    let (client, server) = tokio::io::duplex(1 << 20);
    (Wire::on(Box::new(client), version, MAX_PACKET), server)
}

fn now<T>(what: impl Future<Output = T>) -> T {
    what.now_or_never().expect("nothing to wait for")
}

#[test]
fn a_read_that_is_dropped_loses_nothing() {
    let (mut wire, mut server) = pipe(Version::Five);
    let bytes = [0x32, 9, 0, 2, b'a', b'b', 0, 5, 0, b'v', b'w', 0xD0, 0];
    for byte in &bytes[..10] {
        now(server.write_all(&[*byte])).expect("a pipe");
        assert!(wire.read().now_or_never().is_none(), "waits, and is dropped");
    }
    now(server.write_all(&bytes[10..])).expect("a pipe");
    let publish = now(wire.read()).expect("well formed");
    assert!(matches!(&publish, Packet::Publish(p) if p.payload == "vw" && p.pkid == 5), "{publish:?}");
    assert_eq!(wire.next_received().expect("well formed"), Some(Packet::PingResp));
    assert_eq!(wire.next_received().expect("well formed"), None);
    drop(server);
    assert!(now(wire.read()).expect_err("the end").hung_up);
}

#[test]
fn small_packets_that_are_kept_share_memory() {
    let (mut wire, mut server) = pipe(Version::Four);
    let mut kept: Vec<Publish> = Vec::new();
    for _ in 0..1000 {
        now(server.write_all(&[0x30, 4, 0, 1, b't', b'v'])).expect("a pipe");
        let Packet::Publish(publish) = now(wire.read()).expect("well formed") else { panic!("no PUBLISH") };
        kept.push(publish);
    }
    let beside = |pair: &[Publish]| pair[1].topic.as_ptr().addr() == pair[0].topic.as_ptr().addr() + 6;
    assert!(kept.windows(2).filter(|pair| beside(pair)).count() >= 998, "1,000 packets of 6 bytes");
}

#[tokio::test]
async fn acknowledgements_are_as_the_standard_has_them() {
    let (mut wire, mut server) = pipe(Version::Five);
    for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
        wire.acknowledge(kind, 0x0102);
    }
    assert_eq!(wire.buffered(), 16);
    wire.flush().await.expect("a pipe");
    let mut sent = [0; 16];
    now(server.read_exact(&mut sent)).expect("a pipe");
    assert_eq!(sent, [0x40, 2, 1, 2, 0x50, 2, 1, 2, 0x62, 2, 1, 2, 0x70, 2, 1, 2]);
}

fn options(port: u16, session: SessionWish) -> Options {
    let names = Names { tls: "the.tls", ca: "the.ca" };
    let address = Address { host: "127.0.0.1".into(), port, tls: None, websocket_path: None, names };
    Options {
        address,
        client_id: "me".into(),
        credentials: Some(("user".into(), "password".into())),
        keep_alive: std::time::Duration::from_secs(60),
        session,
        receive_max: Some(200),
        max_packet: Some(1 << 20),
        max_incoming: 1 << 20,
    }
}

/// Connects to a server that answers with these bytes; also what it was sent.
async fn connected(
    session: SessionWish,
    version: Version,
    answer: &[u8],
) -> (Result<Granted, Refused>, BytesMut) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let options = options(listener.local_addr().expect("bound").port(), session);
    let server = async {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut sent = BytesMut::new();
        while sent.len() < 2 || sent.len() < 2 + usize::from(sent[1]) {
            socket.read_buf(&mut sent).await.expect("CONNECT");
        }
        socket.write_all(answer).await.expect("a socket");
        sent
    };
    let (granted, sent) = tokio::join!(connect(&options, version), server);
    (granted.map(|(_, granted)| granted), sent)
}

#[tokio::test]
async fn a_session_is_resumed_or_begins_anew_as_it_is_asked_for() {
    for (session, expiry) in [(SessionWish::Anew, None), (SessionWish::Resume { expiry: 600 }, Some(600))] {
        let (granted, mut sent) = connected(session, Version::Five, &[0x20, 3, 1, 0, 0]).await;
        assert!(granted.expect("granted").session_present);
        let Ok(five::Packet::Connect(connect, None, login)) = five::Packet::read(&mut sent, None) else {
            panic!("no CONNECT")
        };
        assert_eq!((connect.clean_start, connect.client_id.as_str()), (expiry.is_none(), "me"));
        assert_eq!(login.map(|login| login.username).as_deref(), Some("user"));
        let properties = connect.properties.expect("properties");
        assert_eq!(properties.session_expiry_interval, expiry);
        assert_eq!((properties.receive_maximum, properties.max_packet_size), (Some(200), Some(1 << 20)));

        let (granted, mut sent) = connected(session, Version::Four, &[0x20, 2, 0, 0]).await;
        assert!(!granted.expect("granted").session_present);
        let Ok(four::Packet::Connect(connect)) = four::Packet::read(&mut sent, 1 << 20) else {
            panic!("no CONNECT")
        };
        assert_eq!((connect.clean_session, connect.keep_alive), (expiry.is_none(), 60));
    }
}

#[tokio::test]
async fn what_is_granted_is_what_the_server_says() {
    // All that a CONNACK may have (MQTT 5, 3.2.2.3), asked for or not.
    let properties = [
        &[17, 0, 0, 0, 9, 33, 0, 7, 36, 1, 37, 0, 39, 0, 1, 0, 0, 18, 0, 2, b'i', b'd', 34, 0, 4][..],
        &[31, 0, 1, b'r', 38, 0, 1, b'n', 0, 1, b'v', 40, 0, 41, 0, 42, 0, 19, 0, 5],
        &[26, 0, 1, b'x', 28, 0, 1, b'y', 21, 0, 1, b'm', 22, 0, 1, b'd'],
    ]
    .concat();
    let length = u8::try_from(properties.len()).expect("short");
    let answer = [&[0x20, 3 + length, 0, 0, length], &properties[..]].concat();
    let resume = SessionWish::Resume { expiry: 600 };
    let (granted, _) = connected(resume, Version::Five, &answer).await;
    let expected = Granted {
        session_present: false,
        session_expiry: Some(9),
        assigned_client_id: Some("id".into()),
        receive_max: 7,
        max_packet: 1 << 16,
        keep_alive: std::time::Duration::from_secs(5),
        max_qos: 1,
        retain_available: false,
        wildcard_subscriptions: false,
        shared_subscriptions: false,
    };
    assert_eq!(granted.expect("granted"), expected);
}

#[tokio::test]
async fn a_refusal_says_why_and_whether_another_version_may_help() {
    type Case = (Version, &'static [u8], &'static str, bool, Option<Certainty>);
    let cases: &[Case] = &[
        (Version::Five, &[0x20, 3, 0, 0x87, 0], "NotAuthorized (0x87)", true, None),
        (Version::Five, &[0x20, 3, 0, 0x84, 0], "UnsupportedProtocolVersion", false, Some(Certainty::Said)),
        (Version::Five, &[0x20, 7, 0, 0x88, 4, 31, 0, 1, b'z'], "(z)", false, None),
        (Version::Five, &[0x20, 2, 0, 1], "in the words of MQTT 3.1.1", false, Some(Certainty::Said)),
        (Version::Five, &[0x20, 2, 0, 5], "(code 5)", false, Some(Certainty::Suspected)),
        (Version::Five, &[0xD0, 0], "another packet than CONNACK", false, Some(Certainty::Suspected)),
        (Version::Five, &[], "no CONNACK: ", false, Some(Certainty::Suspected)),
        (Version::Five, b"HTTP/1.1 400 Bad Request", "the.tls is false", false, Some(Certainty::Suspected)),
        (Version::Four, &[0x20, 2, 0, 5], "NotAuthorized (5)", true, None),
        (Version::Four, &[0x20, 2, 0, 1], "RefusedProtocolVersion", false, Some(Certainty::Said)),
    ];
    for (version, answer, words, needs_human, certainty) in cases {
        let (granted, _) = connected(SessionWish::Anew, *version, answer).await;
        let refused = granted.expect_err("refused");
        let reason = &refused.unreachable.reason;
        assert!(reason.contains(words), "{reason}");
        assert_eq!(
            (refused.unreachable.needs_human, refused.version),
            (*needs_human, *certainty),
            "{reason}"
        );
    }
}
