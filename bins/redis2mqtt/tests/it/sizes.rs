//! Entries that are too large, for the broker, for the setting, or for comfort: dead-lettered with the reason, and
//! what follows goes on.

use crate::harness::bridge::setup;
use crate::harness::fake_broker::{Answer, FakeBroker, Manners};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::oracle::Ledger;
use crate::harness::redis::Redis;
use crate::harness::subscriber::Subscriber;
use crate::harness::wait_until;
use crate::harness::writer::{Target, wait_settled, write};
use crate::refusals::{Scene, is_bad};

#[test]
fn too_large_for_the_broker_by_its_answer_is_dead_lettered() {
    let scene = Scene::write();
    let broker = FakeBroker::with(Manners::default(), |publish, _| match is_bad(publish) {
        true => Answer::Code(0x95),
        false => Answer::Take,
    });
    let mut bridge = setup(scene.redis.port, broker.port).start();
    broker.wait_complete(&scene.ledger).check(3 * scene.ledger.written());
    scene.check_letter("0x95");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn too_large_for_mosquittos_message_size_limit_is_dead_lettered() {
    let scene = Scene::write_bad(&[b'x'; 4000]);
    let broker = Mosquitto::with("allow_anonymous true\nmessage_size_limit 1000\n");
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(scene.redis.port, broker.port).start();
    arrived.wait_complete(&scene.ledger).check(3 * scene.ledger.written());
    scene.check_letter("0x95");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn too_large_for_the_setting_or_the_connack_is_not_even_sent() {
    let settings = [(None, Some(2000)), (Some(2000), None)];
    for (max_packet, setting) in settings {
        let scene = Scene::write_bad(&[b'x'; 4000]);
        let broker = FakeBroker::with(Manners { max_packet, ..Manners::default() }, |_, _| Answer::Take);
        let mut setup = setup(scene.redis.port, broker.port);
        if let Some(size) = setting {
            setup = setup.set("MQTT_MAX_PACKET_SIZE", size);
        }
        let mut bridge = setup.start();
        broker.wait_complete(&scene.ledger).check(0);
        scene.check_letter("2000 are allowed");
        assert!(broker.seen().iter().all(|seen| seen.publish.payload.len() < 2000));
        bridge.stop();
        bridge.check_errors(&[]);
    }
}

#[test]
fn an_entry_of_20_megabytes_arrives_where_it_may() {
    let scene = Scene::write_bad(&vec![b'x'; 20 << 20]);
    let broker = Mosquitto::start();
    let arrived = Subscriber::start(broker.port, "redis/#");
    let mut bridge = setup(scene.redis.port, broker.port).start();
    let mut ledger = scene.ledger.clone();
    ledger.wrote("b", &scene.bad);
    wait_until("all arrives", || bridge.lines(), || arrived.count() > scene.ledger.written());
    let arrivals = arrived.arrivals();
    let tally = ledger.tally(&arrivals);
    assert!(tally.complete() && tally.duplicates == 0, "{tally:#?}");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn an_entry_of_20_megabytes_is_dead_lettered_where_it_may_not() {
    let scene = Scene::write_bad(&vec![b'x'; 20 << 20]);
    let broker = FakeBroker::start();
    let mut bridge = setup(scene.redis.port, broker.port).set("MQTT_MAX_PACKET_SIZE", 16 << 20).start();
    broker.wait_complete(&scene.ledger).check(0);
    scene.check_letter("16777216 are allowed");
    bridge.stop();
    bridge.check_errors(&[]);
}

#[test]
fn an_unfit_record_at_the_end_of_what_was_handed_over_does_not_stop_what_follows() {
    let (redis, broker) = (Redis::start(), FakeBroker::start());
    let mut bridge = setup(redis.port, broker.port).set("MQTT_MAX_PACKET_SIZE", 2000).start();
    let stream = [Target::new(0, "s")];
    let mut ledger = Ledger::default();
    for round in 1..=5 {
        ledger.join(write(&redis, &stream, 3));
        broker.wait_complete(&ledger);
        wait_settled(&redis, &stream);
        // Alone: the whole of what is handed over.
        redis.client().add(b"s", &[(b"v", &[b'x'; 4000])]).unwrap();
        wait_until("a letter", || bridge.lines(), || redis.letters(0, "s").len() == round);
    }
    ledger.join(write(&redis, &stream, 30));
    broker.wait_complete(&ledger).check(0);
    wait_settled(&redis, &stream);
    bridge.stop();
    bridge.check_errors(&[]);
}
