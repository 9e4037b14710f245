//! `monitor` by the real binary: how it ends, and that a running bridge is nothing to warn of.

use std::time::Duration;

use test_kit::bridge::Bridge;
use test_kit::redis::Redis;
use test_kit::wait_until;
use test_kit::writer::{Writer, targets};

use crate::harness::{GROUP, Scene, setup, wait_all_settled};

/// Of this source. There is no target, and none is needed.
fn monitor(source: &Redis, arguments: &[&str]) -> Bridge {
    let setup = setup(source.port, 1).set("MONITOR_INTERVAL", "0.1").arg("monitor");
    arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).start()
}

fn once(source: &Redis) -> (Option<i32>, String) {
    let mut program = monitor(source, &["--once"]);
    let (code, _) = program.wait_exit();
    (code, program.stdout())
}

#[test]
fn a_signal_ends_it_well() {
    let source = Redis::start();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    for signal in ["TERM", "INT", "HUP"] {
        source.ask(0, &["CONFIG", "RESETSTAT"]);
        let mut program = monitor(&source, &[]);
        let stats = || source.ask(0, &["INFO", "commandstats"]).text();
        wait_until("several looks", stats, || stats().contains("cmdstat_xinfo|stream:calls=3"));
        program.signal(signal);
        let (code, _) = program.wait_exit();
        let out = program.stdout();
        assert_eq!(code, Some(0), "{signal}: {out}");
        assert!(out.matches("INFO  looked at the streams streams=1 ok=0 warn=1 ").count() >= 2, "{out}");
    }
}

#[test]
fn one_look_ends_with_its_exit_code() {
    let mut source = Redis::start();
    let (code, out) = once(&source);
    assert!(code == Some(0) && out.contains("streams=0 "), "{code:?} {out}");
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let (code, out) = once(&source);
    let warning = format!(
        "stream=\"s\" health=WARN length=1 first=1-0 last=1-0 lag=- dead_letters=0 \
         warning=\"no consumer group {GROUP}: "
    );
    assert!(code == Some(1) && out.contains(&warning), "{code:?} {out}");
    source.kill();
    let mut program = monitor(&source, &["--once"]);
    assert_eq!(program.wait_exit().0, Some(1));
    assert_eq!(program.lines_with("cannot reach the source Redis at 127.0.0.1:").len(), 1);
    assert_eq!(program.stdout(), "");
    assert_eq!(monitor(&source, &["--no-such-option"]).wait_exit().0, Some(2));
}

#[test]
fn a_running_bridge_is_nothing_to_warn_of() {
    let scene = Scene::begin(|setup| setup.set("STREAM_DISCOVERY_INTERVAL", "0.1"));
    let streams = targets(4);
    let writer = Writer::start(scene.source.port, &streams, 20_000, Duration::from_millis(10));
    writer.wait_written(500);
    wait_until("all streams have the group", || (), || once(&scene.source).1.contains("streams=4 ok=4 "));
    let mut program = monitor(&scene.source, &[]);
    writer.finish();
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    program.stop();
    let out = program.stdout();
    assert!(out.contains("streams=4 ok=4 ") && !out.contains("stream needs attention"), "{out}");
    let (code, out) = once(&scene.source);
    assert!(
        code == Some(0) && out.contains(" length=20000 lag=0 pending=0 dead_letters=0 "),
        "{code:?} {out}"
    );
    scene.end(&[]);
}
