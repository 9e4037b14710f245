//! What a bridge says of itself on its ADMIN_ADDR.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context, Result, ensure};

/// The body of the answer; an error where it is any other than 200.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let mut answer = String::new();
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{path} answers with {status}: {body}");
    Ok(body.to_owned())
}

/// mqtt2kafka's own numbers, over all topics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Messages {
    /// Repeated ones included.
    pub(crate) received: u64,
    /// Kafka has confirmed them.
    pub(crate) delivered: u64,
    /// The dead-letter topic has them.
    pub(crate) refused: u64,
    /// When Kafka last confirmed some, in seconds since 1970.
    pub(crate) last_delivery: f64,
}

impl Messages {
    pub(crate) fn of(port: u16) -> Result<Self> {
        Ok(Self::read(&get(port, "/metrics")?))
    }

    fn read(metrics: &str) -> Self {
        let sum = |name: &str| {
            let name = format!("redis_sync_messages_{name}_total{{");
            let lines = metrics.lines().filter(|line| line.starts_with(&name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        let mut lines = metrics.lines();
        let last = lines.find_map(|line| line.strip_prefix("redis_sync_last_delivery_timestamp_seconds "));
        Self {
            received: sum("received"),
            delivered: sum("delivered"),
            refused: sum("refused"),
            last_delivery: last.and_then(|last| last.parse().ok()).unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_filters() {
        let metrics = "# TYPE redis_sync_messages_received counter\n\
            redis_sync_messages_received_total{filter=\"a/#\"} 3\n\
            redis_sync_messages_received_total{filter=\"none\"} 1\n\
            redis_sync_messages_delivered_total{filter=\"a/#\"} 2\n\
            redis_sync_messages_refused_total{filter=\"a/#\"} 0\n\
            redis_sync_last_delivery_timestamp_seconds 1700000000.125\n";
        let expected = Messages { received: 4, delivered: 2, refused: 0, last_delivery: 1_700_000_000.125 };
        assert_eq!(Messages::read(metrics), expected);
    }
}
