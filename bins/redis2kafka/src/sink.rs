//! The sink without the buffer: a group of entries as records for Kafka.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kafka_producer::{Batch, Head, Kafka, Line};
use sync_core::bridge::{Delivery, Group, Lost, Sink, Stream, Unreachable};
use sync_core::payload::{Encoder, write_json_string};

use crate::kafka_settings::TimestampOf;
use crate::message;
use crate::settings::Settings;
use crate::topic::Topics;

/// Kafka as a sink.
#[derive(Clone)]
pub(crate) struct KafkaSink {
    kafka: Kafka,
    shape: Arc<Shape>,
}

/// How entries become records.
pub(crate) struct Shape {
    pub(crate) topics: Topics,
    pub(crate) default_db: u16,
    pub(crate) encoder: Encoder,
    pub(crate) timestamp: TimestampOf,
}

impl Shape {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            topics: settings.topics.clone(),
            default_db: settings.redis.db,
            encoder: Encoder::new(settings.text.value_format, settings.text.encoding),
            timestamp: settings.kafka.timestamp,
        }
    }
}

impl KafkaSink {
    /// Connects to nothing.
    pub(crate) fn new(settings: &Settings, kafka: Kafka) -> Self {
        Self { kafka, shape: Arc::new(Shape::new(settings)) }
    }
}

impl Sink for KafkaSink {
    fn destination(&self) -> String {
        self.kafka.destination()
    }

    fn identity(&self) -> String {
        let topics = self.shape.topics.all().join(",");
        format!("{} {topics}", self.kafka.destination())
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        self.kafka.connect().await
    }

    fn deliver(&self, group: Group) -> Delivery {
        let count = group.len();
        let (entries, lines) = Entries::of(group, self.shape.clone());
        self.kafka.deliver(Arc::new(entries), count, lines)
    }

    async fn disconnect(&self) {
        self.kafka.disconnect().await;
    }
}

/// A group, with what is the same for all entries of a stream.
struct Entries {
    group: Group,
    shape: Arc<Shape>,
    /// By the record's place: which of `streams` it is of.
    of: Vec<usize>,
    /// As JSON strings.
    streams: Vec<Vec<u8>>,
}

impl Entries {
    fn of(group: Group, shape: Arc<Shape>) -> (Self, Vec<Line>) {
        let mut known: HashMap<*const Stream, usize> = HashMap::new();
        let (mut lines, mut streams): (Vec<Line>, _) = (Vec::new(), Vec::new());
        let mut of: Vec<usize> = Vec::with_capacity(group.len());
        for (at, record) in group.iter().enumerate() {
            let same = at > 0 && Arc::ptr_eq(&group[at - 1].stream, &record.stream);
            let index = if same {
                of[at - 1]
            } else {
                *known.entry(Arc::as_ptr(&record.stream)).or_insert_with(|| {
                    let Stream { name, spelled, .. } = &*record.stream;
                    let mut json = Vec::new();
                    write_json_string(&mut json, spelled);
                    streams.push(json);
                    lines.push(Line {
                        name: spelled.as_str().into(),
                        topic: shape.topics.of(name, shape.default_db).clone(),
                        key: Bytes::copy_from_slice(spelled.as_bytes()),
                        records: Vec::new(),
                    });
                    lines.len() - 1
                })
            };
            lines[index].records.push(at);
            of.push(index);
        }
        (Self { group, shape, of, streams }, lines)
    }
}

impl Batch for Entries {
    fn record(&self, at: usize, value: &mut Vec<u8>) -> Head {
        let record = &self.group[at];
        message::write_value(value, self.shape.encoder, &self.streams[self.of[at]], &record.entry);
        message::head(&record.stream.spelled, record.entry.id, self.shape.timestamp)
    }

    fn size(&self, at: usize) -> usize {
        self.group[at].entry.size()
    }
}
