//! What births tell of metrics: the names of aliases, and data types, which later messages may leave out (specification
//! 3.0, §6.4.6). It owns what is remembered, for how long, and how much of it.

use std::cell::Cell;
use std::collections::HashMap;

use super::proto::Payload;
use super::{Names, Origin};
use crate::recent::Recent;

/// A birth is forgotten before all of them occupy more than about this, in bytes: some 250,000 metrics.
const ROOM: usize = 64 << 20;
/// What a metric occupies besides its name.
const OVERHEAD: usize = 96;

/// The last birth of every edge node and device, as many as there is room for.
///
/// A death forgets nothing: what a device sent before it died may be read after it, and the birth that must come before
/// anything else takes the place of the last one. The birth of an edge node ends what its devices said before it.
#[derive(Debug)]
pub(crate) struct Births {
    /// By `group/node` and `group/node/device`; no level of a topic holds a slash.
    by_origin: Recent<Birth>,
    /// How many births there were: the order of them.
    count: u64,
    /// The last key that was built; kept for its room.
    key: String,
    missing: Cell<u64>,
}

#[derive(Debug)]
struct Birth {
    count: u64,
    by_alias: HashMap<u64, Known>,
    by_name: HashMap<Box<str>, u32>,
}

/// A metric, as its birth has it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: Box<str>,
    pub(super) datatype: Option<u32>,
}

impl Default for Births {
    fn default() -> Self {
        Self::new(ROOM)
    }
}

impl Births {
    /// Remembers about this many bytes.
    pub(crate) fn new(room: usize) -> Self {
        Self { by_origin: Recent::new(room), count: 0, key: String::new(), missing: Cell::new(0) }
    }

    /// Remembers what a birth tells of its metrics.
    pub(crate) fn learn(&mut self, origin: Origin<'_>, payload: &Payload) {
        self.count += 1;
        let mut birth = Birth { count: self.count, by_alias: HashMap::new(), by_name: HashMap::new() };
        let mut weight = OVERHEAD;
        for metric in &payload.metrics {
            let Some(name) = &metric.name else { continue };
            // By its name as well: data may come with that only, alias or not.
            if let Some(datatype) = metric.datatype {
                birth.by_name.insert(name.as_str().into(), datatype);
                weight += name.len() + OVERHEAD;
            }
            if let Some(alias) = metric.alias {
                birth.by_alias.insert(alias, Known { name: name.as_str().into(), datatype: metric.datatype });
                weight += name.len() + OVERHEAD;
            }
        }
        self.set_key(origin.group, origin.node, origin.device);
        self.by_origin.insert(&self.key, birth, weight);
    }

    /// What is known of the metrics of an edge node or a device. Aliases are unique within an edge node, so that a device
    /// may use those of its node.
    pub(crate) fn names(&mut self, origin: Origin<'_>) -> Names<'_> {
        // Both are used before both are borrowed.
        self.set_key(origin.group, origin.node, None);
        self.by_origin.get(&self.key);
        let node_key = self.key.len();
        if origin.device.is_some() {
            self.set_key(origin.group, origin.node, origin.device);
            self.by_origin.get(&self.key);
        }
        let node = self.by_origin.peek(&self.key[..node_key]);
        let device = if origin.device.is_some() { self.by_origin.peek(&self.key) } else { None };
        let is_of_this_life = |device: &&Birth| node.is_none_or(|node| node.count < device.count);
        Names::new(device.filter(is_of_this_life).map(Lookup), node.map(Lookup), &self.missing)
    }

    /// How many births were forgotten so far for want of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.by_origin.forgotten()
    }

    /// How many metrics had an alias so far that no birth gave a name to.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.get()
    }

    fn set_key(&mut self, group: &str, node: &str, device: Option<&str>) {
        self.key.clear();
        self.key.extend([group, "/", node]);
        if let Some(device) = device {
            self.key.extend(["/", device]);
        }
    }
}

/// One birth, to look metrics up in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'a>(&'a Birth);

impl<'a> Lookup<'a> {
    pub(super) fn alias(&self, alias: u64) -> Option<&'a Known> {
        self.0.by_alias.get(&alias)
    }

    pub(super) fn datatype(&self, name: &str) -> Option<u32> {
        self.0.by_name.get(name).copied()
    }
}

#[cfg(test)]
mod tests;
