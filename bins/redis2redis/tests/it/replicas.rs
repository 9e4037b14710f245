//! Replicas share the streams: whatever happens to one of them, source and target hold the same.

use test_kit::redis::Redis;
use test_kit::replicas::{Measure, disturb, settle};
use test_kit::wait_until;
use test_kit::writer::targets;

use crate::harness::{GROUP, setup};
use crate::verify::run;

#[test]
fn replicas_copy_everything_once_whatever_happens_to_them() {
    let (source, target) = (Redis::start(), Redis::start());
    let measure = Measure::usual();
    let streams = targets(measure.streams);
    let setup = setup(source.port, target.port).set("STREAM_OWNERSHIP", "shared");
    const COUNT: &str = "local n = 0 for _, k in ipairs(redis.call('KEYS', '*')) do n = n + redis.call('XLEN', k) end return n";
    let arrived = || target.ask(0, &["EVAL", COUNT, "0"]).text().parse().expect("a number");
    let (ledger, replicas) = disturb(&setup, &source, &streams, measure, arrived);
    // One that has just changed hands may have nothing pending, and yet something to be read.
    for stream in &streams {
        let progress = || source.progress(stream.db, &stream.key, GROUP);
        wait_until("all is read and settled", progress, || progress().is_settled());
    }
    let ran = run(&setup, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.out.starts_with("same: "), "{}", ran.out);
    assert_eq!(arrived(), ledger.written(), "nothing twice");
    for replica in &replicas {
        let conflicts = replica.lines_with("dead-lettered");
        assert!(conflicts.is_empty(), "a second reader would have left gaps: {conflicts:?}");
    }
    let refused = target.ask(0, &["INFO", "commandstats"]).text();
    let refused = refused.lines().find(|line| line.starts_with("cmdstat_xadd")).unwrap_or_default();
    let late = refused.rsplit_once("failed_calls=").map_or("0", |(_, late)| late);
    eprintln!(
        "{} written, {} at the target, {late} late duplicates refused; {}",
        ledger.written(),
        arrived(),
        ran.out.trim()
    );
    settle(&source, streams.len(), replicas);
}
