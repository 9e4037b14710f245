//! Templates of topics and keys: what may stand in one, and filling it in.

use super::encoding::{self, Separator, Unmapped, append, is_allowed};

/// What the wildcards or groups of a rule stood for.
pub(super) type Captured<'a> = Vec<&'a str>;

/// A text with placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    /// From 0.
    Captured(usize),
}

impl Template {
    /// Reads a template, where there are captures of these names. The error says which rule it breaks, as "must …".
    pub(super) fn new(text: &str, names: &[Option<String>]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                literal.push_str(&rest[..1]);
                rest = after;
                continue;
            }
            let placeholder = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let Some((name, after)) = placeholder else {
                return Err(format!(
                    "must have a }} for each {{, and both twice where none is meant, not as in {text:?}"
                ));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(placeholder_of(name, names)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// Reads a template of a topic: its own text is allowed in one, and there is something to make a name of.
    pub(crate) fn for_topic(text: &str, names: &[Option<String>]) -> Result<Self, String> {
        let template = Self::new(text, names)?;
        for piece in &template.0 {
            let Piece::Text(text) = piece else { continue };
            if let Some(c) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(is_allowed)) {
                return Err(format!(
                    "must hold letters, digits, '.', '_', '-' and placeholders only, not {c:?}"
                ));
            }
        }
        if template.0.iter().all(|piece| matches!(piece, Piece::Text(_))) {
            match encoding::finish(text.to_owned()) {
                Ok(name) if name == text => {}
                Err(Unmapped::TooLong(_)) => {
                    return Err(format!("must be shorter: {text:?} is no name of a topic"));
                }
                _ => return Err("must be the name of a topic, which is not empty, . or ..".to_owned()),
            }
        }
        Ok(template)
    }

    /// Whether the whole MQTT topic is in it.
    pub(super) fn names_topic(&self) -> bool {
        self.0.contains(&Piece::Topic)
    }

    /// The Kafka topic for an MQTT topic.
    pub(super) fn topic(
        &self,
        mqtt: &str,
        captured: &[&str],
        separator: &Separator,
    ) -> Result<String, Unmapped> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Topic => append(&mut name, mqtt, separator),
                Piece::Captured(index) => append(&mut name, captured[*index], separator),
            }
        }
        encoding::finish(name)
    }

    /// The key for an MQTT topic.
    pub(super) fn key<'a>(&'a self, mqtt: &'a str, captured: &[&'a str]) -> String {
        let text = |piece: &'a Piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Topic => mqtt,
            Piece::Captured(index) => captured[*index],
        };
        self.0.iter().map(text).collect()
    }
}

fn placeholder_of(name: &str, names: &[Option<String>]) -> Result<Piece, String> {
    // A group of that name would hide the topic.
    if name == "topic" {
        return Ok(Piece::Topic);
    }
    let numbered =
        name.parse().ok().filter(|number| (1..=names.len()).contains(number)).map(|number| number - 1);
    let index = numbered.or_else(|| names.iter().position(|group| group.as_deref() == Some(name)));
    index.map(Piece::Captured).ok_or_else(|| {
        let of = match names.len() {
            0 => "{topic} only".to_owned(),
            count => format!("{{topic}} and those of the {count} wildcards or groups only"),
        };
        format!("must hold the placeholders {of}, not {{{name}}}")
    })
}
