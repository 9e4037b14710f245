//! How long a message takes from its topic and payload to Kafka's topic, key and value. Run it in release:
//! `cargo run --release -p mqtt2kafka --example payload_speed`.

#![allow(dead_code, unused_imports, reason = "only what a message goes through is used")]

#[path = "../src/attributes.rs"]
mod attributes;
#[path = "../src/filter.rs"]
mod filter;
#[path = "../src/ignored.rs"]
mod ignored;
#[path = "../src/json/mod.rs"]
mod json;
#[path = "../src/recent.rs"]
mod recent;
#[path = "../src/sparkplug/mod.rs"]
mod sparkplug;
#[path = "../src/timestamp.rs"]
mod timestamp;
#[path = "../src/topic/mod.rs"]
mod topic;
#[path = "../src/value.rs"]
mod value;

use std::hint::black_box;

use bytes::Bytes;
use tokio::time::Instant;

use attributes::Path;
use filter::Filter;
use topic::{Mapping, Separator, Template, Topics};
use value::{Converter, NonJson};

const ROUNDS: u32 = 1_000_000;

#[expect(clippy::print_stdout, reason = "what it is for")]
fn measure(what: &str, mut round: impl FnMut(usize)) {
    let start = Instant::now();
    (0..ROUNDS as usize).for_each(&mut round);
    println!("{what:<60} {:>6.0} ns", start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
}

fn main() -> Result<(), String> {
    let json = Bytes::from_static(
        br#"{"timestamp":1700000000123,"deviceId":"press-17","site":{"name":"Plant 4","line":"A"},"values":{"temperature":21.375,"pressure":1013.25,"rpm":1480,"running":true},"tags":["ok","calibrated"],"sequence":184467}"#,
    );
    let time = || Path::new("timestamp").ok();
    let topics: Vec<String> = (0..1000).map(|device| format!("plant/4/line/A/press/{device}")).collect();
    let many: Vec<String> = (0..15_000).map(|device| format!("plant/4/line/A/press/{device}")).collect();

    let mut plain = Converter::new(vec![], time(), NonJson::Raw);
    measure(&format!("JSON of {} bytes, timestamp read", json.len()), |_| {
        black_box(plain.convert(&topics[0], &json)).ok();
    });
    let mut other =
        Converter::new(vec![(Filter::new("other/#")?, vec![Path::new("x")?])], time(), NonJson::Raw);
    measure("the same, ignored attributes of other topics", |round| {
        black_box(other.convert(&topics[round % 1000], &json)).ok();
    });
    let ignored = vec![Path::new("site.line")?, Path::new("timestamp")?, Path::new("sequence")?];
    let mut ignoring = Converter::new(vec![(Filter::new("plant/#")?, ignored)], time(), NonJson::Raw);
    measure("the same, three attributes left out", |round| {
        black_box(ignoring.convert(&topics[round % 1000], &json)).ok();
    });

    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../tests/data/sparkplug-vectors.json"))
            .map_err(|error| error.to_string())?;
    for vector in &vectors {
        let hex = vector["hex"].as_str().unwrap_or_default();
        let bytes: Option<Bytes> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()).collect();
        let bytes = bytes.unwrap_or_default();
        measure(&format!("Sparkplug {} of {} bytes", vector["name"], bytes.len()), |_| {
            black_box(plain.convert("spBv1.0/group/DDATA/node/device", &bytes)).ok();
        });
    }

    let mapping = Mapping {
        separator: Separator::default(),
        rules: vec![],
        other: Template::for_topic("{topic}", &[])?,
    };
    for (what, names) in [("1,000", &topics), ("15,000", &many)] {
        let mut targets = Topics::new(mapping.clone());
        names.iter().for_each(|name| drop(targets.target(name)));
        measure(&format!("target of a topic, of {what}"), |round| {
            black_box(targets.target(&names[round % names.len()])).ok();
        });
    }
    let mut targets = Topics::new(mapping);
    measure("target of a topic that is new", |round| {
        black_box(targets.target(&format!("plant/4/line/A/press/{round}"))).ok();
    });
    let filters = [Filter::new("other/+/x")?, Filter::new("plant/+/line/#")?];
    measure("two filters against a topic", |round| {
        black_box(filters.iter().filter(|filter| filter.matches(&topics[round % 1000])).count());
    });
    Ok(())
}
