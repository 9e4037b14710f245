//! The lines of the answer. Differences are written as they are found: nothing is kept, however many there are.

use std::io::{self, Write};

use super::tally::{Tally, Verdict, counted};
use crate::commands::{CommandError, Ended};
use crate::record::EntryId;
use crate::telemetry::log::escape;

/// Differences that are named without `--all`, in each stream.
const NAMED: u64 = 20;

/// The lines of one stream.
pub struct Lines<'a> {
    out: &'a mut dyn Write,
    /// The stream as people spell it.
    stream: &'a str,
    all: bool,
    named: u64,
    unnamed: u64,
}

impl<'a> Lines<'a> {
    /// `all` names every difference, and the stream too when there is none.
    pub fn new(out: &'a mut dyn Write, stream: &'a str, all: bool) -> Self {
        Self { out, stream, all, named: 0, unnamed: 0 }
    }

    /// One entry, if its verdict is worth a line. `note` is put behind the verdict as it is; empty is none.
    pub fn entry(&mut self, id: EntryId, verdict: Verdict, note: &str) -> io::Result<()> {
        match verdict {
            Verdict::Missing | Verdict::DeadLettered | Verdict::Differs | Verdict::Extra => {}
            // A bridge on its way there brings it; where it cannot, it is one of the others later.
            Verdict::Waiting if !note.is_empty() => {}
            _ => return Ok(()),
        }
        if !self.all && self.named == NAMED {
            self.unnamed += 1;
            return Ok(());
        }
        self.named += 1;
        self.line(&format!(" {id} {}{note}", verdict.words()))
    }

    /// What of the stream is not said of an entry.
    pub fn remark(&mut self, words: &str) -> io::Result<()> {
        self.line(&format!(": {words}"))
    }

    /// The stream's last line.
    fn conclude(&mut self, words: &str) -> io::Result<()> {
        if self.unnamed > 0 {
            self.line(&format!(": … and {} more (--all names them)", self.unnamed))?;
        }
        self.remark(words)
    }

    fn line(&mut self, words: &str) -> io::Result<()> {
        writeln!(self.out, "{}{}", escape(self.stream), escape(words))
    }
}

/// Of all streams.
#[derive(Debug, Default)]
pub struct Total {
    streams: u64,
    different: u64,
    tally: Tally,
}

impl Total {
    /// A stream that was compared.
    pub fn take(&mut self, tally: &Tally, lines: &mut Lines<'_>) -> io::Result<()> {
        self.streams += 1;
        self.tally.add(tally);
        let (same, notes) = (tally.same(), tally.notes());
        if tally.differs() {
            self.different += 1;
            lines.conclude(&format!("different: {}; {same} the same{notes}", tally.differences()))?;
        } else if lines.all {
            lines.conclude(&format!("same: {same}{notes}"))?;
        }
        Ok(())
    }

    /// A stream that could not be compared, and why: as bad as one that differs.
    pub fn fail(&mut self, lines: &mut Lines<'_>, words: &str) -> io::Result<()> {
        self.streams += 1;
        self.different += 1;
        lines.conclude(&format!("cannot be compared: {words}"))
    }

    /// The last line, with `note` at its end as it is, and how the command ends: badly also when there was nothing to
    /// compare.
    pub fn write(&self, note: &str, out: &mut impl Write) -> Result<Ended, CommandError> {
        if self.streams == 0 {
            writeln!(out, "nothing to compare: the settings select no stream that is there")?;
            return Ok(Ended::Badly);
        }
        let streams = counted(self.streams, "stream", "streams");
        let (same, notes) = (self.tally.same(), self.tally.notes());
        if self.different == 0 {
            writeln!(out, "same: {streams}, {same}{notes}{note}")?;
            return Ok(Ended::Well);
        }
        let differences = match self.tally.differences() {
            none if none.is_empty() => none,
            differences => format!(": {differences}"),
        };
        writeln!(
            out,
            "different: {} of {streams}{differences}; {same} the same{notes}{note}",
            self.different
        )?;
        Ok(Ended::Badly)
    }
}
