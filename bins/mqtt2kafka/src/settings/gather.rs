//! Where values come from: settings.yaml, .secrets.yaml, the environment, the command line, each over those before it.
//! Every layer is tidied by itself: what is unset goes, secrets are read from their files. What a value means is not
//! known here.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sync_core::settings::{Gathered, Inputs, Mistake, Secret, Written, nearest_of, read, read_secret};

use super::environment::{Found, command_line, environment};
use super::node::{Node, Value};
use super::table::{
    BRIDGE, CIPHERS, CONFIG, is_secret_option, is_section, is_structured, path_of, setting_at,
};
use super::yaml;

/// What `--conf` is called among the inputs.
pub(crate) const CONF: &str = "--conf";
const DEFAULT_CONF: &str = "./conf";
const SETTINGS: &str = "settings.yaml";
const SECRETS: &str = ".secrets.yaml";
/// dynaconf wants it; here maps always go into one another.
const MERGE: &str = "dynaconf_merge";
const FILE: &str = "_file";

/// All layers in one, and each setting's text.
pub(super) struct Layers {
    pub(super) gathered: Gathered,
    pub(super) tree: Node,
    /// `false`: a file could not be read to its end, so what is missing may stand there.
    pub(super) whole: bool,
}

pub(super) fn layers(inputs: &Inputs) -> Layers {
    let named = inputs.command_line().find(|(key, _)| *key == CONF).map(|(_, value)| PathBuf::from(value));
    let directory = named.clone().unwrap_or_else(|| DEFAULT_CONF.into());
    let mut layers =
        Layers { gathered: Gathered::default(), tree: Node::new("", Value::Map(Vec::new())), whole: true };
    layers.file(&directory.join(SETTINGS), named.is_some());
    layers.file(&directory.join(SECRETS), false);
    layers.found(environment(inputs));
    layers.found(command_line(inputs));
    layers.flatten();
    layers
}

impl Layers {
    fn file(&mut self, path: &Path, must_exist: bool) {
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => return,
            Err(error) => {
                self.whole = false;
                self.gathered.mistakes.push(Mistake {
                    key: String::new(),
                    value: None,
                    origin: format!("file {}", path.display()),
                    rule: format!("must be a readable file: {error}"),
                });
                return;
            }
        };
        let at = |line: usize| format!("file {} line {line}", path.display());
        let yaml = yaml::parse(&bytes, at);
        self.whole &= yaml.whole;
        let mistake = |wrong: yaml::Wrong| Mistake {
            key: wrong.key,
            value: None,
            origin: at(wrong.line),
            rule: wrong.rule,
        };
        self.gathered.mistakes.extend(yaml.mistakes.into_iter().map(mistake));
        self.over(yaml.root);
    }

    fn found(&mut self, found: Found) {
        let Found { root, mistakes, warnings } = found;
        self.gathered.mistakes.extend(mistakes);
        self.gathered.warnings.extend(warnings);
        self.over(root);
    }

    fn over(&mut self, mut layer: Node) {
        self.tidy(&mut layer, "");
        self.tree.lay(layer);
    }

    /// Takes away what says nothing, and puts secrets where the names of their files stand.
    fn tidy(&mut self, node: &mut Node, path: &str) {
        let in_section = is_section(path);
        if matches!(&node.value, Value::List(_)) || path.starts_with("kafka.rules") {
            return;
        }
        let Value::Map(entries) = &mut node.value else { return };
        let mut tidied: Vec<(String, Node)> = Vec::new();
        for (name, mut node) in std::mem::take(entries) {
            let name = if in_section { name.to_ascii_lowercase() } else { name };
            if name == MERGE {
                continue;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.tidy(&mut node, &path);
            let empty_counts = setting_at(&path).is_some_and(|setting| setting.empty_counts);
            let is_unset = match &node.value {
                Value::Null => true,
                Value::Text(text) => text.is_empty() && !empty_counts,
                Value::List(_) | Value::Map(_) => false,
            };
            if is_unset {
                continue;
            }
            match tidied.iter_mut().find(|(known, _)| *known == name) {
                Some((_, earlier)) => {
                    self.gathered
                        .mistakes
                        .push(node.mistake(format!("stands twice: {} too", earlier.origin)));
                    *earlier = node;
                }
                None => tidied.push((name, node)),
            }
        }
        self.secrets(path, &mut tidied);
        *entries = tidied;
    }

    fn secrets(&mut self, path: &str, entries: &mut Vec<(String, Node)>) {
        let is_secret = |name: &str| match path {
            "kafka.config" => is_secret_option(name),
            _ => setting_at(&format!("{path}.{name}")).is_some_and(|setting| setting.is_secret()),
        };
        let mut index = 0;
        while index < entries.len() {
            let (key, file) = &entries[index];
            let Some(name) = key.strip_suffix(FILE).filter(|name| is_secret(name)).map(str::to_owned) else {
                index += 1;
                continue;
            };
            let beside = entries.iter().find(|(known, _)| *known == name);
            let secret = match (file.text(), beside) {
                (None, _) => Err(file.mistake("must be the path of a file")),
                (Some(_), Some((_, plain))) => {
                    let (key, origin) = (&plain.key, &plain.origin);
                    Err(file.mistake_shown(format!(
                        "must not be set beside {key} ({origin}): which of them counts?"
                    )))
                }
                (Some(path), None) => read_secret(&Written {
                    key: file.key.clone(),
                    value: path.to_owned(),
                    origin: file.origin.clone(),
                }),
            };
            match secret {
                Ok(Written { key, value, origin }) if !value.is_empty() => {
                    entries[index] = (name, Node { key, origin, value: Value::Text(value) });
                    index += 1;
                }
                Ok(Written { key, origin, .. }) => {
                    self.gathered.warnings.push(format!("{key} ({origin}): the file is empty"));
                    entries.remove(index);
                }
                Err(mistake) => {
                    self.gathered.mistakes.push(mistake);
                    entries.remove(index);
                }
            }
        }
    }

    /// Each setting's text by its name; what is no setting is told.
    fn flatten(&mut self) {
        let tree = std::mem::replace(&mut self.tree, Node::new("", Value::Null));
        self.flatten_section(&tree, "");
        self.tree = tree;
    }

    fn flatten_section(&mut self, section: &Node, above: &str) {
        for (name, node) in section.entries() {
            let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            let Some(setting) = setting_at(&path) else {
                match (&node.value, is_section(&path)) {
                    (Value::Map(_), true) => self.flatten_section(node, &path),
                    (_, true) => {
                        self.gathered.mistakes.push(
                            node.mistake(format!("must be a map of settings, such as {}", example_of(&path))),
                        );
                    }
                    (_, false) => self.unknown(node, &path),
                }
                continue;
            };
            let value = match &node.value {
                _ if is_structured(setting) => Some(display(node, &path)),
                Value::Text(text) => Some(text.clone()),
                // The one list that is written as a text, too.
                Value::List(items) if setting.name == CIPHERS.name => {
                    items.iter().map(Node::text).collect::<Option<Vec<_>>>().map(|texts| texts.join(":"))
                }
                _ => None,
            };
            match value {
                Some(value) => {
                    let written = Written { key: node.key.clone(), value, origin: node.origin.clone() };
                    self.gathered.values.push((setting.name, written));
                }
                None => {
                    self.gathered.mistakes.push(node.mistake("must be a single value, neither list nor map"));
                }
            }
        }
    }

    fn unknown(&mut self, node: &Node, path: &str) {
        let nearest = nearest_of(path, known_keys()).unwrap_or_default();
        self.gathered.warnings.push(format!(
            "{} ({}) is no setting of mqtt2kafka; the nearest is {nearest}",
            super::node::shortened(&node.key),
            node.origin
        ));
    }
}

fn known_keys() -> impl Iterator<Item = String> {
    const SECTIONS: [&str; 5] = ["mqtt", "mqtt.tls", "kafka", "log", "admin"];
    let settings = BRIDGE.settings().flat_map(|setting| {
        let path = path_of(setting);
        let file = setting.is_secret().then(|| format!("{path}{FILE}"));
        std::iter::once(path.to_owned()).chain(file)
    });
    SECTIONS.map(str::to_owned).into_iter().chain(settings)
}

fn example_of(section: &str) -> &'static str {
    let mut paths = BRIDGE.settings().map(path_of);
    paths.find(|path| path.starts_with(section)).unwrap_or_default()
}

/// As a person may see it.
pub(super) fn display(node: &Node, path: &str) -> String {
    fn json(node: &Node, hidden: bool, in_config: bool) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Text(_) if hidden => quoted(&Secret::new("").to_string()),
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|item| json(item, hidden, in_config)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entry = |(name, node): &(String, Node)| {
                    let hidden = hidden || in_config && is_secret_option(name);
                    format!("{}: {}", quoted(name), json(node, hidden, in_config))
                };
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }
    json(node, false, path == CONFIG.name)
}
