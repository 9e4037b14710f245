//! Settings: from the command line, the environment, `env.conf` and defaults to typed values, with every mistake
//! reported at once.
//!
//! A bridge declares its table ([`Bridge`]: shared groups and its own), and calls [`load`] with a function that
//! asks a [`Reader`] for each value. [`Inputs`] is what the process was started with; loading again with the
//! same inputs re-reads the files, as on SIGHUP.
//!
//! ```text
//! env_file ─┐
//! Inputs ───┴→ layers (which spelling, secrets from files; `config` lays them over one another; unknown keys)
//!              → Reader + rules → typed settings (source, general, a bridge's own)
//!              → report: Loaded with warnings and effective values, or Mistakes
//! ```
//!
//! No setting is read from the process environment anywhere else, and no secret leaves in a message.

use std::fmt;

mod connection;
mod env_file;
mod general;
mod layers;
mod reader;
mod report;
pub mod rules;
pub mod shared;
mod source;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod unknown;

pub use connection::TlsTable;
pub use general::*;
pub use layers::{Inputs, Written, read, read_secret};
pub use reader::{Gathered, Given, Reader, load, load_gathered};
pub use report::{Effective, Loaded, Mistake, Mistakes};
pub use source::*;
pub use table::{Bridge, Group, Setting, Show, wrap};
pub use unknown::{is_injected, nearest_of};

/// Text that never shows in a log, an error, a metric or a page: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the connection that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(table::MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(table::MASK)
    }
}
