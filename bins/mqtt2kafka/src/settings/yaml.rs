//! From the text of a YAML file to nodes with their lines. It takes what people write into settings (anchors, merge keys,
//! flow and block style, the null and the booleans of YAML 1.1 as the texts that they are) and bounds what it costs. It
//! knows no setting; what stands in the file is not repeated in a mistake, since it may be a secret.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::node::{Node, Value};

/// Levels of lists and maps in one another.
const DEEPEST: usize = 32;
/// Values of a whole file, those counted anew that an alias repeats.
const MOST: usize = 20_000;

/// What a file holds.
#[derive(Debug)]
pub(super) struct Yaml {
    /// A map; its keys are named.
    pub(super) root: Node,
    pub(super) mistakes: Vec<Wrong>,
    /// `false`: what stands behind the last mistake was not read.
    pub(super) whole: bool,
}

/// What is wrong, and on which line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    /// The key, where it is known.
    pub(super) key: String,
    pub(super) rule: String,
}

/// Reads a whole file. `origin` says where a line is, for people.
pub(super) fn parse(bytes: &[u8], origin: impl Fn(usize) -> String) -> Yaml {
    let mut builder = Builder {
        origin: &origin,
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        mistakes: Vec::new(),
        left: MOST,
    };
    let whole = match text_of(bytes) {
        Ok(text) => match builder.read(text) {
            Ok(()) => true,
            Err((line, rule)) => {
                builder.wrong(line, rule);
                false
            }
        },
        Err((line, rule)) => {
            builder.wrong(line, rule);
            false
        }
    };
    while let Some(open) = builder.open.pop() {
        builder.close(open);
    }
    let nothing = || Node::new(origin(1), Value::Map(Vec::new()));
    let root = match builder.root.take() {
        Some(node) if matches!(node.value, Value::Map(_)) => node,
        None | Some(Node { value: Value::Null, .. }) => nothing(),
        Some(_) => {
            builder.wrong(1, "must be a map of sections, such as mqtt: and kafka:");
            nothing()
        }
    };
    Yaml { root: root.named(""), mistakes: builder.mistakes, whole }
}

type Stop = (usize, String);

fn text_of(bytes: &[u8]) -> Result<&str, Stop> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err((1, "the file is UTF-16; save it as UTF-8".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, "the line is not UTF-8".to_owned())
    })
}

/// A list or map that has begun and not ended.
struct Open {
    line: usize,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, usize, Node)>,
        /// What `<<` names.
        merged: Vec<(usize, Node)>,
        key: Option<Key>,
    },
}

/// A key that waits for its value.
struct Key {
    line: usize,
    /// `None`: it was no text, and is told.
    name: Option<String>,
    merges: bool,
}

struct Builder<'a> {
    origin: &'a dyn Fn(usize) -> String,
    open: Vec<Open>,
    root: Option<Node>,
    /// What is complete: an alias in what it names itself finds nothing.
    anchors: HashMap<usize, Node>,
    mistakes: Vec<Wrong>,
    left: usize,
}

impl Builder<'_> {
    fn wrong(&mut self, line: usize, rule: impl Into<String>) {
        let key = self.path();
        self.mistakes.push(Wrong { line, key, rule: rule.into() });
    }

    /// Of what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.inside {
                Inside::List(items) => path += &format!("[{}]", items.len()),
                Inside::Map { key: Some(Key { name: Some(name), .. }), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path += name;
                }
                Inside::Map { .. } => {}
            }
        }
        path
    }

    fn read(&mut self, text: &str) -> Result<(), Stop> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) =
                event.map_err(|error| (error.marker().line(), format!("is no YAML: {}", error.info())))?;
            let line = span.start.line().max(1);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err((
                            line,
                            "a second document begins here; the file must hold one".to_owned(),
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.count(line, 1)?;
                    let value = self.scalar(line, &text, style, tag.as_deref());
                    let merges = style == ScalarStyle::Plain && text == "<<";
                    self.complete(line, anchor, value, merges);
                }
                Event::SequenceStart(anchor, tag) => {
                    self.tag(line, tag.as_deref(), "seq");
                    self.begin(line, anchor, Inside::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(line, tag.as_deref(), "map");
                    let inside = Inside::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                    self.begin(line, anchor, inside)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(open) = self.open.pop() {
                        self.close(open);
                    }
                }
                Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                    Some(node) => {
                        self.count(line, node.size())?;
                        self.complete(line, 0, node.value, false);
                    }
                    None => return Err((line, "an alias here names what it stands in itself".to_owned())),
                },
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, line: usize, more: usize) -> Result<(), Stop> {
        self.left = self
            .left
            .checked_sub(more)
            .ok_or_else(|| (line, format!("the file comes to more than {MOST} values here")))?;
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, inside: Inside) -> Result<(), Stop> {
        self.count(line, 1)?;
        if self.open.len() == DEEPEST {
            return Err((line, format!("lists and maps stand in one another more than {DEEPEST} times")));
        }
        self.open.push(Open { line, anchor, inside });
        Ok(())
    }

    fn close(&mut self, open: Open) {
        let Open { line, anchor, inside } = open;
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, merged, .. } => {
                let entries = entries.into_iter().map(|(name, _, node)| (name, node)).collect();
                Value::Map(self.with_merged(entries, merged))
            }
        };
        self.complete(line, anchor, value, false);
    }

    /// `<<`: what the map does not say itself, the first of several maps before the others.
    fn with_merged(
        &mut self,
        mut entries: Vec<(String, Node)>,
        merged: Vec<(usize, Node)>,
    ) -> Vec<(String, Node)> {
        for (line, node) in merged {
            let maps = match node.value {
                Value::List(maps) => maps,
                _ => vec![node],
            };
            for map in maps {
                let Value::Map(more) = map.value else {
                    self.wrong(line, "<< must name a map or a list of maps");
                    continue;
                };
                for (name, node) in more {
                    if !entries.iter().any(|(known, _)| *known == name) {
                        entries.push((name, node));
                    }
                }
            }
        }
        entries
    }

    /// A value is there, whole: a key, or what belongs to one, or an item.
    fn complete(&mut self, line: usize, anchor: usize, value: Value, merges: bool) {
        let mut node = Node::new((self.origin)(line), value);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        let (entries, merged, key) = match &mut open.inside {
            Inside::List(items) => return items.push(node),
            Inside::Map { entries, merged, key } => (entries, merged, key),
        };
        let Some(Key { line: at, name, merges }) = key.take() else {
            let name = match node.value {
                Value::Text(name) => Some(name),
                _ => None,
            };
            let is_text = name.is_some();
            *key = Some(Key { line, name, merges });
            if !is_text {
                self.wrong(line, "a key must be a text");
            }
            return;
        };
        node.origin = (self.origin)(at);
        let Some(name) = name else { return };
        if merges {
            return merged.push((at, node));
        }
        match entries.iter().position(|(known, ..)| *known == name) {
            Some(index) => {
                let (_, earlier, _) = entries.remove(index);
                entries.push((name.clone(), at, node));
                let above = self.path();
                let key = if above.is_empty() { name } else { format!("{above}.{name}") };
                let rule = format!("stands twice: on lines {earlier} and {at}");
                self.mistakes.push(Wrong { line: at, key, rule });
            }
            None => entries.push((name, at, node)),
        }
    }

    fn scalar(&mut self, line: usize, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
        if text.contains('\0') {
            self.wrong(line, "must not hold a NUL character");
            return Value::Null;
        }
        let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
        match tag {
            None if is_null => Value::Null,
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "null" => Value::Null,
                "int" | "float" | "bool" if is_null => Value::Null,
                "str" | "int" | "float" | "bool" => Value::Text(text.to_owned()),
                _ => {
                    self.wrong(line, "has a tag that settings do not have");
                    Value::Null
                }
            },
            // `!` alone: a text, whatever it looks like.
            Some(Tag { handle, suffix }) if !matches!((&**handle, &**suffix), ("", "!") | ("!", "")) => {
                self.wrong(line, "has a tag that settings do not have");
                Value::Null
            }
            _ => Value::Text(text.to_owned()),
        }
    }

    fn tag(&mut self, line: usize, tag: Option<&Tag>, expected: &str) {
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == expected)) {
            self.wrong(line, "has a tag that settings do not have");
        }
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
