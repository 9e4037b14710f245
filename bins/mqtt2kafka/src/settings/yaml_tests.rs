use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Yaml {
    parse(text.as_bytes(), |line| format!("line {line}"))
}

/// On one line, to compare with.
fn spell(node: &Node) -> String {
    match &node.value {
        Value::Null => "-".to_owned(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(spell).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entry = |(name, node): &(String, Node)| format!("{name}: {}", spell(node));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let yaml = read(text);
    assert_eq!(yaml.mistakes, [], "{text:?}");
    assert!(yaml.whole);
    assert_eq!(spell(&yaml.root), expected, "{text:?}");
}

#[test]
fn what_people_write() {
    check("", "{}");
    check("# only a comment\n", "{}");
    check("---\nmqtt:\n  host: h\n...\n", r#"{mqtt: {host: "h"}}"#);
    check("\u{feff}a: 1\r\nb: x\r\n", r#"{a: "1", b: "x"}"#);
    check(
        "a: yes\nb: True\nc: off\nd: 012\ne: 0x1F\nf: 1_000\n",
        r#"{a: "yes", b: "True", c: "off", d: "012", e: "0x1F", f: "1_000"}"#,
    );
    check(
        "a:\nb: ~\nc: null\nd: ''\ne: 'null'\nf: !!str ~\n",
        r#"{a: -, b: -, c: -, d: "", e: "null", f: "~"}"#,
    );
    check("a: ! 12\n", r#"{a: "12"}"#);
    check(r#"a: "x # y" # z"#, r#"{a: "x # y"}"#);
    check("a: p#ss\n", r#"{a: "p#ss"}"#);
    check(
        "config: {\n  bootstrap.servers: \"h:1\", # of mine\n  retries: 10,\n  }\n",
        r#"{config: {bootstrap.servers: "h:1", retries: "10"}}"#,
    );
    check("a: {'t/+': [x, y.z], \"u/#\": k}\n", r#"{a: {t/+: ["x", "y.z"], u/#: "k"}}"#);
    check("a: |\n  one\n  two\nb: >-\n  three\n  four\n", r#"{a: "one\ntwo\n", b: "three four"}"#);
    check("a: &x {k: 1, l: 2}\nb: *x\n", r#"{a: {k: "1", l: "2"}, b: {k: "1", l: "2"}}"#);
    check("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n", r#"{a: {k: "1", l: "2"}, b: {k: "3", l: "2"}}"#);
    check(
        "x: &x {k: 1}\ny: &y {k: 2, m: 3}\nb: {<<: [*x, *y]}\n",
        r#"{x: {k: "1"}, y: {k: "2", m: "3"}, b: {k: "1", m: "3"}}"#,
    );
    check("a: {'<<': x}\n", r#"{a: {<<: "x"}}"#);
}

#[test]
fn places() {
    let yaml = read("# c\nmqtt:\n  host: h\n  topics:\n    - a\n    - b\n  text: |\n    x\n  port:\n    1\n");
    let of = |path: &str| yaml.root.at(path).map(|node| (node.key.clone(), node.origin.clone()));
    let expected = |key: &str, line: &str| Some((key.to_owned(), line.to_owned()));
    assert_eq!(of("mqtt"), expected("mqtt", "line 2"));
    assert_eq!(of("mqtt.host"), expected("mqtt.host", "line 3"));
    assert_eq!(of("mqtt.text"), expected("mqtt.text", "line 7"));
    assert_eq!(of("mqtt.port"), expected("mqtt.port", "line 9"));
    let Some(Value::List(items)) = yaml.root.at("mqtt.topics").map(|node| &node.value) else {
        panic!("a list")
    };
    assert_eq!((items[1].key.as_str(), items[1].origin.as_str()), ("mqtt.topics[1]", "line 6"));
}

#[test]
fn what_is_wrong_and_where() {
    #[track_caller]
    fn wrong(text: &str, line: usize, key: &str, part: &str, rest: &str) {
        let yaml = read(text);
        let [found] = yaml.mistakes.as_slice() else { panic!("{text:?}: {:?}", yaml.mistakes) };
        assert_eq!((found.line, found.key.as_str()), (line, key), "{text:?}: {found:?}");
        assert!(found.rule.contains(part), "{text:?}: {found:?}");
        assert_eq!(spell(&yaml.root), rest, "{text:?}");
    }
    wrong("a: 1\nb: 2\na: 3\n", 3, "a", "stands twice: on lines 1 and 3", r#"{b: "2", a: "3"}"#);
    wrong("m:\n  k: 1\n  k: 2\n", 3, "m.k", "stands twice: on lines 2 and 3", r#"{m: {k: "2"}}"#);
    wrong("a: 1\n---\nb: 2\n", 2, "", "second document", r#"{a: "1"}"#);
    wrong("a: [*x]\n", 1, "a[0]", "is no YAML", "{a: []}");
    wrong("a: &x [1, *x]\n", 1, "a[1]", "names what it stands in itself", r#"{a: ["1"]}"#);
    wrong("- a\n", 1, "", "must be a map of sections", "{}");
    wrong("words\n", 1, "", "must be a map of sections", "{}");
    wrong("? [a]\n: 1\nb: 2\n", 1, "", "a key must be a text", r#"{b: "2"}"#);
    wrong("~: 1\n", 1, "", "a key must be a text", "{}");
    wrong("a: !vault x\nb: 1\n", 1, "a", "has a tag", r#"{a: -, b: "1"}"#);
    wrong("a: !!binary eA==\n", 1, "a", "has a tag", "{a: -}");
    wrong("a: \"x\\0\"\n", 1, "a", "NUL", "{a: -}");
    wrong("a: {<<: 1, k: 2}\n", 1, "a", "<< must name a map", r#"{a: {k: "2"}}"#);
    wrong("a: 1\nb: {c: hunter2\nd: 5\n", 3, "b", "is no YAML", r#"{a: "1", b: {c: "hunter2 d"}}"#);
}

#[test]
fn tabs_and_open_quotes() {
    for text in ["a:\n\tb: 1\n", "a: \"hunter2\n", "a: 'hunter2\nb: 1", "a: hunter2: b\n", "a: @hunter2\n"] {
        let yaml = read(text);
        assert!(!yaml.whole && yaml.mistakes.len() == 1, "{text:?}: {yaml:?}");
        let Wrong { line, rule, .. } = &yaml.mistakes[0];
        assert!((1..=3).contains(line) && !rule.contains("hunter2"), "{text:?}: {line} {rule}");
    }
}

#[test]
fn what_would_cost_too_much() {
    let bomb = (0..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let item = format!("*a{level}");
        text + &format!("a{0}: &a{0} [{1}]\n", level + 1, [item.as_str(); 9].join(", "))
    });
    let yaml = read(&bomb);
    assert!(yaml.mistakes[0].rule.contains("more than 20000 values"), "{:?}", yaml.mistakes);
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
        for depth in [100, 100_000] {
            let yaml = read(&format!("a:\n  {}1{}\n", open.repeat(depth), close.repeat(depth)));
            assert!(!yaml.whole && yaml.mistakes.len() == 1, "{open} {depth}");
        }
    }
}

#[test]
fn other_encodings() {
    assert!(parse(b"\xff\xfea\0", |_| String::new()).mistakes[0].rule.contains("UTF-16"));
    let yaml = parse(b"a: 1\nb: \xff\n", |_| String::new());
    assert_eq!((yaml.mistakes[0].line, yaml.whole), (2, false));
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes: Vec<u8>) {
        parse(&bytes, |_| String::new());
    }

    #[test]
    fn any_text_is_read(text in "([a-c{}\\[\\],:&*!?|>'\"%@`#~<\\-\n\t .0\\\\]|é|---\n){0,60}") {
        read(&text);
    }

    #[test]
    fn quoted_texts_come_back(text in "[^\0]*") {
        let json = serde_json::to_string(&text).expect("a text");
        let yaml = read(&format!("a: {json}\n"));
        prop_assert_eq!(yaml.root.at("a").and_then(Node::text), Some(text.as_str()), "{:?}", yaml.mistakes);
    }
}
