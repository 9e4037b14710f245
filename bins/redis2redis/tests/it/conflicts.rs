//! What the target has already: the same entry is no copy and no loss, anything else under its ID is a conflict.

use test_kit::redis::{Redis, Reply};

use crate::harness::{GROUP, Scene, entries, ids};

/// Source and target as two tests want them, before a bridge runs.
struct Before {
    source: Redis,
    target: Redis,
}

impl Before {
    fn new() -> Self {
        Self { source: Redis::start(), target: Redis::start() }
    }

    fn source(self, list: &[(&str, &str)]) -> Self {
        add(&self.source, list);
        self
    }

    fn target(self, list: &[(&str, &str)]) -> Self {
        add(&self.target, list);
        self
    }

    fn begin(self) -> Scene {
        Scene::between(self.source, self.target, |setup| setup)
    }
}

fn add(redis: &Redis, list: &[(&str, &str)]) {
    for (id, value) in list {
        redis.ask(0, &["XADD", "s", id, "n", value]);
    }
}

fn reasons(scene: &Scene) -> Vec<(String, String)> {
    let named = |letter: &[(String, String)], name: &str| {
        letter.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()).unwrap()
    };
    scene.source.letters(0, "s").iter().map(|letter| (named(letter, "id"), named(letter, "reason"))).collect()
}

#[test]
fn what_stands_there_already_is_acknowledged_and_not_copied() {
    let list = [("1-0", "a"), ("2-0", "b"), ("3-0", "c")];
    let scene = Before::new().source(&list).source(&[("4-0", "d")]).target(&list).begin();
    scene.same((0, "s"), (0, "s"));
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn other_content_under_the_same_id_is_a_conflict_and_the_rest_goes_on() {
    let scene = Before::new()
        .source(&[("1-0", "a"), ("2-0", "b"), ("3-0", "c"), ("4-0", "d")])
        .target(&[("1-0", "a"), ("2-0", "other"), ("3-0", "c")])
        .begin();
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["1-0", "2-0", "3-0", "4-0"]);
    let reasons = reasons(&scene);
    assert_eq!(reasons, [("2-0".into(), "the target has 2-0 with other content".into())]);
    scene.end(&[]);
}

#[test]
fn content_is_the_same_only_with_the_same_fields_in_the_same_order() {
    let before = Before::new();
    for (id, here, there) in [
        ("1-0", ["a", "1", "b", "2"].as_slice(), ["b", "2", "a", "1"].as_slice()),
        ("2-0", &["a", "1"], &["a", "1", "a", "1"]),
        ("3-0", &["a", "1", "b", "2"], &["a", "1"]),
        ("4-0", &["a", ""], &["a", "", "", ""]),
        ("5-0", &["a", "x"], &["a", "X"]),
    ] {
        let words = |fields: &'static [&'static str]| [&["XADD", "s", id], fields].concat();
        before.source.ask(0, &words(here));
        before.target.ask(0, &words(there));
    }
    let scene = before.begin();
    scene.wait_settled(0, "s");
    assert_eq!(reasons(&scene).len(), 5, "{:#?}", reasons(&scene));
    scene.end(&[]);
}

#[test]
fn absent_below_the_newest_is_a_conflict() {
    let scene = Before::new()
        .source(&[("1-0", "a"), ("2-0", "b"), ("9-0", "c")])
        .target(&[("1-0", "a"), ("5-0", "x")])
        .begin();
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["1-0", "5-0", "9-0"]);
    let reason = "the target does not have 2-0 and is past it, at 5-0";
    assert_eq!(reasons(&scene), [("2-0".into(), reason.into())]);
    scene.end(&[]);
}

#[test]
fn absent_because_somebody_deleted_it_there_is_a_conflict() {
    let list = [("1-0", "a"), ("2-0", "b"), ("3-0", "c")];
    let before = Before::new().source(&list).target(&list);
    before.target.ask(0, &["XDEL", "s", "1-0"]);
    let scene = before.begin();
    scene.wait_settled(0, "s");
    assert_eq!(reasons(&scene).len(), 1);
    assert_eq!(ids(&scene.target, 0, "s"), ["2-0", "3-0"]);
    scene.end(&[]);
}

#[test]
fn what_was_trimmed_there_is_acknowledged() {
    let list = [("1-0", "a"), ("2-0", "b"), ("3-0", "c"), ("4-0", "d")];
    let before = Before::new().source(&list).target(&list);
    before.target.ask(0, &["XTRIM", "s", "MAXLEN", "2"]);
    let scene = before.begin();
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["3-0", "4-0"]);
    assert!(reasons(&scene).is_empty());
    scene.end(&[]);
}

#[test]
fn what_was_never_there_is_not_taken_for_trimmed() {
    // The source's stream was made anew, with lower IDs, since it was copied; or nothing is left to tell by.
    for (list, left) in [(&[("1-0", "a"), ("2-0", "b")][..], "2"), (&[("8-0", "c"), ("9-0", "d")], "0")] {
        let old = [("7-0", "a"), ("8-0", "b"), ("9-0", "c")];
        let before = Before::new().source(list).target(&old);
        before.target.ask(0, &["XTRIM", "s", "MAXLEN", left]);
        let scene = before.begin();
        scene.wait_settled(0, "s");
        assert_eq!(reasons(&scene).len(), 2, "{:?}", reasons(&scene));
        assert_eq!(entries(&scene.target, 0, "s").len().to_string(), left);
        scene.end(&[]);
    }
}

#[test]
fn many_dead_letters_are_few_lines() {
    let list: Vec<(String, &str)> = (1..=300).map(|n| (format!("{n}-0"), "a")).collect();
    let list: Vec<(&str, &str)> = list.iter().map(|(id, value)| (id.as_str(), *value)).collect();
    let scene = Before::new().source(&list).target(&[("900-0", "other")]).begin();
    scene.wait_settled(0, "s");
    assert_eq!(reasons(&scene).len(), 300);
    let lines = scene.bridge.lines_with("dead-lettered");
    assert!((1..10).contains(&lines.len()), "{lines:?}");
    scene.end(&[]);
}

#[test]
fn after_the_last_possible_id_nothing_is_taken_for_delivered() {
    let last = "18446744073709551615-18446744073709551615";
    let scene = Before::new().source(&[("1-0", "a"), (last, "b")]).target(&[(last, "b")]).begin();
    scene.wait_settled(0, "s");
    assert_eq!(
        reasons(&scene),
        [("1-0".into(), format!("the target does not have 1-0 and is past it, at {last}"))]
    );
    scene.end(&[]);
}

#[test]
fn with_auto_id_a_conflict_is_written_just_above_the_newest() {
    let before = Before::new()
        .source(&[("1-0", "a"), ("2-0", "b"), ("6-0", "c"), ("7-0", "d")])
        .target(&[("1-0", "other"), ("5-7", "x")]);
    let scene =
        Scene::between(before.source, before.target, |setup| setup.set("TARGET_ID_CONFLICT", "auto-id"));
    scene.wait_settled(0, "s");
    assert_eq!(ids(&scene.target, 0, "s"), ["1-0", "5-7", "5-8", "5-9", "6-0", "7-0"]);
    let fields = |at: usize| entries(&scene.target, 0, "s")[at].clone().list()[1].clone();
    let expected = |value: &str| Reply::List(vec![Reply::Text(b"n".into()), Reply::Text(value.into())]);
    assert_eq!((fields(2), fields(3)), (expected("a"), expected("b")));
    assert!(scene.source.letters(0, "s").is_empty());
    assert!(scene.bridge.wait_line("written with new IDs").text.contains("written as 5-8"));
    scene.end(&[]);
}

#[test]
fn a_replayed_letter_gets_a_new_id() {
    let scene =
        Before::new().source(&[("1-0", "a"), ("2-0", "b")]).target(&[("1-0", "x"), ("2-0", "b")]).begin();
    scene.wait_settled(0, "s");
    assert_eq!(reasons(&scene).len(), 1);
    let mut replay = crate::harness::setup(scene.source.port, scene.target.port)
        .arg("dead-letters")
        .arg("replay")
        .arg("--all")
        .arg("--yes")
        .start();
    assert_eq!(replay.wait_exit().0, Some(0), "{:#?}", replay.lines());
    assert_eq!(ids(&scene.target, 0, "s"), ["1-0", "2-0", "2-1"]);
    assert!(reasons(&scene).is_empty());
    assert_eq!(scene.source.pending(0, "s", GROUP), 0);
    scene.end(&[]);
}
