//! How Kafka is reached, and which message goes where.

use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Mistake, RetrySettings, Secret};

use super::Parts;
use super::gather::display;
use super::mqtt::check_filter;
use super::node::{Node, Value};
use super::table::*;

/// Kafka.
#[derive(Clone, Debug)]
pub(crate) struct KafkaSettings {
    /// What librdkafka is told, in the order written, each key once.
    pub(crate) config: Vec<KafkaOption>,
    /// Template of the Kafka topic.
    pub(crate) topic: String,
    /// Stands for `/`.
    pub(crate) separator: String,
    /// The first that matches counts, before `topic`.
    pub(crate) rules: Vec<Rule>,
    pub(crate) dead_letter_topic: String,
    pub(crate) non_json: NonJson,
    /// Nothing limits the attempts at start.
    pub(crate) retry: RetrySettings,
}

/// One of librdkafka's settings.
#[derive(Clone, Debug)]
pub(crate) struct KafkaOption {
    pub(crate) key: String,
    /// It may be one, and librdkafka wants to know nothing else of it.
    pub(crate) value: Secret,
    /// Where it stands, for what is said of it.
    key_as_written: String,
    origin: String,
}

/// What becomes of a payload that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonJson {
    /// It is passed on as it is.
    Raw,
    DeadLetter,
}

/// Which messages go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Matches,
    /// Template; without one, that of all others.
    pub(crate) topic: Option<String>,
    /// Template of the record's key; without one it is the MQTT topic.
    pub(crate) key: Option<String>,
    /// Where it stands, for people.
    pub(crate) origin: String,
}

/// Of MQTT topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Matches {
    /// A topic filter.
    Filter(String),
    /// A regular expression.
    Regex(String),
}

impl KafkaSettings {
    pub(super) fn read(parts: &mut Parts<'_, '_>) -> Self {
        let config = config(parts);
        let rules = read_rules(parts);
        let reader = &mut *parts.reader;
        let non_json = [("raw", NonJson::Raw), ("dead-letter", NonJson::DeadLetter)];
        Self {
            config,
            topic: reader.value(&TOPIC, template),
            separator: reader.value(&SEPARATOR, separator),
            rules,
            dead_letter_topic: reader.value(&DEAD_LETTER_TOPIC, topic_name),
            non_json: reader.value(&NON_JSON, rules::one_of(&non_json)),
            retry: RetrySettings::read_delays(reader, &KAFKA_BACKOFF_BASE, &KAFKA_BACKOFF_MAX),
        }
    }
}

fn config(parts: &mut Parts<'_, '_>) -> Vec<KafkaOption> {
    parts.require(&CONFIG);
    let Some(node) = parts.node(&CONFIG) else { return Vec::new() };
    let Value::Map(entries) = &node.value else {
        parts.reader.mistake_in(node.mistake("must be a map of librdkafka's settings"));
        return Vec::new();
    };
    let mut options = Vec::new();
    let mut good = parts.whole;
    for (key, node) in entries {
        match node.text() {
            Some(text) => {
                let shown = if is_secret_option(key) { "***" } else { text };
                parts.show(&CONFIG, &format!(".{key}"), shown.to_owned(), node);
                options.push(KafkaOption {
                    key: key.clone(),
                    value: Secret::new(text),
                    key_as_written: node.key.clone(),
                    origin: node.origin.clone(),
                });
            }
            None => {
                good = false;
                parts.reader.mistake_in(node.mistake("must be a text, a number, true or false"));
            }
        }
    }
    // Where not all could be read, what is missing may be there.
    if good {
        let pairs: Vec<_> =
            options.iter().map(|option| (option.key.as_str(), option.value.expose())).collect();
        for (key, rule) in check_kafka_config(&pairs) {
            let mistake = match options.iter().find(|option| option.key == key) {
                Some(option) => option.mistake(rule),
                None => Mistake { key: format!("{}.{key}", node.key), ..node.mistake(rule) },
            };
            parts.reader.mistake_in(mistake);
        }
    }
    options
}

impl KafkaOption {
    fn mistake(&self, rule: String) -> Mistake {
        let shown = if is_secret_option(&self.key) { "***" } else { self.value.expose() };
        let value = Some(super::node::shortened(shown));
        Mistake { key: self.key_as_written.clone(), value, origin: self.origin.clone(), rule }
    }
}

/// What is wrong with what librdkafka is to be told: which key, and what is asked for.
fn check_kafka_config(config: &[(&str, &str)]) -> Vec<(String, String)> {
    const SERVERS: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];
    if config.iter().any(|(key, _)| SERVERS.contains(key)) {
        return Vec::new();
    }
    vec![(SERVERS[0].to_owned(), "must be set: host:port of some brokers between commas".to_owned())]
}

fn read_rules(parts: &mut Parts<'_, '_>) -> Vec<Rule> {
    let Some(node) = parts.node(&RULES) else { return Vec::new() };
    let Value::List(items) = &node.value else {
        parts.reader.mistake_in(node.mistake("must be a list of maps with filter or regex, topic and key"));
        return Vec::new();
    };
    let mut read = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match rule(item) {
            Ok(rule) => read.push(rule),
            Err(mistakes) => mistakes.into_iter().for_each(|mistake| parts.reader.mistake_in(mistake)),
        }
        parts.show(&RULES, &format!("[{index}]"), display(item, ""), item);
    }
    read
}

type Check = fn(&str) -> Result<(), String>;

fn rule(node: &Node) -> Result<Rule, Vec<Mistake>> {
    let Value::Map(entries) = &node.value else {
        return Err(vec![node.mistake("must be a map with filter or regex, topic and key")]);
    };
    let mut mistakes = Vec::new();
    let (mut filter, mut regex, mut topic, mut key) = (None, None, None, None);
    for (name, node) in entries {
        let (place, check): (_, Check) = match name.as_str() {
            "filter" => (&mut filter, check_filter),
            "regex" => (&mut regex, check_regex),
            "topic" => (&mut topic, check_template),
            "key" => (&mut key, check_template),
            _ => {
                mistakes.push(node.mistake("is no part of a rule: it has filter or regex, topic and key"));
                continue;
            }
        };
        match node.text() {
            Some(text) => match check(text) {
                Ok(()) => *place = Some(text.to_owned()),
                Err(rule) => mistakes.push(node.mistake_shown(rule)),
            },
            None => mistakes.push(node.mistake("must be a text")),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let matches = match (filter, regex) {
        (Some(filter), None) => Matches::Filter(filter),
        (None, Some(regex)) => Matches::Regex(regex),
        _ => return Err(vec![node.mistake("must have either filter or regex")]),
    };
    if topic.is_none() && key.is_none() {
        return Err(vec![node.mistake("must have topic, key or both")]);
    }
    Ok(Rule { matches, topic, key, origin: format!("{} ({})", node.key, node.origin) })
}

fn check_regex(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must be a regular expression".to_owned()) } else { Ok(()) }
}

fn template(given: &Given<'_>) -> Ruled<String> {
    check_template(given.text).map(|()| given.text.to_owned())
}

/// Each `{` has its `}`, and something between them.
fn check_template(text: &str) -> Result<(), String> {
    let mut parts = text.split('{');
    let before = parts.next().is_some_and(|before| !before.contains('}'));
    let closed =
        |part: &str| part.split_once('}').is_some_and(|(name, rest)| !name.is_empty() && !rest.contains('}'));
    match !text.is_empty() && before && parts.all(closed) {
        true => Ok(()),
        false => Err("must be a template with names in braces, such as plant-{topic}".to_owned()),
    }
}

fn is_in_names(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn separator(given: &Given<'_>) -> Ruled<String> {
    match given.text.len() <= 8 && is_in_names(given.text) {
        true => Ok(given.text.to_owned()),
        false => Err("must be up to 8 of the characters A-Z a-z 0-9 . _ -".to_owned()),
    }
}

/// <https://kafka.apache.org/documentation/#topicconfigs>, and `Topic.validate` in Kafka's sources.
fn topic_name(given: &Given<'_>) -> Ruled<String> {
    let fits = given.text.len() <= 249 && is_in_names(given.text) && !matches!(given.text, "." | "..");
    if fits { Ok(given.text.to_owned()) } else { Err("must be up to 249 of A-Z a-z 0-9 . _ -".to_owned()) }
}
