use super::*;
use crate::sparkplug::proto::payload::Metric;
use crate::sparkplug::proto::payload::metric::Value as MetricValue;
use crate::sparkplug::{Topic, write};

fn named(name: &str, alias: u64, datatype: u32) -> Metric {
    Metric { name: Some(name.to_owned()), alias: Some(alias), datatype: Some(datatype), ..Metric::default() }
}

fn data(births: &mut Births, topic: &str, metrics: Vec<Metric>) -> String {
    let Topic::Of(origin) = Topic::new(topic) else { panic!("{topic}") };
    let payload = Payload { metrics, ..Payload::default() };
    if origin.birth {
        births.learn(origin, &payload);
    }
    String::from_utf8(write(&payload, &births.names(origin)).expect("is small")).expect("is text")
}

fn by_alias(alias: u64) -> Vec<Metric> {
    vec![Metric { alias: Some(alias), value: Some(MetricValue::IntValue(246)), ..Metric::default() }]
}

#[test]
fn aliases_get_the_names_of_births() {
    let mut births = Births::default();
    let is = |births: &mut Births, topic: &str, alias: u64, known: Option<(&str, &str)>| {
        let json = data(births, topic, by_alias(alias));
        let expected = match known {
            Some((name, value)) => {
                format!(r#"{{"metrics":[{{"name":"{name}","alias":{alias},"value":{value}}}]}}"#)
            }
            None => format!(r#"{{"metrics":[{{"alias":{alias},"value":246}}]}}"#),
        };
        assert_eq!(json, expected, "{topic}");
    };
    is(&mut births, "spBv1.0/g/NDATA/n", 1, None);
    assert_eq!(births.missing(), 1);
    data(&mut births, "spBv1.0/g/NBIRTH/n", vec![named("one", 1, 1), named("two", 2, 7)]);
    // The data type of the birth tells how the value is written.
    is(&mut births, "spBv1.0/g/NDATA/n", 1, Some(("one", "-10")));
    is(&mut births, "spBv1.0/g/NCMD/n", 2, Some(("two", "246")));
    is(&mut births, "spBv1.0/g/NDATA/n", 3, None);
    is(&mut births, "spBv1.0/g/NDATA/other", 1, None);
    is(&mut births, "spBv1.0/h/NDATA/n", 1, None);
    data(&mut births, "spBv1.0/g/DBIRTH/n/d", vec![named("three", 3, 2)]);
    is(&mut births, "spBv1.0/g/DDATA/n/d", 3, Some(("three", "246")));
    is(&mut births, "spBv1.0/g/DDATA/n/d", 1, Some(("one", "-10")));
    is(&mut births, "spBv1.0/g/DDATA/n/e", 3, None);
    is(&mut births, "spBv1.0/g/NDATA/n", 3, None);
    // A death forgets nothing, and a birth everything before it.
    data(&mut births, "spBv1.0/g/NDEATH/n", vec![]);
    data(&mut births, "spBv1.0/g/DDEATH/n/d", vec![]);
    is(&mut births, "spBv1.0/g/DDATA/n/d", 3, Some(("three", "246")));
    data(&mut births, "spBv1.0/g/NBIRTH/n", vec![named("new", 1, 7)]);
    is(&mut births, "spBv1.0/g/NDATA/n", 1, Some(("new", "246")));
    is(&mut births, "spBv1.0/g/NDATA/n", 2, None);
    is(&mut births, "spBv1.0/g/DDATA/n/d", 3, None);
    data(&mut births, "spBv1.0/g/DBIRTH/n/d", vec![named("four", 3, 7)]);
    is(&mut births, "spBv1.0/g/DDATA/n/d", 3, Some(("four", "246")));
    // A device whose node's birth was not seen.
    data(&mut births, "spBv1.0/g/DBIRTH/unseen/d", vec![named("five", 5, 7)]);
    is(&mut births, "spBv1.0/g/DDATA/unseen/d", 5, Some(("five", "246")));
    assert_eq!(births.forgotten(), 0);
}

#[test]
fn a_name_alone_finds_its_data_type() {
    let mut births = Births::default();
    let value = || {
        vec![Metric {
            name: Some("m".to_owned()),
            value: Some(MetricValue::IntValue(246)),
            ..Metric::default()
        }]
    };
    let unknown = r#"{"metrics":[{"name":"m","value":246}]}"#;
    assert_eq!(data(&mut births, "spBv1.0/g/NDATA/n", value()), unknown);
    data(
        &mut births,
        "spBv1.0/g/NBIRTH/n",
        vec![Metric { name: Some("m".to_owned()), datatype: Some(1), ..Metric::default() }],
    );
    assert_eq!(data(&mut births, "spBv1.0/g/NDATA/n", value()), r#"{"metrics":[{"name":"m","value":-10}]}"#);
    assert_eq!(births.missing(), 0);
}

#[test]
fn births_are_bounded() {
    let mut births = Births::new(1 << 20);
    for node in 0..1000 {
        let metrics = (0..20).map(|alias| named("some/name", alias, 1)).collect();
        data(&mut births, &format!("spBv1.0/g/NBIRTH/{node}"), metrics);
    }
    assert!((500..1000).contains(&births.forgotten()), "{}", births.forgotten());
    assert!(data(&mut births, "spBv1.0/g/NDATA/999", by_alias(0)).contains("some/name"));
    assert!(!data(&mut births, "spBv1.0/g/NDATA/0", by_alias(0)).contains("some/name"));
}
