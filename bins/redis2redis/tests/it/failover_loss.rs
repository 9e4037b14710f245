//! A failover loses what the old primary had confirmed and its replicas did not have: `verify` lists it, `--repair` brings
//! it back where IDs allow, and with TARGET_REDIS_WAIT_REPLICAS nothing is lost.

use test_kit::bridge::{Bridge, Setup};
use test_kit::redis::Redis;
use test_kit::sentinel::Sentinels;
use test_kit::wait_until;
use test_kit::writer::{Target, targets, wait_settled, write};

use crate::harness::{GROUP, bare, wait_all_settled};
use crate::verify::run;

const ENTRIES: usize = 1000;

/// A bridge to a primary whose replicas stand still; so many entries are written before it is killed.
fn fail_over(wait: u32, entries: usize) -> (Redis, Sentinels, Setup, Bridge, Vec<Target>) {
    let (source, mut sentinels) = (Redis::start(), Sentinels::start());
    let setup = bare()
        .set("SOURCE_REDIS_PORT", source.port)
        .set("TARGET_REDIS_URL", sentinels.url())
        .set("TARGET_REDIS_WAIT_REPLICAS", wait);
    let streams = targets(8);
    write(&source, &streams, ENTRIES);
    let bridge = setup.start();
    wait_all_settled(&source, &bridge, &streams);
    let first = sentinels.primary().port;
    sentinels.server(first).wait_for_replicas(2);
    sentinels.others(first).for_each(|replica| replica.suspend(true));
    // Else what is written would wait for them in their sockets.
    sentinels.primary().ask(0, &["CLIENT", "KILL", "TYPE", "replica"]);
    write(&source, &streams, entries);
    let arrived = || -> usize {
        let length = |stream: &Target| {
            sentinels.primary().ask(0, &["XLEN", &stream.spelled()]).text().parse::<usize>().unwrap()
        };
        streams.iter().map(length).sum()
    };
    wait_until("the old primary has it all", arrived, || arrived() == ENTRIES + entries);
    if wait == 0 {
        wait_settled(&source, GROUP, &streams);
    }
    sentinels.server(first).kill();
    sentinels.others(first).for_each(|replica| replica.suspend(false));
    sentinels.wait_until_replaced(first);
    (source, sentinels, setup, bridge, streams)
}

#[test]
fn what_a_failover_lost_is_listed_and_repaired() {
    let (source, sentinels, setup, mut bridge, streams) = fail_over(0, 80);
    let verified = || run(&setup, &["--all"]);
    // Until the Sentinels have told everybody, the dead primary may be asked.
    wait_until("the new primary answers", || (), || verified().out.contains("different: "));
    let ran = verified();
    assert_eq!(ran.out.matches(" missing at the target\n").count(), 80, "{}", ran.out);
    assert!(
        ran.out.contains("different: 8 of 8 streams: 80 missing at the target; 1,000 entries the same"),
        "{}",
        ran.out
    );
    let ran = run(&setup, &["--repair"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.out.contains("same: 8 streams, 1,080 entries; 80 entries copied"), "{}", ran.out);
    // And the bridge goes on behind it.
    write(&source, &streams, 80);
    wait_all_settled(&source, &bridge, &streams);
    assert_eq!(run(&setup, &[]).code, Some(0));
    bridge.stop();
    drop(sentinels);
}

#[test]
fn with_wait_a_failover_loses_nothing() {
    let (source, sentinels, setup, mut bridge, streams) = fail_over(1, 80);
    wait_all_settled(&source, &bridge, &streams);
    let ran = run(&setup, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.out.contains("same: 8 streams, 1,080 entries"), "{}", ran.out);
    bridge.stop();
    bridge.check_errors(&[]);
    drop(sentinels);
}
