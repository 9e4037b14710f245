//! What a program calls: the bridge's work, one piece at a time.

use kafka_producer::Kafka;
use sync_core::pattern::Pattern;
use sync_core::program::BridgeSettings as _;
use sync_core::redis::connection::Connector;
use sync_core::settings::{Inputs, Mistakes};
use sync_core::tls;

use crate::buffer::direct::{Direct, NotStored};
use crate::buffer::{BufferSink, Wake, run_dry};
use crate::process::{Portion, Unprocessed, process};
use crate::settings::{BufferSettings, Settings};
use crate::sink::KafkaSink;
use crate::topic::{self, Topics};

/// Moves entries of streams to Kafka, and messages of the program's own, through the buffer where there is one.
///
/// Settings are those of the binary, from the environment, a file, or both: see [`Inputs`]. Each call makes the connections
/// that it needs and ends them; none is kept in between but the buffer's.
pub struct Redis2Kafka {
    settings: Settings,
    direct: Option<Direct>,
}

/// Why a call did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used: each mistake with its key and the rule.
    #[error("{0}")]
    Settings(Mistakes),
    /// TLS files cannot be read, or the buffer is none to keep messages in.
    #[error("{0}")]
    Unusable(String),
    /// This is no name of a topic.
    #[error("the topic {topic} {rule}")]
    Topic {
        /// As it was given.
        topic: String,
        /// What it breaks.
        rule: String,
    },
    /// Messages are sent through the buffer, and TARGET_REDIS_HOST and TARGET_REDIS_URL are unset.
    #[error("there is no buffer: set TARGET_REDIS_HOST or TARGET_REDIS_URL")]
    NoBuffer,
    /// The source, or where its entries go, cannot be reached or does not answer as it should.
    #[error("{0}")]
    Unprocessed(String),
    /// The message is longer than KAFKA_MAX_REQUEST_SIZE, so Kafka would never be sent it.
    #[error("the message is {length} bytes long with its device's ID, and KAFKA_MAX_REQUEST_SIZE is {most}")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        most: usize,
    },
    /// The buffer did not take the message: it is away or full, and was so for as many attempts as TARGET_REDIS_MAX_RETRIES
    /// allows; or it says no.
    #[error("the message is not stored: {0}")]
    NotStored(String),
    /// Messages stay in the buffer, since Kafka does not have them.
    #[error("{0}")]
    Unsynced(String),
}

impl Redis2Kafka {
    /// Reads the settings, and looks whether the buffer, where there is one, is one to keep messages in. Kafka may be away.
    pub async fn start(inputs: &Inputs) -> Result<Self, Error> {
        tls::install_provider();
        let loaded = Settings::load(inputs).map_err(Error::Settings)?;
        for warning in loaded.warnings {
            tracing::warn!("{warning}");
        }
        Self::with(loaded.settings).await
    }

    /// With settings that were read already.
    pub(crate) async fn with(settings: Settings) -> Result<Self, Error> {
        Connector::new(settings.redis.clone()).map_err(|error| Error::Unusable(error.to_string()))?;
        let direct = match &settings.buffer {
            None => None,
            Some(buffer) => {
                let sink = BufferSink::new(&settings, buffer, kafka(&settings), Wake::default(), None);
                let sink = sink.map_err(|error| Error::Unusable(error.to_string()))?;
                sink.refuse_unsafe().await.map_err(|error| Error::Unusable(format!("{error:#}")))?;
                Some(
                    Direct::of(buffer, settings.kafka.client.max_request_size())
                        .map_err(|error| Error::Unusable(error.to_string()))?,
                )
            }
        };
        Ok(Self { settings, direct })
    }

    /// Delivers what stands now in the streams of one database whose key matches a pattern (`*-stream`), and says how many
    /// entries that were. `topic_mapping` are pairs of pattern and topic, of which the first that matches counts, else KAFKA_TOPIC; none at all stands for STREAM_TARGET_TOPIC_MAP. At most `batch_size` entries of a stream are read at once.
    ///
    /// With the buffer, entries are delivered once they stand there; then Kafka is sent what the buffer holds, as far as it
    /// is there to take it. It waits for a topic that does not exist; what Kafka refuses goes to the dead letters and does
    /// not count. Where bridges with the same consumer group run, the streams are shared out, and what they deliver does not
    /// count either.
    pub async fn process_source_streams(
        &self,
        topic_mapping: &[(&str, &str)],
        stream_pattern: &str,
        source_db: u16,
        batch_size: u32,
    ) -> Result<u64, Error> {
        for (_, topic) in topic_mapping {
            check_topic(topic)?;
        }
        let mut settings = self.settings.clone();
        if !topic_mapping.is_empty() {
            settings.topics = Topics::in_order(topic_mapping, &settings.topics);
        }
        let portion =
            Portion { pattern: Pattern::new(stream_pattern), db: source_db, batch_size: batch_size.max(1) };
        let kafka = kafka(&settings);
        let (redis, streams) = (settings.redis.clone(), settings.streams.clone());
        let unprocessed = |error: Unprocessed| Error::Unprocessed(error.to_string());
        let Some(buffer) = &settings.buffer else {
            let sink = KafkaSink::new(&settings, kafka);
            return process(portion, sink, settings.kafka.retry, redis, streams).await.map_err(unprocessed);
        };
        let sink = BufferSink::new(&settings, buffer, kafka, Wake::default(), None);
        let sink = sink.map_err(|error| Error::Unusable(error.to_string()))?;
        let count = process(portion, sink, buffer.redis.retry, redis, streams).await.map_err(unprocessed)?;
        if let Err(error) = self.sync(buffer, None).await {
            tracing::warn!("stored, and not sent yet: {error}");
        }
        Ok(count)
    }

    /// Stores a message in the buffer, to be sent to a topic with the device's ID as its key; its key in the buffer, once it
    /// stands there. Messages of a device are sent in the order in which they were stored, by whichever processes, by whoever
    /// sends what the buffer holds: a bridge that runs, or [`Redis2Kafka::sync_unsynced_keys`]. While the buffer is away or
    /// full it tries again, TARGET_REDIS_MAX_RETRIES times in all.
    pub async fn send_message(
        &self,
        topic: &str,
        message: impl AsRef<[u8]>,
        device_id: &str,
    ) -> Result<String, Error> {
        check_topic(topic)?;
        let direct = self.direct.as_ref().ok_or(Error::NoBuffer)?;
        let stored = direct.store(topic, device_id, message.as_ref()).await;
        stored.map_err(|error| match error {
            NotStored::TooLong { length, most } => Error::TooLong { length, most },
            NotStored::Fault(fault) => Error::NotStored(fault.to_string()),
        })
    }

    /// Sends Kafka what the buffer holds and it does not have, of one topic or of all; how many messages it got.
    pub async fn sync_unsynced_keys(&self, topic: Option<&str>) -> Result<u64, Error> {
        let buffer = self.settings.buffer.as_ref().ok_or(Error::NoBuffer)?;
        self.sync(buffer, topic).await
    }

    async fn sync(&self, buffer: &BufferSettings, topic: Option<&str>) -> Result<u64, Error> {
        let topic = topic.map(str::to_owned);
        let synced = run_dry(buffer, self.settings.kafka.retry, kafka(&self.settings), topic).await;
        synced.map_err(|error| Error::Unsynced(error.to_string()))
    }

    /// Ends the connection to the buffer. What was stored stays there.
    pub async fn stop(self) {
        drop(self.direct);
    }
}

fn kafka(settings: &Settings) -> Kafka {
    Kafka::new(&settings.kafka.client, None)
}

fn check_topic(topic: &str) -> Result<(), Error> {
    topic::check(topic).map_err(|rule| Error::Topic { topic: topic.to_owned(), rule })
}
