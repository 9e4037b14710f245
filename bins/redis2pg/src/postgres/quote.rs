//! Names and texts as SQL has them.

/// `a"b` → `"a""b"`.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table by schema and name.
pub(crate) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_it_stays_one_name() {
        assert_eq!(identifier("redis_streams"), "\"redis_streams\"");
        assert_eq!(identifier("Robert\"; DROP TABLE x"), "\"Robert\"\"; DROP TABLE x\"");
        assert_eq!(table("my schema", "Täble"), "\"my schema\".\"Täble\"");
    }
}
