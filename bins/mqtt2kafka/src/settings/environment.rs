//! The layers that are no files: variables `UNS_<section>__<key>` as dynaconf has them, the names that all bridges have
//! for what they all have, and `--set` of the command line.

use std::collections::BTreeMap;

use sync_core::settings::{Inputs, Mistake, is_injected};

use super::gather::CONF;
use super::node::{Node, Value, shortened};
use super::table::{GENERAL, is_section, is_structured, setting_at};
use super::yaml;

const PREFIX: &str = "UNS_";
const ENVIRONMENT: &str = "environment";
const COMMAND_LINE: &str = "command line";

/// What was found, and what is wrong with it.
pub(super) struct Found {
    pub(super) root: Node,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl Found {
    fn nothing(origin: &str) -> Self {
        let root = Node::new(origin, Value::Map(Vec::new()));
        Self { root, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// A text for what stands at `path`, of which `key` is the spelling.
    fn add(&mut self, key: &str, path: &[String], text: &str, origin: &str) {
        let empty_counts = setting_at(&path.join(".")).is_some_and(|setting| setting.empty_counts);
        if text.is_empty() && !empty_counts {
            return;
        }
        let wrong =
            |rule: String| Mistake { key: key.to_owned(), value: None, origin: origin.to_owned(), rule };
        match value(path, text, origin) {
            Ok(value) => {
                let node = Node::new(origin, value).named(key);
                if !self.root.put(path, node) {
                    self.mistakes
                        .push(wrong("must not be set beside a value of what it is a part of".to_owned()));
                }
            }
            Err(rule) => self.mistakes.push(wrong(rule)),
        }
    }
}

/// The environment. A name that all bridges have goes before the same setting's `UNS_` one.
pub(super) fn environment(inputs: &Inputs) -> Found {
    let mut found = Found::nothing(ENVIRONMENT);
    let mut texts = BTreeMap::new();
    for (key, value) in inputs.environment() {
        let is_ours = key.starts_with(PREFIX) || GENERAL.iter().any(|(_, setting)| setting.name == key);
        match value.to_str() {
            Some(value) => drop(texts.insert(key, value)),
            None if is_ours => found.mistakes.push(Mistake {
                key: key.to_owned(),
                value: Some("***".to_owned()),
                origin: ENVIRONMENT.to_owned(),
                rule: "must be UTF-8".to_owned(),
            }),
            None => {}
        }
    }
    // In the order of their names a whole map comes before its parts.
    for (key, text) in &texts {
        if let Some(path) = key.strip_prefix(PREFIX)
            && !is_injected(key, text)
        {
            found.add(key, &path_of(path, "__"), text, ENVIRONMENT);
        }
    }
    for (path, setting) in GENERAL {
        let Some(text) = texts.get(setting.name) else { continue };
        if let Some(other) = found.root.at(path).filter(|_| !text.is_empty()) {
            found.warnings.push(format!(
                "{} ({ENVIRONMENT}) is passed over: {} ({ENVIRONMENT}) is the same setting and counts",
                other.key, setting.name
            ));
        }
        found.add(setting.name, &path_of(path, "."), text, ENVIRONMENT);
    }
    found
}

/// `--set mqtt.host=broker`, and the options that have names of their own.
pub(super) fn command_line(inputs: &Inputs) -> Found {
    let mut found = Found::nothing(COMMAND_LINE);
    for (key, text) in inputs.command_line().filter(|(key, _)| *key != CONF) {
        let general = GENERAL.iter().find(|(_, setting)| setting.name == key);
        let path = general.map_or(key, |(path, _)| path);
        found.add(key, &split_known(path), text, COMMAND_LINE);
    }
    found
}

/// Keys of sections are known whatever their letter case; what stands in a map of the user's own is written as it is. The
/// keys of librdkafka are lower case all.
fn path_of(text: &str, between: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for part in text.split(between) {
        let lower = part.to_ascii_lowercase();
        let above = path.join(".");
        path.push(if is_section(&above) || above == "kafka.config" { lower } else { part.to_owned() });
    }
    path
}

/// At dots, but what stands behind a setting's own path is one key: `kafka.config.bootstrap.servers`.
fn split_known(text: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut rest = text;
    loop {
        if setting_at(&path.join(".")).is_some_and(is_structured) {
            path.push(rest.to_owned());
            return path;
        }
        match rest.split_once('.') {
            Some((part, more)) => {
                path.push(part.to_ascii_lowercase());
                rest = more;
            }
            None => {
                path.push(if is_section(&path.join(".")) {
                    rest.to_ascii_lowercase()
                } else {
                    rest.to_owned()
                });
                return path;
            }
        }
    }
}

/// As dynaconf reads it: `@json`, casts, quotes around the whole. Where the setting is a text, all else is that text.
fn value(path: &[String], text: &str, origin: &str) -> Result<Value, String> {
    let (token, rest) = text.split_once(' ').unwrap_or((text, ""));
    match token {
        "@json" => return structured(rest, origin),
        "@str" | "@int" | "@float" | "@bool" => return Ok(Value::Text(rest.trim().to_owned())),
        "@none" | "@empty" => return Ok(Value::Null),
        "@format" | "@jinja" | "@merge" | "@merge_unique" | "@reset" | "@del" | "@get" | "@read_file"
        | "@insert" | "@note" | "@comment" => {
            return Err(format!("begins with {}, which is not known here; @json is", shortened(token)));
        }
        _ => {}
    }
    let joined = path.join(".");
    let is_structure = is_section(&joined)
        || setting_at(&joined).is_some_and(is_structured)
        || joined.starts_with("mqtt.ignored_attributes.");
    if is_structure && text.trim_start().starts_with(['[', '{']) {
        return structured(text, origin);
    }
    let quoted = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    Ok(Value::Text(quoted.unwrap_or(text).to_owned()))
}

/// JSON is YAML.
fn structured(text: &str, origin: &str) -> Result<Value, String> {
    let yaml = yaml::parse(format!("value: {text}").as_bytes(), |_| origin.to_owned());
    match yaml.mistakes.into_iter().next() {
        Some(wrong) => Err(format!("must be JSON: {}", wrong.rule)),
        None => Ok(yaml.root.entry("value").map_or(Value::Null, |node| node.value.clone())),
    }
}
