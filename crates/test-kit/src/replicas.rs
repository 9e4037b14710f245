//! Replicas that share streams while they are killed, stopped for longer than their lease, and replaced.

use std::thread::sleep;
use std::time::Duration;

use crate::bridge::{Bridge, Setup};
use crate::oracle::Ledger;
use crate::redis::Redis;
use crate::wait_until;
use crate::writer::{Target, Writer};

const REPLICAS: usize = 3;
/// Longer than a lease, so that the others take over while the process stands still.
const STANDSTILL: Duration = Duration::from_millis(8500);

/// How much is moved, and how often something happens.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub entries: usize,
    pub streams: usize,
    pub faults: usize,
}

impl Measure {
    /// In a usual run; by hand TEST_REPLICAS_ENTRIES=200000 TEST_REPLICAS_STREAMS=200 TEST_REPLICAS_FAULTS=30.
    pub fn usual() -> Self {
        let size = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
        Self {
            entries: size("TEST_REPLICAS_ENTRIES", 12_000),
            streams: size("TEST_REPLICAS_STREAMS", 40),
            faults: size("TEST_REPLICAS_FAULTS", 6),
        }
    }
}

/// Writes in bursts, and in the middle of each kills, stops or replaces one of three replicas. `arrived` counts what is
/// at the destination. What was written, and the replicas that are left.
pub fn disturb(
    setup: &Setup,
    source: &Redis,
    streams: &[Target],
    measure: Measure,
    arrived: impl Fn() -> usize,
) -> (Ledger, Vec<Bridge>) {
    let mut replicas: Vec<Bridge> = (0..REPLICAS).map(|_| setup.start()).collect();
    let mut random = std::process::id() as usize;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let Measure { entries, faults, .. } = measure;
    let burst = entries / (faults + faults / 3);
    let burst = |goal: usize| {
        let before = arrived();
        let writer = Writer::start(source.port, streams, burst, Duration::ZERO);
        let state = || (arrived(), writer.written());
        wait_until("entries arrive", state, || arrived() >= before + goal.min(burst));
        writer
    };
    let mut ledger = Ledger::default();
    for fault in 0..faults {
        // In the middle of a burst much is in flight.
        let at = next(REPLICAS);
        let writer = burst(next(entries / faults / 2));
        match fault % 3 {
            0 => {
                replicas[at].kill();
                replicas[at] = setup.start();
            }
            1 => {
                replicas[at].signal("STOP");
                sleep(STANDSTILL);
                // It wakes up while the others are busy with what was its own.
                let more = burst(entries / faults / 5);
                replicas[at].signal("CONT");
                ledger.join(more.finish());
            }
            _ => {
                replicas[at].stop();
                replicas[at].check_errors(&[]);
                replicas[at] = setup.start();
            }
        }
        ledger.join(writer.finish());
    }
    (ledger, replicas)
}

/// How the streams are shared once all replicas have settled, and that they leave nothing behind.
pub fn settle(source: &Redis, streams: usize, mut replicas: Vec<Bridge>) {
    let owned = |replica: &Bridge| {
        let line = replica.lines_with("owns ").pop()?;
        line.text.split(' ').nth(1)?.parse::<usize>().ok()
    };
    let shares = || replicas.iter().map(owned).collect::<Option<Vec<usize>>>().unwrap_or_default();
    wait_until("the streams are shared out", shares, || {
        let shares = shares();
        let even = shares.iter().all(|share| share.abs_diff(streams / REPLICAS) <= 2);
        shares.iter().sum::<usize>() == streams && even
    });
    eprintln!("shared out: {:?}", shares());
    for replica in &mut replicas {
        replica.stop();
        replica.check_errors(&[]);
    }
    assert_eq!(source.ask(0, &["KEYS", "redis-sync:*"]).list(), [], "nothing is left of the last one");
}
