//! Topics against MQTT's rules, payloads against the description's, times against chrono.

use std::time::Duration;

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use sync_core::payload::{Encoding, ValueFormat, write_json_string};
use sync_core::record::{EntryId, StreamName};

#[test]
fn topics() {
    let check = |spelled: &str, expected: &str| assert_eq!(topic("redis", spelled).as_deref(), Ok(expected));
    check("device:sensor:data", "redis/device/sensor/data");
    check("db3:device:sensor", "redis/db3/device/sensor");
    check("a/b", "redis/a/b");
    check("", "redis/");
    check(":", "redis//");
    check("a+b#c%d", "redis/a%2Bb%23c%25d");
    check("%2B", "redis/%252B");
    check("\0", "redis/%00");
    check("a\n\u{7f}\u{85}", "redis/a%0A%7F%C2%85");
    check("\u{ffff}\u{1fffe}\u{fdd0}", "redis/%EF%BF%BF%F0%9F%BF%BE%EF%B7%90");
    check("日本 $é\u{feff}\u{fffd}", "redis/日本 $é\u{feff}\u{fffd}");
    assert_eq!(topic("a/b/", "c").as_deref(), Ok("a/b//c"));
}

#[test]
fn topics_end_at_65535_bytes() {
    assert_eq!(topic("", &"x".repeat(65_534)).map(|topic| topic.len()), Ok(65_535));
    assert_eq!(topic("", &"x".repeat(65_535)), Err(TopicError::TooLong(65_536)));
    assert_eq!(topic("", &"+".repeat(22_000)), Err(TopicError::TooLong(66_001)));
}

#[test]
fn bases() {
    assert_eq!(check_base("plant/line 1/é%"), Ok(()));
    for base in ["+", "a/#", "a\0", "\n", "\u{ffff}"] {
        assert!(matches!(check_base(base), Err(TopicError::Forbidden(_))), "{base:?}");
    }
    assert_eq!(check_base(&"x".repeat(65_534)), Ok(()));
    assert_eq!(check_base(&"x".repeat(65_535)), Err(TopicError::TooLong(65_536)));
}

#[test]
fn payload() {
    let stream = StreamName::new(2, "device:\"sensor\"").spell(0);
    let mut quoted = Vec::new();
    write_json_string(&mut quoted, &stream);
    let field = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
    let entry = Entry {
        id: EntryId { ms: 1_651_234_567_890, seq: 0 },
        fields: vec![field("field1", "value1"), field("field2", "value2"), field("field3", "123")],
    };
    let mut clock = Clock::default();
    let time = clock.at(UNIX_EPOCH + Duration::from_micros(1_682_944_496_789_012));

    let write = |format| {
        let mut out = Vec::new();
        let utf_8 = Encoding::for_label(b"utf-8").unwrap();
        write_payload(&mut out, Encoder::new(format, utf_8), &quoted, &entry, time);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        write(ValueFormat::Json),
        concat!(
            r#"{"stream":"db2:device:\"sensor\"","id":"1651234567890-0","#,
            r#""data":{"field1":"value1","field2":"value2","field3":123},"timestamp":"2023-05-01T12:34:56.789012"}"#
        )
    );
    assert!(write(ValueFormat::Text).contains(r#""field3":"123""#));
}

#[test]
fn times() {
    let mut clock = Clock::default();
    let mut check = |micros: u64, expected: &str| {
        let text = clock.at(UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(std::str::from_utf8(text), Ok(expected));
    };
    check(0, "1970-01-01T00:00:00.000000");
    check(7, "1970-01-01T00:00:00.000007");
    check(1_582_934_400_999_999, "2020-02-29T00:00:00.999999");
    check(1_582_934_400_000_000, "2020-02-29T00:00:00.000000");
    check(253_402_300_799_999_999, "9999-12-31T23:59:59.999999");
    check(253_402_300_800_000_000, "9999-12-31T23:59:59.999999");
    check(999_999, "1970-01-01T00:00:00.999999");
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(clock.at(before), b"1970-01-01T00:00:00.000000");
    assert!(clock.now() > b"2024-01-01T00:00:00.000000");
}

proptest! {
    #[test]
    fn times_are_chronos(times in proptest::collection::vec(0u64..253_402_300_800_000_000, 1..5), near in 0u64..3_000_000) {
        let mut clock = Clock::default();
        for micros in times.into_iter().flat_map(|time| [time, time.saturating_sub(near)]) {
            let expected = DateTime::from_timestamp_micros(micros.cast_signed()).unwrap().format("%Y-%m-%dT%H:%M:%S%.6f");
            let text = clock.at(UNIX_EPOCH + Duration::from_micros(micros));
            prop_assert_eq!(std::str::from_utf8(text).unwrap(), expected.to_string());
        }
    }

    #[test]
    fn a_topic_is_always_publishable(spelled in prop_oneof!["[a:/+#%\0\n\u{80}\u{ffff}é]{0,12}", any::<String>()]) {
        let topic = topic("redis", &spelled).unwrap();
        prop_assert_eq!(check_base(&topic), Ok(()));
        prop_assert!(!topic.contains(['+', '#', '\0']));
        prop_assert!(rumqttc::valid_topic(&topic));
    }

    #[test]
    fn distinct_names_have_distinct_topics(
        names in prop_oneof![("[a:/+%2B5\n]{0,4}", "[a:/+%2B5\n]{0,4}"), (any::<String>(), any::<String>())],
    ) {
        let same = names.0.replace(':', "/") == names.1.replace(':', "/");
        prop_assert_eq!(topic("redis", &names.0) == topic("redis", &names.1), same);
    }
}
