//! As much of Prometheus' HTTP API as a test asks (<https://prometheus.io/docs/prometheus/latest/querying/api/>).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::wait_until;

/// A server on this machine.
#[derive(Clone, Copy)]
pub(super) struct Prometheus(pub(super) u16);

impl Prometheus {
    /// How many series an instant query gives.
    pub(super) fn series(self, query: &str) -> Result<usize> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(query)))?;
        match &answer["data"]["result"] {
            Value::Array(series) => Ok(series.len()),
            _ => bail!("{query}: {answer}"),
        }
    }

    /// Waits until a query gives something.
    pub(super) fn await_series(self, query: &str, patience: Duration) -> Result<()> {
        let mut last = String::new();
        let found = wait_until(patience, || {
            let series = self.series(query);
            last = series.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            series.is_ok_and(|series| series > 0)
        });
        ensure!(found, "Prometheus knows nothing of {query} after {} s {last}", patience.as_secs());
        Ok(())
    }

    /// The names of the alert rules.
    pub(super) fn alerts(self) -> Result<Vec<String>> {
        let answer = self.get("/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().context("rules come in groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        Ok(rules.filter_map(|rule| Some(rule["name"].as_str()?.to_owned())).collect())
    }

    fn get(self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).context("connect to Prometheus")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // Version 1.0 has no chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read from Prometheus")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        serde_json::from_str(body).with_context(|| format!("JSON is expected, not {body}"))
    }
}

fn encoded(query: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    query.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_in_an_address() {
        assert_eq!(encoded("up{job=~\"a.*\"} == 0"), "up%7Bjob%3D~%22a.%2A%22%7D%20%3D%3D%200");
    }
}
