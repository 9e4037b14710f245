//! `check --connect` beside a bridge that runs, and where something is missing.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread::spawn;

use test_kit::bridge::Setup;
use test_kit::free_port;
use test_kit::kafka::Brokers;
use test_kit::mosquitto::Mosquitto;

use crate::harness::{kafka, mqtt, setup};
use crate::publisher::publish_one;

fn check(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqtt2kafka"));
    command.args(["check", "--connect"]).args(arguments).env_clear().current_dir(setup.dir());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(text(stderr), "");
    (status.code(), text(stdout))
}

/// A broker that grants the first filter and refuses the second: Mosquitto 2.0 grants every one, whatever its ACL says.
fn refuses_the_second() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut packet = [0; 1024];
        // Each is sent alone, since an answer is waited for.
        assert!(socket.read(&mut packet).unwrap() > 0 && packet[0] == 0x10, "CONNECT");
        socket.write_all(&[0x20, 2, 0, 0]).unwrap();
        assert!(socket.read(&mut packet).unwrap() > 0 && packet[0] == 0x82, "SUBSCRIBE");
        socket.write_all(&[0x90, 4, packet[2], packet[3], 1, 0x80]).unwrap();
        assert!(socket.read(&mut packet).unwrap() > 0 && packet[0] == 0xe0, "DISCONNECT");
    });
    port
}

#[track_caller]
fn has_lines(out: &str, lines: &[&str]) {
    for line in lines {
        assert!(out.lines().any(|written| written.starts_with(line)), "no line {line:?} in\n{out}");
    }
}

#[test]
fn it_tells_what_both_servers_say_and_leaves_the_bridge_alone() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    brokers.create(&format!("{topic}.dead"), 1, &[]);
    publish_one(broker.port, "b/kept", br#"{"n":0}"#, true);
    for (version, first) in [(5, "5"), (4, "3.1.1")] {
        // Not in one group with a session that an earlier bridge left.
        let shared = format!("$share/g{version}/a/#");
        let filters = [shared.as_str(), "b/#"];
        let further = format!("version: {version}\nsession_expiry: 3600");
        let setup = setup(&mqtt(broker.port, &filters, &further), &kafka(&brokers, &topic, ""));
        let mut bridge = setup.start();
        bridge.wait_line("subscription b/# at the MQTT broker");
        let (code, out) = check(&setup, &["--topic", "a/b"]);
        assert_eq!(code, Some(0), "{out}");
        has_lines(
            &out,
            &[
                &format!("a/b → topic {topic}, key a/b"),
                &format!("MQTT broker 127.0.0.1:{}: connected as bridge-", broker.port),
                &format!("  subscription {shared}: QoS 1"),
                "  subscription b/#: QoS 1",
                "  what it queues for a bridge that is away is bounded",
                &format!("Kafka brokers at {}: connected", brokers.0),
                &format!("  dead-letter topic {topic}.dead: exists"),
                &format!("  topic {topic}: exists"),
            ],
        );
        assert!(out.contains(&format!(", MQTT {first}\n")), "{out}");
        if version == 5 {
            has_lines(
                &out,
                &[
                    "  QoS at most 2, receive maximum 1000, keep-alive 60 s, shared",
                    "  a session is kept for 3600 s",
                ],
            );
        }
        // It has not taken the session over.
        let held = brokers.held(&topic);
        for number in 1..=4 {
            publish_one(broker.port, "a/b", format!(r#"{{"n":{number}}}"#).as_bytes(), false);
        }
        test_kit::wait_until("all arrive", || bridge.lines(), || brokers.held(&topic) >= held + 4);
        bridge.stop();
        bridge.check_errors(&[]);
        assert!(bridge.lines_with("is back").is_empty(), "the connection was lost: {:?}", bridge.lines());
    }
    let log = broker.log();
    let of_check =
        |part: &str| log.lines().filter(|line| line.contains("-check-") && line.contains(part)).count();
    // Of MQTT 5 a session is asked for besides, without subscriptions.
    assert_eq!((of_check("New client connected"), of_check("Sending SUBACK to")), (3, 2), "{log}");
    // In the group it would get what others are to have.
    assert!(log.contains("$share/g5/a/#") && log.contains("$share/check-"), "{log}");
    assert_eq!(of_check("$share/g"), 0, "{log}");
}

#[test]
fn what_is_missing_or_refused_is_told_and_the_exit_code_is_1() {
    let (broker, brokers) = (Mosquitto::start(), Brokers::shared());
    let topic = brokers.topic(1);
    let allowed = kafka(&brokers, &topic, "");
    let (code, out) =
        check(&setup(&mqtt(refuses_the_second(), &["a/#", "b/#"], "version: 4"), &allowed), &[]);
    assert_eq!(code, Some(1), "{out}");
    has_lines(
        &out,
        &[
            "  subscription a/#: QoS 1",
            "  subscription b/#: refused: ",
            &format!("  dead-letter topic {topic}.dead: does not exist; "),
        ],
    );
    brokers.create(&format!("{topic}.dead"), 1, &[]);
    let well = setup(&mqtt(broker.port, &["a/#"], ""), &allowed.replace(&format!("topic: {topic}\n"), ""));
    assert_eq!(check(&well, &[]).0, Some(0));
    let (code, out) = check(&well, &["--topic", "no/such"]);
    assert_eq!(code, Some(1), "{out}");
    has_lines(&out, &["no/such → topic no_such, key no/such", "  topic no_such: does not exist; "]);
    // The other server is looked at all the same.
    let (code, out) = check(&setup(&mqtt(free_port(), &["a/#"], ""), &allowed), &[]);
    assert_eq!(code, Some(1), "{out}");
    has_lines(&out, &["cannot use the MQTT broker 127.0.0.1:", "Kafka brokers at "]);
    let away = Brokers(format!("127.0.0.1:{}", free_port()));
    let (code, out) = check(&setup(&mqtt(broker.port, &["a/#"], ""), &kafka(&away, "t", "")), &[]);
    assert_eq!(code, Some(1), "{out}");
    has_lines(&out, &["  subscription a/#: QoS 1", "cannot reach the Kafka brokers at 127.0.0.1:"]);
}
