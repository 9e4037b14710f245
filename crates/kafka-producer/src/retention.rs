//! How long a topic keeps its records: who sends an old one there should know that it will not stay.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::session::ANSWER;

/// Speaks of nothing: what goes wrong here changes nothing.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("{error}: {reason}");
    }
}

/// The age at which the topic drops records; `None` where it drops none for their age, or does not tell.
pub(super) async fn of(config: &ClientConfig, topic: &str) -> Option<Duration> {
    let admin: AdminClient<Silent> = config.create_with_context(Silent).ok()?;
    let asked = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answer = admin.describe_configs(&asked, &options).await;
    // Its end is waited for, and need not be waited for here.
    std::thread::spawn(move || drop(admin));
    let config = answer.ok()?.pop()?.ok()?;
    let value = |name: &str| config.get(name)?.value.clone();
    let by_age = value("cleanup.policy")?.contains("delete");
    let by_the_time_given = value("message.timestamp.type")? == "CreateTime";
    let age = value("retention.ms")?.parse().ok().map(Duration::from_millis)?;
    (by_age && by_the_time_given).then_some(age)
}
