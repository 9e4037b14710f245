//! What mqtt2kafka does, by the real binary.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod settings;
