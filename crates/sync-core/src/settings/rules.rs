//! What values must look like: each rule turns a text into a typed value or says in words what is asked for
//! ("must be …"). No rule looks at another setting.

use std::fs::File;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::reader::Given;
use crate::pattern::Pattern;
use crate::record::StreamName;

/// What a rule answers.
pub type Ruled<T> = Result<T, String>;

/// Any text.
pub fn text(given: &Given<'_>) -> Ruled<String> {
    Ok(given.text.to_owned())
}

/// Any text, kept from view.
pub fn secret(given: &Given<'_>) -> Ruled<Secret> {
    Ok(Secret::new(given.text))
}

/// `true`, `false`, and what else people write for them.
pub fn boolean(given: &Given<'_>) -> Ruled<bool> {
    match given.text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false (1, 0, yes, no, on and off will do)".to_owned()),
    }
}

/// One of a few words, whatever the letter case.
pub fn one_of<T: Clone>(words: &[(&str, T)]) -> impl Fn(&Given<'_>) -> Ruled<T> {
    move |given| {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(given.text));
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("must be one of {}", words.join(", "))
        })
    }
}

/// A whole number. The range must lie within `T`.
pub fn integer<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&Given<'_>) -> Ruled<T> {
    move |given| {
        let digits = !given.text.is_empty() && given.text.bytes().all(|byte| byte.is_ascii_digit());
        let number =
            digits.then(|| given.text.parse().ok()).flatten().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match *range.end() {
            u64::MAX => format!("must be a whole number, at least {}", range.start()),
            end => format!("must be a whole number from {} to {end}", range.start()),
        })
    }
}

/// A TCP port.
pub fn port(given: &Given<'_>) -> Ruled<u16> {
    integer(1..=65535)(given).map_err(|rule| match given.text.contains("://") {
        false => rule,
        true => {
            let others: Vec<_> = given.setting.spellings().filter(|spelling| *spelling != given.key).collect();
            let instead = if others.is_empty() { String::new() } else { format!("set {}, ", others.join(" or ")) };
            format!(
                "{rule}; Kubernetes and Docker links put such an address here for a service of that name: {instead}\
                 switch the links off (enableServiceLinks: false) or rename the service"
            )
        }
    })
}

/// Seconds as a decimal number, `1` or `0.5`; milliseconds where the spelling ends in `_MS`.
pub fn seconds(range: RangeInclusive<f64>) -> impl Fn(&Given<'_>) -> Ruled<Duration> {
    move |given| {
        let (unit, scale) = if given.key.ends_with("_MS") { ("milliseconds", 1e3) } else { ("seconds", 1.0) };
        let decimal = given.text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = decimal.then(|| given.text.parse::<f64>().ok()).flatten().map(|number| number / scale);
        number
            .filter(|number| range.contains(number))
            .and_then(|number| Duration::try_from_secs_f64(number).ok())
            .ok_or_else(|| {
                format!(
                    "must be a number of {unit} from {} to {}",
                    range.start() * scale,
                    range.end() * scale
                )
            })
    }
}

/// Items between commas; blanks around them and blank items do not count.
fn items<'a>(given: &Given<'a>) -> impl Iterator<Item = &'a str> {
    given.text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A list between commas with at least one item.
pub fn list(given: &Given<'_>) -> Ruled<Vec<String>> {
    let list: Vec<_> = items(given).map(str::to_owned).collect();
    if list.is_empty() { Err("must hold at least one item between its commas".to_owned()) } else { Ok(list) }
}

/// Globs between commas, at least one.
pub fn patterns(given: &Given<'_>) -> Ruled<Vec<Pattern>> {
    Ok(list(given)?.iter().map(|item| Pattern::new(item)).collect())
}

/// Stream names between commas, each stream once.
pub fn streams(default_db: u16) -> impl Fn(&Given<'_>) -> Ruled<Vec<StreamName>> {
    move |given| {
        let mut streams = Vec::new();
        for item in items(given) {
            let stream = StreamName::parse(item, default_db)
                .map_err(|error| format!("must be streams as key or dbN:key between commas: {error}"))?;
            if stream.key.is_empty() {
                return Err(format!("must be streams as key or dbN:key between commas: {item} has no key"));
            }
            if !streams.contains(&stream) {
                streams.push(stream);
            }
        }
        Ok(streams)
    }
}

/// Database numbers, `0-15` or `0,1,3-5`: ascending, each once.
pub fn databases(given: &Given<'_>) -> Ruled<Vec<u16>> {
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let mut databases = std::collections::BTreeSet::new();
    for item in items(given) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => databases.extend(first..=last),
            _ => {
                return Err(format!("must be database numbers such as 0-15 or 0,1,3-5, which {item} is not"));
            }
        }
    }
    if databases.is_empty() {
        return Err("must name at least one database, such as 0-15 or 0,1,3-5".to_owned());
    }
    Ok(databases.into_iter().collect())
}

/// The path of a file that can be opened.
pub fn readable_file(given: &Given<'_>) -> Ruled<PathBuf> {
    let path = PathBuf::from(given.text);
    let wrong = |error: std::io::Error| format!("must be a readable file: {error}");
    match File::open(&path).and_then(|file| file.metadata()).map_err(wrong)? {
        metadata if metadata.is_dir() => Err("must be a file, not a directory".to_owned()),
        _ => Ok(path),
    }
}

/// Any path.
pub fn path(given: &Given<'_>) -> Ruled<PathBuf> {
    Ok(PathBuf::from(given.text))
}

/// A host name or address alone; an IPv6 address comes back without brackets.
pub fn host(given: &Given<'_>) -> Ruled<String> {
    let bare = given.text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(given.text);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let rule = match given.text {
        text if text.contains("://") => "must be a host name or address alone, without a scheme",
        text if text.contains('@') => "must be a host name or address alone, without user and password",
        text if text.contains(':') => "must be a host name or address alone; the port has its own setting",
        text if text.contains(['/', '?', '#', ',', '[', ']']) || text.contains(char::is_whitespace) => {
            "must be a host name or address"
        }
        text => return Ok(text.to_owned()),
    };
    Err(rule.to_owned())
}

/// `address:port`; nothing and `off` are `None`.
pub fn listen_address(given: &Given<'_>) -> Ruled<Option<SocketAddr>> {
    if given.text.is_empty() || given.text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let text = given.text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    text.as_deref()
        .unwrap_or(given.text)
        .parse()
        .map(Some)
        .map_err(|_| "must be address:port, such as 127.0.0.1:9464 or [::1]:9464, or off".to_owned())
}

/// A label of the WHATWG encoding standard; Python's underscores and `latin-1` will do.
pub fn encoding(given: &Given<'_>) -> Ruled<&'static encoding_rs::Encoding> {
    let label = given.text.to_ascii_lowercase().replace('_', "-");
    [label.as_str(), &label.replace('-', "")]
        .iter()
        .find_map(|label| encoding_rs::Encoding::for_label_no_replacement(label.as_bytes()))
        .ok_or_else(|| {
            "must be a label of the WHATWG encoding standard, such as utf-8 or windows-1252".to_owned()
        })
}
