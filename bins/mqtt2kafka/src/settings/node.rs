//! What a layer of settings holds before anybody knows what it means: texts, lists and maps, each with its place. Pure.

use sync_core::settings::Mistake;

/// A value, and where somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The whole path as it was spelled, such as `mqtt.topics[1]` or `UNS_mqtt__host`.
    pub(super) key: String,
    /// As in `sync_core::settings::Effective`.
    pub(super) origin: String,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// As good as not written.
    Null,
    Text(String),
    List(Vec<Node>),
    /// In the order written, each key once.
    Map(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn new(origin: impl Into<String>, value: Value) -> Self {
        Self { key: String::new(), origin: origin.into(), value }
    }

    /// Gives it and all in it their keys, beginning with `key`.
    pub(super) fn named(mut self, key: &str) -> Self {
        self.name(key);
        self
    }

    fn name(&mut self, key: &str) {
        key.clone_into(&mut self.key);
        match &mut self.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.name(&format!("{key}[{index}]"));
                }
            }
            Value::Map(entries) => {
                for (name, node) in entries {
                    match key {
                        "" => node.name(name),
                        key => node.name(&format!("{key}.{name}")),
                    }
                }
            }
            Value::Null | Value::Text(_) => {}
        }
    }

    /// How many there are of it.
    pub(super) fn size(&self) -> usize {
        match &self.value {
            Value::Null | Value::Text(_) => 1,
            Value::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }

    /// What it says, if that is a text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What stands at the end of a path of keys.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| node.entry(key))
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Of a map; of anything else none.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Puts a node to the end of a path, with maps on the way; `false` where something else is in the way.
    pub(super) fn put(&mut self, path: &[String], node: Self) -> bool {
        let Value::Map(entries) = &mut self.value else { return false };
        let [first, rest @ ..] = path else { return false };
        let at = entries.iter().position(|(name, _)| name == first);
        match (at, rest) {
            (Some(at), []) => entries[at].1.lay(node),
            (Some(at), rest) => return entries[at].1.put(rest, node),
            (None, []) => entries.push((first.clone(), node)),
            (None, rest) => {
                let mut map = Self {
                    key: node.key.clone(),
                    origin: node.origin.clone(),
                    value: Value::Map(Vec::new()),
                };
                let fits = map.put(rest, node);
                entries.push((first.clone(), map));
                return fits;
            }
        }
        true
    }

    /// Another one over it: maps go into one another, everything else is replaced.
    pub(super) fn lay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(under), Value::Map(entries)) => {
                self.key = over.key;
                self.origin = over.origin;
                for (name, node) in entries {
                    match under.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, earlier)) => earlier.lay(node),
                        None => under.push((name, node)),
                    }
                }
            }
            (_, value) => *self = Self { key: over.key, origin: over.origin, value },
        }
    }

    /// A mistake here, without the value.
    pub(super) fn mistake(&self, rule: impl Into<String>) -> Mistake {
        Mistake { key: self.key.clone(), value: None, origin: self.origin.clone(), rule: rule.into() }
    }

    /// The same with the value, which must not be secret.
    pub(super) fn mistake_shown(&self, rule: impl Into<String>) -> Mistake {
        Mistake { value: self.text().map(shortened), ..self.mistake(rule) }
    }
}

/// On one line, and not longer than a person reads.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut line: String = text.chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    sync_core::telemetry::log::escape(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::new("here", Value::Text(text.into()))
    }

    #[test]
    fn maps_go_into_one_another_and_lists_replace() {
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        let mut under = Node::new("under", Value::Map(vec![]));
        assert!(under.put(&path("a.b"), text("1")));
        assert!(under.put(&path("a.c"), text("2")));
        assert!(under.put(&path("l"), Node::new("", Value::List(vec![text("x"), text("y")]))));
        assert!(!under.put(&path("a.b.d"), text("3")));
        let mut over = Node::new("over", Value::Map(vec![]));
        assert!(over.put(&path("a.c"), text("4")));
        assert!(over.put(&path("l"), Node::new("", Value::List(vec![text("z")]))));
        under.lay(over);
        let under = under.named("");
        assert_eq!(under.at("a.b").and_then(Node::text), Some("1"));
        assert_eq!(under.at("a.c").and_then(Node::text), Some("4"));
        let list = under.at("l").expect("stays");
        assert_eq!((list.size(), list.key.as_str()), (2, "l"));
        assert_eq!(under.at("a.c").map(|node| node.key.as_str()), Some("a.c"));
    }
}
