//! How it ends, what it takes, and what else may run meanwhile.

use std::process::{Command, Stdio};
use std::time::Duration;

use test_kit::redis::Redis;
use test_kit::writer::{Writer, targets};
use test_kit::{LONG, free_port, wait_for};

use super::{Sides, fill, run};
use crate::harness::{GROUP, Scene, bare, setup, wait_all_settled};

#[test]
fn exit_codes_of_what_never_began() {
    let sides = Sides::begin();
    let away = free_port();
    let ran = run(&setup(away, sides.target.port), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains(&format!("cannot reach the source Redis at 127.0.0.1:{away}: ")), "{}", ran.err);
    let ran = run(&setup(sides.source.port, away), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains(&format!("cannot reach the target Redis at 127.0.0.1:{away}: ")), "{}", ran.err);
    assert_eq!(sides.run(&["--stream", "b64:??"]).code, Some(2));
    assert_eq!(sides.run(&["--no-such-option"]).code, Some(2));
    assert_eq!(run(&bare().set("TARGET_REDIS_DB", "x"), &[]).code, Some(78));
}

#[test]
fn a_server_that_goes_away_meanwhile_is_one_clear_line() {
    for of_target in [false, true] {
        let sides = Sides::begin();
        for redis in [&sides.source, &sides.target] {
            fill(redis, "s", 1, 20_000);
        }
        let lost = if of_target { &sides.target } else { &sides.source };
        // Slow enough to be interrupted.
        let mut child =
            verify_process(&sides).args(["--stream", "s"]).env("REDIS_RATE_LIMIT", "5").spawn().unwrap();
        wait_for(
            "pages are read",
            LONG,
            || (),
            || {
                assert_eq!(child.try_wait().unwrap(), None, "it has not ended");
                lost.ask(0, &["INFO", "commandstats"]).text().contains("cmdstat_xrange").then_some(())
            },
        );
        lost.cut_connections();
        let out = child.wait_with_output().unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        let side =
            if of_target { "cannot reach the target Redis at " } else { "source Redis, comparing s: " };
        assert!(out.status.code() == Some(1) && err.contains(side) && err.lines().count() == 1, "{err}");
        assert_eq!(out.stdout, b"");
    }
}

fn verify_process(sides: &Sides) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis2redis"));
    command
        .arg("verify")
        .env_clear()
        .env("SOURCE_REDIS_URL", format!("redis://127.0.0.1:{}", sides.source.port))
        .env("TARGET_REDIS_URL", format!("redis://127.0.0.1:{}", sides.target.port))
        .env("STREAM_DISCOVERY_PATTERNS", "*")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_running_bridge_is_never_called_different_but_for_what_it_has_yet_to_bring() {
    let scene = Scene::begin(|setup| setup);
    let streams = targets(4);
    let writer = Writer::start(scene.source.port, &streams, 20_000, Duration::from_millis(10));
    writer.wait_written(500);
    let verify = setup(scene.source.port, scene.target.port);
    let mut runs = 0;
    while writer.written() < 20_000 {
        let arguments: &[&str] = if runs % 3 == 2 { &["--repair"] } else { &[] };
        let ran = run(&verify, arguments);
        let wrong = ["missing", "other content", "only at", "cannot", "not all could", "trimmed"];
        assert!(wrong.iter().all(|words| !ran.out.contains(words)), "{}", ran.out);
        runs += 1;
    }
    assert!(runs >= 3, "{runs} runs");
    writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    run(&verify, &[]).expect(0, &["same: 4 streams, 20,000 entries"]);
    scene.end(&[]);
}

/// Peak memory of one run, in kB.
fn peak(sides: &Sides, entries: &str) -> u64 {
    let mut child = verify_process(sides).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    wait_for(
        "verify ends",
        LONG,
        || (),
        || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak = now.unwrap_or(0).max(peak);
            child.try_wait().unwrap()
        },
    );
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(out.ends_with(entries), "{out}");
    peak
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let sides = Sides::begin();
    for redis in [&sides.source, &sides.target] {
        fill(redis, "s", 1, 20_000);
    }
    let short = peak(&sides, "same: 1 stream, 20,000 entries\n");
    for redis in [&sides.source, &sides.target] {
        fill(redis, "s", 20_001, 200_000);
    }
    let long = peak(&sides, "same: 1 stream, 200,000 entries\n");
    assert!(long < short + short / 4, "{short} kB with 20,000 entries, {long} kB with 200,000");
    // And it does not keep what it finds: 200,000 entries would be 80 MB.
    sides.target.ask(0, &["DEL", "s"]);
    let missing = peak(&sides, "different: 1 of 1 stream: 200,000 not yet replicated; 0 entries the same\n");
    assert!(missing < short + short / 2, "{short} kB with nothing missing, {missing} kB with all");
}

#[test]
fn entries_of_megabytes_are_read_few_at_a_time() {
    let sides = Sides::begin();
    let huge = "h".repeat(4 << 20);
    for redis in [&sides.source, &sides.target] {
        fill(redis, "s", 1, 10);
        for id in 11..=70 {
            redis.ask(0, &["XADD", "s", &format!("{id}-0"), "huge", &huge]);
        }
        fill(redis, "s", 71, 300);
    }
    let peak = peak(&sides, "same: 1 stream, 300 entries\n");
    // The pages of 16 that follow the first of 8 take the first huge entries. All of them at once were 480 MB.
    assert!(peak < 250_000, "{peak} kB");
    sides.target.ask(0, &["XTRIM", "s", "MAXLEN", "0"]);
    sides.target.ask(0, &["DEL", "s"]);
    let ran = sides.run(&["--repair"]);
    ran.expect(
        0,
        &["s: 300 entries copied to the target", "same: 1 stream, 300 entries; 300 entries copied"],
    );
}

#[test]
fn the_rights_that_the_readme_names_are_enough() {
    let sides = Sides::begin();
    fill(&sides.source, "s", 1, 10);
    sides.source.ask(0, &["XGROUP", "CREATE", "s", GROUP, "0"]);
    sides.source.ask(0, &["XREADGROUP", "GROUP", GROUP, "c", "STREAMS", "s", ">"]);
    let user = |redis: &Redis, rights: &str| {
        let words = format!("ACL SETUSER verify on >secret ~* {rights}");
        redis.ask(0, &words.split(' ').collect::<Vec<_>>());
    };
    let compare = "+select +xinfo +xrange";
    user(&sides.source, &format!("{compare} +scan +type +xpending"));
    user(&sides.target, compare);
    let setup = ["SOURCE", "TARGET"].iter().fold(sides.setup.clone(), |setup, side| {
        setup
            .set(&format!("{side}_REDIS_USERNAME"), "verify")
            .set(&format!("{side}_REDIS_PASSWORD"), "secret")
    });
    let waiting = "10 not yet replicated; 0 entries the same";
    run(&setup, &[])
        .expect(1, &[&format!("s: different: {waiting}"), &format!("different: 1 of 1 stream: {waiting}")]);
    let refused = run(&setup, &["--repair"]);
    assert!(refused.out.starts_with("s: not all could be copied: 1-0: NOPERM"), "{}", refused.out);
    user(&sides.target, "+eval +xadd");
    let repaired = ["s: 10 entries copied to the target", "same: 1 stream, 10 entries; 10 entries copied"];
    run(&setup, &["--repair"]).expect(0, &repaired);
    user(&sides.source, "-xrange");
    let ran = run(&setup, &[]);
    assert!(
        ran.code == Some(1) && ran.out.starts_with("s: cannot be compared: source: NOPERM"),
        "{}",
        ran.out
    );
}
