use super::*;

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

/// `added` entries 1, 2, 3, … of which `first..=last` are there; the group is at `delivered`.
fn stream(added: u64, there: std::ops::RangeInclusive<u64>, delivered: u64, read: Option<u64>) -> Snapshot {
    let empty = there.is_empty();
    Snapshot {
        length: there.clone().count() as u64,
        added: Some(added),
        first: (!empty).then(|| id(*there.start())),
        last: (!empty).then(|| id(*there.end())),
        generated: id(added),
        max_deleted: EntryId::default(),
        delivered: id(delivered),
        entries_read: read,
    }
}

#[expect(clippy::reversed_empty_ranges, reason = "nothing is there")]
const NOTHING: std::ops::RangeInclusive<u64> = 1..=0;

/// Looks at these one after the other; (snapshot, counted, lost afterwards).
#[track_caller]
fn check(name: &str, looks: &[(Snapshot, u64, u64)], exact: bool) {
    let mut account = Account::default();
    for (at, (snapshot, counted, lost)) in looks.iter().enumerate() {
        let before = account.lost();
        let growth = account.look(*snapshot, Some(*counted), true);
        assert_eq!(account.lost(), *lost, "{name}: look {at}");
        assert_eq!(growth.map_or(0, |growth| growth.count), lost - before, "{name}: look {at}");
        assert!(growth.is_none_or(|growth| growth.exact == exact && growth.total == *lost), "{name}");
    }
}

#[test]
fn losses() {
    let s = stream;
    check("nothing happens", &[(s(0, NOTHING, 0, None), 0, 0), (s(0, NOTHING, 0, None), 0, 0)], true);
    check("read as it comes", &[(s(5, 1..=5, 0, None), 0, 0), (s(9, 1..=9, 9, Some(9)), 9, 0)], true);
    check(
        "trimmed behind the group",
        &[(s(9, 1..=9, 6, Some(6)), 6, 0), (s(9, 5..=9, 6, Some(6)), 6, 0), (s(9, 9..=9, 9, Some(9)), 9, 0)],
        true,
    );
    check("trimmed before it was read", &[(s(9, 1..=9, 0, None), 0, 0), (s(9, 5..=9, 0, None), 0, 4)], true);
    check(
        "all trimmed, then more",
        &[
            (s(9, 1..=9, 2, Some(2)), 2, 0),
            (s(9, NOTHING, 2, Some(2)), 2, 7),
            (s(11, 10..=11, 2, Some(2)), 2, 7),
            (s(11, 10..=11, 11, Some(4)), 4, 7),
        ],
        true,
    );
    check(
        "in the middle nothing is known, at the end it is",
        &[
            (s(9, 1..=9, 2, Some(2)), 2, 0),
            (s(20, 8..=20, 10, Some(5)), 5, 0),
            (s(20, 8..=20, 20, Some(15)), 15, 5),
        ],
        true,
    );
    check(
        "the server counts anew after a trim",
        &[(s(9, 1..=9, 2, Some(2)), 2, 0), (s(20, 8..=20, 20, Some(20)), 15, 5)],
        true,
    );
    check(
        "before this process started: once, and again after a restart of the bridge",
        &[(s(20, 8..=20, 20, Some(15)), 0, 5), (s(25, 8..=25, 25, Some(20)), 5, 5)],
        true,
    );
    check(
        "trimmed before the group was created",
        &[(s(20, 8..=20, 0, None), 0, 0), (s(20, 8..=20, 20, Some(20)), 13, 0)],
        true,
    );
    check(
        "created at $, always one behind",
        &[(s(20, 1..=20, 20, None), 0, 0), (s(30, 1..=30, 29, None), 9, 0), (s(40, 35..=40, 29, None), 9, 5)],
        true,
    );
}

#[test]
fn doubts() {
    let s = stream;
    check("set forward", &[(s(9, 1..=9, 2, Some(2)), 2, 0), (s(9, 1..=9, 9, None), 2, 0)], true);
    check(
        "set back",
        &[(s(9, 1..=9, 9, Some(9)), 9, 0), (s(9, 1..=9, 0, None), 0, 0), (s(9, 3..=9, 0, None), 0, 2)],
        false,
    );
    check(
        "made anew, smaller",
        &[(s(9, 1..=9, 9, Some(9)), 9, 0), (s(3, 1..=3, 0, None), 0, 0), (s(3, 3..=3, 0, None), 0, 2)],
        false,
    );
    let renumbered = Snapshot { added: Some(1009), ..s(9, 1..=9, 9, Some(9)) };
    check("XSETID", &[(s(9, 1..=9, 9, Some(9)), 9, 0), (renumbered, 9, 0)], true);
    check(
        "an AOF was loaded, and entries-read fell behind",
        &[
            (s(9, 1..=9, 9, Some(9)), 9, 0),
            (s(9, 1..=9, 9, Some(2)), 9, 0),
            (s(12, 12..=12, 9, Some(2)), 9, 2),
        ],
        true,
    );
    check(
        "the same before this process: more than is gone",
        &[(s(9, 1..=9, 9, Some(2)), 0, 0), (s(12, 12..=12, 9, Some(2)), 0, 2)],
        false,
    );

    let mut account = Account::default();
    account.look(s(9, 1..=9, 2, Some(2)), Some(2), true);
    assert_eq!(account.look(s(9, 1..=9, 9, Some(9)), None, true), None, "no count, no verdict");
    assert_eq!(account.look(s(9, 1..=9, 9, Some(9)), Some(5), false), None, "others were handed entries");
    let growth = account.look(s(15, 15..=15, 9, Some(9)), Some(5), true);
    assert_eq!(growth, Some(Growth { count: 5, total: 5, exact: false }));
}

#[test]
fn deletions() {
    let s = stream;
    let deleted = |snapshot: Snapshot, count, highest| Snapshot {
        length: snapshot.length - count,
        max_deleted: id(highest),
        ..snapshot
    };
    check(
        "of what was delivered",
        &[
            (s(9, 1..=9, 6, Some(6)), 6, 0),
            (deleted(s(9, 1..=9, 6, Some(6)), 3, 5), 6, 0),
            (deleted(s(9, 1..=9, 9, Some(9)), 3, 5), 9, 0),
            (deleted(s(9, 7..=9, 9, Some(9)), 0, 6), 9, 0),
        ],
        true,
    );
    check(
        "of what was not",
        &[
            (s(9, 1..=9, 2, Some(2)), 2, 0),
            (deleted(s(9, 1..=9, 2, Some(2)), 1, 4), 2, 0),
            (deleted(s(9, 1..=9, 6, None), 1, 4), 5, 0),
            (deleted(s(9, 1..=9, 9, Some(9)), 1, 4), 8, 1),
        ],
        false,
    );
    let newest_gone = Snapshot { last: Some(id(8)), ..deleted(s(9, 1..=9, 8, Some(8)), 1, 9) };
    let mut account = Account::default();
    account.look(newest_gone, Some(8), true);
    assert_eq!(account.lag(&newest_gone, Some(8)), 0);
}

#[test]
fn before_redis_7() {
    let s = |there, delivered| Snapshot { added: None, ..stream(20, there, delivered, None) };
    check("trimmed behind the group", &[(s(1..=20, 15), 0, 0), (s(10..=20, 15), 0, 0)], false);
    let trimmed = Snapshot { generated: id(30), ..s(25..=30, 15) };
    check("all that was there", &[(s(1..=20, 15), 0, 0), (trimmed, 0, 1), (trimmed, 0, 1)], false);
    check("all of it", &[(s(1..=20, 15), 0, 0), (s(NOTHING, 15), 0, 1), (s(NOTHING, 15), 0, 1)], false);
    check("empty from the start", &[(s(NOTHING, 0), 0, 0), (s(NOTHING, 0), 0, 0)], false);
}

#[test]
fn lags() {
    let lag = |snapshot: Snapshot, counted| {
        let mut account = Account::default();
        account.look(snapshot, counted, true);
        account.lag(&snapshot, counted)
    };
    assert_eq!(lag(stream(9, 1..=9, 0, None), None), 9);
    assert_eq!(lag(stream(9, 1..=9, 9, None), None), 0);
    assert_eq!(lag(stream(9, 5..=9, 2, Some(2)), Some(2)), 5, "Redis 7.0 says 7");
    assert_eq!(lag(stream(9, NOTHING, 2, Some(2)), Some(2)), 0);
    assert_eq!(lag(stream(9, 1..=9, 6, Some(6)), Some(6)), 3);
    assert_eq!(lag(stream(1001, 1..=1001, 901, None), None), 100, "by the IDs' times");
    assert_eq!(lag(Snapshot { first: Some(id(7)), last: Some(id(7)), ..stream(9, 1..=9, 6, None) }, None), 9);
    let one_millisecond = Snapshot {
        first: Some(EntryId { ms: 5, seq: 0 }),
        last: Some(EntryId { ms: 5, seq: 8 }),
        delivered: EntryId { ms: 5, seq: 3 },
        ..stream(9, 1..=9, 5, None)
    };
    assert_eq!(lag(one_millisecond, None), 8, "at most");
}

#[test]
fn ages() {
    let now = 1_800_000_000_000;
    let age = |ms| age_ms(Some(id(ms)), now);
    assert_eq!([age(now - 5), age(now), age(now + 5), age(0), age(7)], [5, 0, 0, 0, 0]);
    assert_eq!(age_ms(None, now), 0);
}
