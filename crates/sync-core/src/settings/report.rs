//! What comes out of loading: the settings, or every mistake at once; warnings; and for `check` each effective
//! value with its origin. Values are masked before they get here.

use std::borrow::Cow;
use std::fmt;

/// Settings that obey their rules.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The typed settings.
    pub settings: T,
    /// What a person should look at though it works: for the log, at WARN.
    pub warnings: Vec<String>,
    /// Every setting of the bridge, in the order of its tables: what `check` prints.
    pub effective: Vec<Effective>,
}

/// One setting as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Canonical name.
    pub name: Cow<'static, str>,
    /// As written, `***` for a secret; empty if it is not set and has no default.
    pub value: String,
    /// `default`, `command line`, `environment`, `file ./env.conf line 12`, …
    pub origin: String,
}

/// One value that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key as the user spelled it; empty where a line of the file has none.
    pub key: String,
    /// The value as far as it may be shown; `None` where there is none to show.
    pub value: Option<String>,
    /// Where it stands, as in [`Effective::origin`].
    pub origin: String,
    /// What is asked for.
    pub rule: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, rule } = self;
        match value {
            Some(value) => write!(f, "{key}={value} ({origin}) {rule}"),
            None if key.is_empty() => write!(f, "{origin}: {rule}"),
            None => write!(f, "{key} ({origin}): {rule}"),
        }
    }
}

/// All that is wrong with the settings: one line for each mistake and one for their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The program's name.
    pub bridge: &'static str,
    /// Never empty.
    pub mistakes: Vec<Mistake>,
    /// Warnings found on the way; they often explain a mistake.
    pub warnings: Vec<String>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            writeln!(f, "{mistake}")?;
        }
        let number = self.mistakes.len();
        write!(f, "{number} mistake{} in the settings of {}", if number == 1 { "" } else { "s" }, self.bridge)
    }
}

impl std::error::Error for Mistakes {}

/// What is noted on the way.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl Notes {
    pub(super) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}
