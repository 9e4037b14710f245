//! Whether a JSON value comes back as it was from a destination that keeps the parsed value. It looks at each number
//! and each name once, while the grammar is gone through, and remembers the names of the objects that are open.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::json::{Rules, unescaped};

/// Up to so many names are kept without allocating, and comparing each with each costs less than sorting them.
const FEW: usize = 16;

/// Rules for one value.
pub(super) struct KeptParsed<'a> {
    /// Whether the order of members is content.
    ordered: bool,
    /// Names of the objects that are open, the innermost last; of each, where members must be in order, only the one
    /// that came last.
    names: SmallVec<[Name<'a>; FEW]>,
}

struct Name<'a> {
    /// Of its object.
    depth: u32,
    /// Its last eight bytes: names that differ mostly differ here, and this is compared at once.
    ending: u64,
    /// Unescaped.
    text: Cow<'a, [u8]>,
}

impl<'a> Name<'a> {
    fn new(depth: u32, text: Cow<'a, [u8]>) -> Self {
        let ending = match text.last_chunk() {
            Some(ending) => u64::from_le_bytes(*ending),
            None => text.iter().fold(0, |ending, byte| ending << 8 | u64::from(*byte)),
        };
        Self { depth, ending, text }
    }

    fn is(&self, other: &Self) -> bool {
        self.ending == other.ending && self.text == other.text
    }
}

impl KeptParsed<'_> {
    pub(super) fn new(ordered: bool) -> Self {
        Self { ordered, names: SmallVec::new() }
    }
}

impl<'a> Rules<'a> for KeptParsed<'a> {
    const NUL: bool = false;

    /// Digits, and zeros at the end, are kept; exponents are not, and zero has no sign.
    fn number(&mut self, text: &'a [u8]) -> bool {
        let is_exact = |byte: &u8| !matches!(byte, b'e' | b'E');
        let is_negative_zero = || text[0] == b'-' && !text.iter().any(|byte| matches!(byte, b'1'..=b'9'));
        text.iter().all(is_exact) && !is_negative_zero()
    }

    fn name(&mut self, depth: u32, quoted: &'a [u8]) -> bool {
        let Some(text) = unescaped(quoted) else { return false };
        match self.names.last_mut().filter(|last| self.ordered && last.depth == depth) {
            // What is in order does not repeat.
            Some(last) if printed_order(&last.text, &text).is_ge() => return false,
            Some(last) => *last = Name::new(depth, text),
            None => self.names.push(Name::new(depth, text)),
        }
        true
    }

    fn close(&mut self, depth: u32) -> bool {
        let from = self.names.iter().rposition(|name| name.depth != depth).map_or(0, |before| before + 1);
        let distinct = all_distinct(&mut self.names[from..]);
        self.names.truncate(from);
        distinct
    }
}

fn all_distinct(names: &mut [Name<'_>]) -> bool {
    if names.len() <= FEW {
        let is_new = |at: usize| !names[..at].iter().any(|name| name.is(&names[at]));
        return (1..names.len()).all(is_new);
    }
    names.sort_unstable_by(|one, other| printed_order(&one.text, &other.text));
    !names.windows(2).any(|pair| pair[0].is(&pair[1]))
}

/// In which order members are printed, by their names: that of `jsonb`, which its documentation says not to rely on,
/// and which has been the order in its files since there is one (`lengthCompareJsonbString`).
pub(super) fn printed_order(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
