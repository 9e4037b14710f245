//! How Kafka is reached, and which message goes where.

use kafka_producer::{Client, Mistake as ClientMistake, Names};
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Mistake, RetrySettings};

use super::Parts;
use super::gather::display;
use super::node::{Node, Value, shortened};
use super::table::*;
use crate::filter::Filter;
use crate::topic::{Mapping, Pattern, Rule, Separator, Template, check_name};
use crate::value::NonJson;

/// How messages about Kafka call what they are about.
const NAMES: Names = Names {
    max_request_size: "message.max.bytes of kafka.config",
    time: "the time in the payloads",
    time_of_sending: "set mqtt.timestamp_attribute to one that they do not have",
};

/// Kafka.
#[derive(Clone, Debug)]
pub(crate) struct KafkaSettings {
    /// What librdkafka is told.
    pub(crate) client: Client,
    pub(crate) mapping: Mapping,
    pub(crate) dead_letter_topic: String,
    pub(crate) non_json: NonJson,
    /// Nothing limits the attempts at start.
    pub(crate) retry: RetrySettings,
}

impl KafkaSettings {
    pub(super) fn read(parts: &mut Parts<'_, '_>) -> Self {
        let client = client(parts);
        let rules = read_rules(parts);
        let reader = &mut *parts.reader;
        let non_json = [("raw", NonJson::Raw), ("dead-letter", NonJson::DeadLetter)];
        Self {
            client,
            mapping: Mapping {
                other: reader.value(&TOPIC, |given| Template::for_topic(given.text, &[])),
                separator: reader.value(&SEPARATOR, |given| Separator::new(given.text)),
                rules,
            },
            dead_letter_topic: reader.value(&DEAD_LETTER_TOPIC, topic_name),
            non_json: reader.value(&NON_JSON, rules::one_of(&non_json)),
            retry: RetrySettings::read_delays(reader, &KAFKA_BACKOFF_BASE, &KAFKA_BACKOFF_MAX),
        }
    }
}

fn client(parts: &mut Parts<'_, '_>) -> Client {
    let nothing = Client::new(NAMES);
    parts.require(&CONFIG);
    let Some(node) = parts.node(&CONFIG) else { return nothing };
    let Value::Map(entries) = &node.value else {
        parts.reader.mistake_in(node.mistake("must be a map of librdkafka's settings"));
        return nothing;
    };
    let mut pairs = Vec::new();
    // Where not all could be read, what is missing may be there.
    let mut whole = parts.whole;
    for (key, node) in entries {
        match node.text() {
            Some(text) => {
                parts.show(&CONFIG, &format!(".{key}"), shown(key, text).to_owned(), node);
                pairs.push((key.as_str(), text));
            }
            None => {
                whole = false;
                parts.reader.mistake_in(node.mistake("must be a text, a number, true or false"));
            }
        }
    }
    let mistakes = match Client::from_pairs(pairs, NAMES) {
        Ok(client) => match client.try_out() {
            Ok(()) => return with_defaults(client),
            Err(words) => vec![node.mistake(format!("is refused by librdkafka: {words}"))],
        },
        Err(mistakes) => mistakes.into_iter().filter_map(|mistake| placed(mistake, node, whole)).collect(),
    };
    mistakes.into_iter().for_each(|mistake| parts.reader.mistake_in(mistake));
    nothing
}

/// What nobody wrote, and nothing but speed depends on: what the broker keeps for a session is moved a third faster with it,
/// and a message on its own waits for two milliseconds.
fn with_defaults(mut client: Client) -> Client {
    for (key, value) in [("compression.codec", "lz4"), ("linger.ms", "2")] {
        if client.get(key).is_none() {
            client.put(key, value).expect("librdkafka knows its own keys");
        }
    }
    client
}

/// A mistake in kafka.config, with the place of its key; the value only where it is no secret.
fn placed(ClientMistake { key, rule }: ClientMistake, config: &Node, whole: bool) -> Option<Mistake> {
    match config.entry(&key) {
        Some(node) => {
            let value = node.text().map(|text| shortened(shown(&key, text)));
            Some(Mistake { value, ..node.mistake(rule) })
        }
        None => whole.then(|| Mistake { key: format!("{}.{key}", config.key), ..config.mistake(rule) }),
    }
}

fn shown<'a>(key: &str, text: &'a str) -> &'a str {
    if is_secret_option(key) { "***" } else { text }
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

fn rule(node: &Node) -> Result<Rule, Vec<Mistake>> {
    let Value::Map(entries) = &node.value else {
        return Err(vec![node.mistake("must be a map with filter or regex, topic and key")]);
    };
    let mut mistakes = Vec::new();
    let mut given = |name: &str| {
        let node = node.entry(name)?;
        if node.text().is_none() {
            mistakes.push(node.mistake("must be a text"));
        }
        Some((node, node.text().unwrap_or_default()))
    };
    let (filter, regex, topic, key) = (given("filter"), given("regex"), given("topic"), given("key"));
    let others =
        entries.iter().filter(|(name, _)| !["filter", "regex", "topic", "key"].contains(&name.as_str()));
    mistakes.extend(
        others.map(|(_, node)| node.mistake("is no part of a rule: it has filter or regex, topic and key")),
    );
    if topic.is_none() && key.is_none() {
        mistakes.push(node.mistake("must have topic, key or both"));
    }
    let pattern = match (filter, regex) {
        (Some((node, text)), None) => Filter::new(text).map(Pattern::Filter).map_err(|rule| (node, rule)),
        (None, Some((node, text))) => Pattern::regex(text).map_err(|rule| (node, rule)),
        _ => {
            mistakes.push(node.mistake("must have either filter or regex"));
            return Err(mistakes);
        }
    };
    // What may stand in the templates depends on what is to be matched.
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err((node, rule)) => {
            if node.text().is_some() {
                mistakes.push(node.mistake_shown(rule));
            }
            return Err(mistakes);
        }
    };
    let mut template = |given: Option<(&Node, &str)>,
                        read: fn(&Pattern, &str) -> Result<Template, String>| {
        let (node, text) = given.filter(|(node, _)| node.text().is_some())?;
        read(&pattern, text).map_err(|rule| mistakes.push(node.mistake_shown(rule))).ok()
    };
    let (topic, key) = (template(topic, Pattern::topic), template(key, Pattern::key));
    if mistakes.is_empty() { Ok(Rule { pattern, topic, key }) } else { Err(mistakes) }
}

fn topic_name(given: &Given<'_>) -> Ruled<String> {
    check_name(given.text).map(|()| given.text.to_owned())
}
