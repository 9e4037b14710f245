//! A subscriber: `mosquitto_sub` at QoS 1 with a thread that reads its lines, so that this program needs no MQTT
//! library of its own and judges a bridge by other code than the bridge's. And what a publisher needs, see `connection.rs`.

mod connection;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::install;
use crate::process::wait_until;
pub(crate) use connection::{Publisher, kept};

/// A subscription that ends with the value.
pub(crate) struct Subscriber {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

/// What a bridge publishes, as far as we look at it.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    pub(crate) stream: String,
    pub(crate) id: String,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

/// The topic by which a subscriber learns that it is subscribed.
const PROBE: &str = "xtask/probe";

impl Subscriber {
    /// Subscribes to `filter` and returns once the broker delivers. `arrived` gets topic and payload of each message,
    /// on a thread of its own.
    pub(crate) fn start(
        port: u16,
        filter: &str,
        mut arrived: impl FnMut(&str, &str) + Send + 'static,
    ) -> Result<Self> {
        let port = port.to_string();
        // It ends with this program even when that is killed: setpriv (util-linux) asks the kernel for it.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(install::path_of("mosquitto_sub")?)
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-F", "%t\\t%p", "-t", PROBE, "-t", filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start mosquitto_sub")?;
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let (probed, probe_seen) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                match line.split_once('\t') {
                    Some((PROBE, _)) => drop(probed.send(())),
                    Some((topic, payload)) => arrived(topic, payload),
                    None => {}
                }
            }
        });
        let subscriber = Self { child, reader: Some(reader) };
        let publish = install::path_of("mosquitto_pub")?;
        let subscribed = wait_until(Duration::from_secs(10), || {
            let _ = Command::new(&publish)
                .args(["-h", "127.0.0.1", "-p", &port, "-t", PROBE, "-m", "?"])
                .status();
            probe_seen.recv_timeout(Duration::from_millis(100)).is_ok()
        });
        ensure!(subscribed, "the broker on port {port} does not deliver what is published");
        Ok(subscriber)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// How many messages the broker was ever sent. Mosquitto counts once a second (`sys_interval`), and forgets a count that
/// has stood still for a minute: so this is for a broker at work.
pub(crate) fn messages_received(port: u16) -> Result<u64> {
    let text = told(port, "$SYS/broker/publish/messages/received")?;
    text.trim().parse().with_context(|| format!("the broker's count is a number, not {text:?}"))
}

/// Whether the broker is there and delivers.
pub(crate) fn answers(port: u16) -> Result<()> {
    // What always changes.
    let uptime = told(port, "$SYS/broker/uptime")?;
    ensure!(uptime.contains("seconds"), "the broker tells its uptime, not {uptime:?}");
    Ok(())
}

/// The message that stands at a topic.
fn told(port: u16, topic: &str) -> Result<String> {
    let output = Command::new(install::path_of("mosquitto_sub")?)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-C", "1", "-W", "10", "-t", topic])
        .output()
        .context("ask the broker")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The payload of one message.
pub(crate) fn parse(payload: &str) -> Result<Message<'_>> {
    serde_json::from_str(payload).with_context(|| format!("not what a bridge publishes: {payload:.80}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_message_and_keeps_its_data_as_they_stand() {
        let message =
            parse(r#"{"stream":"db1:a","id":"1-0","data":{"z":1e2, "a":"x"},"timestamp":"t"}"#).unwrap();
        assert_eq!((message.stream.as_str(), message.id.as_str()), ("db1:a", "1-0"));
        assert_eq!(message.data.get(), r#"{"z":1e2, "a":"x"}"#);
        assert!(parse("?").is_err());
    }
}
