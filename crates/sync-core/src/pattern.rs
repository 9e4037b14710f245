//! Stream name patterns.

/// A glob as Python's `fnmatch` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}
