//! The lines of the answer. Differences are written as they are found: nothing is kept, however many there are.

use std::io::{self, Write};

use sync_core::record::EntryId;
use sync_core::telemetry::log::escape;

use super::tally::Verdict;

/// Differences that are named without `--all`, in each stream.
const NAMED: u64 = 20;

/// The lines of one stream.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    /// The stream as people spell it.
    stream: &'a str,
    all: bool,
    repair: bool,
    named: u64,
    unnamed: u64,
    /// There is something that --repair could not copy, because the target is past it.
    pub(super) beyond_repair: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(out: &'a mut dyn Write, stream: &'a str, all: bool, repair: bool) -> Self {
        Self { out, stream, all, repair, named: 0, unnamed: 0, beyond_repair: false }
    }

    /// One entry; `below` the target's newest ID, or a dead letter, or both.
    pub(super) fn entry(
        &mut self,
        id: EntryId,
        verdict: Verdict,
        below: bool,
        dead_lettered: bool,
    ) -> io::Result<()> {
        let absent = matches!(verdict, Verdict::Missing | Verdict::DeadLettered | Verdict::Waiting);
        let beyond_repair = self.repair && absent && below;
        self.beyond_repair |= beyond_repair;
        match verdict {
            Verdict::Missing | Verdict::DeadLettered | Verdict::Differs | Verdict::Extra => {}
            // A bridge on its way there brings it; where it cannot, it is one of the others later.
            Verdict::Waiting if beyond_repair => {}
            _ => return Ok(()),
        }
        if !self.all && self.named == NAMED {
            self.unnamed += 1;
            return Ok(());
        }
        self.named += 1;
        let letter = if dead_lettered && verdict == Verdict::Differs { ", and dead-lettered" } else { "" };
        let why = if beyond_repair { ": cannot be repaired, below the target's newest ID" } else { "" };
        self.line(&format!(" {id} {}{letter}{why}", verdict.words()))
    }

    /// What of the stream is not said of an entry.
    pub(super) fn remark(&mut self, words: &str) -> io::Result<()> {
        self.line(&format!(": {words}"))
    }

    /// The stream's last line.
    pub(super) fn conclude(&mut self, words: &str) -> io::Result<()> {
        if self.unnamed > 0 {
            self.line(&format!(": … and {} more (--all names them)", self.unnamed))?;
        }
        self.remark(words)
    }

    fn line(&mut self, words: &str) -> io::Result<()> {
        writeln!(self.out, "{}{}", escape(self.stream), escape(words))
    }
}
