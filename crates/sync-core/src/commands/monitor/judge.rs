//! What numbers mean: from what is known of a stream to what somebody should look after. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::record::EntryId;
use crate::redis::statistics::Lag;

/// A destination confirms within seconds, and what it did not is tried again within 30 s (the longest delay, if
/// nobody set another): twice that is no passing delay.
pub(super) const UNCONFIRMED: Duration = Duration::from_secs(60);
/// A bridge asks for a stream's next entries every 2 s at most. It takes its own processes for ended after as long.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Looks, one after the other, in which the lag grew and never fell: a bridge that keeps up takes in a burst sooner.
pub(super) const GROWING: usize = 4;
/// Fewer entries than this are one read (STREAM_BATCH_SIZE): they say nothing about how far behind a group is.
pub(super) const FEW: u64 = 100;
/// Per cent of a trimmed stream that are unread: the next trimming takes unread entries soon.
pub(super) const NEAR: u64 = 90;

/// How a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Health {
    Ok,
    /// Worth a look: nothing is lost.
    Warn,
    /// Entries do not go where they should, or are lost.
    Critical,
}

impl Health {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Critical => "CRITICAL",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    NoGroup,
    Unconfirmed,
    LagGrowing,
    NotRead,
    DeadLetters,
    Lost,
    NearTrimming,
    Vanished,
    NoStream,
    NotReadable,
}

/// Something to look after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    pub(super) kind: Kind,
    pub(super) health: Health,
    /// With the numbers.
    pub(super) what: String,
    /// Beyond which it is one.
    pub(super) limit: Option<String>,
    /// What to do.
    pub(super) action: String,
}

impl Warning {
    /// `what (limit)`
    pub(super) fn what_and_limit(&self) -> String {
        match &self.limit {
            Some(limit) => format!("{} ({limit})", self.what),
            None => self.what.clone(),
        }
    }

    /// `what (limit): action`
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.what_and_limit(), self.action)
    }
}

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A stream, with the own group if it has that.
    There(Option<Group>),
    /// Nothing, and there never was: the settings may name what is yet to come.
    Absent,
    /// Nothing any more.
    Vanished,
    /// Something else than a stream.
    OtherType,
    /// What cannot be asked, in the server's words.
    Unreadable(String),
}

/// The own group on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) length: u64,
    pub(super) lag: Lag,
    /// The lag at the last looks, this one included.
    pub(super) lags: Vec<u64>,
    /// Something had lain ahead at the look before, too, or there is only one look.
    pub(super) waits: bool,
    /// The shortest time for which one of its consumers asked for nothing; none where it has none. Known where
    /// something lies ahead.
    pub(super) idle: Option<Duration>,
    /// The oldest pending entry, and for how long it is so.
    pub(super) oldest: Option<(EntryId, Duration)>,
    pub(super) loss: Loss,
    /// The stream is one that is trimmed.
    pub(super) trimmed: bool,
}

impl Group {
    /// The bridge deletes what is acknowledged, so that what is unread is all that stands: that says nothing.
    pub(super) fn is_cleaned_up(&mut self) {
        self.trimmed = false;
        if self.loss == Loss::Possible {
            self.loss = Loss::None;
        }
    }
}

/// What went from the source before the group was handed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    None,
    /// So many, by Redis' count.
    Counted(u64),
    /// The newest entry of the look before, at least.
    Seen,
    /// What the group was handed last is gone, and Redis does not count.
    Possible,
}

/// What a bridge with these settings does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) group: &'a str,
    pub(super) auto_create_groups: bool,
}

/// All that is to be said of a stream. `letters` stand in its dead-letter stream.
pub(super) fn judge(state: &State, letters: Option<u64>, rules: Rules<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind, health, what: String, limit: Option<String>, action: &str| {
        warnings.push(Warning { kind, health, what, limit, action: action.to_owned() });
    };
    match state {
        State::Absent => {}
        State::Vanished => {
            let action =
                "somebody deleted or renamed it, or it expired; what was not delivered is gone with it";
            warn(Kind::Vanished, Health::Critical, "the stream is gone".into(), None, action);
        }
        State::OtherType => {
            let action = "it is not read; rename the key, or take it out of REDIS_STREAMS";
            let what = "the key holds something else than a stream".into();
            warn(Kind::NoStream, Health::Critical, what, None, action);
        }
        State::Unreadable(words) => {
            let action = "permit XINFO, XPENDING and XLEN to this user";
            warn(Kind::NotReadable, Health::Warn, format!("cannot be looked at: {words}"), None, action);
        }
        State::There(None) => {
            let action = if rules.auto_create_groups {
                "start the bridge, which creates it; if it runs, its log says why it did not"
            } else {
                "create it with XGROUP CREATE (STREAM_AUTO_CREATE_CONSUMER_GROUPS is false)"
            };
            warn(Kind::NoGroup, Health::Warn, format!("no consumer group {}", rules.group), None, action);
        }
        State::There(Some(group)) => judge_group(group, &mut warn),
    }
    if let Some(letters) = letters.filter(|letters| *letters > 0) {
        let what = match letters {
            1 => "1 dead letter".to_owned(),
            letters => format!("{letters} dead letters"),
        };
        let action = "entries that no destination takes; dead-letters list says why, for each group";
        warn(Kind::DeadLetters, Health::Warn, what, None, action);
    }
    warnings
}

fn judge_group(group: &Group, warn: &mut impl FnMut(Kind, Health, String, Option<String>, &str)) {
    let (waits, action) =
        (group.lag.is_some() && group.waits, "let the stream keep more, or the bridge go faster");
    match group.loss {
        Loss::None => {}
        Loss::Counted(number) => {
            let what = format!("{number} trimmed or deleted before the group was handed them");
            warn(Kind::Lost, Health::Critical, what, None, action);
        }
        Loss::Seen => {
            let what = "entries were trimmed or deleted before the group was handed them".into();
            warn(Kind::Lost, Health::Critical, what, None, action);
        }
        Loss::Possible if waits => {
            let what = "entries may have been trimmed before the group was handed them".into();
            warn(Kind::Lost, Health::Warn, what, None, action);
        }
        Loss::Possible => {}
    }
    let lag = group.lag.number().unwrap_or_default();
    if group.trimmed && lag >= FEW && u128::from(lag) * 100 >= u128::from(group.length) * u128::from(NEAR) {
        let what = format!("{lag} of {} entries are unread, and the stream is trimmed", group.length);
        let limit = format!("limit {NEAR} % and {FEW} entries");
        warn(Kind::NearTrimming, Health::Warn, what, Some(limit), action);
    }
    let not_read = waits && group.idle.is_none_or(|idle| idle > IDLE);
    if not_read {
        let what = match group.idle {
            Some(idle) => format!("entries wait and no consumer has asked for any for {}", brief(idle)),
            None => "entries wait and the group has no consumer".to_owned(),
        };
        let action = "start the bridge; if it runs, it holds the stream back: see its log and /readyz";
        warn(Kind::NotRead, Health::Critical, what, Some(format!("limit {}", brief(IDLE))), action);
    }
    let first = group.lags.first().copied().unwrap_or_default();
    if group.lags.len() >= GROWING && group.lags.is_sorted() && lag > first && lag >= FEW && !not_read {
        let what = format!("the lag grows: {first} to {lag} in {} looks", group.lags.len());
        let limit = format!("limit {GROWING} looks and {FEW} entries");
        let action = "more arrives than is delivered; see the bridge's log for what slows it down";
        warn(Kind::LagGrowing, Health::Warn, what, Some(limit), action);
    }
    if let Some((id, since)) = group.oldest.filter(|(_, since)| *since > UNCONFIRMED) {
        let what = format!("entry {id} is pending for {}", brief(since));
        let limit = format!("limit {}", brief(UNCONFIRMED));
        let action = "the bridge is stopped, or its destination does not confirm: see its log and /readyz";
        warn(Kind::Unconfirmed, Health::Warn, what, Some(limit), action);
    }
}

/// `75 s`, `12 min`, `3 h`, `4 d`.
pub(super) fn brief(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules { group: "g", auto_create_groups: true };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// 200 entries, all delivered and confirmed.
    fn well() -> Group {
        Group {
            length: 200,
            lag: Lag::Exact(0),
            lags: vec![0],
            waits: false,
            idle: None,
            oldest: None,
            loss: Loss::None,
            trimmed: false,
        }
    }

    #[track_caller]
    fn check(state: State, letters: Option<u64>, expected: &[(Kind, Health)]) {
        let warnings = judge(&state, letters, RULES);
        let found: Vec<_> = warnings.iter().map(|warning| (warning.kind, warning.health)).collect();
        assert_eq!(found, expected, "{state:?}");
        assert!(warnings.iter().all(|warning| !warning.action.is_empty()));
    }

    #[test]
    fn what_stands_at_the_key() {
        use Health::{Critical, Warn};
        check(State::Absent, None, &[]);
        check(State::Vanished, Some(0), &[(Kind::Vanished, Critical)]);
        check(State::OtherType, None, &[(Kind::NoStream, Critical)]);
        check(State::Unreadable("NOPERM".into()), None, &[(Kind::NotReadable, Warn)]);
        check(State::There(None), Some(2), &[(Kind::NoGroup, Warn), (Kind::DeadLetters, Warn)]);
        check(State::There(Some(well())), None, &[]);
        let of = |auto_create_groups| {
            let rules = Rules { auto_create_groups, ..RULES };
            judge(&State::There(None), None, rules).remove(0).text()
        };
        assert!(
            of(true).contains("start the bridge") && of(false).contains("XGROUP CREATE"),
            "{}",
            of(false)
        );
    }

    #[test]
    fn the_own_group() {
        use Health::{Critical, Warn};
        let check =
            |group: Group, expected: &[(Kind, Health)]| check(State::There(Some(group)), None, expected);
        let id = EntryId { ms: 5, seq: 1 };
        check(Group { oldest: Some((id, seconds(60))), ..well() }, &[]);
        check(Group { oldest: Some((id, seconds(61))), ..well() }, &[(Kind::Unconfirmed, Warn)]);

        let behind = |lag: Lag| Group { lag, waits: true, idle: Some(seconds(1)), ..well() };
        check(behind(Lag::Exact(150)), &[]);
        check(behind(Lag::Unknown), &[]);
        let left = |lag| Group { idle: Some(seconds(61)), ..behind(lag) };
        check(left(Lag::Exact(1)), &[(Kind::NotRead, Critical)]);
        check(left(Lag::Unknown), &[(Kind::NotRead, Critical)]);
        check(left(Lag::Exact(0)), &[]);
        check(Group { idle: None, ..behind(Lag::Exact(1)) }, &[(Kind::NotRead, Critical)]);
        // It came between a read and the look.
        check(Group { waits: false, ..left(Lag::Exact(1)) }, &[]);

        let lags = |lags: &[u64]| {
            let lag = Lag::Exact(lags.last().copied().unwrap_or_default());
            Group { lags: lags.to_vec(), ..behind(lag) }
        };
        check(lags(&[10, 20, 100]), &[]);
        check(lags(&[10, 20, 19, 100]), &[]);
        check(lags(&[100, 100, 100, 100]), &[]);
        check(lags(&[100, 100, 100, 101]), &[(Kind::LagGrowing, Warn)]);
        check(lags(&[10, 20, 30, 99]), &[]);
        check(lags(&[10, 20, 30, 100]), &[(Kind::LagGrowing, Warn)]);
        let alone = Group { idle: None, ..lags(&[10, 20, 30, 100]) };
        check(alone, &[(Kind::NotRead, Critical)]);

        let trimmed = |lag, length| Group { trimmed: true, length, ..behind(lag) };
        check(trimmed(Lag::Exact(179), 200), &[]);
        check(trimmed(Lag::About(180), 200), &[(Kind::NearTrimming, Warn)]);
        check(trimmed(Lag::Exact(99), 99), &[]);
        check(trimmed(Lag::Unknown, 200), &[]);
        let mut cleaned_up = Group { loss: Loss::Possible, ..trimmed(Lag::Exact(200), 200) };
        cleaned_up.is_cleaned_up();
        check(cleaned_up, &[]);

        check(Group { loss: Loss::Counted(3), ..behind(Lag::Exact(9)) }, &[(Kind::Lost, Critical)]);
        check(Group { loss: Loss::Seen, ..behind(Lag::Exact(9)) }, &[(Kind::Lost, Critical)]);
        check(Group { loss: Loss::Possible, ..behind(Lag::Exact(9)) }, &[(Kind::Lost, Warn)]);
        check(Group { loss: Loss::Possible, waits: false, ..behind(Lag::Exact(9)) }, &[]);
    }

    #[test]
    fn a_warning_says_what_the_limit_and_what_to_do() {
        let group = Group { oldest: Some((EntryId { ms: 5, seq: 1 }, seconds(75))), ..well() };
        let warnings = judge(&State::There(Some(group)), Some(1), RULES);
        let texts: Vec<_> = warnings.iter().map(Warning::text).collect();
        assert!(
            texts[0].starts_with("entry 5-1 is pending for 75 s (limit 60 s): the bridge is stopped"),
            "{texts:?}"
        );
        assert!(texts[1].starts_with("1 dead letter: "), "{texts:?}");
    }

    #[test]
    fn durations() {
        let check = |of, text: &str| assert_eq!(brief(seconds(of)), text);
        check(0, "0 s");
        check(119, "119 s");
        check(120, "2 min");
        check(7_200, "2 h");
        check(172_800, "2 d");
    }
}
