//! The Python-style template of LOG_FORMAT: `%(asctime)s - %(name)s - %(levelname)s - %(message)s`.
//!
//! It knows the attributes of Python's `logging.LogRecord` that have a meaning here, and Python's flags, width
//! and precision. What it does not know is printed as it stands, so that a mistake shows and no line is lost.

use std::fmt::Write as _;
use std::path::Path;

use tracing::Level;

use super::format::{Line, escape};

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(String),
    Attribute { which: Attribute, left: bool, zeros: bool, width: usize, precision: Option<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Attribute {
    AscTime,
    Created,
    FileName,
    FuncName,
    LevelName,
    LevelNo,
    LineNo,
    Message,
    Module,
    Msecs,
    Name,
    PathName,
    Process,
    ThreadName,
}

impl Template {
    /// `None` when the text holds no attribute at all: it would print the same line for every event.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                literal.push('%');
                rest = after;
            } else if let Some((piece, after)) = attribute(rest) {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(piece);
                rest = after;
            } else {
                literal.push('%');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        if pieces.is_empty() {
            return None;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Some(Self(pieces))
    }

    /// Appends the line, without a line feed.
    pub(super) fn render(&self, line: &Line<'_>, out: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Attribute { which, left, zeros, width, precision } => {
                    let mut value = which.value(line, *precision);
                    if let (Some(most), false) = (precision, which.is_number()) {
                        value = value.chars().take(*most).collect();
                    }
                    let _ = match (left, *zeros && which.is_number()) {
                        (true, _) => write!(out, "{value:<width$}"),
                        (false, true) => write!(out, "{value:0>width$}"),
                        (false, false) => write!(out, "{value:>width$}"),
                    };
                }
            }
        }
    }
}

/// `%(name)` flags, width, `.`precision and a conversion letter, as in Python's printf-style formatting; and what
/// follows it. `None` for an unknown name, or for anything of another form.
fn attribute(text: &str) -> Option<(Piece, &str)> {
    let (name, rest) = text.strip_prefix("%(")?.split_once(')')?;
    let which = Attribute::named(name)?;
    let after_flags = rest.trim_start_matches(['-', '0', '+', ' ', '#']);
    let flags = &rest[..rest.len() - after_flags.len()];
    let (width, rest) = number(after_flags);
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(digits) => {
            let (precision, rest) = number(digits);
            (Some(precision), rest)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix(['s', 'd', 'i', 'f', 'F', 'r', 'a'])?;
    let piece =
        Piece::Attribute { which, left: flags.contains('-'), zeros: flags.contains('0'), width, precision };
    Some((piece, rest))
}

/// The number that a text begins with (0 without digits; no line is padded beyond 999) and what follows it.
fn number(text: &str) -> (usize, &str) {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    (if digits.is_empty() { 0 } else { digits.parse().unwrap_or(999).min(999) }, rest)
}

impl Attribute {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "asctime" => Self::AscTime,
            "created" => Self::Created,
            "filename" => Self::FileName,
            "funcName" => Self::FuncName,
            "levelname" => Self::LevelName,
            "levelno" => Self::LevelNo,
            "lineno" => Self::LineNo,
            "message" => Self::Message,
            "module" => Self::Module,
            "msecs" => Self::Msecs,
            "name" => Self::Name,
            "pathname" => Self::PathName,
            "process" => Self::Process,
            "threadName" => Self::ThreadName,
            _ => return None,
        })
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Created | Self::LevelNo | Self::LineNo | Self::Msecs | Self::Process)
    }

    fn value(self, line: &Line<'_>, precision: Option<usize>) -> String {
        let path = Path::new(line.file.unwrap_or_default());
        let text = |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::AscTime => line.time.format("%Y-%m-%d %H:%M:%S,%3f").to_string(),
            Self::Created => {
                let seconds = line.time.timestamp_micros() as f64 / 1e6;
                format!("{seconds:.*}", precision.unwrap_or(6))
            }
            Self::FileName => text(path.file_name()),
            Self::FuncName => String::new(),
            Self::LevelName => level_name(line.level).to_owned(),
            Self::LevelNo => level_number(line.level).to_string(),
            Self::LineNo => line.line.unwrap_or_default().to_string(),
            Self::Message => line.text(),
            Self::Module => text(path.file_stem()),
            Self::Msecs => line.time.timestamp_subsec_millis().to_string(),
            Self::Name => escape(line.target).replace("::", "."),
            Self::PathName => line.file.unwrap_or_default().to_owned(),
            Self::Process => std::process::id().to_string(),
            Self::ThreadName => line.thread.to_owned(),
        }
    }
}

/// Python's name of a level.
fn level_name(level: Level) -> &'static str {
    if level == Level::WARN { "WARNING" } else { level.as_str() }
}

/// Python's number of a level; TRACE lies below DEBUG as by custom.
fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::line;
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let mut out = String::new();
        Template::parse(template).unwrap().render(&line(), &mut out);
        assert_eq!(out, expected, "{template}");
    }

    #[test]
    fn attributes() {
        let pid = std::process::id();
        check(
            "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
            r#"2026-01-02 03:04:05,678 - sync_core.lane - WARNING - retrying stream=db1:foo reason="went away" attempt=3 ok=false"#,
        );
        check("%(process)d", &pid.to_string());
        check("[%(filename)s:%(lineno)d] %(module)s", "[lane.rs:42] lane");
        check("%(pathname)s", "crates/sync-core/src/lane.rs");
        check("%(funcName)s|%(threadName)s", "|worker");
        check("%(created)f", "1767323045.678901");
        check("%(created).3f", "1767323045.679");
        check("%(levelno)s %(msecs)d", "30 678");
    }

    #[test]
    fn padding() {
        check("%(levelname)-8s|", "WARNING |");
        check("%(levelname)8s|", " WARNING|");
        check("%(levelname)-4s|", "WARNING|");
        check("%(levelname).4s|", "WARN|");
        check("%(levelname)6.1s|", "     W|");
        check("%(lineno)05d", "00042");
        check("%(lineno)5d", "   42");
        check("%(levelname)08s", " WARNING");
        // A width that no memory could hold is cut, not obeyed.
        let mut out = String::new();
        Template::parse("%(lineno)99999999999999999999d").unwrap().render(&line(), &mut out);
        assert_eq!(out.len(), 999);
    }

    #[test]
    fn what_is_unknown_stands_as_it_is() {
        check("100%% %(nothing)s %(name)s", "100% %(nothing)s sync_core.lane");
        check("%(lineno)d %(lineno)", "42 %(lineno)");
        check("%(lineno)d %d 5% %(", "42 %d 5% %(");
        check("%(lineno)d %(name)q", "42 %(name)q");
        check("é%(lineno)dé", "é42é");
    }

    #[test]
    fn no_attribute_is_no_template() {
        for text in ["", "jsn", "%%", "%(nothing)s", "%s"] {
            assert_eq!(Template::parse(text), None, "{text}");
        }
    }
}
