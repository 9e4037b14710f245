//! mqtt.ignored_attributes: which attributes of which topics' payloads are left out. It owns the choice by topic; the rest
//! of a payload stays byte for byte, in its order and spacing, which is why nothing is parsed into values.

use std::sync::Arc;

use crate::attributes::{Path, Wanted};
use crate::filter::Filter;
use crate::recent::Recent;

/// For so many topics the choice is remembered.
const TOPICS: usize = 50_000;

/// The attributes to leave out, and the one to read.
#[derive(Debug)]
pub(crate) struct Ignored {
    filters: Vec<(Filter, Vec<Path>)>,
    read: Option<Path>,
    /// Of topics that no filter matches.
    other: Arc<Wanted>,
    chosen: Recent<Arc<Wanted>>,
}

impl Ignored {
    /// With these attributes under these filters; of a topic that several match, the attributes of all are left out.
    /// `read` is read, be it left out or not.
    pub(crate) fn new(filters: Vec<(Filter, Vec<Path>)>, read: Option<Path>) -> Self {
        let other = Arc::new(Wanted::new([], read.as_ref()));
        Self { filters, read, other, chosen: Recent::new(TOPICS) }
    }

    /// What to look for in the payloads of a topic.
    pub(crate) fn of(&mut self, topic: &str) -> Arc<Wanted> {
        if self.filters.is_empty() {
            return self.other.clone();
        }
        if let Some(chosen) = self.chosen.get(topic) {
            return chosen.clone();
        }
        let paths =
            self.filters.iter().filter(|(filter, _)| filter.matches(topic)).flat_map(|(_, paths)| paths);
        let wanted = Wanted::new(paths, self.read.as_ref());
        let wanted = if wanted.removes() { Arc::new(wanted) } else { self.other.clone() };
        self.chosen.insert(topic, wanted.clone(), 1);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan;

    fn ignored(filters: &[(&str, &[&str])]) -> Ignored {
        let path = |path: &&str| Path::new(path).expect(path);
        let filters = filters
            .iter()
            .map(|(filter, paths)| (Filter::new(filter).expect(filter), paths.iter().map(path).collect()));
        Ignored::new(filters.collect(), None)
    }

    #[test]
    fn what_is_left_out_of_a_topics_payload() {
        let check = |filters: &[(&str, &[&str])], topic: &str, payload: &str, left: &str| {
            let mut ignored = ignored(filters);
            for _ in 0..2 {
                let found = scan(payload.as_bytes(), &ignored.of(topic)).expect(payload);
                let text = String::from_utf8(found.cut(payload.as_bytes())).expect(payload);
                assert_eq!(text, left, "{filters:?} {topic} {payload}");
            }
        };
        let flat = r#"{"timestamp":123456,"val1":1234}"#;
        for filter in ["+", "#", "topic1", "topic1/#"] {
            check(&[(filter, &["timestamp"])], "topic1", flat, r#"{"val1":1234}"#);
        }
        for filter in ["topic2", "topic1/+", "topic.", "t*"] {
            check(&[(filter, &["timestamp"])], "topic1", flat, flat);
        }
        check(&[("#", &["timestamp"]), ("+/x", &["timestamp"])], "$SYS/x", flat, flat);
        check(&[("a.b/+", &["timestamp"])], "aXb/c", flat, flat);
        check(&[("a.b/+", &["timestamp"])], "a.b/c", flat, r#"{"val1":1234}"#);
        check(
            &[("topic1", &["attr1", "attr2", "attr2.subAttr1"])],
            "topic1",
            r#"{"attr1":1,"attr2":{"subAttr1":1,"b":2},"k":1}"#,
            r#"{"k":1}"#,
        );
        check(&[("+", &["A.B.C"])], "t", r#"{"A":{"B":{"C":1,"D":2}}}"#, r#"{"A":{"B":{"D":2}}}"#);
        check(
            &[("+", &["key1.child1"])],
            "t",
            r#"{"key1":{"child1":1,"child2":2},"child1":3}"#,
            r#"{"key1":{"child2":2},"child1":3}"#,
        );
        // All filters that match count.
        check(&[("a", &["x"]), ("+", &["y"]), ("b", &["z"])], "a", r#"{"x":1,"y":2,"z":3}"#, r#"{"z":3}"#);
        check(&[("$share/g/+", &["x"])], "a", r#"{"x":1}"#, "{}");
    }

    #[test]
    fn a_path_is_names_with_dots() {
        for wrong in ["", ".", "a.", ".a", "a..b"] {
            assert!(Path::new(wrong).expect_err(wrong).contains("must be names with dots"), "{wrong}");
        }
    }
}
