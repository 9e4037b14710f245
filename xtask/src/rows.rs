//! Whether a stream's rows in PostgreSQL are its entries, one by one, and a key-value's row its value: the
//! judge of redis2pg, by other code than the bridge's. It knows what our own commands write: text, and no field twice.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::copies;
use crate::postgres::{Postgres, Row};
use crate::redis::{Redis, Reply};

/// As redis2pg names its tables unless it is told otherwise.
pub(crate) const STREAMS: &str = "redis_streams";
pub(crate) const KEY_VALUES: &str = "redis_key_values";

/// Rows in the order of their entries. The column `id` is no such order: batches that are written at the same time take
/// their numbers in turn, and what they promise is that no row is seen before an earlier one.
pub(crate) const BY_ENTRY: &str =
    "split_part(message_id, '-', 1)::numeric, split_part(message_id, '-', 2)::numeric";

/// Where a stream and its rows first differ, in words; `None` if they are the same. `name` is what the bridge calls it.
pub(crate) fn difference(
    source: &mut Redis,
    key: &str,
    postgres: Postgres,
    name: &str,
) -> Result<Option<String>> {
    let mut rows = postgres.rows(&format!(
        "SELECT message_id, data FROM {STREAMS} WHERE stream_key = {} ORDER BY {BY_ENTRY}",
        quoted(name)
    ))?;
    copies::first_difference(
        |from| copies::page(source, key, from)?.into_iter().map(entry).collect(),
        // They come in one go: what is asked for is always what follows.
        |_| rows.by_ref().take(copies::PAGE).map(|row| row.and_then(entry_of_row)).collect(),
    )
}

/// How a key's value and its row differ, in words.
pub(crate) fn value_difference(
    source: &mut Redis,
    (db, key): (u16, &str),
    postgres: Postgres,
) -> Result<Option<String>> {
    if !postgres.has(KEY_VALUES)? {
        return Ok(Some("MISSING, and the table too".to_owned()));
    }
    let rows = postgres.ask(&format!(
        "SELECT redis_value FROM {KEY_VALUES} WHERE redis_db = {db} AND redis_key = {}",
        quoted(key)
    ))?;
    let Some(row) = rows.first().and_then(|row| row.first()) else {
        return Ok(Some("MISSING".to_owned()));
    };
    source.select(db)?;
    let expected = match source.call(&["TYPE", key])? {
        Reply::Text(kind) if kind == "hash" => object(source.call(&["HGETALL", key])?)?,
        Reply::Text(kind) if kind == "string" => value(&text(source.call(&["GET", key])?)?),
        other => bail!("{key} is a hash or a string, not {other:?}"),
    };
    let found: Value = serde_json::from_str(row).context("a row holds JSON")?;
    Ok((found != expected).then(|| format!("{row} where {expected} is expected")))
}

/// An entry as both sides are compared: its ID and, as JSON, its fields.
fn entry(reply: Reply) -> Result<Reply> {
    match reply {
        Reply::List(parts) => match <[Reply; 2]>::try_from(parts) {
            Ok([id, fields]) => Ok(Reply::List(vec![id, Reply::Text(object(fields)?.to_string())])),
            Err(parts) => bail!("an entry is an ID and fields, not {parts:?}"),
        },
        other => bail!("an entry is a list, not {other:?}"),
    }
}

fn entry_of_row(row: Row) -> Result<Reply> {
    let [id, data] = <[String; 2]>::try_from(row).ok().context("two columns were asked for")?;
    let data: Value = serde_json::from_str(&data).context("a row holds JSON")?;
    Ok(Reply::List(vec![Reply::Text(id), Reply::Text(data.to_string())]))
}

/// Names and values in turn.
fn object(fields: Reply) -> Result<Value> {
    let Reply::List(fields) = fields else { bail!("fields are a list, not {fields:?}") };
    let mut object = serde_json::Map::new();
    for pair in fields.chunks_exact(2) {
        object.insert(text(pair[0].clone())?, value(&text(pair[1].clone())?));
    }
    Ok(Value::Object(object))
}

/// What is JSON by itself stands for itself; all else, and `null`, is a string.
fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::String(_) | Value::Null) | Err(_) => Value::String(text.to_owned()),
        Ok(value) => value,
    }
}

fn text(reply: Reply) -> Result<String> {
    match reply {
        Reply::Text(text) => Ok(text),
        other => bail!("text is expected, not {other:?}"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_and_its_row_are_compared_as_json() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let fields = ["b", "21.50", "a", "x", "c", "null", "d", "[1, 2]", "e", "\"q\""].map(text);
        let from_redis = entry(Reply::List(vec![text("1-0"), Reply::List(fields.to_vec())])).unwrap();
        let row = |data: &str| entry_of_row(vec!["1-0".to_owned(), data.to_owned()]).unwrap();
        let same = r#"{"a": "x", "b": 21.5, "c": "null", "d": [1, 2], "e": "\"q\""}"#;
        assert_eq!(from_redis, row(same));
        for other in [r#"{"a": "x"}"#, &same.replace("21.5", "\"21.5\""), &same.replace("\"null\"", "null")] {
            assert_ne!(from_redis, row(other), "{other}");
        }
    }
}
