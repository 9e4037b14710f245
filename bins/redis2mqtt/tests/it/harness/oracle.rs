//! Messages as the ledger counts them.

pub(crate) use test_kit::oracle::{Arrival, Ledger, Tally};

/// What a payload of the bridge is about.
pub(crate) fn arrival(payload: &[u8]) -> Arrival {
    let payload: serde_json::Value = serde_json::from_slice(payload).expect("the payload is JSON");
    let text = |name: &str| payload[name].as_str().expect("a text").to_owned();
    Arrival { stream: text("stream"), id: test_kit::oracle::id(&text("id")) }
}
