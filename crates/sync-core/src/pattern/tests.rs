//! Patterns against Python's own answers, and the server's superset against a copy of Redis' matcher.

use super::vectors::{KEYS, VECTORS};
use super::*;
use proptest::prelude::*;

/// `stringmatchlen` of Redis 7 (`src/util.c`), case-sensitive, in few words.
fn redis_matches(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern, key) {
        ([], _) => key.is_empty(),
        ([b'*', rest @ ..], _) => (0..=key.len()).any(|skipped| redis_matches(rest, &key[skipped..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, key @ ..]) => redis_matches(rest, key),
        ([b'[', ..], _) => panic!("a class is never pushed to the server"),
        ([b'\\', literal, rest @ ..], [first, key @ ..]) | ([literal, rest @ ..], [first, key @ ..]) => {
            literal == first && redis_matches(rest, key)
        }
    }
}

#[test]
fn python_agrees() {
    for (text, matching) in VECTORS {
        let pattern = Pattern::new(text);
        for (index, key) in KEYS.iter().enumerate() {
            let expected = matching >> index & 1 == 1;
            assert_eq!(pattern.matches(key), expected, "{text:?} on {}", key.escape_ascii());
            let pushed = redis_matches(pattern.server_glob().as_bytes(), key);
            assert!(pushed || !expected, "{text:?} on {}", key.escape_ascii());
        }
    }
}

#[test]
fn what_the_server_gets() {
    let check = |text: &str, glob: &str| assert_eq!(Pattern::new(text).server_glob(), glob, "{text}");
    check("", "");
    check("*", "*");
    check("*-stream", "*-stream");
    check("device:*:stream", "device:*:stream");
    check("a???*[b-c]*?d", "a*d");
    check("a[!b]c", "a*c");
    check("a[b", "a\\[b");
    check("a]b\\", "a\\]b\\\\");
    check("[*]", "*");
    check("?1?2?3?4?5?6?7?8?9", "*1*2*3*4*5*6*7*");
    check("日?本", "日*本");
}

#[test]
fn as_it_was_written() {
    let pattern = Pattern::new("a**[!x]");
    assert_eq!((pattern.as_str(), pattern.to_string().as_str()), ("a**[!x]", "a**[!x]"));
    assert_eq!(pattern, Pattern::new("a**[!x]"));
    assert_ne!(pattern, Pattern::new("a*[!x]"));
}

#[test]
fn many_stars_take_no_time() {
    let key = "a".repeat(20_000);
    assert!(!Pattern::new(&format!("{}b", "a*".repeat(50))).matches(key.as_bytes()));
    assert!(!Pattern::new(&"*a".repeat(20_001)).matches(key.as_bytes()));
    assert!(Pattern::new(&"*a".repeat(20_000)).matches(key.as_bytes()));
}

proptest! {
    #[test]
    fn the_server_never_hides_a_match(text in r"([ab*?é\\\[\]!^-]|\[[ab!^-]*\]){0,12}", key in r"[ab\[\]\\é*?!^-]{0,10}") {
        let pattern = Pattern::new(&text);
        let pushed = redis_matches(pattern.server_glob().as_bytes(), key.as_bytes());
        prop_assert!(pushed || !pattern.matches(key.as_bytes()));
    }

    #[test]
    fn nor_on_any_bytes(text in r"[a-c*?\[\]!é\\-]{0,8}", key in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xc3), Just(0xa9), any::<u8>()], 0..8)) {
        let pattern = Pattern::new(&text);
        let pushed = redis_matches(pattern.server_glob().as_bytes(), &key);
        prop_assert!(pushed || !pattern.matches(&key));
    }

    #[test]
    fn a_key_without_specials_matches_itself(key in "[a-z:/é .-]{0,20}") {
        let (inside, longer) = (Pattern::new(&format!("*{key}*")), format!("x{key}y"));
        prop_assert!(Pattern::new(&key).matches(key.as_bytes()));
        prop_assert!(inside.matches(longer.as_bytes()));
    }
}
