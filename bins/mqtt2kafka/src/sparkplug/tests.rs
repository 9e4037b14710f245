use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use serde_json::Value;

use super::proto::payload::data_set::{DataSetValue, Row, data_set_value};
use super::proto::payload::metric::Value as MetricValue;
use super::proto::payload::property_value::Value as Property;
use super::proto::payload::template::{Parameter, parameter};
use super::proto::payload::{DataSet, Metric, PropertySet, PropertySetList, PropertyValue, Template};
use super::*;
use crate::attributes::Wanted;
use crate::json::scan;

struct Vector {
    name: String,
    payload: Bytes,
    decoded: Value,
    printed: String,
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../tests/data/sparkplug-vectors.json")).expect("are JSON");
    let text = |vector: &Value, name: &str| vector[name].as_str().expect("is a string").to_owned();
    let bytes = |hex: &str| {
        let byte = |at: usize| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("is hexadecimal");
        (0..hex.len() / 2).map(byte).collect()
    };
    let read = |vector: &Value| Vector {
        name: text(vector, "name"),
        payload: bytes(&text(vector, "hex")),
        decoded: vector["upstream_decoded"].clone(),
        printed: text(vector, "upstream_kafka_value"),
    };
    vectors.iter().map(read).collect()
}

/// What the vectors have otherwise than the bridge: bytes in a form of their own, signed numbers without their sign, and
/// the strings of an array. These stand in a payload as they are, with a NUL behind each (specification 3.0, 6.4.17, and
/// `arrays_are_lists` in `array.rs`). The sender of payload_5 wrote each in hexadecimal digits, which is nowhere asked for: the
/// bridge gives the digits, and the vectors the text that they are of.
fn corrected(mut decoded: Value) -> Value {
    for metric in decoded["metrics"].as_array_mut().expect("is a list") {
        let signed = |bits: u32| (1_i128 << (bits - 1), 1_i128 << bits);
        let range = match metric["datatype"].as_u64() {
            Some(1) => Some(signed(8)),
            Some(2) => Some(signed(16)),
            Some(3) => Some(signed(32)),
            Some(4) => Some(signed(64)),
            _ => None,
        };
        let value = &mut metric["value"];
        if let (Some((from, all)), Some(number)) = (range, value.as_u64()) {
            let number = i128::from(number);
            let number = if number >= from { number - all } else { number };
            *value = i64::try_from(number).expect("fits").into();
        }
        if let Some(base64) = value.get("$bytes_b64") {
            *value = base64.clone();
        }
        for string in value.as_array_mut().into_iter().flatten() {
            if let Some(text) = string.as_str() {
                *string = text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into();
            }
        }
    }
    decoded
}

#[test]
fn the_vectors_decode() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 6);
    for Vector { name, payload, decoded, printed } in vectors {
        let json = decode(&payload).expect(&name);
        let value: Value = serde_json::from_str(&json).expect(&name);
        assert_eq!(value, corrected(decoded), "{name}");
        // These two have nothing to correct: their members are in the same order.
        if ["payload_1", "payload_6"].contains(&&*name) {
            let printed =
                printed.replace('\'', "\"").replace(": ", ":").replace(", ", ",").replace("False", "false");
            assert_eq!(json, printed, "{name}");
        }
    }
}

fn metric(value: Option<MetricValue>, datatype: Option<u32>) -> Metric {
    Metric { name: Some("m".to_owned()), datatype, value, ..Metric::default() }
}

fn payload_of(metrics: Vec<Metric>) -> Payload {
    Payload { metrics, ..Payload::default() }
}

fn json_of(metrics: Vec<Metric>) -> String {
    decode(&payload_of(metrics).encode_to_vec().into()).expect("is a payload")
}

#[test]
fn how_values_are_written() {
    let check = |value: MetricValue, datatype: u32, json: &str| {
        let datatype = (datatype != 0).then_some(datatype);
        let whole = json_of(vec![metric(Some(value), datatype)]);
        let value = whole.split_once("\"value\":").and_then(|(_, value)| value.strip_suffix("}]}"));
        assert_eq!(value, Some(json), "{whole}");
    };
    use MetricValue::{BooleanValue, BytesValue, DoubleValue, FloatValue, IntValue, LongValue, StringValue};
    check(IntValue(246), 1, "-10");
    check(IntValue(u32::MAX - 9), 1, "-10");
    check(IntValue(300), 1, "300");
    check(IntValue(65436), 2, "-100");
    check(IntValue(u32::MAX), 2, "-1");
    check(IntValue(u32::MAX), 3, "-1");
    check(IntValue(u32::MAX), 7, "4294967295");
    check(IntValue(246), 0, "246");
    check(IntValue(255), 5, "255");
    check(LongValue(u64::MAX), 4, "-1");
    check(LongValue(1 << 63), 4, "-9223372036854775808");
    check(LongValue(u64::MAX), 8, "18446744073709551615");
    check(LongValue(u64::MAX), 13, "18446744073709551615");
    check(LongValue(u64::MAX), 3, "-1");
    check(LongValue(u64::from(u32::MAX)), 3, "-1");
    check(LongValue(u64::from(u32::MAX)), 7, "4294967295");
    check(LongValue(9_007_199_254_740_993), 4, "9007199254740993");
    check(FloatValue(1.1234), 9, "1.1234");
    check(FloatValue(0.1), 9, "0.1");
    check(FloatValue(f32::NAN), 9, "\"NaN\"");
    check(FloatValue(f32::INFINITY), 9, "\"Infinity\"");
    check(DoubleValue(f64::NEG_INFINITY), 10, "\"-Infinity\"");
    check(DoubleValue(0.1 + 0.2), 10, "0.30000000000000004");
    check(DoubleValue(100.0), 10, "100.0");
    check(BooleanValue(true), 11, "true");
    check(StringValue("a\"\n\u{1}ä".to_owned()), 12, "\"a\\\"\\n\\u0001ä\"");
    check(BytesValue(Bytes::from_static(b"\0\xff")), 17, "\"AP8=\"");
    check(BytesValue(Bytes::new()), 18, "\"\"");
    check(BytesValue(Bytes::from_static(b"\xE9\x7B")), 22, "[-23,123]");
    check(BytesValue(Bytes::from_static(b"abc")), 23, "\"YWJj\"");
    check(MetricValue::ExtensionValue(Default::default()), 0, "{}");
}

#[test]
fn only_what_is_present_is_written() {
    let null = Metric { is_null: Some(true), ..metric(None, Some(3)) };
    assert_eq!(json_of(vec![null]), r#"{"metrics":[{"name":"m","datatype":3,"is_null":true}]}"#);
    assert_eq!(json_of(vec![Metric::default()]), r#"{"metrics":[{}]}"#);
    assert_eq!(decode(&Bytes::new()).as_deref(), Ok("{}"));
    let payload = Payload {
        timestamp: Some(u64::MAX),
        seq: Some(0),
        uuid: Some("u".to_owned()),
        body: Some(Bytes::from_static(b"ab")),
        ..Payload::default()
    };
    let json = decode(&payload.encode_to_vec().into());
    assert_eq!(json.as_deref(), Ok(r#"{"timestamp":18446744073709551615,"seq":0,"uuid":"u","body":"YWI="}"#));
}

#[test]
fn structures_are_written_to_their_leaves() {
    let element = |value| DataSetValue { value: Some(value) };
    let dataset = DataSet {
        num_of_columns: Some(2),
        columns: vec!["a".to_owned(), "b".to_owned()],
        types: vec![1, 4],
        rows: vec![
            Row {
                elements: vec![
                    element(data_set_value::Value::IntValue(246)),
                    element(data_set_value::Value::LongValue(u64::MAX)),
                    element(data_set_value::Value::IntValue(246)),
                ],
            },
            Row { elements: vec![DataSetValue { value: None }] },
            Row::default(),
        ],
    };
    assert_eq!(
        json_of(vec![metric(Some(MetricValue::DatasetValue(dataset)), Some(16))]),
        concat!(
            r#"{"metrics":[{"name":"m","datatype":16,"value":{"num_of_columns":2,"columns":["a","b"],"types":[1,4],"#,
            r#""rows":[{"elements":[{"value":-10},{"value":-1},{"value":246}]},{"elements":[{}]},{}]}}]}"#
        )
    );
    let parameter = Parameter {
        name: Some("p".to_owned()),
        r#type: Some(2),
        value: Some(parameter::Value::IntValue(65436)),
    };
    let inner =
        Template { is_definition: Some(false), template_ref: Some("t".to_owned()), ..Template::default() };
    let template = Template {
        version: Some("1".to_owned()),
        metrics: vec![
            metric(Some(MetricValue::IntValue(246)), Some(1)),
            metric(Some(MetricValue::TemplateValue(inner)), Some(19)),
        ],
        parameters: vec![parameter],
        ..Template::default()
    };
    assert_eq!(
        json_of(vec![metric(Some(MetricValue::TemplateValue(template)), Some(19))]),
        concat!(
            r#"{"metrics":[{"name":"m","datatype":19,"value":{"version":"1","metrics":["#,
            r#"{"name":"m","datatype":1,"value":-10},"#,
            r#"{"name":"m","datatype":19,"value":{"template_ref":"t","is_definition":false}}],"#,
            r#""parameters":[{"name":"p","type":2,"value":-100}]}}]}"#
        )
    );
    let property =
        |datatype, value| PropertyValue { r#type: Some(datatype), is_null: None, value: Some(value) };
    let set = PropertySet {
        keys: vec!["k".to_owned(), "n".to_owned()],
        values: vec![
            property(3, Property::IntValue(u32::MAX)),
            PropertyValue { r#type: Some(12), is_null: Some(true), value: None },
        ],
    };
    let sets = PropertySetList { propertyset: vec![set.clone(), PropertySet::default()] };
    let properties = PropertySet {
        keys: vec!["s".to_owned(), "l".to_owned()],
        values: vec![
            property(20, Property::PropertysetValue(set)),
            property(21, Property::PropertysetsValue(sets)),
        ],
    };
    let with_properties = Metric { properties: Some(properties), ..metric(None, None) };
    let set = r#"{"keys":["k","n"],"values":[{"type":3,"value":-1},{"type":12,"is_null":true}]}"#;
    assert_eq!(
        json_of(vec![with_properties]),
        format!(
            r#"{{"metrics":[{{"name":"m","properties":{{"keys":["s","l"],"values":[{{"type":20,"value":{set}}},{{"type":21,"value":{{"propertyset":[{set},{{}}]}}}}]}}}}]}}"#
        )
    );
}

#[test]
fn what_does_not_decode_is_an_error() {
    for wrong in [
        &b"{\"a\":1}"[..],
        b"\x08",
        b"\x12\x05\x0a",
        b"\x12\x03\x0a\x01\xff",
        b"ONLINE",
        b"\xff\xff\xff\xff\xff",
    ] {
        let error = decode(&Bytes::copy_from_slice(wrong)).expect_err("is none");
        assert!(error.contains("is no Sparkplug B payload"), "{error}");
    }
    // A template in a template, and so on: so deep that reading it would end the stack.
    let mut deep = Vec::new();
    for _ in 0..5000 {
        let template = [&[0x12][..], &varint(deep.len()), &deep].concat();
        deep = [&[0x92, 0x01][..], &varint(template.len()), &template].concat();
    }
    let deep = [&[0x12][..], &varint(deep.len()), &deep].concat();
    assert!(decode(&deep.into()).expect_err("is too deep").contains("recursion"));
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn a_text_without_bounds_is_refused() {
    let bits = (8_u32 * (2 << 20)).to_le_bytes().into_iter().chain(vec![0; 2 << 20]).collect::<Vec<u8>>();
    let large = payload_of(vec![metric(Some(MetricValue::BytesValue(bits.into())), Some(32))]);
    assert_eq!(write(&large, &Names::default()), Err(TooLarge));
    let file = payload_of(vec![metric(Some(MetricValue::BytesValue(vec![7; 20 << 20].into())), Some(18))]);
    let json = write(&file, &Names::default()).expect("a file is no array");
    assert_eq!(
        json.len(),
        BASE64.encode(vec![7; 20 << 20]).len()
            + r#"{"metrics":[{"name":"m","datatype":18,"value":""}]}"#.len()
    );
    let many = payload_of(vec![metric(Some(MetricValue::StringValue("x".repeat(1 << 20))), Some(12)); 65]);
    assert_eq!(write(&many, &Names::default()), Err(TooLarge));
}

#[test]
fn which_topics_are_sparkplugs() {
    let of = |group, node, device, birth| Topic::Of(Origin { group, node, device, birth });
    let check = |topic: &str, is: Topic<'_>| assert_eq!(Topic::new(topic), is, "{topic}");
    check("spBv1.0/g/NBIRTH/n", of("g", "n", None, true));
    check("spBv1.0/g/DBIRTH/n/d", of("g", "n", Some("d"), true));
    for kind in ["NDATA", "NCMD", "NDEATH"] {
        check(&format!("spBv1.0/g/{kind}/n"), of("g", "n", None, false));
        check(&format!("spBv1.0/g/{kind}/n/d"), Topic::OfNobody);
    }
    for kind in ["DDATA", "DCMD", "DDEATH"] {
        check(&format!("spBv1.0/g/{kind}/n/d"), of("g", "n", Some("d"), false));
        check(&format!("spBv1.0/g/{kind}/n"), Topic::OfNobody);
    }
    check("spBv1.0/STATE/NDATA/n", of("STATE", "n", None, false));
    for nobody in [
        "spBv1.0/",
        "spBv1.0/g",
        "spBv1.0/g/NDATA",
        "spBv1.0/g/X/n",
        "spBv1.0/STATE",
        "spBv1.0/g/DDATA/n/d/e",
    ] {
        check(nobody, Topic::OfNobody);
    }
    for other in [
        "spBv1.0/STATE/host",
        "spBv1.0",
        "STATE/host",
        "spBv1.0x/g/NDATA/n",
        "x/spBv1.0/g/NDATA/n",
        "spbv1.0/g",
    ] {
        check(other, Topic::NotSparkplug);
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_they_are_refused_or_json(
        at in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        random in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
    ) {
        let mut bytes = random.unwrap_or_else(|| vectors()[at].payload.to_vec());
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        if let Ok(json) = decode(&bytes.into()) {
            prop_assert!(scan(json.as_bytes(), &Wanted::new([], None)).is_some(), "{}", json);
        }
    }
}
