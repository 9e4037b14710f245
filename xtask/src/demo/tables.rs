//! What arrives in PostgreSQL, as it comes: asked for again and again, because a table tells nobody that it has grown.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Event;
use crate::bridge::Kind;
use crate::postgres::{Postgres, Row};
use crate::rows::{BY_ENTRY, KEY_VALUES, STREAMS};

const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// A row may be seen after one with a greater ID, whose transaction ended first: so many IDs back are asked for again.
const LATE: u64 = 1000;

/// Looks on a thread of its own for as long as the server runs.
pub(super) fn watch(postgres: Postgres, events: Sender<Event>) {
    std::thread::spawn(move || {
        if let Err(error) = look(postgres, &events) {
            // Nobody listens any more when the demo is over, which is when the server ends.
            let _ = events.send(Event::Failed(error.context("read from PostgreSQL")));
        }
    });
}

fn look(postgres: Postgres, events: &Sender<Event>) -> Result<()> {
    let mut seen = Seen::default();
    loop {
        for (table, report) in
            [(STREAMS, Seen::entries as fn(&mut Seen, Postgres) -> _), (KEY_VALUES, Seen::values)]
        {
            // The bridge makes its tables when it starts.
            let new: Vec<Event> =
                if postgres.has(table)? { report(&mut seen, postgres)? } else { Vec::new() };
            if new.into_iter().any(|event| events.send(event).is_err()) {
                return Ok(());
            }
        }
        sleep(BETWEEN_LOOKS);
    }
}

/// What was reported.
#[derive(Default)]
struct Seen {
    rows: HashSet<u64>,
    newest: u64,
    /// By database and key.
    values: BTreeMap<[String; 2], String>,
}

impl Seen {
    /// What is seen in one look was there at one moment, so the order of entries is what is told of it: a row that came
    /// before an earlier one of its stream shows as soon as the earlier one is new in a later look.
    fn entries(&mut self, postgres: Postgres) -> Result<Vec<Event>> {
        let from = self.newest.saturating_sub(LATE);
        let rows = postgres.ask(&format!(
            "SELECT id, stream_key, message_id, data FROM {STREAMS} WHERE id > {from} ORDER BY {BY_ENTRY}"
        ))?;
        let mut new = Vec::new();
        for row in rows {
            let [number, stream, id, data] = columns(row)?;
            let number = number.parse().context("a row has a number")?;
            if self.rows.insert(number) {
                self.newest = self.newest.max(number);
                new.push(Event::Arrived {
                    from: Kind::Redis2pg.into(),
                    place: stream.clone(),
                    stream,
                    id,
                    data,
                });
            }
        }
        Ok(new)
    }

    fn values(&mut self, postgres: Postgres) -> Result<Vec<Event>> {
        let rows = postgres.ask(&format!(
            "SELECT redis_db, redis_key, redis_value, to_char(\"timestamp\", 'HH24:MI:SS.MS') FROM {KEY_VALUES} \
             ORDER BY redis_db, redis_key"
        ))?;
        let mut new = Vec::new();
        for row in rows {
            let [db, key, data, time] = columns(row)?;
            let place = if db == "0" { key.clone() } else { format!("db{db}:{key}") };
            let before = self.values.insert([db, key], data.clone());
            if before.as_ref() != Some(&data) {
                new.push(Event::Changed { from: Kind::Redis2pg.into(), place, time, data });
            }
        }
        Ok(new)
    }
}

fn columns<const N: usize>(row: Row) -> Result<[String; N]> {
    row.try_into().ok().with_context(|| format!("{N} columns were asked for"))
}
