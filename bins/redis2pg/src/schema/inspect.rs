//! What the catalog says of a table. Asks, and changes nothing.

use sqlx::Row as _;

use crate::postgres::connection::{Connection, statement};
use crate::postgres::fault::Fault;

/// A table, or what else has its name.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// `relkind`: r is a table, p a partitioned one.
    pub(super) kind: char,
    pub(super) columns: Vec<Column>,
    /// The columns of each unique constraint or index that ON CONFLICT can name.
    unique: Vec<Vec<String>>,
    /// The columns of each index.
    indexes: Vec<Vec<String>>,
    /// The role may look into the schema.
    pub(super) schema_is_open: bool,
    pub(super) privileges: Vec<Privilege>,
    /// The sequence of a default that the role may not use.
    pub(super) closed_sequence: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Without length or precision.
    pub(super) plain_type: String,
    pub(super) full_type: String,
    /// It is not null and has no default.
    pub(super) must_be_given: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Privilege {
    pub(super) name: String,
    pub(super) granted: bool,
}

impl Found {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether exactly these columns are unique together, in whichever order.
    pub(super) fn is_unique(&self, columns: &[&str]) -> bool {
        let same = |unique: &Vec<String>| {
            unique.len() == columns.len()
                && columns.iter().all(|column| unique.iter().any(|name| name == column))
        };
        self.unique.iter().any(same)
    }

    /// Whether an index begins with these columns.
    pub(super) fn is_indexed(&self, columns: &[&str]) -> bool {
        self.indexes
            .iter()
            .any(|index| index.len() >= columns.len() && index.iter().zip(columns).all(|(a, b)| a == b))
    }
}

const TABLE: &str = "SELECT c.oid::bigint, c.relkind::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE') FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 \
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

const COLUMNS: &str = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL), \
    pg_catalog.format_type(a.atttypid, a.atttypmod), \
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' \
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attnum";

/// Of each index its columns (those that make it unique, where it is), and whether ON CONFLICT can name it: it holds for
/// all rows, at once, and is on plain columns.
const INDEXES: &str = "SELECT i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL, \
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
      WHERE k.place <= i.indnkeyatts ORDER BY k.place) \
    FROM pg_catalog.pg_index i WHERE i.indrelid = $1::bigint::oid AND i.indexprs IS NULL";

const PRIVILEGES: &str = "SELECT p.name, pg_catalog.has_table_privilege($1::bigint::oid, p.name) \
    FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name)";

/// Sequences that column defaults use (serial columns do); an identity column needs no privilege.
const SEQUENCES: &str = "SELECT s.oid::regclass::text FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_attrdef f ON f.adrelid = $1::bigint::oid AND d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
    JOIN pg_catalog.pg_class s ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND s.relkind = 'S' \
    WHERE CASE s.relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(s.oid, 'USAGE') END LIMIT 1";

/// What has this name; `None` when nothing has.
pub(super) async fn table(
    connection: &mut Connection,
    schema: &str,
    name: &str,
) -> Result<Option<Found>, Fault> {
    let rows = connection.fetch(statement(TABLE).bind(schema).bind(name)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let oid: i64 = row.try_get(0)?;
    let kind: String = row.try_get(1)?;
    let mut found = Found {
        kind: kind.chars().next().unwrap_or_default(),
        columns: Vec::new(),
        unique: Vec::new(),
        indexes: Vec::new(),
        schema_is_open: row.try_get(2)?,
        privileges: Vec::new(),
        closed_sequence: None,
    };
    for row in connection.fetch(statement(COLUMNS).bind(oid)).await? {
        found.columns.push(Column {
            name: row.try_get(0)?,
            plain_type: row.try_get(1)?,
            full_type: row.try_get(2)?,
            must_be_given: row.try_get(3)?,
        });
    }
    for row in connection.fetch(statement(INDEXES).bind(oid)).await? {
        let columns: Vec<String> = row.try_get(1)?;
        if row.try_get(0)? {
            found.unique.push(columns.clone());
        }
        found.indexes.push(columns);
    }
    for row in connection.fetch(statement(PRIVILEGES).bind(oid)).await? {
        found.privileges.push(Privilege { name: row.try_get(0)?, granted: row.try_get(1)? });
    }
    let sequences = connection.fetch(statement(SEQUENCES).bind(oid)).await?;
    found.closed_sequence = sequences.first().map(|row| row.try_get(0)).transpose()?;
    Ok(Some(found))
}

pub(super) async fn has_schema(connection: &mut Connection, schema: &str) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
    Ok(!connection.fetch(statement(sql).bind(schema)).await?.is_empty())
}
