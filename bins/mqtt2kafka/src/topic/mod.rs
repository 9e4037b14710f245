//! From an MQTT topic to the Kafka topic and the record's key. It owns the default mapping, and the rules over it;
//! it refuses a topic that no name can be made for, with the reason.
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
//! says `^` and `$`), and templates of a topic, a key or both; what it does not have is as without a rule. The first that
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
use self::template::Captured;
use crate::filter::Filter;

pub(crate) use self::collisions::Collision;
pub(crate) use self::encoding::{Separator, Unmapped, check_name};
pub(crate) use self::template::Template;

/// For so many Kafka topics it is remembered what was told of them.
const TOPICS: usize = 20_000;

/// Where the messages to an MQTT topic go, and what is to be told about it, which is once.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) topic: Arc<str>,
    pub(crate) key: Bytes,
    pub(crate) collision: Option<Collision>,
}

/// One of kafka.rules.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) pattern: Pattern,
    /// Without one, that of all other topics.
    pub(crate) topic: Option<Template>,
    /// Without one it is the MQTT topic.
    pub(crate) key: Option<Template>,
}

/// The MQTT topics that a rule is for.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Filter(Filter),
    Regex(Regex),
}

impl Pattern {
    /// Reads a regular expression. The error says which rule it breaks, as "must …".
    pub(crate) fn regex(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must be a regular expression".to_owned());
        }
        Regex::new(text).map(Self::Regex).map_err(|error| {
            // What is in the lines before shows where in the expression it is, over several lines.
            let error = error.to_string();
            let words = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("must be a regular expression: {words}")
        })
    }

    /// Reads a template of a Kafka topic with what the wildcards or groups stood for.
    pub(crate) fn topic(&self, text: &str) -> Result<Template, String> {
        Template::for_topic(text, &self.names())
    }

    /// Reads a template of a key with the same.
    pub(crate) fn key(&self, text: &str) -> Result<Template, String> {
        Template::new(text, &self.names())
    }

    /// Those of the groups; wildcards have none.
    fn names(&self) -> Vec<Option<String>> {
        match self {
            Self::Filter(filter) => vec![None; filter.wildcards()],
            Self::Regex(regex) => regex.capture_names().skip(1).map(|name| name.map(str::to_owned)).collect(),
        }
    }

    fn captures<'a>(&self, topic: &'a str) -> Option<Captured<'a>> {
        match self {
            Self::Filter(filter) => filter.captures(topic),
            Self::Regex(regex) => {
                let groups = regex.captures(topic)?;
                Some(groups.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect())
            }
        }
    }
}

/// kafka.separator, kafka.topic and kafka.rules.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) separator: Separator,
    /// The first that matches counts.
    pub(crate) rules: Vec<Rule>,
    /// Of the topics that no rule matches, and of rules that have none.
    pub(crate) other: Template,
}

/// A target for every MQTT topic.
#[derive(Debug)]
pub(crate) struct Topics {
    mapping: Mapping,
    collisions: Collisions,
}

impl Topics {
    /// By this mapping; no collision was told yet.
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self { mapping, collisions: Collisions::new(TOPICS) }
    }

    /// Where the messages to a topic go.
    pub(crate) fn target(&mut self, mqtt: &str) -> Result<Mapped, Unmapped> {
        let Mapping { separator, rules, other } = &self.mapping;
        let ruled = rules.iter().find_map(|rule| Some((rule, rule.pattern.captures(mqtt)?)));
        let (template, captures, key) = match &ruled {
            Some((rule, captures)) => (rule.topic.as_ref(), &captures[..], rule.key.as_ref()),
            None => (None, &[][..], None),
        };
        let topic: Arc<str> = template.unwrap_or(other).topic(mqtt, captures, separator)?.into();
        let key = key.map_or_else(|| mqtt.to_owned(), |key| key.key(mqtt, captures)).into();
        // A rule puts topics together on purpose, and so does a default that does not name the topic.
        let is_meant = template.is_some() || !other.names_topic();
        let collision = self.collisions.look(mqtt, &topic, is_meant);
        Ok(Mapped { topic, key, collision })
    }
}

#[cfg(test)]
mod tests;
