//! MQTT topic filters (MQTT 5.0 §4.7 and §4.8.2): which are valid, and which topics each matches. It owns the rules of
//! the standard and nothing of what is done with a match.

/// The longest UTF-8 string of MQTT, in bytes (§1.5.4).
const MAX_BYTES: usize = 65_535;

/// A valid filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// As it was written, `$share/group/` included.
    text: Box<str>,
    levels: Vec<Level>,
    /// Whether `#` follows the levels.
    any_below: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Is(Box<[u8]>),
    /// `+`
    Any,
}

/// What a filter's wildcards stood for, in the order written: of `+` one level, of `#` all that it stood for, which is
/// empty where it stood for nothing.
pub(crate) type Captures<'a> = Vec<&'a str>;

impl Filter {
    /// Reads a filter. The error says which rule it breaks, as "must …".
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("must be at most {MAX_BYTES} bytes long, not {}", text.len()));
        }
        if text.contains('\0') {
            return Err("must not hold the character U+0000".to_owned());
        }
        let matched = without_share(text)?;
        if matched.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let mut levels = Vec::new();
        let mut any_below = false;
        for level in matched.split('/') {
            if any_below {
                return Err("must end with its #, which stands for all levels below".to_owned());
            }
            match level {
                "#" => any_below = true,
                "+" => levels.push(Level::Any),
                _ => match level.chars().find(|c| matches!(c, '+' | '#')) {
                    Some(wildcard) => {
                        return Err(format!(
                            "must hold {wildcard} as a level of its own only, not as in {level:?}"
                        ));
                    }
                    None => levels.push(Level::Is(level.as_bytes().into())),
                },
            }
        }
        Ok(Self { text: text.into(), levels, any_below })
    }

    /// What to subscribe to: the filter as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// How many wildcards there are.
    pub(crate) fn wildcards(&self) -> usize {
        self.levels.iter().filter(|level| matches!(level, Level::Any)).count() + usize::from(self.any_below)
    }

    /// Whether it matches the name of a topic. A shared subscription matches by what follows its group.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.walk(topic, |_| ())
    }

    /// As [`Self::matches`], and tells what the wildcards stood for.
    pub(crate) fn captures<'a>(&self, topic: &'a str) -> Option<Captures<'a>> {
        let mut captures = Vec::new();
        self.walk(topic, |part| captures.push(part)).then_some(captures)
    }

    fn walk<'a>(&self, topic: &'a str, mut stood_for: impl FnMut(&'a str)) -> bool {
        // A wildcard at the start leaves out what is the server's own, $SYS for one [MQTT-4.7.2-1].
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Is(_))) {
            return false;
        }
        let mut rest = Some(topic);
        for level in &self.levels {
            let Some(text) = rest else { return false };
            let (here, below) = match text.bytes().position(|byte| byte == b'/') {
                Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
                None => (text, None),
            };
            match level {
                Level::Is(literal) if **literal != *here.as_bytes() => return false,
                Level::Is(_) => {}
                Level::Any => stood_for(here),
            }
            rest = below;
        }
        if self.any_below {
            // `a/#` matches `a` as well (§4.7.1.2).
            stood_for(rest.unwrap_or(""));
            return true;
        }
        rest.is_none()
    }
}

/// What a shared subscription, `$share/group/filter`, matches by; any other filter as it is.
fn without_share(text: &str) -> Result<&str, String> {
    let Some(shared) = text.strip_prefix("$share/") else { return Ok(text) };
    let Some((group, filter)) = shared.split_once('/') else {
        return Err("must have a filter behind the group, as in $share/group/filter".to_owned());
    };
    if group.is_empty() || group.contains(['+', '#']) {
        return Err("must name a group without wildcards, as in $share/group/filter".to_owned());
    }
    if filter.is_empty() {
        return Err("must have a filter behind the group, as in $share/group/filter".to_owned());
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_filter_matches() {
        let check = |filter: &str, topic: &str, matches: bool| {
            let compiled = Filter::new(filter).expect(filter);
            assert_eq!(compiled.matches(topic), matches, "{filter} {topic}");
            assert_eq!(compiled.captures(topic).is_some(), matches, "{filter} {topic}");
            let shared = Filter::new(&format!("$share/group/{filter}")).expect(filter);
            assert_eq!(shared.matches(topic), matches, "shared {filter} {topic}");
        };
        for (filter, topic) in [
            ("a", "a"),
            ("a/b", "a/b"),
            ("+", "a"),
            ("+", ""),
            ("+/+", "/"),
            ("/+", "/a"),
            ("/+", "/"),
            ("+/b", "a/b"),
            ("a/+", "a/"),
            ("a/+/c", "a//c"),
            ("#", "a"),
            ("#", "/"),
            ("#", "a/b/c"),
            ("a/#", "a"),
            ("a/#", "a/"),
            ("a/#", "a/b/c"),
            ("+/#", "a"),
            ("a.b/+", "a.b/c"),
            ("$SYS/#", "$SYS/broker/load"),
            ("$SYS/#", "$SYS"),
            ("$SYS/+", "$SYS/x"),
            ("a/+", "a/$x"),
            ("a/#", "a/$x/y"),
            ("ä/+", "ä/ö"),
            ("$share", "$share"),
        ] {
            check(filter, topic, true);
        }
        for (filter, topic) in [
            ("a", "b"),
            ("a", "a/b"),
            ("a", "a/"),
            ("a", "/a"),
            ("a", "A"),
            ("+", "a/b"),
            ("+", "/a"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("a/#", "ab"),
            ("a/#", "b/a"),
            ("a/b/#", "a"),
            ("a.b/+", "aXb/c"),
            ("a*/+", "ab/c"),
            ("#", "$SYS/x"),
            ("#", "$SYS"),
            ("+", "$SYS"),
            ("+/x", "$SYS/x"),
            ("+/#", "$SYS/x"),
            ("$SYS/+", "$SYS"),
        ] {
            check(filter, topic, false);
        }
    }

    #[test]
    fn what_the_wildcards_stood_for() {
        let check = |filter: &str, topic: &str, captures: &[&str]| {
            let filter = Filter::new(filter).expect(filter);
            assert_eq!(filter.captures(topic).as_deref(), Some(captures), "{topic}");
            assert_eq!(filter.wildcards(), captures.len());
        };
        check("a/b", "a/b", &[]);
        check("+/b/+", "a/b/c", &["a", "c"]);
        check("a/+/#", "a/b/c/d", &["b", "c/d"]);
        check("a/+/#", "a/b", &["b", ""]);
        check("$share/g/+/#", "a/b", &["a", "b"]);
    }

    #[test]
    fn what_is_no_filter_is_told_why() {
        let wrong = |filter: &str, words: &str| {
            let error = Filter::new(filter).expect_err(filter);
            assert!(error.contains(words), "{filter}: {error}");
        };
        wrong("", "must not be empty");
        wrong("a\0b", "U+0000");
        wrong(&"a".repeat(65_536), "at most 65535 bytes");
        wrong("a/#/b", "must end with its #");
        wrong("#/", "must end with its #");
        wrong("a#", "must hold # as a level of its own");
        wrong("a/b+/c", "must hold + as a level of its own only, not as in \"b+\"");
        wrong("++", "must hold + as a level");
        wrong("##", "must hold # as a level");
        wrong("$share/group", "a filter behind the group");
        wrong("$share/group/", "a filter behind the group");
        wrong("$share//a", "must name a group");
        wrong("$share/g+/a", "must name a group");
        wrong("$share/#", "a filter behind the group");
        assert_eq!(Filter::new("$share/g/a/#").expect("is one").as_str(), "$share/g/a/#");
        assert!(Filter::new(&"a".repeat(65_535)).is_ok());
    }
}
