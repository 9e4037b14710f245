//! What one look found, as it is shown: the worst streams first. The shape of the JSON is this one.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::judge::{Health, Warning};
use crate::redis::statistics::Lag;

/// All streams.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Look {
    #[serde(serialize_with = "as_text")]
    pub(super) time: DateTime<Utc>,
    /// Host and port.
    pub(super) source: String,
    /// The own consumer group.
    pub(super) group: String,
    pub(super) took_ms: u64,
    pub(super) totals: Totals,
    /// What kept streams from being found.
    pub(super) problems: Vec<String>,
    /// The worst first.
    pub(super) streams: Vec<Row>,
}

/// Sums over all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub(super) streams: usize,
    pub(super) ok: usize,
    pub(super) warn: usize,
    pub(super) critical: usize,
    pub(super) length: u64,
    /// Of those streams where it is known,
    pub(super) lag: u64,
    /// and whether that is all of them, for certain.
    pub(super) lag_exact: bool,
    pub(super) pending: u64,
    pub(super) dead_letters: u64,
}

/// One stream. What is not known, or does not exist, is none.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) stream: String,
    pub(super) health: Health,
    pub(super) length: Option<u64>,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    /// Of the own group, as all until `groups`.
    #[serde(flatten)]
    pub(super) lag: Ahead,
    pub(super) pending: Option<u64>,
    pub(super) consumers: Option<u64>,
    pub(super) oldest_pending: Option<OldestPending>,
    pub(super) dead_letters: Option<u64>,
    pub(super) groups: Vec<GroupRow>,
    pub(super) warnings: Vec<Warning>,
}

/// A lag, in JSON a number and whether it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ahead {
    lag: Option<u64>,
    lag_exact: bool,
    /// There is no group to have one.
    #[serde(skip)]
    absent: bool,
}

impl Ahead {
    pub(super) fn of(lag: Option<Lag>) -> Self {
        let number = lag.and_then(Lag::number);
        Self { lag: number, lag_exact: matches!(lag, Some(Lag::Exact(_))), absent: lag.is_none() }
    }

    /// `12`, `~12` where it may be wrong, `?` where nobody knows, `-` where there is none.
    pub(super) fn text(self) -> String {
        match self.lag {
            Some(lag) if self.lag_exact => lag.to_string(),
            Some(lag) => format!("~{lag}"),
            None if self.absent => "-".to_owned(),
            None => "?".to_owned(),
        }
    }
}

/// The pending entry with the lowest ID.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OldestPending {
    pub(super) id: String,
    /// By its ID; none where that is no time.
    pub(super) age_ms: Option<u64>,
    /// Since it was last handed to a consumer, or since this monitor first saw it pending, if that is longer.
    pub(super) pending_ms: u64,
    /// How often it was handed to one.
    pub(super) deliveries: u64,
}

impl OldestPending {
    /// What is shown as its age.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms.unwrap_or(self.pending_ms))
    }
}

/// A consumer group.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GroupRow {
    pub(super) name: String,
    /// It is that of the bridge.
    pub(super) own: bool,
    pub(super) consumers: u64,
    pub(super) pending: u64,
    #[serde(flatten)]
    pub(super) lag: Ahead,
}

impl Look {
    /// Puts the worst first, and adds up.
    pub(super) fn new(source: String, group: String, mut streams: Vec<Row>, problems: Vec<String>) -> Self {
        streams.sort_by_cached_key(|row| {
            let most = |number: Option<u64>| std::cmp::Reverse(number);
            (std::cmp::Reverse(row.health), most(row.lag.lag), most(row.pending), row.stream.clone())
        });
        let mut totals = Totals { streams: streams.len(), lag_exact: true, ..Totals::default() };
        for row in &streams {
            match row.health {
                Health::Ok => totals.ok += 1,
                Health::Warn => totals.warn += 1,
                Health::Critical => totals.critical += 1,
            }
            totals.length += row.length.unwrap_or_default();
            totals.lag += row.lag.lag.unwrap_or_default();
            totals.lag_exact &= row.lag.lag_exact || row.lag.absent;
            totals.pending += row.pending.unwrap_or_default();
            totals.dead_letters += row.dead_letters.unwrap_or_default();
        }
        Self { time: Utc::now(), source, group, took_ms: 0, totals, problems, streams }
    }

    /// Whether there is nothing to warn of.
    pub(super) fn is_well(&self) -> bool {
        self.problems.is_empty() && self.totals.ok == self.totals.streams
    }
}

impl Totals {
    /// `12`, `~12`.
    pub(super) fn lag_text(&self) -> String {
        Ahead { lag: Some(self.lag), lag_exact: self.lag_exact, absent: false }.text()
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn time_text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn as_text<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(time))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::judge::Kind;
    use super::*;

    /// A stream in that state of health, with a lag.
    pub(in crate::commands::monitor) fn row(stream: &str, health: Health, lag: Lag) -> Row {
        let warning = Warning {
            kind: Kind::Unconfirmed,
            health,
            what: "entry 5-1 is pending for 75 s".into(),
            limit: Some("limit 60 s".into()),
            action: "see \"the log\"".into(),
        };
        let own =
            GroupRow { name: "g".into(), own: true, consumers: 1, pending: 2, lag: Ahead::of(Some(lag)) };
        Row {
            stream: stream.into(),
            health,
            length: Some(10),
            first: Some("1-0".into()),
            last: Some("10-0".into()),
            lag: own.lag,
            pending: Some(2),
            consumers: Some(1),
            oldest_pending: Some(OldestPending {
                id: "5-1".into(),
                age_ms: None,
                pending_ms: 75_000,
                deliveries: 3,
            }),
            dead_letters: Some(0),
            groups: vec![own],
            warnings: if health == Health::Ok { vec![] } else { vec![warning] },
        }
    }

    pub(in crate::commands::monitor) fn look(streams: Vec<Row>) -> Look {
        let look = Look::new("127.0.0.1:6379".into(), "g".into(), streams, vec![]);
        Look { time: DateTime::from_timestamp(1_700_000_000, 5_000_000).unwrap(), took_ms: 7, ..look }
    }

    #[test]
    fn the_worst_comes_first_and_all_are_added_up() {
        let look = look(vec![
            row("fine", Health::Ok, Lag::Exact(90)),
            row("b", Health::Warn, Lag::About(3)),
            row("c", Health::Warn, Lag::Exact(4)),
            row("a", Health::Warn, Lag::About(3)),
            row("lost", Health::Critical, Lag::Unknown),
        ]);
        let order: Vec<_> = look.streams.iter().map(|row| row.stream.as_str()).collect();
        assert_eq!(order, ["lost", "c", "a", "b", "fine"]);
        let expected = Totals {
            streams: 5,
            ok: 1,
            warn: 3,
            critical: 1,
            length: 50,
            lag: 100,
            lag_exact: false,
            pending: 10,
            dead_letters: 0,
        };
        assert_eq!((look.totals, look.is_well()), (expected, false));
        assert_eq!(look.totals.lag_text(), "~100");
    }

    #[test]
    fn lags() {
        let check = |lag, text: &str| assert_eq!(Ahead::of(lag).text(), text);
        check(Some(Lag::Exact(3)), "3");
        check(Some(Lag::About(3)), "~3");
        check(Some(Lag::Unknown), "?");
        check(None, "-");
    }
}
