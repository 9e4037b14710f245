//! The few lines of a bridge's settings file that are about what stands beside it: names of images, what the local
//! servers may hold, their passwords. Compose files take them as variables. What a line may look like is told in
//! `sync-core`, which reads the file for the bridge; this is as much of it as these values need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What is taken from the file, under the name that the compose files know.
const PASSED: [(&str, &str); 12] = [
    ("REGISTRY", "REGISTRY"),
    ("TAG", "TAG"),
    ("REDIS_MAXMEMORY", "REDIS_MAXMEMORY"),
    ("REDIS_MAXMEMORY_POLICY", "REDIS_MAXMEMORY_POLICY"),
    ("REDIS_PASSWORD", "REDIS_PASSWORD"),
    ("SOURCE_REDIS_PASSWORD", "SOURCE_REDIS_PASSWORD"),
    ("TARGET_REDIS_PASSWORD", "TARGET_REDIS_PASSWORD"),
    ("PG_USER", "POSTGRES_USER"),
    ("PG_PASSWORD", "POSTGRES_PASSWORD"),
    ("POSTGRES_USER", "POSTGRES_USER"),
    ("POSTGRES_PASSWORD", "POSTGRES_PASSWORD"),
    ("POSTGRES_DB", "POSTGRES_DB"),
];

/// The variables that a file of KEY=VALUE lines gives; of any other file none.
pub(crate) fn variables(file: &Path) -> Result<BTreeMap<&'static str, String>> {
    if file.extension().is_none_or(|extension| extension != "conf") {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(in_text(&text))
}

fn in_text(text: &str) -> BTreeMap<&'static str, String> {
    let mut variables = BTreeMap::new();
    for (key, value) in text.trim_start_matches('\u{feff}').lines().filter_map(line) {
        // A later line of the same name counts, as it does for the bridge.
        for (_, variable) in PASSED.iter().filter(|(name, _)| *name == key) {
            variables.insert(*variable, value.to_owned());
        }
    }
    variables.retain(|_, value| !value.is_empty());
    variables
}

fn line(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=')?;
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split_once(quote)?.0,
        _ if value.starts_with('#') && line.contains("= ") => "",
        _ => value.split(" #").next().and_then(|value| value.split("\t#").next())?.trim_end(),
    };
    Some((key.trim(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_people_write_them() {
        let text = "\u{feff}REGISTRY=localhost:5000\r\nTAG=\"1.0\" # the newest\n# REDIS_MAXMEMORY=2gb\n\
                    export REDIS_MAXMEMORY_POLICY = volatile-ttl\t# evicts\nREDIS_PASSWORD=   # none\n\
                    SOURCE_REDIS_PASSWORD=pa$$w#rd=\nTARGET_REDIS_PASSWORD=#secret\nLOG_LEVEL=INFO\n\
                    POSTGRES_PASSWORD=first\nPOSTGRES_PASSWORD='it is # this'\nwords\n";
        let found = in_text(text);
        let expected = [
            ("POSTGRES_PASSWORD", "it is # this"),
            ("REDIS_MAXMEMORY_POLICY", "volatile-ttl"),
            ("REGISTRY", "localhost:5000"),
            ("SOURCE_REDIS_PASSWORD", "pa$$w#rd="),
            ("TAG", "1.0"),
            ("TARGET_REDIS_PASSWORD", "#secret"),
        ];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.map(|(k, v)| (k, v.to_owned())));
    }
}
