//! What a run moves: entries like a device's readings, with IDs that are known beforehand.

use anyhow::Result;

use crate::redis::Redis;

/// How much, and in what shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) entries: usize,
    pub(super) streams: usize,
    /// Bytes of the payload field.
    pub(super) payload: usize,
}

/// All within one millisecond, as a burst is; the second part of the ID counts.
const MILLISECOND: &str = "1700000000000";
/// Entries per script call: short enough not to hold Redis up for long.
const CHUNK: usize = 10_000;
const SCRIPT: &str = "for i=tonumber(ARGV[2]),tonumber(ARGV[3]) do redis.call('XADD',KEYS[1],ARGV[4]..'-'..i,\
    'device','dev-000001','type','temperature','value','21.5','seq',i,'payload',ARGV[1]) end";

impl Load {
    /// Streams by name, and how many entries each gets: as even as it goes.
    pub(super) fn spread(&self) -> Vec<(String, usize)> {
        let (share, rest) = (self.entries / self.streams, self.entries % self.streams);
        (1..=self.streams)
            .map(|number| {
                let name = if self.streams == 1 { "bench".to_owned() } else { format!("bench:{number:04}") };
                (name, share + usize::from(number <= rest))
            })
            .collect()
    }

    /// Every entry, stream by stream, in order.
    pub(super) fn each(&self, mut entry: impl FnMut(&str, String)) {
        for (stream, entries) in self.spread() {
            (1..=entries).for_each(|number| entry(&stream, id(number)));
        }
    }

    pub(super) fn fill(&self, redis: &mut Redis) -> Result<()> {
        let payload = "x".repeat(self.payload);
        for (stream, entries) in self.spread() {
            for first in (1..=entries).step_by(CHUNK) {
                let (first, last) = (first.to_string(), entries.min(first + CHUNK - 1).to_string());
                redis.call(&["EVAL", SCRIPT, "1", &stream, &payload, &first, &last, MILLISECOND])?;
            }
        }
        Ok(())
    }
}

/// The ID of a stream's entry, counted from 1.
pub(super) fn id(number: usize) -> String {
    format!("{MILLISECOND}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_evenly_and_completely() {
        let load = |entries, streams| Load { entries, streams, payload: 0 };
        assert_eq!(load(5, 1).spread(), [("bench".to_owned(), 5)]);
        let spread = load(8, 3).spread();
        assert_eq!(spread, [("bench:0001".into(), 3), ("bench:0002".into(), 3), ("bench:0003".into(), 2)]);
        let mut count = 0;
        load(8, 3).each(|_, _| count += 1);
        assert_eq!(count, 8);
        assert_eq!(id(7), "1700000000000-7");
    }
}
