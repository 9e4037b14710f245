//! Glob patterns on stream keys, with the meaning of Python's `fnmatch.fnmatchcase`, and what of them may be
//! left to the server. It owns the pattern language; it refuses to know databases, servers or settings.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `*` | any run of characters, also none; `:`, `/` and newlines are like any other |
//! | `?` | one character |
//! | `[seq]` | one character of the sequence; `a-z` is a range, a reversed range is empty, `]` first is literal |
//! | `[!seq]` | one character not in the sequence (`^` has no meaning) |
//! | anything else | itself, case-sensitive; a `[` without its `]` too; there is no escape character, `[*]` does it |
//!
//! A character is one UTF-8 scalar. A byte of the key that is no part of one counts as one character, as
//! Python's `surrogateescape` has it: no pattern text equals it, `?`, `*` and `[!seq]` accept it.
//!
//! Source: <https://docs.python.org/3/library/fnmatch.html> and the regular expression that
//! `fnmatch.translate` makes, whose odd corners (`[b-a!x]` is `[!x]`) are kept.

use std::fmt;
use std::ops::RangeInclusive;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// What `text` means; two stars never follow one another, nor do two literals.
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// These bytes.
    Literal(String),
    /// `*`.
    Star,
    /// Any one character.
    One,
    /// One character that is in one of the ranges, or, negated, in none.
    Class { negated: bool, ranges: Vec<RangeInclusive<u32>> },
}

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), tokens: compile(text) }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole key matches. Takes at most the product of both lengths, never more: only the last
    /// star is ever tried again, since a star before it gains nothing from swallowing more.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // The token after the last star, and the key position up to which that star has swallowed.
        let mut last_star = None;
        loop {
            let stepped = match self.tokens.get(token) {
                Some(Token::Star) if token + 1 == self.tokens.len() => return true,
                Some(Token::Star) => {
                    last_star = Some((token + 1, at));
                    Some(at)
                }
                Some(one) => one.step(key, at),
                None if at == key.len() => return true,
                None => None,
            };
            if let Some(next) = stepped {
                (token, at) = (token + 1, next);
                continue;
            }
            let Some((after_star, swallowed)) = last_star else { return false };
            let Some((_, length)) = first_char(&key[swallowed..]) else { return false };
            last_star = Some((after_star, swallowed + length));
            (token, at) = (after_star, swallowed + length);
        }
    }

    /// A pattern for the server, `SCAN … MATCH`, that lets through whatever [`Pattern::matches`] accepts, and
    /// more: the answer is still to be filtered here. Redis' `?` is one byte and its classes negate with `^`, so
    /// both become `*`; what Redis holds special and we do not (`\`, a `[` that opens nothing) is escaped.
    ///
    /// It holds few stars, the rest being cut off: a server's matching time grows steeply with their number, and
    /// from a thousand on Redis matches nothing at all (CVE-2024-31228).
    pub fn server_glob(&self) -> String {
        const MOST_STARS: usize = 8;
        let mut glob = String::with_capacity(self.text.len() + 8);
        let mut stars = 0;
        for token in &self.tokens {
            match token {
                Token::Literal(text) => {
                    for c in text.chars() {
                        if matches!(c, '\\' | '[' | ']') {
                            glob.push('\\');
                        }
                        glob.push(c);
                    }
                }
                // No literal ends with an unescaped star, as `*` is never literal outside a class.
                Token::Star | Token::One | Token::Class { .. } if glob.ends_with('*') => {}
                Token::Star | Token::One | Token::Class { .. } => {
                    glob.push('*');
                    stars += 1;
                    if stars == MOST_STARS {
                        break;
                    }
                }
            }
        }
        glob
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Token {
    /// The position after this token's part of `key`, which begins at `at`. Stars are the caller's.
    fn step(&self, key: &[u8], at: usize) -> Option<usize> {
        let rest = &key[at..];
        match self {
            Self::Literal(text) => rest.starts_with(text.as_bytes()).then_some(at + text.len()),
            Self::Star => Some(at),
            Self::One => first_char(rest).map(|(_, length)| at + length),
            Self::Class { negated, ranges } => {
                let (c, length) = first_char(rest)?;
                let found = ranges.iter().any(|range| range.contains(&c));
                (found != *negated).then_some(at + length)
            }
        }
    }
}

/// The first character and its length in bytes; `None` at the end. A byte that begins no UTF-8 scalar is
/// U+DC00 plus the byte, which no text holds (PEP 383).
fn first_char(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    let length = match first {
        0x00..=0x7f => return Some((u32::from(first), 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    let scalar = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()?.chars().next());
    Some(scalar.map_or((0xdc00 + u32::from(first), 1), |c| (c.into(), length)))
}

fn compile(text: &str) -> Vec<Token> {
    let text: Vec<char> = text.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        at += 1;
        match c {
            '*' if tokens.last() == Some(&Token::Star) => {}
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::One),
            '[' if let Some(end) = class_end(&text, at) => {
                tokens.push(class(&text[at..end]));
                at = end + 1;
            }
            _ => match tokens.last_mut() {
                Some(Token::Literal(literal)) => literal.push(c),
                _ => tokens.push(Token::Literal(c.into())),
            },
        }
    }
    tokens
}

/// Where the class that begins at `at`, just after its `[`, has its `]`. A `]` that comes first is a member.
fn class_end(text: &[char], at: usize) -> Option<usize> {
    let mut first = at;
    if text.get(first) == Some(&'!') {
        first += 1;
    }
    if text.get(first) == Some(&']') {
        first += 1;
    }
    find(text, ']', first)
}

fn find(text: &[char], wanted: char, from: usize) -> Option<usize> {
    text.get(from..)?.iter().position(|&c| c == wanted).map(|found| from + found)
}

/// What stands between `[` and `]`, read in the steps of `fnmatch.translate`.
fn class(text: &[char]) -> Token {
    // Between two chunks stands a hyphen that makes a range of the characters beside it; every other hyphen is
    // part of a chunk. One that comes first or last, or just after a range, makes none.
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut search = if text.first() == Some(&'!') { 2 } else { 1 };
    while let Some(hyphen) = find(text, '-', search) {
        chunks.push(text[start..hyphen].to_vec());
        (start, search) = (hyphen + 1, hyphen + 3);
    }
    match chunks.last_mut() {
        Some(last) if start == text.len() => last.push('-'),
        _ => chunks.push(text[start..].to_vec()),
    }
    // A reversed range is empty: its ends go, and its neighbours meet.
    for later in (1..chunks.len()).rev() {
        if chunks[later - 1].last() > chunks[later].first() {
            let rest = chunks.remove(later);
            chunks[later - 1].pop();
            chunks[later - 1].extend(rest.into_iter().skip(1));
        }
    }
    // `None` is a hyphen between chunks.
    let mut members: Vec<Option<char>> = Vec::new();
    for (index, chunk) in chunks.into_iter().enumerate() {
        members.extend((index > 0).then_some(None));
        members.extend(chunk.into_iter().map(Some));
    }

    let negated = members.first() == Some(&Some('!'));
    if negated {
        members.remove(0);
        if members.is_empty() {
            return Token::One;
        }
    }
    let mut ranges = Vec::new();
    let mut rest = members.as_slice();
    loop {
        rest = match rest {
            [] => break,
            [Some(low), None, Some(high), rest @ ..] => {
                ranges.push(u32::from(*low)..=u32::from(*high));
                rest
            }
            // A hyphen that lost its left end to a reversed range is itself.
            [one, rest @ ..] => {
                let c = u32::from(one.unwrap_or('-'));
                ranges.push(c..=c);
                rest
            }
        }
    }
    Token::Class { negated, ranges }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
