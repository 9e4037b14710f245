//! Reads the text of an `env.conf`: `KEY=VALUE` lines, comments and quotes. Pure: bytes in, entries and every
//! error out. It knows no setting and no file system, and expands or unescapes nothing: `$` and `\` are literal.

/// One `KEY=VALUE` that counts: of a repeated key, the last.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// A line that is no `KEY=VALUE`. What it holds is not repeated: it may be part of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    /// The key, where the line got that far.
    pub(super) key: Option<String>,
    pub(super) rule: &'static str,
}

/// A key that stands in the file twice: the line that was dropped and the one that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    pub(super) key: String,
    pub(super) dropped: usize,
    pub(super) kept: usize,
}

/// All that one file says, in the order of its lines.
#[derive(Default)]
pub(super) struct EnvFile {
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<SyntaxError>,
    pub(super) repeated: Vec<Repeated>,
}

/// Reads a whole file. Errors are collected; the good lines around them still count, so that one run of the
/// program reports everything.
pub(super) fn parse(bytes: &[u8]) -> EnvFile {
    let mut file = EnvFile::default();
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        file.errors.push(SyntaxError { line: 1, key: None, rule: "the file is UTF-16; save it as UTF-8" });
        return file;
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((key, value))) => keep(&mut file, Entry { key, value, line: index + 1 }),
            Err((key, rule)) => file.errors.push(SyntaxError { line: index + 1, key, rule }),
        }
    }
    file
}

/// The last of a repeated key wins.
fn keep(file: &mut EnvFile, entry: Entry) {
    match file.entries.iter().position(|earlier| earlier.key == entry.key) {
        Some(at) => {
            let dropped = file.entries.remove(at).line;
            file.repeated.push(Repeated { key: entry.key.clone(), dropped, kept: entry.line });
            file.entries.push(entry);
        }
        None => file.entries.push(entry),
    }
}

const BLANK: [char; 2] = [' ', '\t'];

type LineError = (Option<String>, &'static str);

/// One line without its end: nothing (blank or comment), or key and value.
fn parse_line(line: &[u8]) -> Result<Option<(String, String)>, LineError> {
    // The key is named even where the value is not text.
    let text = std::str::from_utf8(line).map_err(|_| {
        let before = line.split(|byte| *byte == b'=').next().unwrap_or_default();
        let key = std::str::from_utf8(before).ok().and_then(key_of);
        (key.filter(|_| before.len() < line.len()), "the line is not UTF-8")
    })?;
    let text = text.trim_matches(BLANK);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let Some((before, after)) = text.split_once('=') else {
        return Err((None, "expected KEY=VALUE, a comment or an empty line; a value cannot span lines"));
    };
    let Some(key) = key_of(before) else {
        return Err((None, "before = stands a name of letters, digits and _"));
    };
    match value_of(after) {
        Ok(value) => Ok(Some((key, value))),
        Err(rule) => Err((Some(key), rule)),
    }
}

fn key_of(text: &str) -> Option<String> {
    let text = text.trim_matches(BLANK);
    let key = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(BLANK) => rest.trim_start_matches(BLANK),
        _ => text,
    };
    let named = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (named && !key.is_empty() && !key.as_bytes()[0].is_ascii_digit()).then(|| key.to_owned())
}

/// What follows `=`. A quoted value ends at its own quote, and only a comment may follow; an unquoted one ends
/// at white space with `#` behind it, so that `pa#ss` is a password and `0 # the default` is `0`.
fn value_of(text: &str) -> Result<String, &'static str> {
    let value = text.trim_start_matches(BLANK);
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (inside, rest) = value[1..].split_once(quote).ok_or(
                "the closing quote is missing; a value that holds one kind of quote is written in the other",
            )?;
            if !comment_starts(rest).is_some_and(|at| rest[..at].trim_matches(BLANK).is_empty()) {
                return Err("after the closing quote only a comment may follow, set off by a blank");
            }
            inside
        }
        _ => text[..comment_starts(text).unwrap_or(text.len())].trim_matches(BLANK),
    };
    if value.contains('\0') {
        return Err("the value holds a NUL character");
    }
    Ok(value.to_owned())
}

/// Where white space followed by `#` begins; the end of the text where only blanks are left.
fn comment_starts(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let comment = (1..bytes.len()).find(|at| bytes[*at] == b'#' && matches!(bytes[at - 1], b' ' | b'\t'));
    match comment {
        Some(at) => Some(at - 1),
        None => text.trim_matches(BLANK).is_empty().then_some(text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Result<(String, String), &'static str> {
        let file = parse(line.as_bytes());
        match (file.entries.as_slice(), file.errors.as_slice()) {
            ([entry], []) => Ok((entry.key.clone(), entry.value.clone())),
            ([], [error]) => Err(error.rule),
            (entries, errors) => panic!("{} entries and {errors:?}", entries.len()),
        }
    }

    #[test]
    fn values() {
        let check =
            |line: &str, value: &str| assert_eq!(one(line), Ok(("K".into(), value.into())), "{line:?}");
        check("K=v", "v");
        check("K=", "");
        check("K=   ", "");
        check("  K = v  ", "v");
        check("export K=v", "v");
        check("export\tK=v", "v");
        check("K=v\r", "v");
        check("\u{feff}K=v", "v");
        check("K=0 # Default DB", "0");
        check("K=0\t# Default DB", "0");
        check("K=                 # Local Redis password (if any)", "");
        check("K=# literal", "# literal");
        check("K=pa$$w#rd", "pa$$w#rd");
        check("K=#secret", "#secret");
        check("K=a=b==", "a=b==");
        check(r"K=C:\new", r"C:\new");
        check("K=${HOME}", "${HOME}");
        check("K=%(asctime)s - %(name)s - %(message)s", "%(asctime)s - %(name)s - %(message)s");
        check("K=\"0-15\"    # For discovery", "0-15");
        check("K=\"a # b\"", "a # b");
        check("K=' spaced '", " spaced ");
        check("K=''", "");
        check("K=\"it's\"", "it's");
        check(r#"K='{"a": "b #c"}' # JSON"#, r#"{"a": "b #c"}"#);
        check("K=it's", "it's");
        check("K=5 # it's 5", "5");
    }

    #[test]
    fn no_values() {
        let check = |line: &str, part: &str| {
            let rule = one(line).expect_err(line);
            assert!(rule.contains(part), "{line:?}: {rule}");
        };
        check("just words", "expected KEY=VALUE");
        check("=v", "a name");
        check("A B=v", "a name");
        check("1A=v", "a name");
        check("export K", "expected KEY=VALUE");
        check("K=\"open", "closing quote is missing");
        check(r#"K="a\"b""#, "only a comment may follow");
        check("K='a'#b", "only a comment may follow");
        check("K='a' b", "only a comment may follow");
        check("K='a' b # c", "only a comment may follow");
        check("K=a\0b", "NUL");
    }

    #[test]
    fn whole_files() {
        let file = parse(b"# comment\r\n\r\nA=1\r\n  # B=2\r\nA=3\r\nbad\r\nC=\xff\r\n\xff\r\nD=4");
        let entries: Vec<_> =
            file.entries.iter().map(|e| (e.key.as_str(), e.value.as_str(), e.line)).collect();
        assert_eq!(entries, [("A", "3", 5), ("D", "4", 9)]);
        assert_eq!(file.repeated, [Repeated { key: "A".into(), dropped: 3, kept: 5 }]);
        let errors: Vec<_> = file.errors.iter().map(|e| (e.line, e.key.as_deref())).collect();
        assert_eq!(errors, [(6, None), (7, Some("C")), (8, None)]);

        assert!(parse(b"").entries.is_empty());
        assert_eq!(parse(b"\xff\xfeA\0=\0").errors.len(), 1);
    }

    proptest! {
        #[test]
        fn quoted_values_come_back(value in "[^\n\0]*", double: bool) {
            let quote = if double { '"' } else { '\'' };
            prop_assume!(!value.contains(quote));
            prop_assert_eq!(one(&format!("K={quote}{value}{quote} # c")), Ok(("K".into(), value)));
        }

        #[test]
        fn plain_values_come_back(value in "[^\n\0]*") {
            let bare = value.trim_matches([' ', '\t', '\r']) == value
                && !value.starts_with(['"', '\''])
                && !value.contains(" #")
                && !value.contains("\t#");
            prop_assume!(bare);
            prop_assert_eq!(one(&format!("K={value}")), Ok(("K".into(), value.clone())));
            prop_assert_eq!(one(&format!("export K={value} # c\r")), Ok(("K".into(), value)));
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
