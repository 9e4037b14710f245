//! Which names Kafka allows a topic, and how text becomes such a name. It owns the encoding, which is injective: no two
//! texts get one name, the separator apart.
//!
//! A byte that Kafka does not allow is written `--XX`, its two hexadecimal digits in capitals: `a b` is `a--20b`, `é` is
//! `--C3--A9`. Where the text itself holds two hyphens and two such digits, the first hyphen is written so too: `--20` is
//! `--2D-20`. Everything else stays as it is, so that hardly a topic looks different.

use std::fmt::Write as _;

/// The longest name of a topic (Kafka's `Topic.validate`).
const MAX_TOPIC: usize = 249;

/// Why there is no Kafka topic for an MQTT topic.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unmapped {
    /// It is not cut short: then others could get its name. A rule can map such topics.
    #[error("the name of the Kafka topic would be {0} characters long; at most {MAX_TOPIC} are allowed")]
    TooLong(usize),
    #[error("the name of the Kafka topic would be empty")]
    Empty,
}

/// What stands in a Kafka topic for each `/` of the MQTT topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Separator(Box<str>);

impl Separator {
    /// Reads one. The error says which rule it breaks, as "must …".
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 8 || !text.bytes().all(is_allowed) {
            return Err(format!("must be 1 to 8 letters, digits, '.', '_' and '-', not {text:?}"));
        }
        Ok(Self(text.into()))
    }
}

impl Default for Separator {
    fn default() -> Self {
        Self("_".into())
    }
}

/// Whether Kafka allows it in the name of a topic (`org.apache.kafka.common.internals.Topic`).
pub(super) fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Appends a text as a part of a name.
pub(super) fn append(name: &mut String, text: &str, separator: &Separator) {
    let joined;
    let text = if text.contains('/') {
        joined = text.replace('/', &separator.0);
        &joined
    } else {
        text
    };
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if is_allowed(byte) && !is_escape(&bytes[at..]) {
            name.push(byte.into());
        } else {
            // Writing into memory does not fail.
            let _ = write!(name, "--{byte:02X}");
        }
    }
}

/// Whether it begins with what stands for a byte.
fn is_escape(bytes: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    matches!(bytes, [b'-', b'-', high, low, ..] if is_digit(high) && is_digit(low))
}

/// Whether this is the name of a topic as it stands. The error says which rule it breaks, as "must …".
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    match text.bytes().all(is_allowed) && finish(text.to_owned()).is_ok_and(|name| name == text) {
        true => Ok(()),
        false => Err(format!(
            "must be the name of a topic: 1 to {MAX_TOPIC} letters, digits, '.', '_' and '-', and neither . nor .."
        )),
    }
}

/// The name, if Kafka allows it; `.` and `..`, which it does not, encoded.
pub(super) fn finish(name: String) -> Result<String, Unmapped> {
    match name.as_str() {
        "" => Err(Unmapped::Empty),
        "." => Ok("--2E".to_owned()),
        ".." => Ok("--2E.".to_owned()),
        _ if name.len() > MAX_TOPIC => Err(Unmapped::TooLong(name.len())),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str, separator: &str) -> Result<String, Unmapped> {
        let mut name = String::new();
        append(&mut name, text, &Separator::new(separator).expect(separator));
        finish(name)
    }

    /// What a name stands for.
    fn decoded(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = name.as_bytes();
        while let [first, others @ ..] = rest {
            if is_escape(rest) {
                bytes.push(
                    u8::from_str_radix(&name[name.len() - rest.len() + 2..][..2], 16).expect("are digits"),
                );
                rest = &rest[4..];
            } else {
                bytes.push(*first);
                rest = others;
            }
        }
        bytes
    }

    #[test]
    fn how_texts_are_encoded() {
        let check = |text: &str, separator: &str, name: &str| {
            assert_eq!(encoded(text, separator).as_deref(), Ok(name), "{text}");
        };
        for plain in ["abc", "A.b_c-9", "--", "--2", "--2x", "--2d", "-20", "a--b", "---", "..."] {
            check(plain, "_", plain);
        }
        check("a/b/c", "_", "a_b_c");
        check("a/b/c", ".", "a.b.c");
        check("a/b", "--", "a--b");
        check("a b", "_", "a--20b");
        check("é", "_", "--C3--A9");
        check("a+b#$%", "_", "a--2Bb--23--24--25");
        check("--20", "_", "--2D-20");
        check("---20", "_", "---2D-20");
        check("- ", "_", "---20");
        check(".", "_", "--2E");
        check("..", "_", "--2E.");
        check("/", ".", "--2E");
        check("//", ".", "--2E.");
        check("///", ".", "...");
        assert_eq!(encoded(&"x".repeat(249), "_"), Ok("x".repeat(249)));
        assert_eq!(encoded(&"x".repeat(250), "_"), Err(Unmapped::TooLong(250)));
        assert_eq!(encoded(&" ".repeat(63), "_"), Err(Unmapped::TooLong(252)));
        for wrong in ["", "/", "a b", "ä", "123456789"] {
            assert!(Separator::new(wrong).expect_err(wrong).contains("must be 1 to 8 letters"), "{wrong}");
        }
    }

    #[test]
    fn what_is_a_name_as_it_stands() {
        for name in ["a", "...", "a--20b", &"x".repeat(249)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for wrong in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check_name(wrong).expect_err(wrong).contains("must be the name of a topic"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_name_stands_for_one_text(
            text in "[-./_ A0F2Eé]{1,24}|\\PC{1,20}|[-2DE]{1,12}|[./]{1,3}",
            separator in prop::sample::select(vec!["_", ".", "-", "--", "2D", "__"]),
        ) {
            if let Ok(name) = encoded(&text, separator) {
                prop_assert!(name.bytes().all(is_allowed) && !matches!(&*name, "" | "." | ".."), "{}", name);
                prop_assert_eq!(decoded(&name), text.replace('/', separator).into_bytes(), "{}", name);
            }
        }
    }
}
