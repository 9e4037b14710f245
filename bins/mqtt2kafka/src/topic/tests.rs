use super::*;

fn topics(separator: &str, topic: &str, rules: Vec<Rule>) -> Topics {
    let separator = Separator::new(separator).expect(separator);
    Topics::new(Mapping { separator, rules, other: Template::for_topic(topic, &[]).expect(topic) })
}

fn rule(pattern: Pattern, topic: &str, key: Option<&str>) -> Rule {
    let topic = Some(topic).filter(|topic| !topic.is_empty());
    let topic = topic.map(|topic| pattern.topic(topic).expect(topic));
    let key = key.map(|key| pattern.key(key).expect(key));
    Rule { pattern, topic, key }
}

fn of(filter: &str) -> Pattern {
    Pattern::Filter(Filter::new(filter).expect(filter))
}

fn filter(filter: &str, topic: &str, key: Option<&str>) -> Rule {
    rule(of(filter), topic, key)
}

fn check(topics: &mut Topics, mqtt: &str, kafka: &str, key: &str) {
    let target = topics.target(mqtt).expect(mqtt);
    assert_eq!((&*target.topic, &target.key[..]), (kafka, key.as_bytes()), "{mqtt}");
}

#[test]
fn levels_are_joined_by_the_separator() {
    for (mqtt, kafka, with_dots) in [
        ("a/b/c", "a_b_c", "a.b.c"),
        ("abc", "abc", "abc"),
        ("spBv1.0/uns_group/NBIRTH/eon1", "spBv1.0_uns_group_NBIRTH_eon1", "spBv1.0.uns_group.NBIRTH.eon1"),
        ("/", "_", "--2E"),
        ("/a", "_a", ".a"),
        ("a/", "a_", "a."),
        ("a//b", "a__b", "a..b"),
        ("$SYS/load", "--24SYS_load", "--24SYS.load"),
    ] {
        check(&mut topics("_", "{topic}", vec![]), mqtt, kafka, mqtt);
        check(&mut topics(".", "{topic}", vec![]), mqtt, with_dots, mqtt);
        check(&mut topics("_", "uns.{topic}-x", vec![]), mqtt, &format!("uns.{kafka}-x"), mqtt);
        check(&mut topics("_", "all", vec![]), mqtt, "all", mqtt);
    }
}

#[test]
fn the_first_rule_that_matches_overrides() {
    let regex = |regex: &str, topic: &str, key| rule(Pattern::regex(regex).expect(regex), topic, key);
    let rules = vec![
        filter("factory/+/line/#", "line-{1}", Some("{2}")),
        filter("factory/#", "factory", None),
        regex("^sensors/(?<kind>[^/]+)/(.*)$", "sensors.{kind}", Some("{{{2}}} of {topic}")),
        regex("alarm(s)?", "alarms{1}", None),
        filter("whole/+", "{topic}.{1}", None),
        filter("whole/#", "{1}", None),
        filter("keyed/+/#", "", Some("{1}")),
    ];
    let mut topics = topics("_", "{topic}", rules);
    check(&mut topics, "factory/7/line/a/b", "line-7", "a/b");
    check(&mut topics, "factory/7 8/line", "line-7--208", "");
    check(&mut topics, "factory/7/other", "factory", "factory/7/other");
    check(&mut topics, "sensors/heat/x/y", "sensors.heat", "{x/y} of sensors/heat/x/y");
    check(&mut topics, "an/alarm/here", "alarms", "an/alarm/here");
    check(&mut topics, "an/alarms/here", "alarmss", "an/alarms/here");
    check(&mut topics, "whole/x", "whole_x.x", "whole/x");
    check(&mut topics, "whole/x/y", "x_y", "whole/x/y");
    check(&mut topics, "other/x", "other_x", "other/x");
    check(&mut topics, "keyed/x/y", "keyed_x_y", "x");
    check(&mut topics, "whole/../", ".._", "whole/../");
    assert_eq!(topics.target("whole").expect_err("has no level for {1}"), Unmapped::Empty);
}

#[test]
fn what_has_no_name_is_refused_with_the_reason() {
    let long = "x/".repeat(125);
    let unmapped = topics("_", "{topic}", vec![]).target(&long).expect_err("is too long");
    assert_eq!(
        unmapped.to_string(),
        "the name of the Kafka topic would be 250 characters long; at most 249 are allowed"
    );
    check(&mut topics("_", "{topic}", vec![filter("x/#", "long", None)]), &long, "long", &long);
}

#[test]
fn wrong_templates_are_told() {
    let wrong = |topic: &str, words: &str| {
        let error = of("a/+/#").topic(topic).expect_err(topic);
        assert!(error.contains(words), "{topic}: {error}");
    };
    wrong("a b", "must hold letters, digits");
    wrong("a/{1}", "not '/'");
    wrong("{{a}}", "not '{'");
    wrong("ä", "not 'ä'");
    wrong("", "must be the name of a topic");
    wrong("..", "must be the name of a topic");
    wrong(&"x".repeat(250), "must be shorter");
    wrong("{3}", "must hold the placeholders {topic} and those of the 2 wildcards or groups only, not {3}");
    wrong("{0}", "not {0}");
    wrong("{name}", "not {name}");
    wrong("{1", "must have a } for each {");
    let wrong = |key: &str, words: &str| {
        let error = of("a/+/#").key(key).expect_err(key);
        assert!(error.contains(words), "{key}: {error}");
    };
    wrong("1}", "must have a } for each {");
    wrong("{x}", "must hold the placeholders");
    let error = Template::for_topic("{1}", &[]).expect_err("has no captures");
    assert_eq!(error, "must hold the placeholders {topic} only, not {1}");
    let error = Pattern::regex("a(b").expect_err("is none");
    assert_eq!(error, "must be a regular expression: unclosed group");
    assert_eq!(Pattern::regex("").expect_err("is none"), "must be a regular expression");
}

#[test]
fn collisions_are_told_once() {
    let rules = vec![filter("many/#", "one", None), filter("keyed/#", "", Some("{1}"))];
    let mut told = topics("_", "{topic}", rules);
    let mut look = |mqtt: &str| told.target(mqtt).expect(mqtt).collision;
    assert_eq!(look("a/b_c"), None);
    assert_eq!(look("a/b_c"), None);
    let shared = Collision::Shared { kafka: "a_b_c".into(), first: "a/b_c".into(), second: "a_b/c".into() };
    assert_eq!(look("a_b/c"), Some(shared));
    for again in ["a_b/c", "a/b_c", "a/b/c"] {
        assert_eq!(look(again), None, "{again}");
    }
    let alike = Collision::Alike { first: "a_b_c".into(), second: "a.b_c".into() };
    assert_eq!(look("a.b/c"), Some(alike));
    assert_eq!(look("a.b.c"), None, "that was told");
    // Rules put them together on purpose.
    assert_eq!(look("many/1"), None);
    assert_eq!(look("many/2"), None);
    // One that has a key only does not.
    assert_eq!(look("keyed/a/b"), None);
    assert!(matches!(look("keyed/a_b"), Some(Collision::Shared { .. })));
    let mut fixed = topics("_", "all", vec![]);
    assert!(fixed.target("a").expect("fits").collision.is_none());
    assert!(fixed.target("b").expect("fits").collision.is_none());
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut topics = topics("_", "{topic}", vec![]);
    for number in 0..3 * TOPICS {
        assert!(topics.target(&format!("t/{number}")).expect("fits").collision.is_none());
    }
}
