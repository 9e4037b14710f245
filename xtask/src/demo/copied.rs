//! What arrives on the target Redis, as it comes. A copy's key is its stream's name: all go to one database.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use anyhow::{Result, bail};

use super::{Event, devices};
use crate::bridge::Kind;
use crate::redis::{Redis, Reply};

/// Reads on a thread of its own for as long as the target runs.
pub(super) fn watch(target: Redis, events: Sender<Event>) {
    std::thread::spawn(move || {
        if let Err(error) = read(target, &events) {
            // Nobody listens any more when the demo is over, which is when the target ends.
            let _ = events.send(Event::Failed(error.context("read from the target")));
        }
    });
}

fn read(mut target: Redis, events: &Sender<Event>) -> Result<()> {
    let mut newest: BTreeMap<String, String> =
        devices::streams().map(|(name, _)| (name.to_owned(), "0".to_owned())).collect();
    loop {
        let mut command = vec!["XREAD", "BLOCK", "1000", "STREAMS"];
        command.extend(newest.keys().chain(newest.values()).map(String::as_str));
        let Reply::List(streams) = target.call(&command)? else { continue };
        for stream in streams {
            let (key, Reply::List(entries)) = named(stream)? else { bail!("a stream has entries") };
            for entry in entries {
                let (id, Reply::List(fields)) = named(entry)? else { bail!("an entry has fields") };
                newest.insert(key.clone(), id.clone());
                let words = fields.iter().map(|word| match word {
                    Reply::Text(word) => word.as_str(),
                    _ => "?",
                });
                let data = words.collect::<Vec<_>>().join(" ");
                let (place, stream) = (key.clone(), key.clone());
                if events
                    .send(Event::Arrived { from: Kind::Redis2redis.into(), place, stream, id, data })
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

/// A pair that begins with a name: a stream and its entries, an entry's ID and its fields.
fn named(reply: Reply) -> Result<(String, Reply)> {
    if let Reply::List(parts) = reply
        && let Ok([Reply::Text(name), rest]) = <[Reply; 2]>::try_from(parts)
    {
        return Ok((name, rest));
    }
    bail!("XREAD answers with names and what they hold")
}
