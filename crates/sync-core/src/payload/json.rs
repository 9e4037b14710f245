//! The JSON grammar, RFC 8259: writing a string, and telling whether a text is a value that may be embedded.
//! It owns no tree and recurses nowhere, so that no input costs more than one pass or overflows the stack.

use std::borrow::Cow;

use super::{BASE64_KEY, FIELDS_KEY};

/// How deep an embedded value may nest. Every parser known to us accepts 64 levels in all (.NET's limit;
/// serde_json's is 128), and the text around a value takes up to four: message, `data`, `$fields`, pair.
pub const MAX_DEPTH: u32 = 60;

/// How long an embedded number may be, in characters: Jackson refuses more, and Python beyond 4,300 digits.
pub const MAX_NUMBER: usize = 1000;

/// Appends a text as a JSON string with its quotes. Only what RFC 8259 §7 demands is escaped: `"`, `\` and
/// U+0000 to U+001F.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (plain, special) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let [byte, after @ ..] = special else { break };
        match ESCAPES[usize::from(*byte)] {
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            short => out.extend_from_slice(&[b'\\', short]),
        }
        rest = after;
    }
    out.push(b'"');
}

/// What follows the backslash, by byte; 0 where a byte needs none.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// How many bytes come before the first that a JSON string must escape. Eight are tried at a time.
fn plain_length(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let special = tail.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0);
    words.len() * 8 + special.unwrap_or(tail.len())
}

/// Sets the high bit of the lowest byte that is below 0x20, `"` or `\`; zero if there is none. Bits above the
/// lowest mark mean nothing, since a subtraction may have borrowed from there.
const fn special_marks(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    const fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(ONES * limit) & !word
    }
    (below(word, 0x20) | below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1))
        & HIGH
}

/// What a destination asks of a value beyond the grammar. Each says whether the value may still be embedded.
pub(super) trait Rules<'a> {
    /// Whether U+0000 may be in a string, escaped.
    const NUL: bool;

    /// A number, at any depth.
    fn number(&mut self, text: &'a [u8]) -> bool;

    /// A member's name, with its quotes, in an object that is open at this depth.
    fn name(&mut self, depth: u32, quoted: &'a [u8]) -> bool;

    /// The object that is open at this depth ends.
    fn close(&mut self, depth: u32) -> bool;
}

/// Nothing: the destination keeps the text.
pub(super) struct KeptAsText;

impl Rules<'_> for KeptAsText {
    const NUL: bool = true;

    fn number(&mut self, _: &[u8]) -> bool {
        true
    }

    fn name(&mut self, _: u32, _: &[u8]) -> bool {
        true
    }

    fn close(&mut self, _: u32) -> bool {
        true
    }
}

/// Whether the whole text is one JSON number, boolean, object or array that every parser accepts, that none
/// would take for ours, and that the destination's rules let pass: the module's page has the list.
pub(super) fn is_embeddable<'a, R: Rules<'a>>(text: &'a str, rules: &mut R) -> bool {
    let text = text.as_bytes();
    match text.first() {
        Some(b'{' | b'[') => is_container(text, rules),
        Some(b'-' | b'0'..=b'9') => number(text, 0) == Some(text.len()) && rules.number(text),
        Some(b't' | b'f') => matches!(text, b"true" | b"false"),
        _ => false,
    }
}

/// What may come next inside a container.
#[derive(Clone, Copy)]
enum Next {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    CommaOrEnd,
}

/// Whether a text that begins with `{` or `[` ends where that closes.
fn is_container<'a, R: Rules<'a>>(text: &'a [u8], rules: &mut R) -> bool {
    // One bit per open container, the innermost lowest: 1 is an object. MAX_DEPTH of them fit.
    let mut objects: u64 = 0;
    let mut depth = 0;
    let mut at = 0;
    let mut next = Next::Value;
    while let Some(&byte) = text.get(at) {
        let in_object = objects & 1 == 1;
        match (next, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => at += 1,
            (Next::Value | Next::ValueOrEnd, b'{' | b'[') => {
                if depth == MAX_DEPTH {
                    return false;
                }
                depth += 1;
                objects = objects << 1 | u64::from(byte == b'{');
                next = if byte == b'{' { Next::NameOrEnd } else { Next::ValueOrEnd };
                at += 1;
            }
            (Next::NameOrEnd | Next::CommaOrEnd, b'}') if in_object => {
                if !rules.close(depth) {
                    return false;
                }
                (depth, objects, next, at) = (depth - 1, objects >> 1, Next::CommaOrEnd, at + 1);
            }
            (Next::ValueOrEnd | Next::CommaOrEnd, b']') if !in_object => {
                (depth, objects, next, at) = (depth - 1, objects >> 1, Next::CommaOrEnd, at + 1);
            }
            (Next::CommaOrEnd, b',') => {
                next = if in_object { Next::Name } else { Next::Value };
                at += 1;
            }
            (Next::Name | Next::NameOrEnd, b'"') => {
                let Some(end) = string(text, at, R::NUL) else { return false };
                let name = &text[at..end];
                if (depth == 1 && is_ours(name)) || !rules.name(depth, name) {
                    return false;
                }
                let Some(colon) = after_colon(text, end) else { return false };
                (next, at) = (Next::Value, colon);
            }
            (Next::Value | Next::ValueOrEnd, _) => {
                let Some(end) = scalar(text, at, R::NUL) else { return false };
                if matches!(byte, b'-' | b'0'..=b'9') && !rules.number(&text[at..end]) {
                    return false;
                }
                (next, at) = (Next::CommaOrEnd, end);
            }
            _ => return false,
        }
        if depth == 0 {
            return at == text.len();
        }
    }
    false
}

/// Whether a member's name, given with its quotes, is one of ours under any spelling (`"\u0024base64"`).
fn is_ours(quoted: &[u8]) -> bool {
    unescaped(quoted).is_none_or(|name| *name == *BASE64_KEY.as_bytes() || *name == *FIELDS_KEY.as_bytes())
}

/// What a string of JSON, given with its quotes, is.
pub(super) fn unescaped(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    if quoted.contains(&b'\\') {
        return serde_json::from_slice::<String>(quoted).ok().map(|text| Cow::Owned(text.into_bytes()));
    }
    Some(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
}

/// Past the colon that follows a name.
fn after_colon(text: &[u8], at: usize) -> Option<usize> {
    let gap = text[at..].iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
    (text[at + gap] == b':').then_some(at + gap + 1)
}

/// The end of the string, number or literal that begins at `at`.
fn scalar(text: &[u8], at: usize, nul: bool) -> Option<usize> {
    let literal = |word: &[u8]| text[at..].starts_with(word).then_some(at + word.len());
    match text[at] {
        b'"' => string(text, at, nul),
        b't' => literal(b"true"),
        b'f' => literal(b"false"),
        b'n' => literal(b"null"),
        _ => number(text, at),
    }
}

/// RFC 8259 §7, from quote to quote. `nul`: whether U+0000 may be there, escaped.
fn string(text: &[u8], at: usize, nul: bool) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += plain_length(&text[at..]);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape(text, at, nul)?,
            _ => return None,
        }
    }
}

/// The end of the escape whose backslash is at `at`; of both halves where it takes two (§8.2: one alone is no
/// Unicode text, and what parsers do with it is unpredictable).
fn escape(text: &[u8], at: usize, nul: bool) -> Option<usize> {
    match text.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => match hex(text, at + 2)? {
            0xd800..=0xdbff => {
                let second = text[at + 6..].starts_with(b"\\u").then(|| hex(text, at + 8))??;
                (0xdc00..=0xdfff).contains(&second).then_some(at + 12)
            }
            0xdc00..=0xdfff => None,
            0 if !nul => None,
            _ => Some(at + 6),
        },
        _ => None,
    }
}

fn hex(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |sum, &digit| Some(sum << 4 | char::from(digit).to_digit(16)?))
}

/// RFC 8259 §6, and not too long.
fn number(text: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| {
        let count = text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let mut end = at;
    if text[end] == b'-' {
        end += 1;
    }
    end = if text.get(end) == Some(&b'0') { end + 1 } else { digits(end)? };
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        end += 1;
        if let Some(b'+' | b'-') = text.get(end) {
            end += 1;
        }
        end = digits(end)?;
    }
    (end - at <= MAX_NUMBER).then_some(end)
}
