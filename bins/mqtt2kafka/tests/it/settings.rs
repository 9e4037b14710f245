//! Where settings come from, what is said about wrong ones, and what runs beside the bridge.

use std::fs;
use std::process::{Command, Output, Stdio};

use test_kit::bridge::Setup;
use test_kit::free_port;
use test_kit::mosquitto::Mosquitto;

const BINARY: &str = env!("CARGO_BIN_EXE_mqtt2kafka");
const SETTINGS: &str = "mqtt:
  host: broker
  username: u
kafka:
  config:
    bootstrap.servers: kafka:9092
dynaconf_merge: true
";

/// A working directory with these files in ./conf.
fn place(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conf")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join("conf").join(name), text).unwrap();
    }
    dir
}

fn run(
    dir: &tempfile::TempDir,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(dir.path());
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_mistake_is_told_at_once_and_the_exit_code_is_78() {
    let dir = place(&[
        ("settings.yaml", "mqtt:\n  port: 0\n  qos: 3\n  hsot: broker\n"),
        (".secrets.yaml", "mqtt:\n  password: hunter2\n  x: [1\n"),
    ]);
    let (code, out, err) = run(&dir, &["run"], &[("UNS_mqtt__version", "3"), ("LOG_LEVEL", "LOUD")]);
    assert_eq!((code, out.as_str()), (Some(78), ""), "{err}");
    for line in [
        "warning: mqtt.hsot (file ./conf/settings.yaml line 4) is no setting of mqtt2kafka; the nearest is mqtt.host",
        "mqtt.port=0 (file ./conf/settings.yaml line 2) must be a whole number from 1 to 65535",
        "mqtt.qos=3 (file ./conf/settings.yaml line 3) must be a whole number from 0 to 2",
        "mqtt.password=*** (file ./conf/.secrets.yaml line 2) needs mqtt.username beside it",
        "LOG_LEVEL=LOUD (environment) must be one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, WARN",
        "6 mistakes in the settings of mqtt2kafka",
    ] {
        assert!(err.lines().any(|written| written == line), "no line {line:?} in\n{err}");
    }
    assert!(err.contains("(file ./conf/.secrets.yaml line 4): is no YAML: "), "{err}");
    assert!(err.contains("UNS_mqtt__version=3 (environment) must be 5 or 4: "), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn check_shows_what_counts_and_where_it_stands() {
    let dir = place(&[
        ("settings.yaml", SETTINGS),
        (
            ".secrets.yaml",
            "mqtt: {password: hunter2}\nkafka: {config: {sasl.password: hunter3, client.id: c}}\n",
        ),
    ]);
    let environment = [("UNS_mqtt__qos", "2"), ("UNS_kafka__config__client.id", "d")];
    let (code, out, err) =
        run(&dir, &["check", "--set", "mqtt.host=mine", "--log-level", "DEBUG"], &environment);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "mqtt.host mine command line",
        "mqtt.port 1883 default",
        "mqtt.qos 2 environment",
        "mqtt.password *** file ./conf/.secrets.yaml line 1",
        "kafka.config.bootstrap.servers kafka:9092 file ./conf/settings.yaml line 6",
        "kafka.config.sasl.password *** file ./conf/.secrets.yaml line 2",
        "kafka.config.client.id d environment",
        "log.level DEBUG command line",
        "admin.addr 127.0.0.1:9468 default",
    ] {
        assert!(lines.iter().any(|written| written == line), "no line {line:?} in\n{out}");
    }
    assert!(!out.contains("hunter"), "{out}");
}

#[test]
fn a_directory_that_is_named_must_hold_settings() {
    let dir = place(&[("settings.yaml", SETTINGS), (".secrets.yaml", "mqtt: {password: p}")]);
    let (code, _, err) = run(&dir, &["--conf", "elsewhere", "check"], &[]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("file elsewhere/settings.yaml: must be a readable file"), "{err}");
    fs::rename(dir.path().join("conf"), dir.path().join("elsewhere")).unwrap();
    assert_eq!(run(&dir, &["--conf", "elsewhere", "check"], &[]).0, Some(0));
    let (code, _, err) = run(&dir, &["check"], &[]);
    assert!(code == Some(78) && err.contains("mqtt.host= (not set) must be set"), "{err}");
}

#[test]
fn a_running_process_answers_and_reads_its_settings_again() {
    let broker = Mosquitto::start();
    let admin = format!("127.0.0.1:{}", free_port());
    let setup = Setup::of(BINARY).unset("STREAM_DISCOVERY_INTERVAL").set("ADMIN_ADDR", &admin);
    let conf = setup.dir().join("conf");
    fs::create_dir(&conf).unwrap();
    let write = |level: &str| {
        let broker = format!("host: 127.0.0.1\n  port: {}", broker.port);
        // Nobody answers there, which is no reason to end.
        let kafka = format!("127.0.0.1:{}", free_port());
        let text = SETTINGS.replace("host: broker\n  username: u", &broker).replace("kafka:9092", &kafka);
        let text = text + &format!("log: {{level: {level}}}\n");
        fs::write(conf.join("settings.yaml"), text).unwrap();
    };
    write("INFO");
    let mut bridge = setup.start();
    bridge.wait_line("Status and metrics are at");
    let healthcheck = || {
        let mut command = Command::new(BINARY);
        command.arg("healthcheck").env_clear().env("ADMIN_ADDR", &admin).current_dir(setup.dir());
        command.output().unwrap()
    };
    let answer = healthcheck();
    assert!(answer.status.success(), "{answer:?}");
    write("NONSENSE");
    bridge.signal("HUP");
    bridge.wait_line("settings not read again, the old ones stay: log.level=NONSENSE");
    write("DEBUG");
    bridge.signal("HUP");
    bridge.wait_line("settings read again: the log level applies; all else does at the next start");
    bridge.stop();
    bridge.check_errors(&["settings not read again"]);
    assert_eq!(healthcheck().status.code(), Some(1));
}

#[test]
fn help_and_wrong_command_lines() {
    let dir = place(&[]);
    let (code, out, _) = run(&dir, &["--help"], &[]);
    assert_eq!(code, Some(0));
    for part in ["mqtt.tls.insecure_cert [default: false]", "kafka.config\n", "UNS_mqtt__host", "healthcheck"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    for wrong in [&["--no-such-thing"][..], &["decode"], &["decode", "--hex", "0"], &["--set", "x", "check"]]
    {
        let (code, _, err) = run(&dir, wrong, &[]);
        assert!(code == Some(2) && !err.is_empty(), "{wrong:?}: {code:?} {err}");
    }
    assert_eq!(run(&dir, &["decode", "nonexistent"], &[]).0, Some(2));
    let (code, out, _) = run(&dir, &["completions", "bash"], &[]);
    assert!(code == Some(0) && out.contains("mqtt2kafka"));
}
