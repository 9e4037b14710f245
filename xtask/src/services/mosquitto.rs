//! One Mosquitto that keeps nothing on disk, with four listeners: open, with a user and an ACL, TLS that asks for a
//! client certificate, and websockets. (Mosquitto 2.0.11 ignores a websockets listener's address and listens on all
//! interfaces; there is nothing to be had there but what the tests write.) Queues without limit and, where nobody asks for
//! another, a window of 1000, as the bridges' users are told.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use xshell::cmd;

use super::{Place, await_ready};
use crate::install::{self, Tool};
use crate::{paths, process};

pub(super) const TOOLS: &[Tool] = &[
    Tool { program: "mosquitto", package: "mosquitto" },
    Tool { program: "mosquitto_passwd", package: "mosquitto" },
    Tool { program: "mosquitto_sub", package: "mosquitto-clients" },
];
pub(super) const PORTS: &[&str] = &["plain", "auth", "tls", "ws"];
/// Messages on their way to a client, max_inflight_messages.
pub(super) const WINDOW: u32 = 1000;
/// In its directory.
pub(super) const LOG: &str = "mosquitto.log";
const USER: &str = "tester";
const PASSWORD: &str = "tester-secret";
/// The user may publish here and nowhere else, and read everything.
const ALLOWED: &str = "allowed/#";

pub(super) fn start(place: &Place) -> Result<Child> {
    let shell = paths::shell()?;
    shell.change_dir(&place.dir);
    let passwd = install::path_of("mosquitto_passwd")?;
    cmd!(shell, "{passwd} -b -c passwords {USER} {PASSWORD}").quiet().run()?;
    shell.write_file("acl", format!("user {USER}\ntopic write {ALLOWED}\ntopic read #\n"))?;
    for file in ["passwords", "acl"] {
        // Newer brokers refuse such files when others may read them.
        fs::set_permissions(place.dir.join(file), Permissions::from_mode(0o600))?;
    }
    let file = place.dir.join("mosquitto.conf");
    fs::write(&file, config(place)).with_context(|| format!("write {}", file.display()))?;
    let log = place.dir.join(LOG);
    let child = process::spawn(Command::new(install::path_of("mosquitto")?).arg("-c").arg(&file), &log)?;
    // It says so once every listener is bound.
    await_ready(child, &log, |_| {
        fs::read_to_string(&log).is_ok_and(|log| log.trim_end().ends_with(" running"))
    })
}

pub(super) fn exports(place: &Place) -> Vec<(&'static str, String)> {
    vec![
        ("TEST_MQTT_ADDR", format!("127.0.0.1:{}", place.port("plain"))),
        ("TEST_MQTT_AUTH_ADDR", format!("127.0.0.1:{}", place.port("auth"))),
        ("TEST_MQTT_USER", USER.to_owned()),
        ("TEST_MQTT_PASSWORD", PASSWORD.to_owned()),
        ("TEST_MQTT_TLS_ADDR", format!("localhost:{}", place.port("tls"))),
        ("TEST_MQTT_WS_URL", format!("ws://127.0.0.1:{}/mqtt", place.port("ws"))),
    ]
}

fn config(place: &Place) -> String {
    // Started by root it would change to a user that cannot read these files; by anyone else the line has no effect.
    format!(
        "user root
per_listener_settings true
persistence false
max_inflight_messages {window}
max_queued_messages 0
sys_interval 1
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information

listener {plain} 127.0.0.1
allow_anonymous true

listener {auth} 127.0.0.1
allow_anonymous false
password_file {dir}/passwords
acl_file {dir}/acl

listener {tls} 127.0.0.1
allow_anonymous true
require_certificate true
cafile {ca}
certfile {cert}
keyfile {key}

listener {ws} 127.0.0.1
protocol websockets
allow_anonymous true
",
        window = place.window,
        dir = place.dir.display(),
        plain = place.port("plain"),
        auth = place.port("auth"),
        tls = place.port("tls"),
        ws = place.port("ws"),
        ca = place.certificate("ca.pem"),
        cert = place.certificate("server.pem"),
        key = place.certificate("server.key"),
    )
}
