//! An entry whose row is there already, and rows that the table does not take.

use crate::harness::{Scene, Sql as _, field, setup};
use test_kit::postgres::Database;
use test_kit::redis::Redis;

#[test]
fn a_row_that_is_there_is_left_alone_and_one_with_other_data_is_a_conflict() {
    let mut scene = Scene::begin(|setup| setup);
    scene.add("s", "1-0", &["n", "1"]);
    scene.add("s", "2-0", &["n", "1.0"]);
    scene.settled("s");
    scene.bridge.stop();
    // The stream is made anew, with the same IDs.
    scene.source.ask(0, &["DEL", "s"]);
    scene.add("s", "1-0", &["n", "1"]);
    scene.add("s", "2-0", &["n", "1.00"]);
    scene.add("s", "3-0", &["n", "3"]);
    let scene = Scene::over(scene.source, scene.sql, |setup| setup);
    scene.settled("s");
    let rows = scene.sql.rows("SELECT message_id, data->>'n' FROM redis_streams ORDER BY message_id");
    assert_eq!(rows, [["1-0", "1"], ["2-0", "1.0"], ["3-0", "3"]]);
    let letters = scene.source.letters(0, "s");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(field(&letters[0], "id"), "2-0");
    assert!(field(&letters[0], "reason").starts_with("conflict"), "{letters:?}");
    scene.end(&[]);
}

#[test]
fn a_stream_made_anew_while_the_bridge_runs_is_read_from_its_start() {
    for overwrite in [false, true] {
        let scene = Scene::begin(|setup| setup.set("STREAM_CONFLICT_OVERWRITE", overwrite));
        scene.add("s", "1-0", &["n", "1"]);
        scene.add("s", "2-0", &["n", "2"]);
        scene.settled("s");
        // In one go, so that it holds the last ID again when the bridge looks.
        const ANEW: &str = "redis.call('DEL', 's') redis.call('XADD', 's', '1-0', 'n', 'new') \
            redis.call('XADD', 's', '2-0', 'n', '2')";
        scene.source.ask(0, &["EVAL", ANEW, "0"]);
        scene.bridge.wait_line("created again");
        scene.settled("s");
        let row = scene.sql.one("SELECT data->>'n' FROM redis_streams WHERE message_id = '1-0'");
        let letters = scene.source.letters(0, "s");
        assert_eq!(
            (row.as_str(), letters.len()),
            if overwrite { ("new", 0) } else { ("1", 1) },
            "{letters:?}"
        );
        scene.end(&[]);
    }
}

#[test]
fn with_overwrite_the_last_one_counts_also_within_a_batch() {
    let source = Redis::start();
    let sql = Database::create();
    // Two streams that the sink cannot tell apart would be one; here one stream is read, deleted and made anew.
    let overwrite = || setup(&source, &sql).set("STREAM_CONFLICT_OVERWRITE", "true");
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let mut bridge = overwrite().start();
    crate::harness::wait_settled(&source, &bridge, 0, "s");
    bridge.stop();
    source.ask(0, &["DEL", "s"]);
    source.ask(0, &["XADD", "s", "1-0", "n", "2"]);
    let mut bridge = overwrite().start();
    crate::harness::wait_settled(&source, &bridge, 0, "s");
    assert_eq!(sql.rows("SELECT message_id, data->>'n' FROM redis_streams"), [["1-0", "2"]]);
    assert!(source.letters(0, "s").is_empty());
    bridge.stop();
    bridge.check_errors(&[]);
}

/// A table that takes no row whose value is no number: a generated column of the user's own.
const PICKY: &str = "ALTER TABLE redis_streams ADD COLUMN value numeric GENERATED ALWAYS AS ((data->>'value')::numeric) STORED";

#[test]
fn one_bad_row_goes_to_the_dead_letters_and_its_batch_mates_go_in() {
    let source = Redis::start();
    let sql = Database::create();
    let (out, code, _) = crate::harness::command(&setup(&source, &sql), &["schema"]);
    assert_eq!(code, Some(0));
    sql.ask(&out);
    sql.ask(PICKY);
    for n in 1..=500 {
        let value = if n % 100 == 7 { "much".to_owned() } else { n.to_string() };
        source.ask(0, &["XADD", "s", &format!("{n}-0"), "value", &value]);
        source.ask(0, &["XADD", "t", &format!("{n}-0"), "value", "1"]);
    }
    let scene = Scene::over(source, sql, |setup| setup);
    scene.settled("s");
    scene.settled("t");
    assert_eq!(scene.sql.count("redis_streams"), 995);
    let letters = scene.source.letters(0, "s");
    let ids: Vec<_> = letters.iter().map(|letter| field(letter, "id")).collect();
    assert_eq!(ids, ["7-0", "107-0", "207-0", "307-0", "407-0"]);
    assert!(field(&letters[0], "reason").contains("22P02"), "{letters:?}");
    scene.end(&[]);
}

#[test]
fn a_constraint_that_is_checked_at_the_commit_blames_the_row_and_not_its_batch() {
    let source = Redis::start();
    let sql = Database::create();
    let (out, ..) = crate::harness::command(&setup(&source, &sql), &["schema"]);
    sql.ask(&out);
    sql.ask(
        "CREATE TABLE known (stream_key text PRIMARY KEY); INSERT INTO known VALUES ('s'); \
         ALTER TABLE redis_streams ADD FOREIGN KEY (stream_key) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
    );
    for n in 1..=300 {
        source.ask(0, &["XADD", "s", &format!("{n}-0"), "n", "1"]);
    }
    source.ask(0, &["XADD", "unknown", "1-0", "n", "1"]);
    let scene = Scene::over(source, sql, |setup| setup);
    scene.settled("s");
    scene.settled("unknown");
    assert_eq!(scene.sql.count("redis_streams"), 300);
    assert!(scene.source.letters(0, "s").is_empty());
    let letters = scene.source.letters(0, "unknown");
    assert!(field(&letters[0], "reason").contains("23503"), "{letters:?}");
    scene.end(&[]);
}

#[test]
fn what_a_trigger_keeps_out_is_held_and_not_acknowledged() {
    let source = Redis::start();
    let sql = Database::create();
    let (out, ..) = crate::harness::command(&setup(&source, &sql), &["schema"]);
    sql.ask(&out);
    sql.ask(
        "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.message_id = '2-0' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER t BEFORE INSERT ON redis_streams FOR EACH ROW EXECUTE FUNCTION drop_it()",
    );
    for n in 1..=3 {
        source.ask(0, &["XADD", "s", &format!("{n}-0"), "n", "1"]);
        source.ask(0, &["XADD", "other", &format!("{n}-1"), "n", "1"]);
    }
    let scene = Scene::over(source, sql, |setup| setup);
    scene.bridge.wait_line("a trigger, a rule or a policy keeps it out");
    scene.settled("other");
    assert_ne!(scene.source.pending(0, "s", crate::harness::GROUP), 0);
    scene.sql.ask("DROP TRIGGER t ON redis_streams");
    scene.settled("s");
    assert_eq!(scene.sql.count("redis_streams WHERE stream_key = 's'"), 3);
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&["keeps it out"]);
}

#[test]
fn dead_letters_are_replayed_to_the_table() {
    let source = Redis::start();
    let sql = Database::create();
    let (out, ..) = crate::harness::command(&setup(&source, &sql), &["schema"]);
    sql.ask(&out);
    sql.ask(PICKY);
    source.ask(0, &["XADD", "s", "1-0", "value", "much"]);
    source.ask(0, &["XADD", "s", "2-0", "value", "2"]);
    let mut scene = Scene::over(source, sql, |setup| setup);
    scene.settled("s");
    assert_eq!(scene.source.letters(0, "s").len(), 1);
    scene.bridge.stop();
    scene.sql.ask("ALTER TABLE redis_streams DROP COLUMN value");
    let replay = setup(&scene.source, &scene.sql);
    let (out, code, _) = crate::harness::command(&replay, &["dead-letters", "replay", "--all", "--yes"]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(scene.sql.count("redis_streams"), 2);
    assert!(scene.source.letters(0, "s").is_empty());
}
