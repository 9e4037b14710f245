//! What a row is: names, IDs, times, and data to the last digit.

use test_kit::postgres::Database;
use test_kit::redis::Redis;
use test_kit::writer::{targets, write};

use crate::harness::{GROUP, Scene, Sql as _, wait_settled};

/// `data` of each row of a stream, by ID.
fn data(scene: &Scene, stream: &str) -> Vec<String> {
    let sql = format!(
        r#"SELECT data FROM redis_streams WHERE stream_key = '{stream}' ORDER BY "timestamp", message_id"#
    );
    scene.sql.rows(&sql).into_iter().flatten().collect()
}

#[test]
fn a_row_has_the_streams_name_the_ids_time_and_the_fields() {
    let scene = Scene::begin(|setup| setup);
    scene.source.ask(3, &["XADD", "device:7", "1700000000123-4", "pressure", "2.75", "state", "running"]);
    scene.source.ask(0, &["XADD", "db1:x", "0-1", "n", "1"]);
    wait_settled(&scene.source, &scene.bridge, 3, "device:7");
    scene.settled("db1:x");
    let rows = scene.sql.rows(
        r#"SELECT stream_key, message_id, data, "timestamp" AT TIME ZONE 'UTC' FROM redis_streams ORDER BY stream_key"#,
    );
    assert_eq!(
        rows,
        [
            ["db0:db1:x", "0-1", r#"{"n": 1}"#, "1970-01-01 00:00:00"],
            [
                "db3:device:7",
                "1700000000123-4",
                r#"{"state": "running", "pressure": 2.75}"#,
                "2023-11-14 22:13:20.123"
            ],
        ]
    );
    scene.end(&[]);
}

#[test]
fn nothing_is_changed_on_the_way() {
    let scene = Scene::begin(|setup| setup);
    let mut client = scene.source.client();
    let mut add = |id: &[u8], fields: &[&[u8]]| {
        let words: Vec<&[u8]> =
            [b"XADD".as_slice(), b"s", id].into_iter().chain(fields.iter().copied()).collect();
        assert_eq!(client.ask(&words).unwrap().text().as_bytes(), id);
    };
    let digits = "123456789012345678901234567890";
    let values: [(&[u8], &str); 17] = [
        (digits.as_bytes(), digits),
        (b"1.00", "1.00"),
        (b"-0.10", "-0.10"),
        (b"1e5", r#""1e5""#),
        (b"-0", r#""-0""#),
        (b"007", r#""007""#),
        (b"true", "true"),
        (b"null", r#""null""#),
        (b"", r#""""#),
        (b"a\0b", r#"{"$base64": "YQBi"}"#),
        (b"\xff\xfe", r#"{"$base64": "//4="}"#),
        (br#"{"a":[1.50,{"b":null}]}"#, r#"{"a": [1.50, {"b": null}]}"#),
        (br#"{"a":1,"a":2}"#, r#""{\"a\":1,\"a\":2}""#),
        (br#"{"a":1e2}"#, r#""{\"a\":1e2}""#),
        (br#"["\u0000"]"#, r#""[\"\\u0000\"]""#),
        (br#"["\ud800"]"#, r#""[\"\\ud800\"]""#),
        (br#"{"$base64":"eA=="}"#, r#""{\"$base64\":\"eA==\"}""#),
    ];
    let mut expected = Vec::new();
    for (at, (value, json)) in values.iter().enumerate() {
        add(format!("{}-0", at + 1).as_bytes(), &[b"v", value]);
        expected.push(format!(r#"{{"v": {json}}}"#));
    }
    add(b"100-0", &[b"b", b"2", b"a", b"1", b"b", b"3"]);
    expected.push(r#"{"$fields": [["b", 2], ["a", 1], ["b", 3]]}"#.to_owned());
    add(b"101-0", &[b"\xff", b"1", b"", b"no name"]);
    expected.push(r#"{"$fields": [[{"$base64": "/w=="}, 1], ["", "no name"]]}"#.to_owned());
    add(b"102-0", &["Grüße \u{1f600}\n\"\\".as_bytes(), b"x"]);
    expected.push("{\"Grüße \u{1f600}\\n\\\"\\\\\": \"x\"}".to_owned());
    scene.settled("s");
    let data = data(&scene, "s");
    for (got, expected) in data.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    assert_eq!(data.len(), expected.len());
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn more_databases_than_connections_are_allowed_are_all_read() {
    let source = Redis::start();
    (0..16).for_each(|db| drop(source.ask(db, &["XADD", "s", "1-0", "n", "1"])));
    let scene = Scene::over(source, Database::create(), |setup| setup.set("REDIS_POOL_SIZE", 1));
    for db in 0..16 {
        wait_settled(&scene.source, &scene.bridge, db, "s");
    }
    // And go on to be.
    (0..16).for_each(|db| drop(scene.source.ask(db, &["XADD", "s", "2-0", "n", "1"])));
    for db in 0..16 {
        wait_settled(&scene.source, &scene.bridge, db, "s");
    }
    assert_eq!(scene.sql.count("redis_streams"), 32);
    scene.end(&[]);
}

#[test]
fn pairs_keep_order_and_repeats() {
    let scene = Scene::begin(|setup| setup.set("DATA_FORMAT", "pairs"));
    scene.add("s", "1-0", &["b", "2", "a", r#"{"x":1,"yy":2}"#, "b", r#"{"yy":1,"x":2}"#]);
    scene.settled("s");
    assert_eq!(data(&scene, "s"), [r#"[["b", 2], ["a", {"x": 1, "yy": 2}], ["b", "{\"yy\":1,\"x\":2}"]]"#]);
    scene.end(&[]);
}

#[test]
fn text_keeps_every_value_a_string_and_a_source_has_a_name() {
    let scene = Scene::begin(|setup| setup.set("VALUE_FORMAT", "text").set("SOURCE_NAME", "plant-a:"));
    scene.add("s", "1-0", &["n", "1", "o", "{}"]);
    scene.settled("s");
    assert_eq!(data(&scene, "plant-a:s"), [r#"{"n": "1", "o": "{}"}"#]);
    scene.end(&[]);
}

#[test]
fn an_id_beyond_the_end_of_time_is_dead_lettered_and_its_stream_goes_on() {
    let scene = Scene::begin(|setup| setup);
    scene.add("s", "9224318015999999-7", &["n", "1"]);
    scene.add("s", "9224318016000000-0", &["n", "2"]);
    scene.settled("s");
    let last = scene.sql.one(r#"SELECT "timestamp" AT TIME ZONE 'UTC' FROM redis_streams"#);
    assert_eq!(last, "294276-12-31 23:59:59.999");
    let letters = scene.source.letters(0, "s");
    assert_eq!(letters.len(), 1);
    assert!(crate::harness::field(&letters[0], "reason").contains("timestamptz"), "{letters:?}");
    scene.end(&[]);
}

#[test]
fn a_hundred_megabytes_go_in_and_what_jsonb_cannot_hold_is_dead_lettered() {
    let scene = Scene::begin(|setup| setup);
    let mut client = scene.source.client();
    let mut add = |id: &[u8], length: usize| {
        let value = vec![b'x'; length];
        client.ask(&[b"XADD", b"s", id, b"v", &value]).unwrap();
    };
    add(b"1-0", 100 << 20);
    add(b"2-0", 300 << 20);
    add(b"3-0", 3);
    scene.settled("s");
    let lengths =
        scene.sql.rows("SELECT message_id, length(data->>'v') FROM redis_streams ORDER BY message_id");
    assert_eq!(lengths, [["1-0", "104857600"], ["3-0", "3"]]);
    let letters = scene.source.ask(0, &["XRANGE", "s:dead-letter", "-", "+"]).list();
    assert_eq!(letters.len(), 1);
    let reason = letters[0].clone().list()[1].clone().list()[9].text();
    assert!(reason.contains("54000"), "{reason}");
    scene.end(&[]);
}

#[test]
fn thousands_of_entries_of_many_streams_arrive_once_each_and_in_order() {
    let scene = Scene::begin(|setup| setup.set("STREAM_BATCH_SIZE", 700));
    let streams = targets(12);
    let ledger = write(&scene.source, &streams, 24_000);
    for stream in &streams {
        wait_settled(&scene.source, &scene.bridge, stream.db, &stream.key);
        test_kit::writer::wait_settled(&scene.source, GROUP, std::slice::from_ref(stream));
    }
    let rows = scene.sql.rows("SELECT stream_key, message_id FROM redis_streams ORDER BY id");
    assert_eq!(rows.len(), ledger.written());
    let arrivals: Vec<_> = rows
        .into_iter()
        .map(|row| test_kit::oracle::Arrival { stream: row[0].clone(), id: test_kit::oracle::id(&row[1]) })
        .collect();
    assert!(ledger.tally(&arrivals).complete());
    scene.end(&[]);
}

#[test]
fn an_entry_is_never_seen_before_one_that_comes_before_it() {
    let source = Redis::start();
    let stream = test_kit::writer::Target::new(0, "s");
    // Many batches at once: read while they are written, the stream never has a gap.
    let ledger = write(&source, std::slice::from_ref(&stream), 60_000);
    let scene = Scene::over(source, test_kit::postgres::Database::create(), |setup| {
        setup.set("STREAM_BATCH_SIZE", 20_000)
    });
    let written = ledger.written();
    test_kit::wait_until(
        "the table is there",
        || scene.bridge.lines(),
        || scene.sql.one("SELECT to_regclass('redis_streams') IS NOT NULL") == "t",
    );
    let mut looks = 0;
    loop {
        let row = scene.sql.rows("SELECT count(*), coalesce(max(\"timestamp\"), 'epoch') FROM redis_streams");
        let seen: usize = row[0][0].parse().unwrap();
        // Everything up to the newest that is seen must be there: as many as the source has up to it.
        let sql = "SELECT message_id FROM redis_streams ORDER BY \"timestamp\" DESC, \
                   split_part(message_id, '-', 2)::numeric DESC LIMIT 1";
        let snapshot = format!("SELECT (SELECT count(*) FROM redis_streams), coalesce(({sql}), '0-0')");
        let row = scene.sql.rows(&snapshot);
        let up_to = scene.source.ask(0, &["XRANGE", "s", "-", &row[0][1], "COUNT", "100000"]).list().len();
        assert_eq!(row[0][0], up_to.to_string(), "a gap below {}", row[0][1]);
        looks += 1;
        if seen == written {
            break;
        }
    }
    assert!(looks > 1, "it was looked at while it was written");
    scene.settled("s");
    scene.end(&[]);
}
