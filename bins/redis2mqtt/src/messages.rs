//! Records as messages ready to publish: topics made once per run of a stream, payloads once per record.

use std::sync::Arc;

use bytes::Bytes;
use sync_core::bridge::{Record, Stream};
use sync_core::payload::{Encoder, write_json_string};

use crate::message::{Clock, topic, write_payload};

/// Makes messages; one per session.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    base: String,
    encoder: Encoder,
    clock: Clock,
    /// Of the stream that the last record came from: most come in runs.
    current: Option<Current>,
    id: String,
}

#[derive(Clone, Debug)]
struct Current {
    stream: Arc<Stream>,
    topic: Result<String, String>,
    /// The stream's spelling as a JSON string.
    json: Vec<u8>,
}

/// One message.
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    /// The entry's ID.
    pub(crate) id: &'a str,
}

impl Message<'_> {
    /// An upper bound of its PUBLISH packet's size in bytes, in both versions: fixed header 5, topic length 2, packet
    /// identifier 2, and the properties of MQTT 5.
    pub(crate) fn packet_size(&self) -> usize {
        const HEADERS: usize = 5 + 2 + 2;
        const PROPERTIES: usize = 1 + 1 + 2 + "id".len() + 2;
        HEADERS + self.topic.len() + PROPERTIES + self.id.len() + self.payload.len()
    }
}

impl Messages {
    /// `base` is MQTT_BASE_TOPIC.
    pub(crate) fn new(base: String, encoder: Encoder) -> Self {
        Self { base, encoder, clock: Clock::default(), current: None, id: String::new() }
    }

    /// MQTT_BASE_TOPIC.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The record as it is published now; or why no topic can hold its stream's name.
    pub(crate) fn encode(&mut self, record: &Record) -> Result<Message<'_>, String> {
        self.turn_to(&record.stream);
        let current = self.current.as_ref().expect("just turned to");
        let topic = current.topic.as_ref().map_err(Clone::clone)?;
        let mut payload = Vec::new();
        write_payload(&mut payload, self.encoder, &current.json, &record.entry, self.clock.now());
        let mut id = std::mem::take(&mut self.id).into_bytes();
        id.clear();
        record.entry.id.write_to(&mut id);
        self.id = String::from_utf8(id).expect("digits and a hyphen");
        Ok(Message { topic, payload: payload.into(), id: &self.id })
    }

    /// The topic that a record goes to, for people.
    pub(crate) fn topic_of(&self, record: &Record) -> String {
        topic(&self.base, &record.stream.spelled).unwrap_or_else(|error| error.to_string())
    }

    fn turn_to(&mut self, stream: &Arc<Stream>) {
        if self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(&current.stream, stream)) {
            let topic = topic(&self.base, &stream.spelled).map_err(|error| error.to_string());
            let mut json = Vec::new();
            write_json_string(&mut json, &stream.spelled);
            self.current = Some(Current { stream: stream.clone(), topic, json });
        }
    }
}
