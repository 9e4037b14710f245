//! The JSON grammar, RFC 8259, in one pass: whether a text is JSON, where the members are that are left out, and the one
//! that is read. It owns no tree, recurses nowhere and changes nothing: what it finds are places in the text.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use crate::attributes::{Member, ROOT, Wanted};

/// What a pass finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// What to leave out, in order and apart: members with the comma that goes with them.
    pub(crate) cuts: SmallVec<[Range<usize>; 4]>,
    /// The number or string that is read; the last one where its name repeats, as most parsers have it.
    pub(crate) read: Option<Range<usize>>,
}

impl Found {
    /// The text without the cuts.
    pub(crate) fn cut(&self, text: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(text.len());
        let mut from = 0;
        for cut in &self.cuts {
            kept.extend_from_slice(&text[from..cut.start]);
            from = cut.end;
        }
        kept.extend_from_slice(&text[from..]);
        kept
    }
}

/// Goes through the text. Nothing if it is not JSON: not UTF-8, or not one value, with white space around it at most.
/// What the grammar allows is JSON, however deep, long or repeated, and a lone `\ud800` as well (§8.2).
pub(crate) fn scan(text: &[u8], wanted: &Wanted) -> Option<Found> {
    std::str::from_utf8(text).ok()?;
    let mut pass = Pass {
        text,
        at: 0,
        depth: 0,
        objects: 0,
        outer: SmallVec::new(),
        wanted,
        member: None,
        followed: SmallVec::new(),
        leaving: SmallVec::new(),
        found: Found::default(),
    };
    pass.run()?;
    Some(pass.found)
}

struct Pass<'a> {
    text: &'a [u8],
    at: usize,
    /// How many containers are open.
    depth: usize,
    /// One bit for each of the innermost containers that are open, the innermost lowest: 1 is an object.
    objects: u64,
    /// The bits of those further out, 64 in each.
    outer: SmallVec<[u64; 2]>,
    wanted: &'a Wanted,
    /// What is looked for, where the value of such a member comes next.
    member: Option<&'a Member>,
    /// The open objects in which something is looked for, the innermost last.
    followed: SmallVec<[Object; 4]>,
    /// The members that are being left out and have not ended, the innermost last.
    leaving: SmallVec<[Leaving; 2]>,
    found: Found,
}

struct Object {
    depth: usize,
    node: usize,
    /// Where the comma before the current member is.
    comma: usize,
    /// Whether a member before the current one is kept.
    keeps: bool,
    /// Whether the last cut is at the front of it, so that the comma after that goes too.
    front: bool,
}

#[derive(Clone, Copy)]
struct Leaving {
    /// Of the object whose member it is.
    depth: usize,
    name: usize,
}

impl<'a> Pass<'a> {
    fn run(&mut self) -> Option<()> {
        loop {
            // A value comes next.
            self.skip_space();
            let start = self.at;
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    self.read(start);
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                    self.read(start);
                }
                b'{' => {
                    self.open(true);
                    self.skip_space();
                    if self.peek()? != b'}' {
                        self.name()?;
                        continue;
                    }
                    self.close();
                }
                b'[' => {
                    self.open(false);
                    self.skip_space();
                    if self.peek()? != b']' {
                        continue;
                    }
                    self.close();
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return None,
            }
            self.member = None;
            // A value has ended.
            loop {
                self.leave();
                self.skip_space();
                if self.depth == 0 {
                    return (self.at == self.text.len()).then_some(());
                }
                match (self.peek()?, self.objects & 1 == 1) {
                    (b',', true) => {
                        let comma = self.at;
                        if let Some(object) = self.current() {
                            object.comma = comma;
                        }
                        self.at += 1;
                        self.skip_space();
                        self.name()?;
                        break;
                    }
                    (b',', false) => {
                        self.at += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => self.close(),
                    _ => return None,
                }
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn open(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.objects);
        }
        self.objects = self.objects << 1 | u64::from(object);
        self.depth += 1;
        self.at += 1;
        let within = if self.depth == 1 { Some(ROOT) } else { self.member.map(|member| member.within) };
        // Only the payload itself is the root.
        let followed = within.filter(|&node| object && (node != ROOT || self.depth == 1));
        if let Some(node) = followed.filter(|_| !self.wanted.is_empty()) {
            self.followed.push(Object { depth: self.depth, node, comma: 0, keeps: false, front: false });
        }
        self.member = None;
    }

    fn close(&mut self) {
        if self.current().is_some() {
            self.followed.pop();
        }
        self.at += 1;
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(objects) = self.outer.pop()
        {
            self.objects = objects;
        }
    }

    /// The innermost open container, if something is looked for in it.
    fn current(&mut self) -> Option<&mut Object> {
        let depth = self.depth;
        self.followed.last_mut().filter(|object| object.depth == depth)
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek()? != b'"' {
            return None;
        }
        let escaped = self.string()?;
        let name = start..self.at;
        self.skip_space();
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        self.follow(name, escaped);
        Some(())
    }

    fn follow(&mut self, quoted: Range<usize>, escaped: bool) {
        let (text, wanted, depth) = (self.text, self.wanted, self.depth);
        let Some(object) = self.followed.last_mut().filter(|object| object.depth == depth) else { return };
        if object.front {
            object.front = false;
            if let Some(cut) = self.found.cuts.last_mut() {
                cut.end = quoted.start;
            }
        }
        let name = if escaped { unescaped(&text[quoted.clone()]) } else { None };
        let name = name.unwrap_or(Cow::Borrowed(&text[quoted.start + 1..quoted.end - 1]));
        self.member = wanted.find(object.node, &name);
        match self.member {
            Some(member) if member.removed => self.leaving.push(Leaving { depth, name: quoted.start }),
            _ => object.keeps = true,
        }
    }

    /// A number or a string has ended.
    fn read(&mut self, start: usize) {
        if self.member.is_some_and(|member| member.read) {
            self.found.read = Some(start..self.at);
        }
    }

    /// A value has ended: it is cut out if its member is left out.
    fn leave(&mut self) {
        let Some(&Leaving { depth, name }) = self.leaving.last() else { return };
        if depth != self.depth {
            return;
        }
        self.leaving.pop();
        let end = self.at;
        // What was left out within it goes with it.
        let within = self.found.cuts.iter().rev().take_while(|cut| cut.start > name).count();
        self.found.cuts.truncate(self.found.cuts.len() - within);
        let Some(object) = self.current() else { return };
        let start = if object.keeps { object.comma } else { name };
        object.front = !object.keeps;
        self.found.cuts.push(start..end);
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        let is_there = self.text[self.at..].starts_with(word);
        self.at += word.len();
        is_there.then_some(())
    }

    /// §7, from quote to quote. Tells whether anything is escaped in it.
    fn string(&mut self) -> Option<bool> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain_length(&self.text[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => escaped = true,
                _ => return None,
            }
            self.at += match self.text.get(self.at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                b'u' => {
                    let digits = self.text.get(self.at + 2..self.at + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    6
                }
                _ => return None,
            };
        }
    }

    /// §6.
    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// What a string of JSON, given with its quotes, is. Nothing where half of a surrogate pair stands alone: no path names it.
pub(crate) fn unescaped(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    serde_json::from_slice::<String>(quoted).ok().map(|text| Cow::Owned(text.into_bytes()))
}

/// How many bytes come before the first that means something in a string: `"`, `\`, or what must not stand there.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Sets the high bit of the lowest byte below the limit; what is above that bit means nothing.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let marks = (below(word, 0x20) | quote | backslash) & HIGH;
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let special = tail.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    words.len() * 8 + special.unwrap_or(tail.len())
}

#[cfg(test)]
mod tests;
