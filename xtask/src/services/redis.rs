//! One Redis that keeps nothing on disk: a plain port, a TLS port, a unix socket, and a user with a password beside
//! the open default user.

use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

use super::{Place, await_ready};
use crate::install::{self, Tool};
use crate::process;
use crate::redis::Redis;

/// `redis-cli` is for tests, which make Clusters with it.
pub(super) const TOOLS: &[Tool] = &[
    Tool { program: "redis-server", package: "redis-server" },
    Tool { program: "redis-cli", package: "redis-tools" },
];
pub(super) const PORTS: &[&str] = &["plain", "tls"];
const USER: &str = "tester";
const PASSWORD: &str = "tester-secret";

pub(super) fn start(place: &Place) -> Result<Child> {
    let socket = socket(place);
    // sockaddr_un(7): 108 bytes with the NUL at the end.
    ensure!(socket.as_os_str().len() < 108, "{} is too long for a unix socket", socket.display());
    let file = place.dir.join("redis.conf");
    std::fs::write(&file, config(place)).with_context(|| format!("write {}", file.display()))?;
    let log = place.dir.join("redis.log");
    let child = process::spawn(Command::new(install::path_of("redis-server")?).arg(&file), &log)?;
    let port = place.port("plain");
    // Its own answer: somebody else's Redis could listen where ours failed to.
    await_ready(child, &log, |pid| {
        Redis::connect(port).and_then(|mut redis| redis.server_pid()).is_ok_and(|of| of == pid)
    })
}

pub(super) fn exports(place: &Place) -> Vec<(&'static str, String)> {
    vec![
        ("TEST_REDIS_URL", format!("redis://127.0.0.1:{}", place.port("plain"))),
        ("TEST_REDIS_TLS_URL", format!("rediss://localhost:{}", place.port("tls"))),
        ("TEST_REDIS_SOCKET", socket(place).display().to_string()),
        ("TEST_REDIS_USER", USER.to_owned()),
        ("TEST_REDIS_PASSWORD", PASSWORD.to_owned()),
    ]
}

fn socket(place: &Place) -> PathBuf {
    place.dir.join("redis.sock")
}

fn config(place: &Place) -> String {
    format!(
        "bind 127.0.0.1 -::1
port {plain}
tls-port {tls}
tls-cert-file \"{cert}\"
tls-key-file \"{key}\"
tls-ca-cert-file \"{ca}\"
tls-auth-clients optional
unixsocket \"{socket}\"
unixsocketperm 700
dir \"{dir}\"
save \"\"
appendonly no
user {USER} on >{PASSWORD} ~* &* +@all
",
        plain = place.port("plain"),
        tls = place.port("tls"),
        cert = place.certificate("server.pem"),
        key = place.certificate("server.key"),
        ca = place.certificate("ca.pem"),
        socket = socket(place).display(),
        dir = place.dir.display(),
    )
}
