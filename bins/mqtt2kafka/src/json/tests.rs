use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::*;
use crate::attributes::Path;

fn paths(paths: &[&str]) -> Vec<Path> {
    paths.iter().map(|path| Path::new(path).expect(path)).collect()
}

#[test]
fn what_is_left_keeps_its_bytes() {
    let check = |removed: &[&str], text: &str, left: &str| {
        let wanted = Wanted::new(&paths(removed), Some(&Path::new("ts").expect("is one")));
        let found = scan(text.as_bytes(), &wanted).unwrap_or_else(|| panic!("{text} is JSON"));
        assert_eq!(String::from_utf8(found.cut(text.as_bytes())).expect(text), left, "{removed:?} {text}");
    };
    check(&["a"], r#"{ "a" : 1 , "b" : 2.50 }"#, r#"{ "b" : 2.50 }"#);
    check(&["b"], r#"{ "a" : 1 , "b" : 2.50 }"#, r#"{ "a" : 1  }"#);
    check(&["b"], r#"{"a":1, "b":2, "c":3}"#, r#"{"a":1, "c":3}"#);
    check(&["a", "b"], r#"{ "a":1, "b":2 }"#, "{  }");
    check(&["a", "b"], r#"{"a":1,"b":2,"c":1e400}"#, r#"{"c":1e400}"#);
    check(&["a", "c"], r#"{"a":1,"b":2,"c":3,"d":4}"#, r#"{"b":2,"d":4}"#);
    check(&["b", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1}"#);
    check(&["a"], r#"{"a":1,"a":2,"b":1,"b":2,"a":3}"#, r#"{"b":1,"b":2}"#);
    check(&["a"], r#"{"\u0061":1,"b":"\ud800"}"#, r#"{"b":"\ud800"}"#);
    check(&["a"], r#"{"a":null,"b":[{"a":1}],"c":{"a":2}}"#, r#"{"b":[{"a":1}],"c":{"a":2}}"#);
    check(&["a.b"], r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1}]}"#);
    check(&["a.b"], r#"{"a":{"b":[1,{"b":2}]},"b":1}"#, r#"{"a":{},"b":1}"#);
    check(&["a.b"], r#"{"a":{"b":1},"a":{"b":2,"c":3}}"#, r#"{"a":{},"a":{"c":3}}"#);
    check(&["a.b", "a"], r#"{"x":{},"a":{"b":1,"c":{"b":1}},"c":0}"#, r#"{"x":{},"c":0}"#);
    check(&["a.b", "c"], r#"{"c":1,"a":{"b":1}}"#, r#"{"a":{}}"#);
    check(&["a.b", "c"], r#"{"a":{"b":1},"c":1}"#, r#"{"a":{}}"#);
    check(&["a"], r#"[{"a":1}]"#, r#"[{"a":1}]"#);
    check(&["a"], r#" "a" "#, r#" "a" "#);
    check(&["a"], "12345678901234567890.10", "12345678901234567890.10");
}

#[test]
fn what_is_read_is_read_even_where_it_is_left_out() {
    let check = |removed: &[&str], read: &str, text: &str, value: Option<&str>| {
        let wanted = Wanted::new(&paths(removed), Some(&Path::new(read).expect(read)));
        let found = scan(text.as_bytes(), &wanted).unwrap_or_else(|| panic!("{text} is JSON"));
        assert_eq!(found.read.map(|place| &text[place]), value, "{removed:?} {read} {text}");
    };
    check(&[], "ts", r#"{"ts":12}"#, Some("12"));
    check(&["ts"], "ts", r#"{"a":1,"ts" : -1.5e3 }"#, Some("-1.5e3"));
    check(&["a"], "a.ts", r#"{"a":{"x":[],"ts":"now"}}"#, Some(r#""now""#));
    check(&["a.ts", "a"], "a.ts", r#"{"a":{"ts":"now"}}"#, Some(r#""now""#));
    check(&[], "ts", r#"{"ts":1,"ts":2}"#, Some("2"));
    check(&[], "ts", r#"{"ts":[1]}"#, None);
    check(&[], "ts", r#"{"ts":{"ts":1}}"#, None);
    check(&[], "ts", r#"{"ts":true,"x":1}"#, None);
    check(&[], "ts", r#"{"x":{"ts":1}}"#, None);
    check(&[], "ts", r#"[{"ts":1}]"#, None);
    check(&[], "a.ts", r#"{"a":[1],"ts":1}"#, None);
}

#[test]
fn what_is_json() {
    let deep = |depth: usize| format!("{}{}", "[{\"a\":".repeat(depth), "1") + &"}]".repeat(depth);
    for good in [
        "1",
        "-0",
        "0.0",
        "1E+9",
        "1e-9",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "\t{\r\n}",
        "[1 , 2]",
        r#""\"\\\/\b\f\n\r\t\u00e9\uD800""#,
        "\"ä\u{7f}\"",
        &deep(31),
        &deep(32),
        &deep(33),
        &deep(64),
        &deep(5000),
        &"9".repeat(5000),
        r#"{"a":1,"a":{"b":[[],{}]}}"#,
        "\"12345678\"",
        "\"1234567\\n\"",
    ] {
        assert!(scan(good.as_bytes(), &Wanted::new(&paths(&["a.b"]), None)).is_some(), "{good}");
    }
    for bad in [
        "",
        " ",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1 2",
        "tru",
        "True",
        "nul",
        "NaN",
        "Infinity",
        "'a'",
        "\"a",
        "\"\t\"",
        "\"\0\"",
        r#""\x""#,
        r#""\u12g4""#,
        r#""\u12"#,
        "[",
        "]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "[}",
        "{]",
        "[1}",
        "{\"a\":1]",
        "{\"a\" 1}",
        "1,",
        "[]]",
        "{}{}",
        "\u{feff}1",
        "// c\n1",
        &deep(64)[..450],
        &format!("{}]", deep(64)),
    ] {
        assert!(scan(bad.as_bytes(), &Wanted::new(&paths(&["a.b"]), None)).is_none(), "{bad}");
    }
    for bad in [&b"\"\xff\""[..], b"\"\xed\xa0\x80\"", b"\xef\xbb\xbf{}", b"\"\xc3\""] {
        assert!(scan(bad, &Wanted::new([], None)).is_none(), "{bad:?}");
    }
}

/// By a tree: what is left of a value.
fn without(value: &mut Value, path: &[&str]) {
    let (Value::Object(members), [name, rest @ ..]) = (value, path) else { return };
    if rest.is_empty() {
        members.remove(*name);
    } else if let Some(member) = members.get_mut(*name) {
        without(member, rest);
    }
}

fn values() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "\"", "ä\n"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[ -~é\u{0}-\u{1f}]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name(), inner, 0..5).prop_map(|members| {
                Value::Object(
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn leaving_out_is_as_by_a_tree(
        value in values(),
        removed in prop::collection::vec(prop::sample::select(vec!["a", "b", "a.b", "b.a.c", "c.c", "\".a", "ä\n"]), 0..4),
        pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.expect("is JSON");
        let found = scan(&text, &Wanted::new(&paths(&removed), Some(&Path::new("a.c").expect("is one")))).expect("is JSON");
        let left: Value = serde_json::from_slice(&found.cut(&text)).expect("what is left is JSON");
        let mut by_tree = value.clone();
        for path in &removed {
            without(&mut by_tree, &path.split('.').collect::<Vec<_>>());
        }
        prop_assert_eq!(left, by_tree);
        let read = found.read.map(|place| serde_json::from_slice::<Value>(&text[place]).expect("is JSON"));
        let by_tree = value.get("a").and_then(|a| a.get("c")).filter(|c| c.is_number() || c.is_string());
        prop_assert_eq!(read.as_ref(), by_tree);
    }

    #[test]
    fn json_is_what_another_parser_takes_for_it(text in "[\\[\\]{}:,\"\\\\abu0-9.eE+ -]{0,12}|(\\[|\\]|\\{|\\}|\"a\"|:|,|1|true| ){0,14}") {
        let other = serde_json::from_str::<&RawValue>(&text).is_ok();
        prop_assert_eq!(scan(text.as_bytes(), &Wanted::new(&paths(&["a"]), None)).is_some(), other, "{}", text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = scan(&bytes, &Wanted::new(&paths(&["a"]), None));
    }
}
