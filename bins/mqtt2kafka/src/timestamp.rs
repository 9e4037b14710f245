//! Which instant a payload means by its timestamp, as milliseconds since 1970. It owns what is plausible.

use chrono::DateTime;

/// 2000-01-01 and 2100-01-01, in seconds. What lies outside is no time of a message but a counter, a clock that was never
/// set, or another unit; Kafka would delete such a record at once (retention goes by the timestamp) or refuse it.
/// The range in seconds and that in milliseconds lie far apart, so that a number has one meaning at most.
const FROM: i64 = 946_684_800;
const TO: i64 = 4_102_444_800;

/// A time in milliseconds, if it is plausible.
pub(crate) fn millis(time: i64) -> Option<i64> {
    (FROM * 1000..TO * 1000).contains(&time).then_some(time)
}

/// What a JSON number or string says: seconds, with a fraction or not, or milliseconds, told apart by their size; or a
/// time by RFC 3339.
pub(crate) fn from_json(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    if text.starts_with('"') {
        let text: std::borrow::Cow<'_, str> = match text.get(1..text.len() - 1)? {
            escaped if escaped.contains('\\') => serde_json::from_str::<String>(text).ok()?.into(),
            plain => plain.into(),
        };
        return millis(DateTime::parse_from_rfc3339(&text).ok()?.timestamp_millis());
    }
    if let Ok(number) = text.parse::<i64>() {
        return if (FROM..TO).contains(&number) { Some(number * 1000) } else { millis(number) };
    }
    let number = text.parse::<f64>().ok()?;
    let scaled = if (FROM as f64..TO as f64).contains(&number) { number * 1000.0 } else { number };
    // A conversion of what is too large, or no number, gives what is implausible.
    millis(scaled.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_timestamp_means() {
        let check = |value: &str, time: Option<i64>| {
            assert_eq!(from_json(value.as_bytes()), time, "{value}");
        };
        check("1700000000000", Some(1_700_000_000_000));
        check("1700000000", Some(1_700_000_000_000));
        check("1700000000.123", Some(1_700_000_000_123));
        check("1700000000123.9", Some(1_700_000_000_124));
        check("1.7e9", Some(1_700_000_000_000));
        check("946684800", Some(946_684_800_000));
        check("946684800000", Some(946_684_800_000));
        check("4102444799999", Some(4_102_444_799_999));
        check("4102444799.9999", None);
        check(r#""2023-11-14T22:13:20Z""#, Some(1_700_000_000_000));
        check(r#""2023-11-15T00:13:20.123456+02:00""#, Some(1_700_000_000_123));
        check(r#""2023-11-14T22:13\u003a20Z""#, Some(1_700_000_000_000));
        for absurd in [
            "0",
            "-1",
            "123456",
            "946684799",
            "4102444800",
            "100000000000",
            "946684799999",
            "4102444800000",
            "1700000000000000",
            "1700000000000000000",
            "99999999999999999999999",
            "1e400",
            "-1e400",
            "-1700000000",
            r#""1999-12-31T23:59:59Z""#,
            r#""2100-01-01T00:00:00Z""#,
            r#""1700000000""#,
            r#""""#,
            r#""yesterday""#,
            r#""2023-11-14""#,
            "true",
            "null",
        ] {
            check(absurd, None);
        }
    }
}
