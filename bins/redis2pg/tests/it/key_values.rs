//! Keys that are no streams: every type, what changes, what goes, and what that costs.

use test_kit::bridge::Setup;
use test_kit::postgres::{Database, NULL};
use test_kit::redis::Redis;
use test_kit::wait_until;

use crate::harness::{Scene, Sql as _, with_key_values};

fn scene(source: Redis, sql: Database, set: impl FnOnce(Setup) -> Setup) -> Scene {
    let bridge = set(with_key_values(&source, &sql)).start();
    Scene { source, sql, bridge }
}

fn begin(set: impl FnOnce(Setup) -> Setup) -> Scene {
    scene(Redis::start(), Database::create(), set)
}

impl Scene {
    fn value(&self, key: &str) -> Option<String> {
        let sql = format!("SELECT redis_value FROM redis_key_values WHERE redis_key = '{key}'");
        self.sql.try_ask(&sql).ok()?.first().map(|row| row[0].clone())
    }

    fn wait_value(&self, key: &str, value: &str) {
        wait_until(
            &format!("{key} is {value}"),
            || (self.value(key), self.bridge.lines()),
            || self.value(key).as_deref() == Some(value),
        );
    }

    fn wait_gone(&self, key: &str) {
        wait_until(
            &format!("{key} is gone"),
            || (self.value(key), self.bridge.lines()),
            || self.value(key).is_none(),
        );
    }
}

#[test]
fn every_type_has_its_shape() {
    let source = Redis::start();
    let ask = |words: &[&str]| source.ask(0, words);
    ask(&["SET", "number", "12345678901234567890.50"]);
    ask(&["SET", "text", "21 °C"]);
    ask(&["SET", "object", r#"{"a":[1,2]}"#]);
    ask(&["SETBIT", "bits", "7", "1"]);
    ask(&["PFADD", "hyperloglog", "a"]);
    ask(&["HSET", "hash", "state", "on", "level", "7"]);
    ask(&["RPUSH", "list", "b", "a", "b"]);
    ask(&["SADD", "set", "b", "a"]);
    ask(&["ZADD", "zset", "2", "two", "0.5", "half", "-inf", "least"]);
    ask(&["XADD", "stream", "*", "n", "1"]);
    let mut client = source.client();
    client.ask(&[b"HSET", b"odd", b"\xff", b"1"]).unwrap();
    client.ask(&[b"SET", b"key\0\xfe", b"v"]).unwrap();
    let scene = scene(source, Database::create(), |setup| setup);
    for (key, value) in [
        ("number", "12345678901234567890.50"),
        ("text", "\"21 °C\""),
        ("object", r#"{"a": [1, 2]}"#),
        ("bits", r#""\u0001""#),
        ("hash", r#"{"level": 7, "state": "on"}"#),
        ("list", r#"["b", "a", "b"]"#),
        ("set", r#"["a", "b"]"#),
        ("zset", r#"[["least", "-inf"], ["half", 0.5], ["two", 2]]"#),
        ("odd", r#"{"$fields": [[{"$base64": "/w=="}, 1]]}"#),
        ("b64:a2V5AP4", r#""v""#),
    ] {
        scene.wait_value(key, value);
    }
    wait_until("eleven rows", || scene.bridge.lines(), || scene.sql.count("redis_key_values") == 11);
    assert!(scene.value("hyperloglog").unwrap().contains("$base64"));
    assert_eq!(scene.value("stream"), None);
    scene.end(&[]);
}

#[test]
fn only_what_differs_is_written() {
    let scene = begin(|setup| setup);
    scene.source.ask(0, &["SET", "a", "1.0"]);
    scene.source.ask(0, &["SET", "b", "1"]);
    scene.wait_value("a", "1.0");
    scene.wait_value("b", "1");
    let xmin =
        |key: &str| scene.sql.one(&format!("SELECT xmin FROM redis_key_values WHERE redis_key = '{key}'"));
    let before = (xmin("a"), xmin("b"));
    scene.source.ask(0, &["SET", "a", "1.00"]);
    scene.wait_value("a", "1.00");
    assert_ne!(xmin("a"), before.0);
    assert_eq!(xmin("b"), before.1);
    // Also after a restart, when nothing is known.
    let Scene { source, sql, mut bridge } = scene;
    bridge.stop();
    source.ask(0, &["SET", "c", "1"]);
    let scene = self::scene(source, sql, |setup| setup);
    scene.wait_value("c", "1");
    let xmin =
        |key: &str| scene.sql.one(&format!("SELECT xmin FROM redis_key_values WHERE redis_key = '{key}'"));
    assert_eq!(xmin("b"), before.1);
    scene.end(&[]);
}

#[test]
fn one_key_in_two_databases_is_two_rows() {
    let scene = begin(|setup| setup);
    scene.source.ask(0, &["SET", "k", "0"]);
    scene.source.ask(1, &["SET", "k", "1"]);
    scene.source.ask(0, &["SET", "db1:k", "2"]);
    wait_until(
        "three rows",
        || scene.bridge.lines(),
        || scene.sql.try_ask("SELECT 1 FROM redis_key_values").is_ok_and(|rows| rows.len() == 3),
    );
    let rows = scene.sql.rows("SELECT redis_db, redis_key, redis_value FROM redis_key_values ORDER BY 3");
    assert_eq!(rows, [["0", "k", "0"], ["1", "k", "1"], ["0", "db1:k", "2"]]);
    scene.end(&[]);
}

#[test]
fn a_table_that_is_unique_by_key_alone_gets_keys_with_their_database() {
    let sql = Database::create();
    sql.ask(
        "CREATE TABLE redis_key_values (id bigserial PRIMARY KEY, redis_key text UNIQUE, redis_value jsonb, \
         redis_db integer, \"timestamp\" timestamp DEFAULT now())",
    );
    let scene = scene(Redis::start(), sql, |setup| setup.set("KEY_VALUE_DELETIONS", "delete"));
    scene.source.ask(0, &["SET", "k", "0"]);
    scene.source.ask(1, &["SET", "k", "1"]);
    scene.source.ask(0, &["SET", "db1:k", "2"]);
    scene.wait_value("k", "0");
    scene.wait_value("db1:k", "1");
    scene.wait_value("db0:db1:k", "2");
    scene.source.ask(1, &["DEL", "k"]);
    scene.wait_gone("db1:k");
    assert_eq!(scene.value("db0:db1:k").as_deref(), Some("2"));
    scene.end(&[]);
}

/// With the server telling what changes, and without.
fn both(test: impl Fn(&[&str])) {
    test(&["--notify-keyspace-events", ""]);
    test(&["--notify-keyspace-events", "AKE"]);
}

#[test]
fn keys_that_go_are_kept_marked_or_deleted() {
    both(|options| {
        for deletions in ["keep", "mark", "delete"] {
            let scene = scene(Redis::with(options), Database::create(), |setup| {
                setup.set("KEY_VALUE_DELETIONS", deletions)
            });
            for key in ["deleted", "expired", "renamed", "stays"] {
                scene.source.ask(0, &["SET", key, "1"]);
                scene.wait_value(key, "1");
            }
            scene.source.ask(0, &["DEL", "deleted"]);
            scene.source.ask(0, &["PEXPIRE", "expired", "1"]);
            scene.source.ask(0, &["RENAME", "renamed", "new"]);
            scene.wait_value("new", "1");
            let gone = ["deleted", "expired", "renamed"];
            let marked = |key: &str| {
                scene.sql.one(&format!("SELECT deleted_at FROM redis_key_values WHERE redis_key = '{key}'"))
                    != NULL
            };
            match deletions {
                "delete" => gone.iter().for_each(|key| scene.wait_gone(key)),
                "mark" => {
                    wait_until(
                        "they are marked",
                        || scene.bridge.lines(),
                        || gone.iter().all(|key| marked(key)),
                    );
                    assert!(!marked("stays"));
                    scene.source.ask(0, &["SET", "deleted", "1"]);
                    wait_until("it is back", || scene.bridge.lines(), || !marked("deleted"));
                }
                _ => {
                    // A pass later they are still there.
                    scene.source.ask(0, &["SET", "later", "1"]);
                    scene.wait_value("later", "1");
                    gone.iter().for_each(|key| assert_eq!(scene.value(key).as_deref(), Some("1"), "{key}"));
                }
            }
            assert_eq!(scene.value("stays").as_deref(), Some("1"));
            scene.end(&[]);
        }
    });
}

#[test]
fn rows_of_keys_that_went_while_nobody_looked_go_too() {
    let scene = begin(|setup| setup);
    for key in ["a", "b", "other"] {
        scene.source.ask(0, &["SET", key, "1"]);
        scene.wait_value(key, "1");
    }
    let Scene { source, sql, mut bridge } = scene;
    bridge.stop();
    source.ask(0, &["DEL", "a", "other"]);
    let scene = self::scene(source, sql, |setup| {
        setup.set("KEY_VALUE_DELETIONS", "delete").set("KEY_VALUE_PATTERNS", "a,b")
    });
    scene.wait_gone("a");
    assert_eq!(scene.value("b").as_deref(), Some("1"));
    assert_eq!(scene.value("other").as_deref(), Some("1"), "it is none of the patterns' keys");
    scene.end(&[]);
}

#[test]
fn large_collections_are_read_in_pieces() {
    both(|options| {
        let source = Redis::with(options);
        const FILL: &str = "for i = 1, 20000 do redis.call('HSET', 'hash', 'field:' .. i, i) \
            redis.call('RPUSH', 'list', i) redis.call('SADD', 'set', 'member:' .. i) \
            redis.call('ZADD', 'zset', i, 'member:' .. i) end redis.call('SET', 'string', string.rep('x', 1000000))";
        source.ask(0, &["EVAL", FILL, "0"]);
        let scene = scene(source, Database::create(), |setup| setup);
        wait_until(
            "five rows",
            || scene.bridge.lines(),
            || scene.sql.try_ask("SELECT 1 FROM redis_key_values").is_ok_and(|rows| rows.len() == 5),
        );
        let one = |sql: &str, key: &str| {
            scene.sql.one(&format!("SELECT {sql} FROM redis_key_values WHERE redis_key = '{key}'"))
        };
        assert_eq!(one("(SELECT count(*) FROM jsonb_object_keys(redis_value))", "hash"), "20000");
        assert_eq!(one("redis_value->>'field:777'", "hash"), "777");
        assert_eq!(one("jsonb_array_length(redis_value)", "list"), "20000");
        assert_eq!(one("redis_value->>19999", "list"), "20000");
        assert_eq!(one("jsonb_array_length(redis_value)", "set"), "20000");
        assert_eq!(one("redis_value->12344", "zset"), r#"["member:12345", 12345]"#);
        assert_eq!(one("length(redis_value#>>'{}')", "string"), "1000000");
        // A change that does not change its size is seen as well.
        scene.source.ask(0, &["HSET", "hash", "field:777", "778"]);
        wait_until(
            "the change is there",
            || scene.bridge.lines(),
            || one("redis_value->>'field:777'", "hash") == "778",
        );
        scene.end(&[]);
    });
}

#[test]
fn a_value_that_no_row_can_hold_is_named_and_its_neighbours_go_in() {
    let scene = begin(|setup| setup);
    scene.source.ask(0, &["SET", "a", "1"]);
    scene.wait_value("a", "1");
    scene.sql.ask(
        "ALTER TABLE redis_key_values ADD COLUMN n int GENERATED ALWAYS AS ((redis_value->>'n')::int) STORED",
    );
    for (key, value) in [("b", "2"), ("bad", r#"{"n":"much"}"#), ("c", "3")] {
        scene.source.ask(0, &["SET", key, value]);
    }
    scene.wait_value("b", "2");
    scene.wait_value("c", "3");
    let line = scene.bridge.wait_line("a value cannot be a row");
    assert!(line.text.contains("bad") && line.text.contains("22P02"), "{line:?}");
    scene.source.ask(0, &["SET", "bad", "14"]);
    scene.wait_value("bad", "14");
    assert_eq!(scene.bridge.lines_with("a value cannot be a row").len(), 1);
    scene.end(&[]);
}

#[test]
fn what_the_table_does_not_take_is_held_until_it_does_and_its_neighbours_go_in() {
    let scene = begin(|setup| setup);
    scene.source.ask(0, &["SET", "a", "1"]);
    scene.wait_value("a", "1");
    scene.sql.ask("ALTER TABLE redis_key_values ADD CONSTRAINT thirteen CHECK (redis_value <> '13')");
    for (key, value) in [("b", "2"), ("bad", "13"), ("c", "3")] {
        scene.source.ask(0, &["SET", key, value]);
    }
    scene.wait_value("b", "2");
    scene.wait_value("c", "3");
    let line = scene.bridge.wait_line("held, and tried again until it is taken");
    assert!(line.text.contains("bad") && line.text.contains("23514"), "{line:?}");
    scene.sql.ask("ALTER TABLE redis_key_values DROP CONSTRAINT thirteen");
    scene.wait_value("bad", "13");
    scene.end(&["held, and tried again"]);
}

#[test]
fn a_row_that_could_not_be_deleted_is_deleted_later() {
    both(|options| {
        let scene = scene(Redis::with(options), Database::create(), |setup| {
            setup.set("KEY_VALUE_DELETIONS", "delete")
        });
        for key in ["gone", "stays"] {
            scene.source.ask(0, &["SET", key, "1"]);
            scene.wait_value(key, "1");
        }
        scene.sql.ask(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
             CREATE TRIGGER t BEFORE DELETE ON redis_key_values FOR EACH ROW EXECUTE FUNCTION no()",
        );
        scene.source.ask(0, &["DEL", "gone"]);
        scene.bridge.wait_line("not now");
        scene.sql.ask("DROP TRIGGER t ON redis_key_values");
        scene.wait_gone("gone");
        assert_eq!(scene.value("stays").as_deref(), Some("1"));
        scene.end(&["not now"]);
    });
}

#[test]
fn a_table_that_is_dropped_is_made_again_with_all_there_is() {
    let scene = begin(|setup| setup.set("REDIS_STREAMS_ENABLED", "false"));
    for key in ["a", "b"] {
        scene.source.ask(0, &["SET", key, "1"]);
        scene.wait_value(key, "1");
    }
    scene.sql.ask("DROP TABLE redis_key_values");
    scene.source.ask(0, &["SET", "a", "2"]);
    scene.wait_value("a", "2");
    scene.wait_value("b", "1");
    scene.end(&[]);
}

/// What the two README pages name, for a process that is alone.
const PERMITTED: &str = "+select +scan +type +xinfo +xpending +xgroup|create +xreadgroup +xautoclaim +xack +xadd +xrange \
    +eval +memory|usage +dump +get +hgetall +hscan +lrange +smembers +sscan +zrange +strlen +info +config|get +psubscribe";

#[test]
fn the_permissions_that_the_readme_names_are_enough_and_who_may_not_listen_is_told() {
    for (channels, heard) in
        [("&__keyevent@0__:* &__keyevent@1__:*", true), ("&__keyevent@*", false), ("", false)]
    {
        let source = Redis::with(&["--notify-keyspace-events", "AKE"]);
        let rules = format!("on >pw ~* resetchannels {channels} -@all {PERMITTED}");
        let words: Vec<&str> =
            ["ACL", "SETUSER", "reader"].into_iter().chain(rules.split_whitespace()).collect();
        source.ask(0, &words);
        let scene = scene(source, Database::create(), |setup| {
            setup
                .set("REDIS_USERNAME", "reader")
                .set("REDIS_PASSWORD", "pw")
                .set("REDIS_DB_SEARCH_RANGE", "0-1")
        });
        scene.source.ask(0, &["EVAL", "for i = 1, 2000 do redis.call('HSET', 'big', i, i) end", "0"]);
        scene.source.ask(0, &["SET", "a", "1"]);
        scene.wait_value("a", "1");
        // After the first pass, which is over all keys in any case.
        for n in 2..5 {
            scene.source.ask(0, &["SET", "a", &n.to_string()]);
            scene.wait_value("a", &n.to_string());
        }
        wait_until("the large one", || scene.bridge.lines(), || scene.value("big").is_some());
        let told = scene.bridge.lines_with("this user may not listen").len();
        assert_eq!(told, usize::from(!heard), "{channels}: {:#?}", scene.bridge.lines());
        scene.end(&[]);
    }
}

#[test]
fn what_another_transaction_is_always_in_the_way_of_is_waited_for() {
    let scene = begin(|setup| setup.set("REDIS_STREAMS_ENABLED", "false"));
    scene.source.ask(0, &["SET", "a", "1"]);
    scene.wait_value("a", "1");
    scene.sql.ask(
        "CREATE SEQUENCE tries; CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM nextval('tries'); RAISE EXCEPTION 'later' USING ERRCODE = '40001'; END $$; \
         CREATE TRIGGER t BEFORE INSERT ON redis_key_values FOR EACH ROW EXECUTE FUNCTION no()",
    );
    scene.source.ask(0, &["SET", "b", "1"]);
    scene.bridge.wait_line("later");
    scene.sql.ask("DROP TRIGGER t ON redis_key_values");
    scene.wait_value("b", "1");
    let tries: u32 = scene.sql.one("SELECT last_value FROM tries").parse().unwrap();
    assert!(tries < 200, "{tries} tries");
    scene.end(&[]);
}

#[test]
fn what_flushdb_takes_away_is_seen() {
    both(|options| {
        let scene = scene(Redis::with(options), Database::create(), |setup| {
            setup.set("KEY_VALUE_DELETIONS", "delete")
        });
        for key in ["a", "b"] {
            scene.source.ask(0, &["SET", key, "1"]);
            scene.wait_value(key, "1");
        }
        scene.source.ask(0, &["FLUSHDB"]);
        scene.wait_gone("a");
        scene.wait_gone("b");
        scene.end(&[]);
    });
}

#[test]
fn a_pass_costs_what_changed_where_the_server_tells() {
    let source = Redis::with(&["--notify-keyspace-events", "AKE"]);
    source.ask(0, &["EVAL", "for i = 1, 20000 do redis.call('SET', 'k:' .. i, i) end", "0"]);
    let scene = scene(source, Database::create(), |setup| {
        setup.set("REDIS_DB_SEARCH_RANGE", "0").set("REDIS_STREAMS_ENABLED", "false")
    });
    wait_until(
        "all are copied",
        || scene.bridge.lines(),
        || scene.sql.try_ask("SELECT count(*) FROM redis_key_values").is_ok_and(|rows| rows[0][0] == "20000"),
    );
    let calls = |command: &str| {
        let stats = scene.source.ask(0, &["INFO", "commandstats"]).text();
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls="))?.split(',').next());
        line.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    scene.source.ask(0, &["SET", "k:0", "0"]);
    scene.wait_value("k:0", "0");
    let before = (calls("scan"), calls("dump"));
    for n in 1..=20 {
        scene.source.ask(0, &["SET", "k:7", &format!("-{n}")]);
        scene.wait_value("k:7", &format!("-{n}"));
    }
    let after = (calls("scan"), calls("dump"));
    assert_eq!(after.0, before.0, "no search");
    assert!(after.1 - before.1 <= 40, "{} keys looked at for 20 changes", after.1 - before.1);
    scene.end(&[]);
}

#[test]
fn redis_and_postgresql_away_in_turn_nothing_is_missed() {
    let mut source = Redis::durable();
    let mut postgres = test_kit::postgres::Postgres::start();
    let setup = with_key_values(&source, &postgres);
    let mut bridge = setup.start();
    let value = |postgres: &test_kit::postgres::Postgres| {
        let rows = postgres.try_ask("SELECT redis_value FROM redis_key_values WHERE redis_key = 'k'");
        rows.ok().and_then(|rows| rows.first().map(|row| row[0].clone()))
    };
    source.ask(0, &["SET", "k", "1"]);
    wait_until("1", || bridge.lines(), || value(&postgres).as_deref() == Some("1"));
    postgres.stop_immediate();
    source.ask(0, &["SET", "k", "2"]);
    bridge.wait_line("key-values: not copied now");
    postgres.up();
    wait_until("2", || bridge.lines(), || value(&postgres).as_deref() == Some("2"));
    source.kill();
    source.up();
    source.ask(0, &["SET", "k", "3"]);
    wait_until("3", || bridge.lines(), || value(&postgres).as_deref() == Some("3"));
    bridge.stop();
    bridge.check_errors(&[]);
}
