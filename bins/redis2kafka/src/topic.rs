//! Which topic a stream's entries go to: STREAM_TARGET_TOPIC_MAP, first match in the order written, else KAFKA_TOPIC.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use sync_core::pattern::Pattern;
use sync_core::record::StreamName;
use sync_core::settings::Given;
use sync_core::settings::rules::Ruled;

/// The longest topic name (Kafka's `Topic.validate`).
const MAX_TOPIC: usize = 249;

/// A topic for every stream.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    map: Vec<(Pattern, Arc<str>)>,
    /// Of the streams that no pattern matches.
    other: Arc<str>,
}

impl Topics {
    /// With this order of patterns.
    pub(crate) fn new(map: TopicMap, other: &str) -> Self {
        Self { map: map.0, other: other.into() }
    }

    /// With these pairs of pattern and topic instead of a map, and the same topic for all others.
    pub(crate) fn in_order(pairs: &[(&str, &str)], others: &Self) -> Self {
        let map = pairs.iter().map(|(pattern, topic)| (Pattern::new(pattern), (*topic).into())).collect();
        Self { map, other: others.other.clone() }
    }

    /// The topic of a stream. A pattern matches its key, or its name as it is written for people (`dbN:key`).
    pub(crate) fn of(&self, stream: &StreamName, default_db: u16) -> &Arc<str> {
        let spelled = stream.spell(default_db);
        let matches = |pattern: &Pattern| pattern.matches(&stream.key) || pattern.matches(spelled.as_bytes());
        self.map.iter().find(|(pattern, _)| matches(pattern)).map_or(&self.other, |(_, topic)| topic)
    }

    /// Every topic that something may go to, each once.
    pub(crate) fn all(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let topics = self.map.iter().map(|(_, topic)| topic).chain([&self.other]);
        topics.map(|topic| &**topic).filter(|topic| seen.insert(*topic)).collect()
    }
}

/// A JSON object, pattern to topic, in the order written.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMap(Vec<(Pattern, Arc<str>)>);

impl<'de> Deserialize<'de> for TopicMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = TopicMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of patterns and topics")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<TopicMap, A::Error> {
                let mut map: Vec<(Pattern, Arc<str>)> = Vec::new();
                while let Some((pattern, topic)) = members.next_entry::<String, String>()? {
                    if map.iter().any(|(before, _)| before.as_str() == pattern) {
                        return Err(A::Error::custom(format!("the pattern {pattern} stands there twice")));
                    }
                    check(&topic)
                        .map_err(|rule| A::Error::custom(format!("the topic of {pattern} {rule}")))?;
                    map.push((Pattern::new(&pattern), topic.into()));
                }
                Ok(TopicMap(map))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The rule of STREAM_TARGET_TOPIC_MAP.
pub(crate) fn topic_map(given: &Given<'_>) -> Ruled<TopicMap> {
    serde_json::from_str(given.text).map_err(|error| {
        format!("must be a JSON object of patterns and topics, such as {{\"*-stream\": \"events\"}}: {error}")
    })
}

/// The rule of KAFKA_TOPIC.
pub(crate) fn topic(given: &Given<'_>) -> Ruled<String> {
    check(given.text).map(|()| given.text.to_owned())
}

/// What Kafka allows a topic to be named (`org.apache.kafka.common.internals.Topic`).
pub(crate) fn check(topic: &str) -> Ruled<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match topic {
        "" | "." | ".." => Err("must be the name of a topic, which is not empty, . or ..".to_owned()),
        _ if topic.len() > MAX_TOPIC => Err(format!("must be at most {MAX_TOPIC} characters long")),
        _ => match topic.chars().find(|&c| !is_allowed(c)) {
            Some(c) => Err(format!("must hold letters, digits, '.', '_' and '-' only, not {c:?}")),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(map: &str) -> Topics {
        Topics::new(serde_json::from_str(map).expect("is a map"), "other")
    }

    #[test]
    fn the_first_match_in_written_order_counts() {
        let check = |map: &str, db: u16, key: &'static [u8], topic: &str| {
            assert_eq!(&**topics(map).of(&StreamName::new(db, key), 0), topic, "{map} {key:?}");
        };
        let described = r#"{"device:*:stream": "device-data-topic", "*-stream": "default-stream-topic"}"#;
        check(described, 0, b"device:1:stream", "device-data-topic");
        check(described, 4, b"device:1:stream", "device-data-topic");
        check(described, 0, b"temperature-stream", "default-stream-topic");
        check(described, 0, b"temperature", "other");
        check(r#"{"z*": "one", "a*": "two", "*": "three"}"#, 0, b"ab", "two");
        check(r#"{"*": "three", "a*": "two"}"#, 0, b"ab", "three");
        check(r#"{"db1:*": "first"}"#, 1, b"x", "first");
        check(r#"{"db1:*": "first"}"#, 2, b"x", "other");
        check(r#"{"[!a]*": "not-a"}"#, 0, b"\xff", "not-a");
        check("{}", 0, b"x", "other");
    }

    #[test]
    fn what_is_no_map_is_told_by_name() {
        let wrong = |map: &str, words: &str| {
            let error = serde_json::from_str::<TopicMap>(map).expect_err(map).to_string();
            assert!(error.contains(words), "{map}: {error}");
        };
        wrong(r#"["a"]"#, "an object of patterns and topics");
        wrong(r#"{"a": 1}"#, "expected a string");
        wrong(r#"{"a": "x", "a": "y"}"#, "the pattern a stands there twice");
        wrong(r#"{"a": "x y"}"#, "the topic of a must hold letters");
        wrong(r#"{"a": ""}"#, "the topic of a must be the name of a topic");
    }

    #[test]
    fn names_of_topics() {
        for good in ["a", "A.b_c-9", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
