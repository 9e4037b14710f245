//! What a destination that keeps the parsed value gives back is what was written, and nothing is a string without need.

use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::payload::json::{self, KeptAsText};
use crate::payload::tests::{Members, Pair, bytes, decode, entry, names};
use crate::payload::*;

fn encoder(ordered: bool) -> Encoder {
    Encoder::new(ValueFormat::Json, UTF_8).for_parsed_json(ordered)
}

fn value(encoder: Encoder, value: &[u8]) -> String {
    let mut out = Vec::new();
    encoder.write_value(value, &mut out);
    String::from_utf8(out).unwrap()
}

fn data(encoder: Encoder, fields: &[Pair]) -> String {
    let mut out = Vec::new();
    encoder.write_data(&entry(fields), &mut out);
    String::from_utf8(out).unwrap()
}

/// Whether this value is printed as it was: the rules on the module's page, by way of a tree.
fn comes_back(json: &str, ordered: bool) -> bool {
    let text = |text: &str| !text.contains('\0');
    match json.trim_ascii_start().as_bytes()[0] {
        b'"' => text(&serde_json::from_str::<String>(json).unwrap()),
        b'{' => {
            let Members(members) = serde_json::from_str(json).unwrap();
            let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            let mut printed = names.clone();
            printed.sort_by_key(|name| (name.len(), *name));
            printed.dedup();
            printed.len() == names.len()
                && (!ordered || printed == names)
                && members.iter().all(|(name, value)| text(name) && comes_back(value.get(), ordered))
        }
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
            items.iter().all(|item| comes_back(item.get(), ordered))
        }
        b'-' => !json.contains(['e', 'E']) && !json.trim_start_matches(['-', '0', '.']).trim().is_empty(),
        b'0'..=b'9' => !json.contains(['e', 'E']),
        _ => true,
    }
}

#[test]
fn embedded_as_it_stands() {
    #[rustfmt::skip]
    let values = [
        "0", "0.0", "-1", "-0.1", "-0.0010", "-10", "1.0", "1.00", "123456789012345678901234567890", "true", "false",
        "{}", "[]", "[ 1,\r\n\t2 ]", r#"{"a":1,"b":2}"#, r#"{ "a" : null , "bb":{}, "cc":[{"a":1},{"a":1}] }"#,
        r#"{"b":{"a":1,"b":2},"c":{"b":1}}"#, r#"{"b":{"a":1},"aa":1,"ab":[{}]}"#, r#"{"":0,"\u0062":1,"aa":2}"#,
        r#"["\\u0000"]"#, r#"{"\\u0000":1}"#, r#"{"z":1,"é":2}"#, r#"["1e5","-0"]"#, r#"{"1e5":1}"#,
    ];
    for json in values {
        for ordered in [false, true] {
            assert_eq!(value(encoder(ordered), json.as_bytes()), json);
        }
    }
}

#[test]
fn embedded_where_order_is_no_content() {
    #[rustfmt::skip]
    let values = [
        r#"{"b":1,"a":2}"#, r#"{"aa":1,"b":2}"#, r#"{"a":{"b":1,"a":2}}"#, r#"[{"b":1},{"é":1,"z":2}]"#,
        r#"{"a":1,"bb":{"a":1},"b":2}"#, r#"{"b":1,"\u0061":2}"#,
    ];
    for json in values {
        assert_eq!(value(encoder(false), json.as_bytes()), json);
        assert_eq!(value(encoder(true), json.as_bytes()), serde_json::to_string(json).unwrap());
    }
}

#[test]
fn a_string_it_stays() {
    #[rustfmt::skip]
    let values = [
        "1e5", "1E+05", "1e400", "1e0", "-1e-1", "-0", "-0.0", "-0.00", "0e0", "[1e5]", "[[-0]]", r#"{"a":-0.000}"#,
        r#"{"a":[{"b":1E5}]}"#, r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"\u0061":1,"\u0061":1}"#,
        r#"[{"a":{"b":1,"c":2,"b":3}}]"#, r#"{"a":1,"b":{"a":1},"a":2}"#, r#"["\u0000"]"#, r#"{"\u0000":1}"#,
        r#"{"a":{"b":["x\\\u0000"]}}"#, r#"{"":1,"":1}"#,
        // What is a string everywhere.
        "null", "\"a\"", " 1", r#"["\ud800"]"#, r#"{"$base64":"eA=="}"#, r#"{"\u0024fields":[]}"#,
    ];
    for text in values {
        for ordered in [false, true] {
            assert_eq!(value(encoder(ordered), text.as_bytes()), serde_json::to_string(text).unwrap());
        }
    }
}

#[test]
fn what_holds_nul_is_no_text() {
    let utf_16 = Encoder::new(ValueFormat::Text, UTF_16LE).for_parsed_json(false);
    assert_eq!(value(utf_16, b"a\0"), "\"a\"");
    assert_eq!(value(utf_16, b"a\0\0\0"), r#"{"$base64":"YQAAAA=="}"#);
    for ordered in [false, true] {
        assert_eq!(value(encoder(ordered), b"a\0b"), r#"{"$base64":"YQBi"}"#);
        let field = |name: &'static [u8], value: &'static [u8]| (Bytes::from(name), Bytes::from(value));
        assert_eq!(
            data(encoder(ordered), &[field(b"a", b"\0"), field(b"b\0", b"1")]),
            r#"{"$fields":[["a",{"$base64":"AA=="}],[{"$base64":"YgA="},1]]}"#
        );
    }
}

#[test]
fn the_order_of_pairs_is_kept_where_it_is_content() {
    let check = |fields: &[(&str, &str)], unordered: &str, ordered: &str| {
        let fields = entry(fields).fields;
        assert_eq!(data(encoder(false), &fields), unordered);
        assert_eq!(data(encoder(true), &fields), ordered);
    };
    check(&[], "{}", "{}");
    check(&[("a", "1"), ("bb", "2")], r#"{"a":1,"bb":2}"#, r#"{"a":1,"bb":2}"#);
    check(&[("aa", "1"), ("b", "2")], r#"{"aa":1,"b":2}"#, r#"{"$fields":[["aa",1],["b",2]]}"#);
    let mut out = Vec::new();
    encoder(true).write_pairs(&entry(&[("b", "-0"), ("a", "{}"), ("b", "\0")]), &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), r#"[["b","-0"],["a",{}],["b",{"$base64":"AA=="}]]"#);
}

#[test]
fn many_members() {
    for count in [15, 16, 17, 18, 1000] {
        let members = |names: &[usize]| {
            let members: Vec<String> =
                names.iter().map(|name| format!("\"{name}\":{{\"x\":{name}}}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let mut names: Vec<usize> = (0..count).collect();
        let is_embedded =
            |names: &[usize], ordered| value(encoder(ordered), members(names).as_bytes()).starts_with('{');
        assert!(is_embedded(&names, true) && is_embedded(&names, false));
        names.swap(3, 4);
        assert!(!is_embedded(&names, true) && is_embedded(&names, false));
        names.push(7);
        assert!(!is_embedded(&names, true) && !is_embedded(&names, false));
    }
}

/// JSON of few names and numbers, so that they repeat, are out of order, or are spelled in another way.
fn jsons() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => "-?(0|[1-9])(\\.[0-9]{1,2})?",
        1 => "-?(0|[1-9])(\\.0)?[eE][+-]?[0-9]",
        1 => Just("null".to_owned()),
        2 => prop::sample::select(vec![r#""""#, r#""é\u00e9""#, r#""\\u0000""#, r#""\n\u0000""#]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop::sample::select(vec![
            "", "a", "b", "\\u0061", "aa", "ab", "é", "\\u00e9", "z\\n", "\\u0000",
        ]);
        let some = |s| proptest::collection::vec(s, 0..4).prop_map(|items: Vec<String>| items.join(" ,"));
        let member = (name, inner.clone()).prop_map(|(name, value)| format!("\"{name}\": {value}"));
        prop_oneof![
            some(inner.boxed()).prop_map(|items| format!("[{items}]")),
            some(member.boxed()).prop_map(|members| format!("{{{members}}}"))
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn embedded_is_just_what_comes_back(json in jsons(), ordered: bool) {
        let embedded = value(encoder(ordered), json.as_bytes()) == json;
        let may_be = json::is_embeddable(&json, &mut KeptAsText);
        prop_assert_eq!(embedded, may_be && comes_back(&json, ordered), "{}", json);
    }

    #[test]
    fn all_that_is_written_comes_back(
        fields in proptest::collection::vec(
            (names(), prop_oneof![bytes(), jsons().prop_map(String::into_bytes)]),
            0..6,
        ),
        ordered: bool,
    ) {
        let entry = entry(&fields);
        let data = data(encoder(ordered), &entry.fields);
        prop_assert!(comes_back(&data, ordered), "{}", data);
        prop_assert_eq!(decode(&data, UTF_8), entry.fields.clone());
        let mut pairs = Vec::new();
        encoder(ordered).write_pairs(&entry, &mut pairs);
        let pairs = String::from_utf8(pairs).unwrap();
        prop_assert!(comes_back(&pairs, ordered), "{}", pairs);
        prop_assert_eq!(decode(&format!("{{\"$fields\":{pairs}}}"), UTF_8), entry.fields);
    }
}
