//! What a setting is, declared once: name, aliases, default, meaning. Reading, `--help`, `check` and the search
//! for misspelt keys all go by these tables. Nothing here holds a value.

/// One setting, as a line of a bridge's table.
#[derive(Debug)]
pub struct Setting {
    /// The canonical name.
    pub name: &'static str,
    /// Other spellings. One that ends in `_MS` counts milliseconds where the setting counts seconds.
    pub aliases: &'static [&'static str],
    /// As it would be written; a bridge may have its own, see [`Bridge::defaults`].
    pub default: Option<&'static str>,
    /// Meaning, unit and rule, for `--help`.
    pub help: &'static str,
    /// How much of its value a person may see.
    pub show: Show,
    /// An empty value says something (elsewhere it is as if the setting were not written).
    pub empty_counts: bool,
}

/// How much of a value a report, a log or `check` may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// All of it, but for what stands before `@` in something like a URL.
    Plain,
    /// As `Plain`, and what stands before `@` is hidden without a scheme too: people paste `user:password@host`.
    Host,
    /// Scheme, host and path of a URL, `***` for anything else. The setting may also be given as `<NAME>_FILE`.
    Url,
    /// Nothing, `***`. The setting may also be given as `<NAME>_FILE`.
    Never,
}

impl Setting {
    /// A setting without aliases and default, shown as it is.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, aliases: &[], default: None, help, show: Show::Plain, empty_counts: false }
    }

    /// With other spellings.
    pub const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// With a default.
    pub const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// With another rule for who may see its value.
    pub const fn show(self, show: Show) -> Self {
        Self { show, ..self }
    }

    /// A secret: never shown, and also read from the file that `<NAME>_FILE` names.
    pub const fn secret(self) -> Self {
        self.show(Show::Never)
    }

    /// An empty value says something.
    pub const fn empty_counts(self) -> Self {
        Self { empty_counts: true, ..self }
    }

    /// Whether `<NAME>_FILE` exists.
    pub fn is_secret(&self) -> bool {
        matches!(self.show, Show::Never | Show::Url)
    }

    /// Every spelling, the canonical one first.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// What a person may see of a value, on one line of bounded length.
    pub(super) fn shown(&self, value: &str) -> String {
        let value = match self.show {
            _ if value.is_empty() => return String::new(),
            Show::Never => return MASK.to_owned(),
            Show::Url if !value.contains("://") => return MASK.to_owned(),
            Show::Host if !value.contains("://") => match value.rsplit_once('@') {
                Some((_, host)) => format!("{MASK}@{host}"),
                None => value.to_owned(),
            },
            _ => mask_url(value),
        };
        const LONGEST: usize = 200;
        let mut line: String = value.chars().take(LONGEST).flat_map(escape_control).collect();
        if value.chars().nth(LONGEST).is_some() {
            line.push('…');
        }
        line
    }
}

pub(super) const MASK: &str = "***";

/// `scheme://user:password@host` → `scheme://***@host`. A query may hold passwords and a password may hold `?`,
/// so with a query only the scheme is left.
fn mask_url(value: &str) -> String {
    match value.split_once("://") {
        Some((scheme, rest)) if rest.contains('?') => format!("{scheme}://{MASK}"),
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{MASK}@{host}"),
            None => value.to_owned(),
        },
        None => value.to_owned(),
    }
}

fn escape_control(c: char) -> impl Iterator<Item = char> {
    let (control, plain) = if c.is_control() { (Some(c.escape_debug()), None) } else { (None, Some(c)) };
    control.into_iter().flatten().chain(plain)
}

/// A value written for the spelling `from`, as it would be written for `to`: they may differ in that one counts
/// milliseconds and the other seconds. What is no number comes back as it is.
pub(super) fn in_unit_of(to: &str, from: &str, value: &str) -> String {
    let scale = match (from.ends_with("_MS"), to.ends_with("_MS")) {
        (true, false) => 1e-3,
        (false, true) => 1e3,
        _ => return value.to_owned(),
    };
    value.parse::<f64>().map_or_else(|_| value.to_owned(), |number| (number * scale).to_string())
}

/// Settings that `--help` lists under one title.
#[derive(Debug)]
pub struct Group {
    /// The title.
    pub title: &'static str,
    /// In the order shown.
    pub settings: &'static [&'static Setting],
}

/// All settings of one bridge.
#[derive(Debug)]
pub struct Bridge {
    /// The program's name.
    pub name: &'static str,
    /// Every setting the bridge has; one that is in no group is unknown to it.
    pub groups: &'static [Group],
    /// (canonical name, default) where this bridge's default differs from the table's.
    pub defaults: &'static [(&'static str, &'static str)],
    /// The spellings of the bridge's own description: where two spellings of one setting are written in the same
    /// place, these win over the canonical name, and it over the other aliases.
    pub spellings: &'static [&'static str],
}

impl Bridge {
    /// Every setting, in the order of the groups.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.groups.iter().flat_map(|group| group.settings.iter().copied())
    }

    /// The setting's default in this bridge.
    pub fn default_of(&self, setting: &Setting) -> Option<&'static str> {
        let own = self.defaults.iter().find(|(name, _)| *name == setting.name);
        own.map(|(_, value)| *value).or(setting.default)
    }

    /// The setting's spellings, the strongest first.
    pub(super) fn spellings_of(&self, setting: &Setting) -> Vec<&'static str> {
        let mut spellings: Vec<_> = setting.spellings().collect();
        spellings.sort_by_key(|spelling| !self.spellings.contains(spelling));
        spellings
    }

    /// The settings part of `--help`: every setting with aliases, default and meaning, by group.
    pub fn help(&self) -> String {
        let mut text = format!(
            "Settings of {}. Each may stand in the file (KEY=VALUE; --config-file, else CONFIG_FILE,\n\
             else ./env.conf) or in the environment. The command line comes before the environment,\n\
             that before the file, and an empty value is as good as none. A setting marked _FILE is a\n\
             secret and may be read from the file that <NAME>_FILE names.\n",
            self.name
        );
        for group in self.groups {
            text += &format!("\n{}:\n", group.title);
            for setting in group.settings {
                let [spelling, others @ ..] = &*self.spellings_of(setting) else { continue };
                text += &format!("  {spelling}{}", if setting.is_secret() { "[_FILE]" } else { "" });
                if let Some(default) = self.default_of(setting) {
                    let default = in_unit_of(spelling, setting.name, default);
                    text += &format!(" [default: {default}]");
                }
                if !others.is_empty() {
                    text += &format!(" (or {})", others.join(", "));
                }
                text.push('\n');
                for line in wrap(setting.help, 92) {
                    text += &format!("      {line}\n");
                }
            }
        }
        text
    }
}

/// Words on lines of at most so many characters.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_seen() {
        let check = |show: Show, value: &str, shown: &str| {
            assert_eq!(Setting::new("X", "").show(show).shown(value), shown, "{value}");
        };
        check(Show::Never, "hunter2", "***");
        check(Show::Never, "", "");
        check(Show::Plain, "a@b", "a@b");
        check(Show::Plain, "redis://u:p@h:1/2", "redis://***@h:1/2");
        check(Show::Plain, "a\nb\u{1b}", "a\\nb\\u{1b}");
        check(Show::Plain, &"x".repeat(300), &("x".repeat(200) + "…"));
        check(Show::Host, "u:p@h", "***@h");
        check(Show::Host, "h", "h");
        check(Show::Url, "redis://h:1/2", "redis://h:1/2");
        check(Show::Url, "redis://u:p@ss@h:1/2", "redis://***@h:1/2");
        check(Show::Url, "redis-sentinel://h?sentinelPassword=a@b", "redis-sentinel://***");
        check(Show::Url, "hunter2", "***");
        check(Show::Url, "unix:///run/redis.sock", "unix:///run/redis.sock");
    }

    #[test]
    fn the_own_descriptions_spelling_comes_first() {
        static SETTING: Setting = Setting::new("A", "").aliases(&["B", "C"]);
        let bridge = Bridge { name: "test", groups: &[], defaults: &[("A", "2")], spellings: &["C"] };
        assert_eq!(bridge.spellings_of(&SETTING), ["C", "A", "B"]);
        assert_eq!(bridge.default_of(&SETTING), Some("2"));
    }
}
