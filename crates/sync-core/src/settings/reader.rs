//! Turns the layered texts into typed values: every setting by its rule, all mistakes collected. The rules
//! themselves are in [`super::rules`]; the settings a bridge has are in its [`Bridge`].

use super::layers::{DEFAULT, Inputs, Stack, Written, over_defaults, stack};
use super::report::{Effective, Loaded, Mistake, Mistakes, Notes};
use super::table::{Bridge, Setting, in_unit_of};

/// Loads a bridge's settings. `read` asks the reader for every value and builds the settings; it is also called
/// when a file is broken, so that one run reports everything. For a reload call this again with the same inputs.
pub fn load<T>(
    bridge: &'static Bridge,
    inputs: &Inputs,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<Loaded<T>, Mistakes> {
    let mut notes = Notes::default();
    let stack = stack(bridge, inputs, &mut notes);
    load_stack(bridge, inputs, stack, notes, read)
}

/// What a bridge with another kind of settings file has found there: each setting's value that counts, by its canonical
/// name, and what was wrong on the way.
#[derive(Default)]
pub struct Gathered {
    /// A setting that nobody wrote is absent; its default counts then.
    pub values: Vec<(&'static str, Written)>,
    /// Found on the way; settings are not loaded then, and all else is looked at nevertheless.
    pub mistakes: Vec<Mistake>,
    /// Found on the way.
    pub warnings: Vec<String>,
}

/// As [`load`], with values that are found already.
pub fn load_gathered<T>(
    bridge: &'static Bridge,
    inputs: &Inputs,
    gathered: Gathered,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<Loaded<T>, Mistakes> {
    let Gathered { values, mistakes, warnings } = gathered;
    load_stack(bridge, inputs, over_defaults(bridge, vec![values]), Notes { mistakes, warnings }, read)
}

fn load_stack<T>(
    bridge: &'static Bridge,
    inputs: &Inputs,
    stack: Stack,
    notes: Notes,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<Loaded<T>, Mistakes> {
    let host = host_name(inputs);
    let mut reader = Reader { bridge, stack, notes, host, replaced: Vec::new() };
    let settings = read(&mut reader);
    let effective = reader.effective();
    let Notes { mistakes, warnings } = reader.notes;
    match mistakes.is_empty() {
        true => Ok(Loaded { settings, warnings, effective }),
        false => Err(Mistakes { bridge: bridge.name, mistakes, warnings }),
    }
}

/// A value on its way to its rule.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The setting it was written for.
    pub setting: &'a Setting,
    /// The spelling used.
    pub key: &'a str,
    /// The value, never empty unless [`Setting::empty_counts`].
    pub text: &'a str,
}

/// Hands out typed values and collects what is wrong with them.
///
/// A value that breaks its rule is noted and replaced by the default, so that reading goes on; settings built
/// with a mistake noted never leave [`load`].
pub struct Reader {
    bridge: &'static Bridge,
    stack: Stack,
    notes: Notes,
    host: String,
    replaced: Vec<Effective>,
}

impl Reader {
    /// The value of a setting that has a default.
    pub fn value<T>(&mut self, setting: &Setting, rule: impl Fn(&Given<'_>) -> Result<T, String>) -> T {
        self.optional(setting, &rule).unwrap_or_else(|| {
            let text = self.bridge.default_of(setting).expect("a setting read with `value` has a default");
            rule(&Given { setting, key: setting.name, text }).expect("a default obeys its rule")
        })
    }

    /// The value of a setting that may be unset.
    pub fn optional<T>(
        &mut self,
        setting: &Setting,
        rule: impl Fn(&Given<'_>) -> Result<T, String>,
    ) -> Option<T> {
        debug_assert!(self.has(setting), "{} is in no group", setting.name);
        let Written { key, value, .. } = self.stack.get(setting)?;
        match rule(&Given { setting, key: &key, text: &value }) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.mistake(setting, rule);
                None
            }
        }
    }

    /// Whether it is a setting of this bridge.
    pub fn has(&self, setting: &Setting) -> bool {
        self.bridge.settings().any(|known| known.name == setting.name)
    }

    /// Whether somebody wrote it: on the command line, in the environment or in the file.
    pub fn is_set(&self, setting: &Setting) -> bool {
        self.stack.get(setting).is_some_and(|written| written.origin != DEFAULT)
    }

    /// Whether somebody wrote it and it obeys its own rule (once it was read): what a rule over several settings
    /// may build on.
    pub fn is_good(&self, setting: &Setting) -> bool {
        let written = self.stack.get(setting).filter(|written| written.origin != DEFAULT);
        written.is_some_and(|written| {
            !self
                .notes
                .mistakes
                .iter()
                .any(|mistake| (&mistake.key, &mistake.origin) == (&written.key, &written.origin))
        })
    }

    /// The spelling and origin of what somebody wrote, or the spelling to write, for a message.
    pub fn named(&self, setting: &Setting) -> String {
        match self.stack.get(setting) {
            Some(written) => format!("{} ({})", written.key, written.origin),
            None => self.bridge.spellings_of(setting).swap_remove(0).to_owned(),
        }
    }

    /// Notes a mistake that only shows together with other settings.
    pub fn mistake(&mut self, setting: &Setting, rule: impl Into<String>) {
        let (key, value, origin) = match self.stack.get(setting) {
            Some(written) => (written.key, setting.shown(&written.value), written.origin),
            None => (setting.name.to_owned(), String::new(), "not set".to_owned()),
        };
        self.notes.mistake(Mistake { key, value: Some(value), origin, rule: rule.into() });
    }

    /// Notes a mistake in a part of a value, with a place of its own.
    pub fn mistake_in(&mut self, mistake: Mistake) {
        self.notes.mistake(mistake);
    }

    /// Notes what a person should look at though it works. The text must hold no secret.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.notes.warn(warning.into());
    }

    /// Has `check` show this for a setting whose effective value follows from others.
    pub fn replace(&mut self, name: &'static str, value: impl Into<String>, origin: impl Into<String>) {
        self.replaced.push(Effective { name: name.into(), value: value.into(), origin: origin.into() });
    }

    /// The host that this process runs on.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn effective(&self) -> Vec<Effective> {
        let effective = |setting: &'static Setting| {
            if let Some(replaced) = self.replaced.iter().rev().find(|replaced| replaced.name == setting.name)
            {
                return replaced.clone();
            }
            match self.stack.get(setting) {
                Some(written) => Effective {
                    name: setting.name.into(),
                    value: in_unit_of(setting.name, &written.key, &setting.shown(&written.value)),
                    origin: written.origin,
                },
                None => {
                    Effective { name: setting.name.into(), value: String::new(), origin: DEFAULT.to_owned() }
                }
            }
        };
        self.bridge.settings().map(effective).collect()
    }
}

/// The kernel's word first: in a container it is the container's own.
fn host_name(inputs: &Inputs) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let names = [kernel.trim(), inputs.variable("HOSTNAME").unwrap_or_default().trim()];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or("unknown-host").to_owned()
}
