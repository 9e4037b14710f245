//! `--repair`: copies what the source has above the target's newest ID. XADD takes nothing below it, and nothing is ever
//! deleted or overwritten here. A bridge may run meanwhile: each write finds the target where it was seen to be, or
//! writes nothing.

use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use fred::util::redis_keyslot;
use sync_core::record::{Entry, EntryId};
use sync_core::redis::Fault;
use sync_core::redis::entries;
use sync_core::settings::StartId;

use super::compare::{Pair, Trouble};
use crate::script::MOST_FIELDS;

const SCRIPT: &str = include_str!("copy.lua");

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) entries: u64,
    /// Why not all of it was copied.
    pub(super) stopped: Option<String>,
}

/// Copies the end of the stream. What cannot be written stops it: what comes after an entry that is not there must not
/// be written either, or that entry never could.
pub(super) async fn copy(pair: &Pair<'_>) -> Result<Copied, Trouble> {
    let mut copied = Copied::default();
    let there = entries::facts(&pair.target, &pair.place.key).await.map_err(Trouble::Target)?;
    let here = entries::facts(&pair.source, &pair.name.key).await.map_err(Trouble::Source)?;
    let Some(here) = here else { return Ok(copied) };
    let mut newest = there.map_or_else(EntryId::default, |there| there.newest);
    let start = match pair.settings.start_id {
        StartId::After(id) => id,
        StartId::Latest => EntryId::default(),
    };
    let mut pages = pair.source_pages(newest.max(start), here.newest);
    while let Some(mut page) = pages.next_page().await.map_err(Trouble::Source)? {
        page.retain(|entry| pair.passes(entry) && entry.fields.len() <= MOST_FIELDS);
        loop {
            // A bridge may be faster. What it wrote is compared afterwards.
            page.retain(|entry| entry.id > newest);
            let Some(last) = page.last().map(|entry| entry.id) else { break };
            let (found, written, error) = match write(pair, newest, &page).await {
                Ok(answer) => answer,
                Err(fault @ Fault::Lost(_)) => return Err(Trouble::Target(fault)),
                Err(fault) => (newest, 0, fault.to_string()),
            };
            copied.entries += written as u64;
            if !error.is_empty() {
                let at = page.get(written).map_or(last, |entry| entry.id);
                copied.stopped = Some(format!("{at}: {error}"));
                return Ok(copied);
            }
            if written == page.len() {
                newest = last;
                break;
            }
            if found <= newest {
                copied.stopped = Some(format!("the target's newest ID was {newest} and is {found} now"));
                return Ok(copied);
            }
            newest = found;
        }
    }
    Ok(copied)
}

/// One call of the script: the newest ID found, how many entries were written, and the error if there was one.
async fn write(pair: &Pair<'_>, seen: EntryId, page: &[Entry]) -> Result<(EntryId, usize, String), Fault> {
    let db = if pair.target_is_cluster { String::new() } else { pair.place.db.to_string() };
    let mut arguments: Vec<Value> = vec![Value::from_static_str(SCRIPT), 1.into()];
    arguments.push(Value::Bytes(pair.place.key.clone()));
    arguments.extend([db, seen.to_string(), pair.maxlen.to_string()].map(Value::from));
    for entry in page {
        arguments.push(entry.id.to_string().into());
        arguments.push((2 * entry.fields.len()).to_string().into());
        for (field, value) in &entry.fields {
            arguments.extend([Value::Bytes(field.clone()), Value::Bytes(value.clone())]);
        }
    }
    // The client knows no offset for a command of ours, only a slot.
    let slot = ClusterHash::Custom(redis_keyslot(&pair.place.key));
    let command = CustomCommand::new("EVAL", slot, false);
    let (newest, written, error): (String, usize, String) = pair.target.custom(command, arguments).await?;
    let newest = newest.parse().map_err(|_| Fault::Other("the target's newest ID is none".into()))?;
    Ok((newest, written, error))
}
