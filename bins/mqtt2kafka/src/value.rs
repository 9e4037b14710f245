//! From a payload to the record's value and timestamp. It owns which payloads are JSON, Sparkplug or neither, by topic and
//! content; it refuses, with the reason, what is to be dead-lettered.
//!
//! | a payload | becomes |
//! |---|---|
//! | empty, on any topic | no value, a tombstone: a retained message was cleared |
//! | of `spBv1.0/…`, but for `spBv1.0/STATE/+` | the Sparkplug payload as JSON; unfit if it is none |
//! | else, if it is JSON | itself, byte for byte, without its ignored attributes |
//! | anything else | itself, marked as raw, or unfit: [`NonJson`] |

use bytes::Bytes;
use prost::DecodeError;

use crate::attributes::Path;
use crate::filter::Filter;
use crate::ignored::Ignored;
use crate::json::{self, Found};
use crate::sparkplug::{self, Births, Names, TooLarge, Topic};
use crate::timestamp;

/// kafka.non_json: what becomes of a payload that is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NonJson {
    /// It is passed on as it is, with the header `mqtt.payload: raw`.
    #[default]
    Raw,
    /// It is unfit.
    DeadLetter,
}

/// What goes into a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Converted {
    /// None is a tombstone. Where nothing had to be changed, these are the payload's own bytes, not a copy.
    pub(crate) value: Option<Bytes>,
    /// Whether the value is not JSON.
    pub(crate) raw: bool,
    /// When the message was made, in milliseconds since 1970, if the payload says so and it is plausible.
    pub(crate) timestamp: Option<i64>,
}

/// Why a payload goes to the dead-letter topic instead; it is not changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the payload is not JSON")]
    NotJson,
    #[error("the payload is no Sparkplug B payload: {0}")]
    NotSparkplug(#[from] DecodeError),
    #[error("the Sparkplug B payload {0}")]
    TooLarge(#[from] TooLarge),
}

/// Converts payloads, one after the other in the order in which they came: births tell about what follows them.
#[derive(Debug)]
pub(crate) struct Converter {
    ignored: Ignored,
    births: Births,
    non_json: NonJson,
}

impl Converter {
    /// `ignored` are mqtt.ignored_attributes, `timestamp` is mqtt.timestamp_attribute.
    pub(crate) fn new(ignored: Vec<(Filter, Vec<Path>)>, timestamp: Option<Path>, non_json: NonJson) -> Self {
        Self { ignored: Ignored::new(ignored, timestamp), births: Births::default(), non_json }
    }

    /// Converts the payload of a message to this topic.
    pub(crate) fn convert(&mut self, topic: &str, payload: &Bytes) -> Result<Converted, Unfit> {
        if payload.is_empty() {
            return Ok(Converted { value: None, raw: false, timestamp: None });
        }
        match Topic::new(topic) {
            Topic::NotSparkplug => self.convert_json(topic, payload),
            kind => self.convert_sparkplug(topic, kind, payload),
        }
    }

    /// What births told, and how often they were missing: for metrics.
    pub(crate) fn births(&self) -> &Births {
        &self.births
    }

    fn convert_json(&mut self, topic: &str, payload: &Bytes) -> Result<Converted, Unfit> {
        let Some(found) = json::scan(payload, &self.ignored.of(topic)) else {
            return match self.non_json {
                NonJson::Raw => Ok(Converted { value: Some(payload.clone()), raw: true, timestamp: None }),
                NonJson::DeadLetter => Err(Unfit::NotJson),
            };
        };
        let timestamp = found.read.clone().and_then(|place| timestamp::from_json(&payload[place]));
        Ok(Converted { value: Some(without(&found, payload)), raw: false, timestamp })
    }

    fn convert_sparkplug(&mut self, topic: &str, kind: Topic<'_>, bytes: &Bytes) -> Result<Converted, Unfit> {
        let payload = sparkplug::read(bytes)?;
        let names = match kind {
            Topic::Of(origin) => {
                if origin.birth {
                    self.births.learn(origin, &payload);
                }
                self.births.names(origin)
            }
            _ => Names::default(),
        };
        let mut value = Bytes::from(sparkplug::write(&payload, &names)?);
        let wanted = self.ignored.of(topic);
        if wanted.removes()
            && let Some(found) = json::scan(&value, &wanted)
        {
            value = without(&found, &value);
        }
        // The specification has it in milliseconds (6.4.1): nothing else is guessed.
        let timestamp = payload.timestamp.and_then(|time| timestamp::millis(i64::try_from(time).ok()?));
        Ok(Converted { value: Some(value), raw: false, timestamp })
    }
}

fn without(found: &Found, text: &Bytes) -> Bytes {
    if found.cuts.is_empty() { text.clone() } else { found.cut(text).into() }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::sparkplug::Payload;

    fn converter(ignored: &[(&str, &[&str])], non_json: NonJson) -> Converter {
        let path = |path: &str| Path::new(path).expect(path);
        let ignored = ignored.iter().map(|(filter, paths)| {
            (Filter::new(filter).expect(filter), paths.iter().map(|text| path(text)).collect())
        });
        Converter::new(ignored.collect(), Some(path("timestamp")), non_json)
    }

    fn passed(value: &'static str, raw: bool, timestamp: Option<i64>) -> Converted {
        Converted { value: Some(value.into()), raw, timestamp }
    }

    #[test]
    fn json_is_passed_on_digit_for_digit() {
        let mut converter = converter(&[("a/#", &["timestamp", "x.y"])], NonJson::Raw);
        let mut check = |topic: &str, payload: &'static str, value: &'static str, timestamp| {
            let converted = converter.convert(topic, &payload.into()).expect(payload);
            assert_eq!(converted, passed(value, false, timestamp), "{topic} {payload}");
        };
        let long = " {\"a\": 1.10, \"a\": 123456789012345678901234567890, \"b\": \"\\u00e9\"}\n";
        check("t", long, long, None);
        check("a", long, long, None);
        let timed = r#"{"timestamp":1700000000,"x":{"y":1,"z":2}}"#;
        check("t", timed, timed, Some(1_700_000_000_000));
        check("a", timed, r#"{"x":{"z":2}}"#, Some(1_700_000_000_000));
        check("a/b", timed, r#"{"x":{"z":2}}"#, Some(1_700_000_000_000));
        check("a", r#"{"timestamp":"2023-11-14T22:13:20Z"}"#, "{}", Some(1_700_000_000_000));
        check("t", r#"{"timestamp":123456}"#, r#"{"timestamp":123456}"#, None);
        check(
            "spBv1.0/STATE/host",
            r#"{"online":true,"timestamp":1700000000000}"#,
            r#"{"online":true,"timestamp":1700000000000}"#,
            Some(1_700_000_000_000),
        );
        check("t", "12", "12", None);
        check("t", "null", "null", None);
        check("spBv1.0", "[]", "[]", None);
    }

    #[test]
    fn what_is_unchanged_is_not_copied() {
        let mut converter = converter(&[("#", &["x"])], NonJson::Raw);
        for payload in ["{\"a\":1}", "no JSON"] {
            let payload = Bytes::from(payload.to_owned());
            let value = converter.convert("t", &payload).expect("is fit").value.expect("is there");
            assert_eq!(value.as_ptr(), payload.as_ptr());
        }
    }

    #[test]
    fn what_is_not_json_is_raw_or_unfit() {
        for payload in [
            &b"21.5 C"[..],
            b"ONLINE",
            b"\xff\xfe",
            b"{\"a\":\"\xff\"}",
            b"NaN",
            b"{\"timestamp\":1700000000}}",
        ] {
            let payload = Bytes::from_static(payload);
            for topic in ["t", "spBv1.0/STATE/host"] {
                let converted =
                    converter(&[("#", &["a"])], NonJson::Raw).convert(topic, &payload).expect("is passed on");
                assert_eq!(converted, Converted { value: Some(payload.clone()), raw: true, timestamp: None });
                let unfit =
                    converter(&[], NonJson::DeadLetter).convert(topic, &payload).expect_err("is unfit");
                assert_eq!(unfit.to_string(), "the payload is not JSON");
            }
        }
    }

    #[test]
    fn nothing_is_a_tombstone() {
        for non_json in [NonJson::Raw, NonJson::DeadLetter] {
            for topic in ["t", "spBv1.0/g/NDATA/n", "spBv1.0/STATE/host", "spBv1.0/g"] {
                let converted = converter(&[], non_json).convert(topic, &Bytes::new()).expect("is fit");
                assert_eq!(converted, Converted { value: None, raw: false, timestamp: None }, "{topic}");
            }
        }
    }

    #[test]
    fn sparkplug_is_json_without_its_ignored_attributes() {
        let payload = |timestamp| {
            let payload = Payload { timestamp, seq: Some(3), ..Payload::default() };
            Bytes::from(payload.encode_to_vec())
        };
        let mut converter = converter(&[("spBv1.0/+/NDATA/#", &["timestamp"])], NonJson::Raw);
        let mut check = |topic: &str, timestamp, value: &'static str, time| {
            let converted = converter.convert(topic, &payload(timestamp)).expect(topic);
            assert_eq!(converted, passed(value, false, time), "{topic}");
        };
        let time = 1_700_000_000_000;
        check("spBv1.0/g/DDATA/n/d", Some(time), r#"{"timestamp":1700000000000,"seq":3}"#, Some(time as i64));
        check("spBv1.0/g/NDATA/n", Some(time), r#"{"seq":3}"#, Some(time as i64));
        // Of an unknown type, and of no plausible time.
        check("spBv1.0/g/OTHER/n", Some(1_700_000_000), r#"{"timestamp":1700000000,"seq":3}"#, None);
        check("spBv1.0/STATE/h/x", Some(u64::MAX), r#"{"timestamp":18446744073709551615,"seq":3}"#, None);
        for topic in ["spBv1.0/g/NDATA/n", "spBv1.0/g/OTHER/n"] {
            let unfit =
                converter.convert(topic, &"{\"a\":1}".into()).expect_err("is no protobuf").to_string();
            assert!(unfit.starts_with("the payload is no Sparkplug B payload: "), "{unfit}");
        }
    }
}
