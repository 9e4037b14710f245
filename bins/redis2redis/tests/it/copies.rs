//! What arrives: IDs, fields, order, bytes; and under which name.

use test_kit::bridge::Setup;
use test_kit::redis::Redis;
use test_kit::writer::{targets, write};

use crate::harness::{Scene, assert_same, entries, ids, wait_all_settled, wait_length};

#[test]
fn ids_fields_order_repeats_and_bytes_are_kept() {
    let scene = Scene::begin(|setup| setup);
    let mut client = scene.source.client();
    let all: Vec<u8> = (0..=255).collect();
    let mut add = |key: &[u8], id: &[u8], fields: &[&[u8]]| {
        let words: Vec<&[u8]> = [b"XADD", key, id].into_iter().chain(fields.iter().copied()).collect();
        assert_eq!(client.ask(&words).unwrap().text().as_bytes(), id);
    };
    let key = b"bin\xff\0ary \r\n".as_slice();
    add(key, b"1-1", &[b"b", b"2", b"a", b"1", b"b", b"3", b"b", b"2"]);
    add(key, b"1-2", &[b"empty", b"", b"", b"no name"]);
    add(key, b"1700000000000-0", &[&all, &all]);
    add(key, b"18446744073709551615-18446744073709551614", &[b"number", b"12345678901234567890123.50"]);
    add(key, b"18446744073709551615-18446744073709551615", &[b"last", b"one"]);
    add(b"s", b"5-0", &[b"x", &vec![b'y'; 3 << 20]]);
    scene.same((0, "s"), (0, "s"));
    let list = |redis: &Redis| redis.client().ask(&[b"XRANGE", key, b"-", b"+"]).unwrap().list();
    test_kit::wait_until("five entries", || scene.bridge.lines(), || list(&scene.target).len() == 5);
    assert_eq!(list(&scene.target), list(&scene.source));
    scene.end(&[]);
}

#[test]
fn thousands_of_entries_of_many_streams_arrive_as_they_are() {
    let scene = Scene::begin(|setup| setup.set("STREAM_BATCH_SIZE", 2000));
    let streams = targets(12);
    write(&scene.source, &streams, 12_000);
    wait_all_settled(&scene.source, &scene.bridge, &streams);
    assert_same(&scene.source, &scene.target, &streams);
    scene.end(&[]);
}

/// The same key in two databases, and one that looks like another's name.
fn alike(scene: &Scene) {
    scene.add(0, "a", "1-0", "zero");
    scene.add(1, "a", "1-0", "one");
    scene.add(0, "db1:a", "1-0", "looks like one");
    scene.add(3, "b", "7-0", "three");
}

#[test]
fn streams_of_several_databases_never_merge_in_one() {
    let scene = Scene::begin(|setup| setup.set("TARGET_REDIS_DB", 2));
    alike(&scene);
    scene.same((0, "a"), (2, "a"));
    scene.same((1, "a"), (2, "db1:a"));
    scene.same((0, "db1:a"), (2, "db0:db1:a"));
    scene.same((3, "b"), (2, "db3:b"));
    assert_eq!(scene.target.ask(2, &["DBSIZE"]).text(), "4");
    scene.end(&[]);
}

#[test]
fn each_stream_stays_in_its_database_with_same() {
    let scene = Scene::begin(|setup| setup.set("TARGET_REDIS_DB", "same"));
    alike(&scene);
    for stream in [(0, "a"), (1, "a"), (0, "db1:a"), (3, "b")] {
        scene.same(stream, stream);
    }
    scene.end(&[]);
}

#[test]
fn prefix_and_source_name_stand_before_the_name() {
    let set = |setup: Setup| setup.set("TARGET_STREAM_PREFIX", "synced:").set("SOURCE_NAME", "plant-a:");
    let scene = Scene::begin(|setup| set(setup).set("SOURCE_REDIS_DB", 1));
    scene.add(1, "a", "1-0", "1");
    scene.add(0, "a", "2-0", "2");
    scene.same((1, "a"), (0, "synced:plant-a:a"));
    scene.same((0, "a"), (0, "synced:plant-a:db0:a"));
    scene.end(&[]);
}

#[test]
fn a_cap_trims_the_target_and_nothing_is_asked_twice() {
    let scene = Scene::begin(|setup| setup.set("TARGET_STREAM_MAXLEN", 100));
    for n in 1..=1000 {
        scene.add(0, "s", &format!("{n}-0"), "v");
    }
    scene.wait_settled(0, "s");
    let kept = ids(&scene.target, 0, "s");
    assert!((100..400).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().map(String::as_str), Some("1000-0"));
    assert!(scene.source.letters(0, "s").is_empty());
    scene.end(&[]);
}

#[test]
fn a_stream_deleted_on_the_target_goes_on_with_what_comes() {
    let scene = Scene::begin(|setup| setup);
    scene.add(0, "s", "1-0", "v");
    scene.same((0, "s"), (0, "s"));
    scene.target.ask(0, &["DEL", "s"]);
    scene.add(0, "s", "2-0", "v");
    wait_length(&scene.target, &scene.bridge, 0, "s", 1);
    assert_eq!(entries(&scene.target, 0, "s"), entries(&scene.source, 0, "s")[1..]);
    scene.end(&[]);
}
