//! `verify`, by the real binary: what it calls a difference, what it copies, and what it takes to do so.

mod repair;
mod running;

use test_kit::bridge::Setup;
use test_kit::redis::{Client, Redis, Reply};

use crate::harness::{GROUP, entries, setup};

/// Two servers, and nothing between them.
struct Sides {
    source: Redis,
    target: Redis,
    setup: Setup,
}

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(setup: &Setup, arguments: &[&str]) -> Ran {
    let verify = setup.clone().arg("verify");
    let mut program = arguments.iter().fold(verify, |setup, argument| setup.arg(argument)).start();
    let (code, _) = program.wait_exit();
    let err = program.lines().into_iter().map(|line| line.text + "\n").collect();
    Ran { code, out: program.stdout(), err }
}

impl Ran {
    /// Exactly these lines.
    #[track_caller]
    fn expect(&self, code: i32, lines: &[&str]) {
        assert_eq!(
            (self.code, self.out.lines().collect::<Vec<_>>()),
            (Some(code), lines.to_vec()),
            "{}",
            self.err
        );
    }
}

impl Sides {
    fn begin() -> Self {
        let (source, target) = (Redis::start(), Redis::start());
        let setup = setup(source.port, target.port);
        Self { source, target, setup }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.setup = self.setup.set(name, value);
        self
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&self.setup, arguments)
    }

    /// The same entries on both sides.
    fn add(&self, key: &str, ids: &[&str]) {
        for redis in [&self.source, &self.target] {
            add(redis, key, ids);
        }
    }

    /// All that the source holds of a stream is acknowledged.
    fn acknowledge_all(&self, key: &str) {
        self.source.ask(0, &["XGROUP", "CREATE", key, GROUP, "$"]);
    }
}

fn add(redis: &Redis, key: &str, ids: &[&str]) {
    for id in ids {
        redis.ask(0, &["XADD", key, id, "n", id]);
    }
}

/// So many entries with IDs 1-0, 2-0, …, of about 200 bytes.
fn fill(redis: &Redis, key: &str, from: usize, to: usize) {
    const SCRIPT: &str = "local pad = string.rep('x', 150) for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do \
        redis.call('XADD', KEYS[1], i .. '-0', 'n', i, 'unit', 'C', 'payload', pad) end";
    redis.ask(0, &["EVAL", SCRIPT, "1", key, &from.to_string(), &to.to_string()]);
}

#[test]
fn every_kind_of_difference_is_named_and_the_rest_is_counted() {
    let sides = Sides::begin();
    let (source, target) = (&sides.source, &sides.target);
    sides.add("fine", &["1-0", "2-0"]);
    add(source, "s", &["3-0", "4-0", "5-0", "6-0"]);
    add(target, "s", &["1-0", "3-0", "4-5"]);
    source.ask(0, &["XGROUP", "CREATE", "s", GROUP, "0"]);
    source.ask(0, &["XREADGROUP", "GROUP", GROUP, "c", "STREAMS", "s", ">"]);
    source.ask(0, &["XACK", "s", GROUP, "3-0", "4-0", "6-0"]);
    add(source, "s", &["7-0", "8-0"]);
    target.ask(0, &["XADD", "s", "7-0", "n", "something else"]);
    let header = ["bridge", "redis2redis", "group", GROUP, "stream", "s", "id", "6-0", "reason", "why"];
    let letter =
        [&["XADD", "s:dead-letter", "*"], &header[..], &["time", "now", "attempts", "1", "n", "6-0"]];
    source.ask(0, &letter.concat());
    let others = letter.concat().join(" ").replace(GROUP, "another-group").replace("6-0", "4-0");
    source.ask(0, &others.split(' ').collect::<Vec<_>>());
    let ran = sides.run(&[]);
    let differences = "1 missing at the target, 1 dead-lettered and missing at the target, 2 not yet replicated, \
                       1 with other content at the target, 1 only at the target";
    let stream = format!("s: different: {differences}; 1 entry the same (1 trimmed at the source)");
    let last =
        format!("different: 1 of 2 streams: {differences}; 3 entries the same (1 trimmed at the source)");
    let named = [
        "s 4-0 missing at the target",
        "s 4-5 only at the target",
        "s 6-0 dead-lettered and missing at the target",
        "s 7-0 with other content at the target",
    ];
    ran.expect(1, &[&named[..], &[&stream, &last]].concat());
    assert_eq!(ran.err, "");
    let ran = sides.run(&["--stream", "fine"]);
    ran.expect(0, &["same: 1 stream, 2 entries"]);
    let ran = sides.run(&["--stream", "fine", "--all"]);
    ran.expect(0, &["fine: same: 2 entries", "same: 1 stream, 2 entries"]);
}

#[test]
fn order_repeats_and_bytes_count_as_content() {
    let sides = Sides::begin();
    let (mut here, mut there) = (sides.source.client(), sides.target.client());
    let add = |client: &mut Client, key: &[u8], id: &[u8], fields: &[&[u8]]| {
        let words: Vec<&[u8]> = [b"XADD", key, id].into_iter().chain(fields.iter().copied()).collect();
        assert_eq!(client.ask(&words).unwrap().text().as_bytes(), id);
    };
    let key = b"bin\xff\0ary \r\n".as_slice();
    type Fields = &'static [&'static [u8]];
    let pairs: [(Fields, Fields); 6] = [
        (&[b"\0\xff\r\n", b"\xc3\x28", b"", b""], &[b"\0\xff\r\n", b"\xc3\x28", b"", b""]),
        (&[b"a", b"1", b"b", b"2"], &[b"b", b"2", b"a", b"1"]),
        (&[b"a", b"1", b"a", b"2"], &[b"a", b"2"]),
        (&[b"a", b"\xff"], &[b"a", b"\xfe"]),
        (&[b"a", b"1"], &[b"A", b"1"]),
        (&[b"a", b"1", b"b", b""], &[b"a", b"1"]),
    ];
    for (at, (left, right)) in pairs.iter().enumerate() {
        let id = format!("{}-1", at + 1);
        add(&mut here, key, id.as_bytes(), left);
        add(&mut there, key, id.as_bytes(), right);
    }
    let last = b"18446744073709551615-18446744073709551615";
    add(&mut here, key, last, &[b"a", b"1"]);
    add(&mut there, key, last, &[b"a", b"1"]);
    let name = "b64:Ymlu_wBhcnkgDQo";
    let mut lines: Vec<String> =
        (2..=6).map(|id| format!("{name} {id}-1 with other content at the target")).collect();
    lines.push(format!("{name}: different: 5 with other content at the target; 2 entries the same"));
    lines.push("different: 1 of 1 stream: 5 with other content at the target; 2 entries the same".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    sides.run(&[]).expect(1, &lines);
    sides.run(&["--stream", name]).expect(1, &lines);
}

#[test]
fn twenty_differences_of_a_stream_are_named_unless_all_are_wanted() {
    let sides = Sides::begin();
    fill(&sides.source, "s", 1, 1500);
    sides.acknowledge_all("s");
    fill(&sides.target, "s", 1500, 1500);
    let count = "1,499 missing at the target; 1 entry the same";
    let ran = sides.run(&[]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((ran.code, lines.len()), (Some(1), 23), "{}", ran.out);
    assert_eq!(lines[19], "s 20-0 missing at the target");
    assert_eq!(lines[20], "s: … and 1479 more (--all names them)");
    assert_eq!(lines[21..], [format!("s: different: {count}"), format!("different: 1 of 1 stream: {count}")]);
    let ran = sides.run(&["--all"]);
    let named: Vec<String> = (1..1500).map(|id| format!("s {id}-0 missing at the target")).collect();
    assert_eq!(ran.out.lines().take(1499).collect::<Vec<_>>(), named);
    assert_eq!(ran.out.lines().count(), 1501);
}

#[test]
fn what_was_trimmed_is_no_difference_and_what_was_deleted_is() {
    let sides = Sides::begin();
    sides.add("both", &["1-0", "2-0", "3-0", "4-0"]);
    sides.acknowledge_all("both");
    sides.source.ask(0, &["XTRIM", "both", "MINID", "2-0"]);
    sides.target.ask(0, &["XTRIM", "both", "MINID", "4-0"]);
    let same = "1 entry (2 trimmed at the target)";
    sides.run(&["--all"]).expect(0, &[&format!("both: same: {same}"), &format!("same: 1 stream, {same}")]);
    sides.source.ask(0, &["XTRIM", "both", "MAXLEN", "0"]);
    let same = "0 entries (1 trimmed at the source)";
    sides.run(&[]).expect(0, &[&format!("same: 1 stream, {same}")]);

    // Made anew at the source since, with lower IDs: these never were at the target.
    sides.add("anew", &["7-0", "8-0", "9-0"]);
    sides.target.ask(0, &["XTRIM", "anew", "MAXLEN", "1"]);
    sides.source.ask(0, &["DEL", "anew"]);
    add(&sides.source, "anew", &["1-0", "2-0"]);
    sides.acknowledge_all("anew");
    let never = "2 missing at the target, 1 only at the target; 0 entries the same";
    let ran = sides.run(&["--stream", "anew"]);
    assert!(ran.code == Some(1) && ran.out.contains(never), "{}", ran.out);

    sides.add("gap", &["1-0", "2-0", "3-0", "4-0"]);
    sides.acknowledge_all("gap");
    sides.target.ask(0, &["XDEL", "gap", "1-0", "2-0"]);
    sides.source.ask(0, &["XDEL", "gap", "3-0"]);
    sides.run(&["--stream", "gap"]).expect(
        1,
        &[
            "gap 1-0 missing at the target",
            "gap 2-0 missing at the target",
            "gap 3-0 only at the target",
            "gap: different: 2 missing at the target, 1 only at the target; 1 entry the same",
            "different: 1 of 1 stream: 2 missing at the target, 1 only at the target; 1 entry the same",
        ],
    );
}

#[test]
fn what_the_settings_keep_from_the_target_is_no_difference() {
    let sides = Sides::begin().set("FILTER_FIELD", "n").set("FILTER_VALUES", "1-0,2-0,4-0");
    add(&sides.source, "s", &["1-0", "2-0", "3-0", "4-0"]);
    let from_two = sides.setup.clone().set("STREAM_START_ID", "1-0");
    run(&from_two, &["--repair"]).expect(
        0,
        &[
            "s: 2 entries copied to the target",
            "same: 1 stream, 2 entries (1 filtered out, 1 not above STREAM_START_ID); 2 entries copied",
        ],
    );
    assert_eq!(entries(&sides.target, 0, "s").len(), 2);
    let ran = sides.run(&["--stream", "s"]);
    let different = "1 not yet replicated; 2 entries the same (1 filtered out)";
    ran.expect(
        1,
        &[&format!("s: different: {different}"), &format!("different: 1 of 1 stream: {different}")],
    );
}

#[test]
fn streams_are_compared_where_the_settings_put_them() {
    let sides = Sides::begin().set("TARGET_STREAM_PREFIX", "synced:").set("TARGET_REDIS_DB", "2");
    sides.source.ask(0, &["XADD", "a", "1-0", "n", "0"]);
    sides.source.ask(1, &["XADD", "a", "1-0", "n", "1"]);
    sides.target.ask(2, &["XADD", "synced:a", "1-0", "n", "0"]);
    sides.target.ask(2, &["XADD", "synced:db1:a", "1-0", "n", "1"]);
    sides.run(&[]).expect(0, &["same: 2 streams, 2 entries"]);
    sides
        .run(&["--stream", "db1:a", "--all"])
        .expect(0, &["db1:a: same: 1 entry", "same: 1 stream, 1 entry"]);
    let same = sides.setup.clone().set("TARGET_REDIS_DB", "same");
    assert_eq!(run(&same, &[]).code, Some(1));
    let repaired = run(&same, &["--repair"]);
    assert!(repaired.out.ends_with("same: 2 streams, 2 entries; 2 entries copied\n"), "{}", repaired.out);
    for db in [0, 1] {
        assert_eq!(entries(&sides.target, db, "synced:a"), entries(&sides.source, db, "a"));
    }
}

#[test]
fn a_key_of_another_type_is_said_and_the_other_streams_are_compared() {
    let sides = Sides::begin();
    sides.add("a", &["1-0"]);
    add(&sides.source, "b", &["1-0"]);
    sides.target.ask(0, &["SET", "b", "text"]);
    sides.source.ask(0, &["SET", "c", "text"]);
    let named = sides.setup.clone().set("REDIS_STREAMS", "c,d");
    run(&named, &["--repair"]).expect(
        1,
        &[
            "b: cannot be compared: the target key b holds something else than a stream",
            "c: cannot be compared: the key holds something else than a stream",
            "different: 2 of 3 streams; 1 entry the same",
        ],
    );
    assert_eq!(sides.target.ask(0, &["GET", "b"]), Reply::Text(b"text".to_vec()));
}

#[test]
fn a_stream_that_only_the_target_has_is_all_extra_and_one_that_neither_has_cannot_be_compared() {
    let sides = Sides::begin();
    add(&sides.target, "s", &["1-0"]);
    let words = "1 only at the target; 0 entries the same";
    let lines = ["s 1-0 only at the target", &format!("s: different: {words}")];
    let last = format!("different: 1 of 1 stream: {words}");
    sides.run(&["--stream", "s"]).expect(1, &[&lines[..], &[&last]].concat());
    sides.run(&["--stream", "t"]).expect(
        1,
        &[
            "t: cannot be compared: there is no such stream on either side",
            "different: 1 of 1 stream; 0 entries the same",
        ],
    );
    sides.run(&[]).expect(1, &["nothing to compare: the settings select no stream that is there"]);
}
