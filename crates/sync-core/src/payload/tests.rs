//! What is written, and that a decoder gets every byte of it back.

use super::*;
use crate::record::EntryId;
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

const JSON: ValueFormat = ValueFormat::Json;
const TEXT: ValueFormat = ValueFormat::Text;

pub(super) type Pair = (Bytes, Bytes);

pub(super) fn entry<F: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(F, V)]) -> Entry {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let fields = fields.iter().map(|(name, value)| (bytes(name.as_ref()), bytes(value.as_ref()))).collect();
    Entry { id: EntryId::default(), fields }
}

fn data(format: ValueFormat, encoding: &'static Encoding, entry: &Entry) -> String {
    let mut out = Vec::new();
    Encoder::new(format, encoding).write_data(entry, &mut out);
    String::from_utf8(out).unwrap()
}

/// One value, and that it comes back; with the envelope's `{"v":` and `}` off.
fn value(format: ValueFormat, value: impl AsRef<[u8]>) -> String {
    let entry = entry(&[("v", value)]);
    let data = data(format, UTF_8, &entry);
    assert_eq!(decode(&data, UTF_8), entry.fields, "{data}");
    data.strip_prefix("{\"v\":").and_then(|data| data.strip_suffix('}')).unwrap().to_owned()
}

/// The reference decoder: the tables on the module's page, nothing else.
pub(super) fn decode(data: &str, encoding: &'static Encoding) -> Vec<Pair> {
    let Members(members) = serde_json::from_str(data).unwrap();
    if let [(key, pairs)] = members.as_slice()
        && key == "$fields"
    {
        let pairs: Vec<(Box<RawValue>, Box<RawValue>)> = serde_json::from_str(pairs.get()).unwrap();
        return pairs
            .iter()
            .map(|(n, v)| (decode_value(n.get(), encoding), decode_value(v.get(), encoding)))
            .collect();
    }
    let text = |text: &str| Bytes::from(encode(encoding, text).unwrap().into_owned());
    members.iter().map(|(name, value)| (text(name), decode_value(value.get(), encoding))).collect()
}

fn decode_value(json: &str, encoding: &'static Encoding) -> Bytes {
    let text = if json.starts_with('"') { serde_json::from_str(json).unwrap() } else { json.to_owned() };
    if json.starts_with('{') {
        let Members(members) = serde_json::from_str(json).unwrap();
        if let Some((_, encoded)) = members.iter().find(|(key, _)| key == "$base64") {
            assert_eq!(members.len(), 1);
            let encoded: String = serde_json::from_str(encoded.get()).unwrap();
            return BASE64.decode(encoded).unwrap().into();
        }
    }
    encode(encoding, &text).unwrap().into_owned().into()
}

/// An object's members, in order, repeats included, values untouched.
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[test]
fn as_described() {
    let entry = entry(&[("field1", "value1"), ("field2", "value2"), ("field3", "123")]);
    assert_eq!(data(JSON, UTF_8, &entry), r#"{"field1":"value1","field2":"value2","field3":123}"#);
    assert_eq!(data(TEXT, UTF_8, &entry), r#"{"field1":"value1","field2":"value2","field3":"123"}"#);
    assert_eq!(data(JSON, UTF_8, &Entry { id: EntryId::default(), fields: vec![] }), "{}");
}

#[test]
fn embedded_as_it_stands() {
    #[rustfmt::skip]
    let values = [
        "0", "-0", "-0.0", "1e5", "1E+05", "1e400", "123456789012345678901234567890", "0.10", "true",
        "false", "{}", "[]", "[ 1,\r\n\t2 ]", r#"{"a":1,"a":2}"#, r#"{ "a" : null }"#,
        r#"["\ud83d\ude00\u0000\/"]"#, r#"{"":[{}]}"#, r#"{"a":{"$base64":"x"}}"#, r#"[{"$fields":[]}]"#,
        r#"["$base64"]"#, r#"{"$base":1,"\u0024":2}"#, "[\"é\u{7f}\"]",
    ];
    for json in values {
        assert_eq!(value(JSON, json), json);
        assert_eq!(value(TEXT, json), serde_json::to_string(json).unwrap());
    }
}

#[test]
fn a_string_it_stays() {
    #[rustfmt::skip]
    let values = [
        "", "null", "\"\"", "\"a\"", " 1", "1 ", "1\n", "{} ", "\t[]", "\u{feff}1", "01", "-", "-a", "+1",
        "1.", ".5", "1e", "1e+", "0x10", "00", "1,2", "NaN", "Infinity", "-Infinity", "True", "truefalse",
        "tru", "{", "}", "[", "]", "[]]", "[1,]", "[,1]", "[1 2]", "[}", "{]", "[1}", r#"{"a":1]"#, "{1:2}",
        "{a:1}", "{'a':1}", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1,}"#, r#"{"a" 1}"#, r#"{"a":1 "b":2}"#,
        r#"["a]"#, r#"["\x"]"#, r#"["\u12"]"#, r#"["\u12g4"]"#, "[\"\n\"]", "[\"\0\"]", "[nul]", "[01]",
        "[1.]", r#"["\ud800"]"#, r#"["\udc00"]"#, r#"["\ud800\u0041"]"#, r#"["\ud800x"]"#,
        r#"["\ud800\ud800"]"#, r#"["\"#, r#"["\u"#, r#"{"$base64":"eA=="}"#, r#"{"$fields":[]}"#,
        r#"{"a":1, "\u0024base64" :1}"#, r#"{"\u0024\u0066ields":1}"#, r#"{"$base64":1,"b":2}"#, "[1]//",
        "/**/1", "[\u{a0}1]", "2024-01-01", "1.2.3.4",
    ];
    for text in values {
        assert_eq!(value(JSON, text), serde_json::to_string(text).unwrap());
        assert_eq!(value(TEXT, text), serde_json::to_string(text).unwrap());
    }
}

#[test]
fn bounds_of_what_is_embedded() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let objects = |depth: usize| ["{\"a\":".repeat(depth), "1".into(), "}".repeat(depth)].concat();
    let deepest = MAX_DEPTH as usize;
    assert!(value(JSON, nested(deepest)).starts_with('['));
    assert!(value(JSON, objects(deepest)).starts_with('{'));
    assert!(value(JSON, nested(deepest + 1)).starts_with('"'));
    assert!(value(JSON, objects(deepest + 1)).starts_with('"'));
    assert!(value(JSON, nested(100_000)).starts_with('"'));
    assert!(value(JSON, vec![b'['; 100_000]).starts_with('"'));
    assert!(value(JSON, format!("[{}]", ["[[]]"; 1000].join(","))).starts_with('['));

    assert!(value(JSON, "1".repeat(MAX_NUMBER)).starts_with('1'));
    assert!(value(JSON, "1".repeat(MAX_NUMBER + 1)).starts_with('"'));
    assert!(value(JSON, format!("[0.{}]", "0".repeat(MAX_NUMBER))).starts_with('"'));
}

#[test]
fn bytes_that_are_no_text() {
    for format in [JSON, TEXT] {
        assert_eq!(value(format, b"\xff"), r#"{"$base64":"/w=="}"#);
        assert_eq!(value(format, b"\xff\xfe"), r#"{"$base64":"//4="}"#);
        assert_eq!(value(format, b"[\"\xfb\xf0\"]"), r#"{"$base64":"WyL78CJd"}"#);
        assert_eq!(
            value(format, b"a\0\x01\x1f\x7f\"\\\n\r\t\x08\x0c/"),
            "\"a\\u0000\\u0001\\u001f\x7f\\\"\\\\\\n\\r\\t\\b\\f/\""
        );
    }
}

#[test]
fn pairs_that_are_no_object() {
    let check = |fields: &[(&[u8], &[u8])], expected: &str| {
        let entry = entry(fields);
        let data = data(JSON, UTF_8, &entry);
        assert_eq!(data, expected);
        assert_eq!(decode(&data, UTF_8), entry.fields);
    };
    check(&[(b"a", b"1"), (b"b", b"x"), (b"a", b"1")], r#"{"$fields":[["a",1],["b","x"],["a",1]]}"#);
    check(
        &[(b"\xff", b"1"), (b"b", b"\xff")],
        r#"{"$fields":[[{"$base64":"/w=="},1],["b",{"$base64":"/w=="}]]}"#,
    );
    check(&[(b"$fields", b"[]")], r#"{"$fields":[["$fields",[]]]}"#);
    check(&[(b"$base64", b"YQ==")], r#"{"$fields":[["$base64","YQ=="]]}"#);
    check(&[(b"$Fields", b""), (b"", b"")], r#"{"$Fields":"","":""}"#);
    // A name is never embedded.
    check(&[(b"1", b"1"), (b"1", b"1"), (b"{}", b"{}")], r#"{"$fields":[["1",1],["1",1],["{}",{}]]}"#);
}

#[test]
fn many_fields() {
    let mut fields: Vec<(String, String)> = (0..100_000).map(|n| (n.to_string(), n.to_string())).collect();
    let distinct = entry(&fields);
    assert!(data(JSON, UTF_8, &distinct).starts_with(r#"{"0":0,"1":1,"#));
    fields.push(("7".into(), String::new()));
    let repeated = entry(&fields);
    let data = data(JSON, UTF_8, &repeated);
    assert!(data.starts_with(r#"{"$fields":[["0",0],"#));
    assert_eq!(decode(&data, UTF_8), repeated.fields);
}

#[test]
fn other_encodings() {
    let check = |label: &str, bytes: &[u8], expected: &str| {
        let encoding = Encoding::for_label(label.as_bytes()).unwrap();
        let entry = entry(&[(&b""[..], bytes)]);
        let data = data(JSON, encoding, &entry);
        assert_eq!(data, format!("{{\"\":{expected}}}"), "{label}");
        assert_eq!(decode(&data, encoding), entry.fields, "{label}");
    };
    check("latin1", b"caf\xe9", "\"café\"");
    check("latin1", b"{\"\xe9\":1}", "{\"é\":1}");
    check("latin1", b"\xff\xfe", "\"ÿþ\"");
    check("shift_jis", b"\x93\xfa\x96\x7b", "\"日本\"");
    check("shift_jis", b"\x93", r#"{"$base64":"kw=="}"#);
    // Two codes of one character (NEC row 13): only the one that the encoder uses is text.
    check("shift_jis", b"\x87\x90", r#"{"$base64":"h5A="}"#);
    check("shift_jis", b"\x81\xe0", "\"≒\"");
    check("utf-16le", b"1\x002\x00", "12");
    check("utf-16le", b"\xff\xfe\xe9\x00", "\"\u{feff}é\"");
    check("utf-16be", b"\xd8\x3d\xde\x00", "\"😀\"");
    check("utf-16be", b"\xd8\x3d", r#"{"$base64":"2D0="}"#);
    check("utf-16le", b"123", r#"{"$base64":"MTIz"}"#);
    // A byte order mark is a character like any other.
    check("utf-8", b"\xef\xbb\xbf1", "\"\u{feff}1\"");
}

#[test]
fn strings() {
    // Every byte at every place of a word, so that no lane of the eight hides another's.
    for special in (0..=0x7f).map(char::from).chain(['é', '\u{2028}', '😀']) {
        for before in 0..18 {
            for after in [0, 1, 7, 8, 9] {
                let text = format!("{}{special}{}", "!".repeat(before), "\"".repeat(after));
                let mut out = b"x".to_vec();
                write_json_string(&mut out, &text);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    format!("x{}", serde_json::to_string(&text).unwrap())
                );
            }
        }
    }
}

/// Bytes of which some are JSON, some nearly, some text, and some nothing.
pub(super) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
        r#""([a\u0000é/ ]|\\[nu"\\/]|\\u[0-9a-fA-F]{4}|\\ud83d\\ude00|\$base64|\$fields){0,4}""#,
    ];
    let space = "[ \t\n\r]{0,1}";
    let json = leaf.prop_recursive(4, 16, 4, move |inner| {
        let name = r#""(\$base64|\$fields|\\u0024fields|a|b\\n){1}""#;
        let item = (space, inner, space).prop_map(|(before, item, after)| format!("{before}{item}{after}"));
        let member =
            (name, space, item.clone()).prop_map(|(name, space, item)| format!("{name}{space}:{item}"));
        let some = |s| proptest::collection::vec(s, 0..4).prop_map(|items: Vec<String>| items.join(","));
        prop_oneof![
            some(item.boxed()).prop_map(|s| format!("[{s}]")),
            some(member.boxed()).prop_map(|s| format!("{{{s}}}"))
        ]
    });
    prop_oneof![
        3 => json.clone().prop_map(String::into_bytes),
        2 => (json, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(json, at, byte)| {
            let mut json = json.into_bytes();
            if !json.is_empty() {
                let at = at.index(json.len());
                json[at] = byte;
            }
            json
        }),
        1 => r#"[\[\]{}:,"0-9.eE+\- \\a-f$]{0,12}"#.prop_map(String::into_bytes),
        1 => any::<String>().prop_map(String::into_bytes),
        2 => any::<Vec<u8>>(),
    ]
}

pub(super) fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[a-c]{0,2}".prop_map(String::into_bytes),
        1 => r"\$base64|\$fields|1|\{\}|é".prop_map(String::into_bytes),
        1 => bytes(),
    ]
}

const ENCODINGS: [&Encoding; 12] = [
    UTF_8,
    UTF_16LE,
    UTF_16BE,
    encoding_rs::WINDOWS_1252,
    encoding_rs::SHIFT_JIS,
    encoding_rs::EUC_JP,
    encoding_rs::ISO_2022_JP,
    encoding_rs::GB18030,
    encoding_rs::GBK,
    encoding_rs::BIG5,
    encoding_rs::X_USER_DEFINED,
    encoding_rs::REPLACEMENT,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decoding_is_exact(
        fields in proptest::collection::vec((names(), bytes()), 0..6),
        format in prop_oneof![Just(JSON), Just(TEXT)],
        encoding in prop_oneof![3 => Just(UTF_8), 2 => proptest::sample::select(&ENCODINGS[..])],
    ) {
        let entry = entry(&fields);
        let data = data(format, encoding, &entry);
        prop_assert!(serde_json::from_str::<IgnoredAny>(&data).is_ok(), "{}", data);
        prop_assert_eq!(decode(&data, encoding), entry.fields);
    }

    /// serde_json embeds the same, but for what it lets pass on purpose.
    #[test]
    fn the_grammar_is_serde_jsons(bytes in bytes()) {
        let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
        let begins = text.starts_with(['{', '[', '-', 't', 'f']) || text.starts_with(|c: char| c.is_ascii_digit());
        let ends = !text.ends_with([' ', '\t', '\n', '\r']);
        // Parsed in full, because skipping a string lets lone surrogates pass; numbers are only skipped.
        let valid = serde_json::from_str::<IgnoredAny>(text).is_ok() && strings_are_unicode(text);
        let ours = serde_json::from_str::<Members>(text)
            .is_ok_and(|members| members.0.iter().any(|(name, _)| name == "$base64" || name == "$fields"));
        prop_assert_eq!(json::is_embeddable(text, &mut KeptAsText), begins && ends && valid && !ours, "{}", text);
    }
}

/// Whether every string in this valid JSON is Unicode: no escape of half a pair.
fn strings_are_unicode(json: &str) -> bool {
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let mut strings = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<String>();
        if !matches!(strings.next(), Some(Ok(_))) {
            return false;
        }
        rest = &rest[start + strings.byte_offset()..];
    }
    true
}
