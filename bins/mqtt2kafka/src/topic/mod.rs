//! From an MQTT topic to the Kafka topic and the record's key. It owns the default mapping, the rules over it and the
//! memory of both; it refuses a topic that no name can be made for, with the reason.
//!
//! # The default
//!
//! kafka.topic is a template, `{topic}` unless set: the MQTT topic with kafka.separator in place of each `/`, and encoded as
//! `encoding` says. The key is the MQTT topic. Which topics the separator makes one of, `a/b_c` and `a_b/c`, are told apart
//! by the key.
//!
//! # Rules
//!
//! Each of kafka.rules has an MQTT filter or a regular expression (of the crate `regex`; anywhere in the topic unless it
//! says `^` and `$`), a template of a topic, and one of a key if the key is another than the MQTT topic. The first that
//! matches overrides the default. In a template
//!
//! | | is |
//! |---|---|
//! | `{topic}` | the whole MQTT topic |
//! | `{1}`, `{2}`, … | what the first, second, … wildcard of the filter or group of the expression stood for |
//! | `{name}` | what the group `(?<name>…)` stood for |
//! | `{{`, `}}` | a brace, in keys |
//! | else | itself |
//!
//! In the template of a topic, what a placeholder stands for is mapped as the default maps a topic; in that of a key it is
//! as it is. `#` stands for all its levels with the `/` between them, and for nothing where there are none.

mod collisions;
mod encoding;
mod template;

use std::sync::Arc;

use bytes::Bytes;
use regex::Regex;

use self::collisions::Collisions;
use self::template::{Captured, Template};
use crate::filter::Filter;
use crate::recent::Recent;

pub(crate) use self::collisions::Collision;
pub(crate) use self::encoding::{Separator, Unmapped};

/// For so many MQTT topics the target is remembered, and for so many Kafka topics what was told of them.
const TOPICS: usize = 50_000;

/// Where the messages to an MQTT topic go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) topic: Arc<str>,
    pub(crate) key: Bytes,
}

/// A target, and what is to be told about it, which is once.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) target: Arc<Target>,
    pub(crate) collision: Option<Collision>,
}

/// One of kafka.rules.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pattern: Pattern,
    topic: Template,
    key: Option<Template>,
}

#[derive(Clone, Debug)]
enum Pattern {
    Filter(Filter),
    Regex(Regex),
}

impl Rule {
    /// For the topics that a filter matches. The error says which template breaks which rule.
    pub(crate) fn for_filter(filter: Filter, topic: &str, key: Option<&str>) -> Result<Self, String> {
        let names = vec![None; filter.wildcards()];
        Self::new(Pattern::Filter(filter), &names, topic, key)
    }

    /// For the topics that a regular expression matches.
    pub(crate) fn for_regex(regex: &str, topic: &str, key: Option<&str>) -> Result<Self, String> {
        let regex = Regex::new(regex).map_err(|error| format!("must be a regular expression: {error}"))?;
        let names: Vec<_> = regex.capture_names().skip(1).map(|name| name.map(str::to_owned)).collect();
        Self::new(Pattern::Regex(regex), &names, topic, key)
    }

    fn new(
        pattern: Pattern,
        names: &[Option<String>],
        topic: &str,
        key: Option<&str>,
    ) -> Result<Self, String> {
        let topic = Template::for_topic(topic, names).map_err(|rule| format!("the topic {rule}"))?;
        let key =
            key.map(|key| Template::new(key, names)).transpose().map_err(|rule| format!("the key {rule}"))?;
        Ok(Self { pattern, topic, key })
    }

    fn captures<'a>(&self, topic: &'a str) -> Option<Captured<'a>> {
        match &self.pattern {
            Pattern::Filter(filter) => filter.captures(topic),
            Pattern::Regex(regex) => {
                let groups = regex.captures(topic)?;
                Some(groups.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect())
            }
        }
    }
}

/// A target for every MQTT topic.
#[derive(Debug)]
pub(crate) struct Topics {
    separator: Separator,
    rules: Vec<Rule>,
    /// Of the topics that no rule matches.
    other: Template,
    targets: Recent<Arc<Target>>,
    collisions: Collisions,
}

impl Topics {
    /// With kafka.separator, kafka.topic and kafka.rules. The error says which rule kafka.topic breaks.
    pub(crate) fn new(separator: Separator, topic: &str, rules: Vec<Rule>) -> Result<Self, String> {
        let other = Template::for_topic(topic, &[])?;
        Ok(Self {
            separator,
            rules,
            other,
            targets: Recent::new(TOPICS),
            collisions: Collisions::new(TOPICS),
        })
    }

    /// Where the messages to a topic go. One lookup for a topic that was seen of late.
    pub(crate) fn target(&mut self, mqtt: &str) -> Result<Mapped, Unmapped> {
        if let Some(target) = self.targets.get(mqtt) {
            return Ok(Mapped { target: target.clone(), collision: None });
        }
        let ruled = self.rules.iter().find_map(|rule| Some((rule, rule.captures(mqtt)?)));
        let (template, captures, key) = match &ruled {
            Some((rule, captures)) => (&rule.topic, &captures[..], rule.key.as_ref()),
            None => (&self.other, &[][..], None),
        };
        let topic: Arc<str> = template.topic(mqtt, captures, &self.separator)?.into();
        let key = key.map_or_else(|| mqtt.to_owned(), |key| key.key(mqtt, captures)).into();
        // Rules put topics together on purpose, and so does a default that does not name the topic.
        let is_meant = ruled.is_some() || !self.other.names_topic();
        let collision = self.collisions.look(mqtt, &topic, is_meant);
        let target = Arc::new(Target { topic, key });
        self.targets.insert(mqtt, target.clone(), 1);
        Ok(Mapped { target, collision })
    }
}

#[cfg(test)]
mod tests;
