//! The bridge with a buffer, while everything that can be killed is killed: all arrives, in order of first arrivals.

use std::time::{Duration, Instant};

use test_kit::kafka::{Brokers, Kafka};
use test_kit::redis::Redis;
use test_kit::replicas::{self, Measure};
use test_kit::wait_until;
use test_kit::writer::{Writer, targets};

use crate::buffer::{buffered, wait_synced};
use crate::harness::{setup, wait_all_settled};

/// How much is moved: TEST_CRASH_ENTRIES=300000 TEST_CRASH_STREAMS=100 take the measure by hand, and
/// TEST_CRASH_OUTAGE=60 says for how many seconds the broker is away.
const USUAL: (usize, usize, u64) = (20_000, 40, 1);

#[test]
fn crashes_of_bridge_broker_and_buffer_lose_nothing_and_reorder_nothing() {
    let size = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (entries, streams) = (size("TEST_CRASH_ENTRIES", USUAL.0), size("TEST_CRASH_STREAMS", USUAL.1));
    let outage = Duration::from_secs(size("TEST_CRASH_OUTAGE", USUAL.2 as usize) as u64);
    let (source, mut buffer, mut kafka) = (Redis::start(), Redis::durable(), Kafka::start());
    let brokers = kafka.brokers();
    let topic = brokers.topic(3);
    let setup = buffered(setup(&source, &brokers, &topic), &buffer).set("STREAM_OWNERSHIP", "shared");
    let streams = targets(streams);
    let begun = Instant::now();
    let pause = Duration::from_micros(3_000_000 / (entries as u64 / 50));
    let writer = Writer::start(source.port, &streams, entries, pause);
    let mut bridge = setup.start();
    for step in 1..=14 {
        let goal = (entries * step / 17) as i64;
        wait_until(
            "records arrive",
            || (brokers.held(&topic), writer.written(), bridge.lines()),
            || brokers.held(&topic) >= goal,
        );
        match step {
            3 | 7 => {
                kafka.stop();
                // The length of the outage.
                std::thread::sleep(outage);
                kafka.up();
            }
            11 => {
                kafka.kill();
                kafka.up();
            }
            5 | 9 => {
                // What it has confirmed it has written down.
                buffer.kill();
                buffer.up();
            }
            _ => {
                bridge.check_errors(&[]);
                bridge.kill();
                bridge = setup.start();
            }
        }
    }
    let ledger = writer.finish();
    wait_all_settled(&source, &bridge, &streams);
    wait_synced(&buffer, &bridge);
    let tally = ledger.tally(&brokers.arrivals(&topic));
    eprintln!(
        "{} entries, {} arrived, {} twice, in {:.0} s",
        tally.written,
        tally.arrived,
        tally.duplicates,
        begun.elapsed().as_secs_f64()
    );
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn replicas_share_the_buffer_and_reorder_nothing() {
    let (source, buffer, brokers) = (Redis::start(), Redis::durable(), Brokers::shared());
    let topic = brokers.topic(3);
    let setup = buffered(setup(&source, &brokers, &topic), &buffer).set("STREAM_OWNERSHIP", "shared");
    let measure = Measure::usual();
    let streams = targets(measure.streams);
    let arrived = || usize::try_from(brokers.held(&topic)).unwrap();
    let (ledger, replicas) = replicas::disturb(&setup, &source, &streams, measure, arrived);
    wait_all_settled(&source, &replicas[0], &streams);
    wait_synced(&buffer, &replicas[0]);
    let tally = ledger.tally(&brokers.arrivals(&topic));
    eprintln!("{} entries, {} arrived, {} twice", tally.written, tally.arrived, tally.duplicates);
    assert!(tally.complete() && tally.out_of_order.is_empty(), "{tally:#?}");
    let shards: Vec<_> = replicas.iter().filter_map(|replica| replica.lines_with(" shards").pop()).collect();
    eprintln!("{shards:?}");
    replicas::settle(&source, streams.len(), replicas);
}
