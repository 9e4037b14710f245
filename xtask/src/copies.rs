//! Whether a stream on one Redis is the same as on another, entry by entry: IDs, fields, and the order of both. The
//! judge of copies, by other code than a bridge's.

use anyhow::{Result, bail};

use crate::redis::{Redis, Reply};

/// Entries that are looked at in one go, on both sides.
pub(crate) const PAGE: usize = 1000;

/// Where two streams first differ, in words; `None` if they are the same.
pub(crate) fn difference(source: (&mut Redis, &str), target: (&mut Redis, &str)) -> Result<Option<String>> {
    first_difference(|from| page(source.0, source.1, from), |from| page(target.0, target.1, from))
}

/// Entries of a stream, in order; `(ID` is what follows that one.
pub(crate) fn page(redis: &mut Redis, key: &str, from: &str) -> Result<Vec<Reply>> {
    match redis.call(&["XRANGE", key, from, "+", "COUNT", &PAGE.to_string()])? {
        Reply::List(entries) => Ok(entries),
        other => bail!("XRANGE answers with entries, not {other:?}"),
    }
}

/// The same for whatever gives pages of entries: lists that begin with an ID. Both sides' pages are of one length.
pub(crate) fn first_difference(
    mut source: impl FnMut(&str) -> Result<Vec<Reply>>,
    mut target: impl FnMut(&str) -> Result<Vec<Reply>>,
) -> Result<Option<String>> {
    let mut from = "-".to_owned();
    loop {
        let (entries, copies) = (source(&from)?, target(&from)?);
        for at in 0..entries.len().max(copies.len()) {
            let (what, entry) = match (entries.get(at), copies.get(at)) {
                (Some(entry), Some(copy)) if entry == copy => continue,
                (Some(entry), Some(copy)) if id(entry)? == id(copy)? => ("other fields", entry),
                (Some(entry), _) => ("MISSING", entry),
                (None, copy) => ("UNKNOWN", copy.expect("one of the two is that long")),
            };
            return Ok(Some(format!("{what} at {}", id(entry)?)));
        }
        let Some(last) = entries.last() else { return Ok(None) };
        from = format!("({}", id(last)?);
    }
}

fn id(entry: &Reply) -> Result<&str> {
    match entry {
        Reply::List(parts) if let Some(Reply::Text(id)) = parts.first() => Ok(id),
        other => bail!("an entry begins with its ID, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries written `ID=value`, read two at a time.
    fn paged(entries: &str) -> impl FnMut(&str) -> Result<Vec<Reply>> {
        let text = |text: &str| Reply::Text(text.to_owned());
        let entries: Vec<Reply> = entries
            .split_whitespace()
            .map(|entry| Reply::List(entry.split('=').map(text).collect()))
            .collect();
        move |from| {
            let after = from.strip_prefix('(');
            let rest =
                entries.iter().skip_while(|entry| after.is_some_and(|after| id(entry).unwrap() <= after));
            Ok(rest.take(2).cloned().collect())
        }
    }

    #[test]
    fn names_the_first_entry_that_differs() {
        let check = |source: &str, target: &str, expected: Option<&str>| {
            let found = first_difference(paged(source), paged(target)).unwrap();
            assert_eq!(found.as_deref(), expected, "{source} -> {target}");
        };
        check("", "", None);
        check("1=a 2=b 3=c", "1=a 2=b 3=c", None);
        check("1=a 2=b 3=c", "1=a 2=b 3=x", Some("other fields at 3"));
        check("1=a 2=b 3=c", "1=a 2=b", Some("MISSING at 3"));
        check("1=a 2=b 3=c", "1=a 3=c", Some("MISSING at 2"));
        check("1=a 2=b", "1=a 2=b 3=c", Some("UNKNOWN at 3"));
        check("", "1=a", Some("UNKNOWN at 1"));
        check("1=a", "", Some("MISSING at 1"));
    }
}
