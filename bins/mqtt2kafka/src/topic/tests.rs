use super::*;

fn topics(separator: &str, topic: &str, rules: Vec<Rule>) -> Topics {
    Topics::new(Separator::new(separator).expect(separator), topic, rules).expect(topic)
}

fn filter(filter: &str, topic: &str, key: Option<&str>) -> Rule {
    Rule::for_filter(Filter::new(filter).expect(filter), topic, key).expect(topic)
}

fn check(topics: &mut Topics, mqtt: &str, kafka: &str, key: &str) {
    let target = topics.target(mqtt).expect(mqtt).target;
    assert_eq!((&*target.topic, &target.key[..]), (kafka, key.as_bytes()), "{mqtt}");
    assert!(Arc::ptr_eq(&target, &topics.target(mqtt).expect(mqtt).target), "{mqtt} is remembered");
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
    let regex = |regex: &str, topic: &str, key| Rule::for_regex(regex, topic, key).expect(regex);
    let rules = vec![
        filter("factory/+/line/#", "line-{1}", Some("{2}")),
        filter("factory/#", "factory", None),
        regex("^sensors/(?<kind>[^/]+)/(.*)$", "sensors.{kind}", Some("{{{2}}} of {topic}")),
        regex("alarm(s)?", "alarms{1}", None),
        filter("whole/+", "{topic}.{1}", None),
        filter("whole/#", "{1}", None),
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
    let wrong = |topic: &str, key: Option<&str>, words: &str| {
        let rule = Rule::for_filter(Filter::new("a/+/#").expect("is one"), topic, key);
        let error = rule.expect_err(topic);
        assert!(error.contains(words), "{topic} {key:?}: {error}");
    };
    wrong("a b", None, "the topic must hold letters, digits");
    wrong("a/{1}", None, "not '/'");
    wrong("{{a}}", None, "not '{'");
    wrong("ä", None, "not 'ä'");
    wrong("", None, "the topic must be the name of a topic");
    wrong("..", None, "the topic must be the name of a topic");
    wrong(&"x".repeat(250), None, "the topic must be shorter");
    wrong(
        "{3}",
        None,
        "must hold the placeholders {topic} and those of the 2 wildcards or groups only, not {3}",
    );
    wrong("{0}", None, "not {0}");
    wrong("{name}", None, "not {name}");
    wrong("{1", None, "must have a } for each {");
    wrong("a", Some("1}"), "the key must have a } for each {");
    wrong("a", Some("{x}"), "the key must hold the placeholders");
    assert!(Rule::for_regex("(", "a", None).expect_err("is none").contains("must be a regular expression"));
    let error = Topics::new(Separator::default(), "{1}", vec![]).expect_err("has no captures");
    assert_eq!(error, "must hold the placeholders {topic} only, not {1}");
}

#[test]
fn collisions_are_told_once() {
    let mut told = topics("_", "{topic}", vec![filter("many/#", "one", None)]);
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
    assert!(topics.targets.len() <= TOPICS);
}
