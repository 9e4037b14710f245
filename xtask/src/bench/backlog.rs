//! What a broker is made to keep: messages like a machine's readings, of which is known beforehand what they become.

use anyhow::Result;
use clap::ValueEnum;

use super::drain::Args;
use crate::bridge::uns;
use crate::ledger::Ledger;
use crate::mqtt::Publisher;
use crate::sparkplug::{Metric, Payload, Value};

/// Of which kind the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PayloadKind {
    /// JSON that arrives as it is
    Json,
    /// JSON of which one attribute is left out
    Ignored,
    /// Sparkplug B: births first, then data with aliases
    Sparkplug,
}

impl PayloadKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ignored => "ignored",
            Self::Sparkplug => "sparkplug",
        }
    }
}

/// How much, and in what shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    kind: PayloadKind,
    messages: usize,
    topics: usize,
    /// Bytes.
    payload: usize,
}

/// When the first message was made; each further one is a millisecond later.
const START: u64 = 1_700_000_000_000;
const NODE_BIRTH: &str = "spBv1.0/bench/NBIRTH/node";
/// What a metric takes: alias, time and value, and what protobuf needs for each.
const METRIC_BYTES: usize = 20;

impl Backlog {
    pub(super) fn of(args: &Args) -> Self {
        Self { kind: args.payload_kind, messages: args.entries, topics: args.topics, payload: args.payload }
    }

    /// The bridge's settings for it.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![uns("mqtt__topics", r#"@json ["bench/#", "spBv1.0/bench/#"]"#)];
        if self.kind == PayloadKind::Ignored {
            settings.push(uns("mqtt__ignored_attributes", r#"@json {"bench/#": "device"}"#));
        }
        settings
    }

    /// Returns once the broker has everything.
    pub(super) fn publish(&self, port: u16) -> Result<()> {
        let mut publisher = Publisher::connect(port, "bench-source")?;
        self.each(|topic, payload, _| publisher.publish(topic, payload))?;
        publisher.confirm()
    }

    /// What is to arrive: under the topic's name, each record's time and value.
    pub(super) fn expected(&self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        self.each(|topic, _, record| {
            ledger.wrote(topic, record);
            Ok(())
        })?;
        Ok(ledger)
    }

    /// Topic, payload and record of each message, in order.
    fn each(&self, message: impl FnMut(&str, &[u8], String) -> Result<()>) -> Result<()> {
        match self.kind {
            PayloadKind::Json | PayloadKind::Ignored => self.each_json(message),
            PayloadKind::Sparkplug => self.each_sparkplug(message),
        }
    }

    fn each_json(&self, mut message: impl FnMut(&str, &[u8], String) -> Result<()>) -> Result<()> {
        for number in 0..self.messages {
            let topic = format!("bench/device-{:04}", number % self.topics);
            let time = START + number as u64;
            let (first, device) = (format!("{{\"timestamp\":{time},"), "\"device\":\"dev-000001\",");
            let rest = format!("\"type\":\"temperature\",\"value\":21.5,\"seq\":{number},\"payload\":\"");
            let padding = self.payload.saturating_sub(first.len() + device.len() + rest.len() + 2);
            let rest = format!("{rest}{}\"}}", "x".repeat(padding));
            let payload = format!("{first}{device}{rest}");
            let value =
                if self.kind == PayloadKind::Ignored { format!("{first}{rest}") } else { payload.clone() };
            message(&topic, payload.as_bytes(), record(&time.to_string(), &value))?;
        }
        Ok(())
    }

    /// One edge node with a device for each topic. Births count as messages, too.
    fn each_sparkplug(&self, mut message: impl FnMut(&str, &[u8], String) -> Result<()>) -> Result<()> {
        let names: Vec<String> = (0..(self.payload / METRIC_BYTES).max(1))
            .map(|number| format!("Sensor/Reading {number}"))
            .collect();
        for number in 0..self.messages {
            let metrics = if number == 0 {
                vec![Metric { name: "bdSeq", alias: None, value: Value::Int64(0) }]
            } else {
                let value = Value::Double(number as f64 + 0.5);
                let named = names.iter().zip(1..);
                named.map(|(name, alias)| Metric { name, alias: Some(alias), value }).collect()
            };
            let birth = number <= self.topics;
            let topic = match number {
                0 => NODE_BIRTH.to_owned(),
                _ => {
                    let kind = if birth { "DBIRTH" } else { "DDATA" };
                    format!("spBv1.0/bench/{kind}/node/device-{:04}", number % self.topics)
                }
            };
            let timestamp = START + number as u64;
            let payload = Payload { timestamp, seq: number as u8, metrics, birth };
            message(&topic, &payload.encode(), record(&timestamp.to_string(), &payload.json()))?;
        }
        Ok(())
    }
}

/// A record as the ledger has it.
pub(super) fn record(time: &str, value: &str) -> String {
    format!("{time} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(kind: PayloadKind, number: usize) -> (String, Vec<u8>, String) {
        let backlog = Backlog { kind, messages: number + 1, topics: 2, payload: 200 };
        let mut last = None;
        backlog
            .each(|topic, payload, record| {
                last = Some((topic.to_owned(), payload.to_vec(), record));
                Ok(())
            })
            .unwrap();
        last.unwrap()
    }

    #[test]
    fn payloads_are_as_long_as_they_are_to_be() {
        let (topic, json, record) = first(PayloadKind::Json, 12_345);
        assert_eq!((topic.as_str(), json.len()), ("bench/device-0001", 200));
        assert!(record.ends_with(&String::from_utf8(json).unwrap()), "{record}");
        let (_, json, record) = first(PayloadKind::Ignored, 12_345);
        assert_eq!(json.len(), 200);
        assert!(!record.contains("dev-000001") && record.contains("\"seq\":12345"), "{record}");
        let (topic, data, record) = first(PayloadKind::Sparkplug, 12_345);
        assert_eq!(topic, "spBv1.0/bench/DDATA/node/device-0001");
        assert!((180..=230).contains(&data.len()), "{}", data.len());
        assert!(record.contains("\"name\":\"Sensor/Reading 9\",\"alias\":10"), "{record}");
    }

    #[test]
    fn every_device_is_born_before_it_speaks() {
        let topics = [0, 1, 2, 3].map(|number| first(PayloadKind::Sparkplug, number).0);
        let device = |kind: &str, number| format!("spBv1.0/bench/{kind}/node/device-000{number}");
        assert_eq!(topics, [NODE_BIRTH.into(), device("DBIRTH", 1), device("DBIRTH", 0), device("DDATA", 1)]);
    }
}
