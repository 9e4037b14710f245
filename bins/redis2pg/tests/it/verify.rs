//! `verify`: the same, different, and why.

use crate::harness::{GROUP, Scene, command, setup};

fn verify(scene: &Scene, words: &[&str]) -> (String, Option<i32>) {
    let setup = setup(&scene.source, &scene.sql);
    let words: Vec<&str> = ["verify"].into_iter().chain(words.iter().copied()).collect();
    let (out, code, _) = command(&setup, &words);
    (out, code)
}

#[test]
fn what_is_there_is_the_same_and_what_is_not_is_named() {
    let mut scene = Scene::begin(|setup| setup);
    for n in 1..=1000 {
        scene.add("s", &format!("{n}-0"), &["n", &n.to_string()]);
        scene.add("t", &format!("{n}-1"), &["n", "1.50"]);
    }
    scene.settled("s");
    scene.settled("t");
    assert_eq!(verify(&scene, &[]), ("same: 2 streams, 2,000 entries\n".to_owned(), Some(0)));
    scene.bridge.stop();
    scene.sql.ask("DELETE FROM redis_streams WHERE stream_key = 's' AND message_id IN ('7-0', '900-0')");
    scene
        .sql
        .ask(r#"UPDATE redis_streams SET data = '{"n": 1.5}' WHERE stream_key = 't' AND message_id = '8-1'"#);
    scene.sql.ask(
        "INSERT INTO redis_streams (stream_key, message_id, data, \"timestamp\") VALUES ('t', '9-7', '{}', 'epoch'::timestamptz + '9 ms')",
    );
    scene.add("s", "1001-0", &["n", "new"]);
    let (out, code) = verify(&scene, &[]);
    assert_eq!(code, Some(1), "{out}");
    for line in [
        "s 7-0 missing at the target",
        "s 900-0 missing at the target",
        "t 8-1 with other content at the target",
        "t 9-7 only at the target",
        "s: different: 2 missing at the target, 1 not yet replicated; 998 entries the same",
        "t: different: 1 with other content at the target, 1 only at the target; 999 entries the same",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
}

#[test]
fn what_the_source_trimmed_is_no_difference_and_a_dead_letter_is_told() {
    let scene = Scene::begin(|setup| setup);
    for n in 1..=10 {
        scene.add("s", &format!("{n}-0"), &["n", "1"]);
    }
    scene.add("s", "9224318016000000-0", &["n", "beyond"]);
    scene.settled("s");
    scene.source.ask(0, &["XTRIM", "s", "MINID", "4-0"]);
    let (out, code) = verify(&scene, &["--stream", "s", "--all"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("s 9224318016000000-0 dead-lettered and missing at the target"), "{out}");
    assert!(out.contains("7 entries the same (3 trimmed at the source)"), "{out}");
    assert_eq!(scene.source.pending(0, "s", GROUP), 0);
    let (out, code) = verify(&scene, &["--stream", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("there is no such stream"), "{out}");
    scene.end(&[]);
}
