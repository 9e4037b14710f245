//! What becomes of each entry that is compared, counted and put into words. Pure.

use std::fmt::Write as _;

/// What comparing says of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On both sides, byte for byte.
    Same,
    /// Not at the target, and nothing says why.
    Missing,
    /// Not at the target: it was refused, and stands in the dead-letter stream of this bridge's group.
    DeadLettered,
    /// Not at the target: the group has not acknowledged it yet.
    Waiting,
    /// The target has something else under this ID.
    Differs,
    /// At the target, and not at the source, which holds older entries.
    Extra,
    /// Older than all that the source still holds; the target has it.
    TrimmedAtSource,
    /// Older than all that the target still holds, which has lost nothing but by trimming.
    TrimmedAtTarget,
    /// FILTER_FIELD and FILTER_VALUES keep it from the target.
    Filtered,
    /// STREAM_START_ID does.
    BeforeStart,
}

use Verdict::*;

const ALL: [Verdict; 10] = [
    Same,
    Missing,
    DeadLettered,
    Waiting,
    Differs,
    Extra,
    TrimmedAtSource,
    TrimmedAtTarget,
    Filtered,
    BeforeStart,
];

impl Verdict {
    /// As it stands in the output.
    pub fn words(self) -> &'static str {
        match self {
            Same => "the same",
            Missing => "missing at the target",
            DeadLettered => "dead-lettered and missing at the target",
            Waiting => "not yet replicated",
            Differs => "with other content at the target",
            Extra => "only at the target",
            TrimmedAtSource => "trimmed at the source",
            TrimmedAtTarget => "trimmed at the target",
            Filtered => "filtered out",
            BeforeStart => "not above STREAM_START_ID",
        }
    }

    fn is_difference(self) -> bool {
        matches!(self, Missing | DeadLettered | Waiting | Differs | Extra)
    }
}

/// How many entries there are of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; ALL.len()]);

impl Tally {
    /// One more.
    pub fn count(&mut self, verdict: Verdict) {
        self.0[verdict as usize] += 1;
    }

    /// How many there are.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize]
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (sum, number) in self.0.iter_mut().zip(other.0) {
            *sum += number;
        }
    }

    /// Whether anything was counted that is not as it should be.
    pub fn differs(&self) -> bool {
        ALL.into_iter().any(|verdict| verdict.is_difference() && self.of(verdict) > 0)
    }

    /// `3 missing at the target, 1 not yet replicated`; empty when there is no difference.
    pub fn differences(&self) -> String {
        self.list(Verdict::is_difference)
    }

    /// ` (3 trimmed at the source, 1 filtered out)`, or nothing.
    pub fn notes(&self) -> String {
        match self.list(|verdict| !verdict.is_difference() && verdict != Same) {
            notes if notes.is_empty() => notes,
            notes => format!(" ({notes})"),
        }
    }

    /// `1,000 entries`: those that are the same.
    pub fn same(&self) -> String {
        counted(self.of(Same), "entry", "entries")
    }

    fn list(&self, wanted: impl Fn(Verdict) -> bool) -> String {
        let mut list = String::new();
        for verdict in ALL.into_iter().filter(|verdict| wanted(*verdict) && self.of(*verdict) > 0) {
            let comma = if list.is_empty() { "" } else { ", " };
            let _ = write!(list, "{comma}{} {}", grouped(self.of(verdict)), verdict.words());
        }
        list
    }
}

/// `1 stream`, `1,000 streams`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |number, text: &str| assert_eq!(grouped(number), text);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(0, "entry", "entries"), "0 entries");
    }

    #[test]
    fn every_verdict_has_its_own_count() {
        for (at, verdict) in ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, at);
        }
    }

    #[test]
    fn what_is_no_difference_is_said_all_the_same() {
        let mut tally = Tally::default();
        for verdict in [Same, Same, TrimmedAtSource, TrimmedAtTarget, Filtered, BeforeStart] {
            tally.count(verdict);
        }
        assert!(!tally.differs());
        let notes = " (1 trimmed at the source, 1 trimmed at the target, 1 filtered out, 1 not above STREAM_START_ID)";
        assert_eq!((tally.same().as_str(), tally.notes().as_str()), ("2 entries", notes));
        for verdict in [Missing, DeadLettered, Waiting, Differs, Extra] {
            let mut different = tally;
            different.count(verdict);
            assert!(different.differs());
            assert_eq!(different.differences(), format!("1 {}", verdict.words()));
            different.add(&tally);
            assert_eq!(different.same(), "4 entries");
        }
    }
}
