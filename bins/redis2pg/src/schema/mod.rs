//! The two tables: their SQL (`sql.rs`), what is there of them (`inspect.rs`), and making what is not (`prepare`).
//! A table that is there is used as it is, whoever made it, and never altered.

mod inspect;
pub(crate) mod sql;

use sync_core::bridge::Unreachable;

use self::inspect::{Found, Privilege};
use crate::postgres::connection::Connection;
use crate::postgres::fault::Fault;
use crate::postgres::quote;
use crate::settings::{Deletions, Settings};

/// What the settings ask of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    schema: String,
    role: String,
    streams: Option<String>,
    key_values: Option<(String, Deletions)>,
}

/// The tables as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) streams: Option<StreamTable>,
    pub(crate) key_values: Option<KeyValueTable>,
}

/// The table of stream entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamTable {
    /// Schema and name, quoted.
    pub(crate) name: String,
    /// Its unique key has the timestamp beside stream and ID: it is partitioned by time.
    pub(crate) unique_with_time: bool,
    /// The type of `timestamp`, as SQL has it.
    pub(crate) time_type: String,
}

/// The table of key-values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValueTable {
    /// Schema and name, quoted.
    pub(crate) name: String,
    /// Unique by database and key; else by key alone, and keys are stored as `dbN:key`.
    pub(crate) unique_by_db: bool,
    /// It has `deleted_at`.
    pub(crate) marks: bool,
}

impl Wanted {
    pub(crate) fn by(settings: &Settings) -> Self {
        let tables = &settings.tables;
        Self {
            schema: tables.schema.clone(),
            role: settings.postgres.user.clone(),
            streams: settings.streams.enabled.then(|| tables.streams.clone()),
            key_values: settings
                .key_values
                .as_ref()
                .map(|key_values| (tables.key_values.clone(), key_values.deletions)),
        }
    }

    /// Only the table of stream entries, whether or not streams are read.
    pub(crate) fn streams_of(settings: &Settings) -> Self {
        Self { streams: Some(settings.tables.streams.clone()), key_values: None, ..Self::by(settings) }
    }

    /// All of it as SQL, for whoever may not or will not leave it to the bridge.
    pub(crate) fn sql(&self) -> String {
        let mut text = format!("CREATE SCHEMA IF NOT EXISTS {};\n", quote::identifier(&self.schema));
        text.extend(self.creates().map(|(_, create)| create));
        text
    }

    /// Each table by name, and the SQL that makes it.
    fn creates(&self) -> impl Iterator<Item = (&str, String)> {
        let streams =
            self.streams.iter().map(|name| (name.as_str(), sql::create_streams(&self.schema, name)));
        let key_values = self
            .key_values
            .iter()
            .map(|(name, deletions)| (name.as_str(), sql::create_key_values(&self.schema, name, *deletions)));
        streams.chain(key_values)
    }

    /// What a role needs that does nothing else.
    pub(crate) fn grants(&self, database: &str) -> String {
        let role = quote::identifier(&self.role);
        let mut text = format!(
            "GRANT CONNECT ON DATABASE {} TO {role};\nGRANT USAGE ON SCHEMA {} TO {role};\n",
            quote::identifier(database),
            quote::identifier(&self.schema)
        );
        if let Some(table) = &self.streams {
            text += &sql::grant(&self.schema, table, Deletions::Keep, &role);
        }
        if let Some((table, deletions)) = &self.key_values {
            text += &sql::grant(&self.schema, table, *deletions, &role);
        }
        text
    }
}

/// What cannot be used, and the SQL that mends it.
fn unusable(reason: impl std::fmt::Display, sql: &str) -> Unreachable {
    Unreachable { reason: format!("{reason}. Run: {}", sql.trim_end()), needs_human: true }
}

/// What was found of the tables.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) tables: Tables,
    /// Those that are not there.
    pub(crate) absent: Vec<String>,
    /// SQL of what is not there, and not needed.
    pub(crate) missing: Vec<String>,
}

/// Makes the tables that are absent, and looks at all of them.
pub(crate) async fn prepare(connection: &mut Connection, wanted: &Wanted) -> Result<Looked, Unreachable> {
    for (name, create) in wanted.creates() {
        if inspect::table(connection, &wanted.schema, name).await.map_err(asked)?.is_none() {
            make_or_say(connection, wanted, name, &create).await?;
        }
    }
    look(connection, wanted).await
}

/// Looks at the tables, and makes nothing. Those that cannot be used are an error that says what would mend it.
pub(crate) async fn look(connection: &mut Connection, wanted: &Wanted) -> Result<Looked, Unreachable> {
    let mut looked = Looked::default();
    if let Some(name) = &wanted.streams {
        match inspect::table(connection, &wanted.schema, name).await.map_err(asked)? {
            Some(found) => {
                looked.tables.streams = Some(stream_table(&found, wanted, name)?);
                let indexes: [&[&str]; 2] = [&["stream_key", "timestamp"], &["message_id"]];
                looked.missing.extend(without(&found, wanted, name, &indexes));
            }
            None => looked.absent.push(quote::table(&wanted.schema, name)),
        }
    }
    if let Some((name, deletions)) = &wanted.key_values {
        match inspect::table(connection, &wanted.schema, name).await.map_err(asked)? {
            Some(found) => {
                looked.tables.key_values = Some(key_value_table(&found, wanted, name, *deletions)?);
                looked.missing.extend(without(&found, wanted, name, &[&["redis_key"], &["redis_db"]]));
            }
            None => looked.absent.push(quote::table(&wanted.schema, name)),
        }
    }
    Ok(looked)
}

fn asked(fault: Fault) -> Unreachable {
    Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() }
}

async fn make_or_say(
    connection: &mut Connection,
    wanted: &Wanted,
    name: &str,
    create: &str,
) -> Result<(), Unreachable> {
    let table = quote::table(&wanted.schema, name);
    match make(connection, wanted, name, create).await {
        Ok(()) => {
            tracing::info!("made the table {table}");
            Ok(())
        }
        Err(fault) if fault.needs_human() => {
            let (schema, role) = (quote::identifier(&wanted.schema), quote::identifier(&wanted.role));
            let grant = sql::grant(&wanted.schema, name, deletions_of(wanted, name), &role);
            let sql = format!(
                "CREATE SCHEMA IF NOT EXISTS {schema}; {create} GRANT USAGE ON SCHEMA {schema} TO {role}; {grant}"
            );
            let reason = format!("the table {table} is not there and cannot be made: {fault}");
            Err(unusable(reason, &sql::on_one_line(&sql)))
        }
        Err(fault) => Err(asked(fault)),
    }
}

fn deletions_of(wanted: &Wanted, name: &str) -> Deletions {
    match &wanted.key_values {
        Some((table, deletions)) if table == name => *deletions,
        _ => Deletions::Keep,
    }
}

/// All or nothing, and one replica at a time.
async fn make(connection: &mut Connection, wanted: &Wanted, name: &str, create: &str) -> Result<(), Fault> {
    connection.simple("BEGIN").await?;
    let made = async {
        // Two that make one table at the same time get errors of the catalog's own indexes.
        connection.simple("SELECT pg_advisory_xact_lock(7234197014203547201)").await?;
        if inspect::table(connection, &wanted.schema, name).await?.is_some() {
            return Ok(());
        }
        if !inspect::has_schema(connection, &wanted.schema).await? {
            connection.simple(&format!("CREATE SCHEMA {}", quote::identifier(&wanted.schema))).await?;
        }
        connection.simple(create).await
    };
    match made.await {
        Ok(()) => connection.commit().await,
        Err(fault) => {
            let _ = connection.rollback().await;
            Err(fault)
        }
    }
}

const TEXT: &[&str] = &["text", "character varying"];
const JSONB: &[&str] = &["jsonb"];
const TIME: &[&str] = &["timestamp with time zone", "timestamp without time zone"];
const INTEGER: &[&str] = &["integer", "bigint", "smallint"];

fn stream_table(found: &Found, wanted: &Wanted, name: &str) -> Result<StreamTable, Unreachable> {
    let table = quote::table(&wanted.schema, name);
    let columns = [
        ("stream_key", TEXT, "text NOT NULL"),
        ("message_id", TEXT, "text NOT NULL"),
        ("data", JSONB, "jsonb NOT NULL"),
        ("timestamp", TIME, "timestamptz NOT NULL"),
    ];
    usable(found, &table, &columns)?;
    permitted(found, wanted, name)?;
    let unique_with_time = if found.is_unique(&["stream_key", "message_id"]) {
        false
    } else if found.is_unique(&["stream_key", "message_id", "timestamp"]) {
        true
    } else {
        let reason = format!("the table {table} has no unique constraint on (stream_key, message_id)");
        return Err(unusable(reason, &format!("ALTER TABLE {table} ADD UNIQUE (stream_key, message_id);")));
    };
    let time_type = found.column("timestamp").map(|column| column.full_type.clone()).unwrap_or_default();
    Ok(StreamTable { name: table, unique_with_time, time_type })
}

fn key_value_table(
    found: &Found,
    wanted: &Wanted,
    name: &str,
    deletions: Deletions,
) -> Result<KeyValueTable, Unreachable> {
    let table = quote::table(&wanted.schema, name);
    let mut columns = vec![
        ("redis_key", TEXT, "text NOT NULL"),
        ("redis_value", JSONB, "jsonb"),
        ("redis_db", INTEGER, "integer NOT NULL"),
        ("timestamp", TIME, "timestamptz NOT NULL"),
    ];
    if deletions == Deletions::Mark {
        columns.push(("deleted_at", TIME, "timestamptz"));
    }
    usable(found, &table, &columns)?;
    permitted(found, wanted, name)?;
    let unique_by_db = if found.is_unique(&["redis_db", "redis_key"]) {
        true
    } else if found.is_unique(&["redis_key"]) {
        false
    } else {
        let reason = format!("the table {table} has no unique constraint on (redis_db, redis_key)");
        return Err(unusable(reason, &format!("ALTER TABLE {table} ADD UNIQUE (redis_db, redis_key);")));
    };
    // One that is unique by key alone and by both is as narrow as by key alone.
    let unique_by_db = unique_by_db && !found.is_unique(&["redis_key"]);
    Ok(KeyValueTable { name: table, unique_by_db, marks: deletions == Deletions::Mark })
}

/// Whether what is there can be written to at all.
fn usable(found: &Found, table: &str, columns: &[(&str, &[&str], &str)]) -> Result<(), Unreachable> {
    if !matches!(found.kind, 'r' | 'p') {
        let reason =
            format!("{table} is no table that rows can be inserted into once (a view, or a foreign table)");
        return Err(Unreachable { reason, needs_human: true });
    }
    for (name, types, definition) in columns {
        let name_in_sql = quote::identifier(name);
        match found.column(name) {
            None => {
                let reason = format!("the table {table} has no column {name}");
                return Err(unusable(
                    reason,
                    &format!("ALTER TABLE {table} ADD COLUMN {name_in_sql} {definition};"),
                ));
            }
            Some(column) if !types.contains(&column.plain_type.as_str()) => {
                let to = definition.split(' ').next().unwrap_or_default();
                let reason = format!(
                    "the column {name} of the table {table} is {}, and must be {}",
                    column.full_type,
                    types.join(" or ")
                );
                let sql = format!(
                    "ALTER TABLE {table} ALTER COLUMN {name_in_sql} TYPE {to} USING {name_in_sql}::{to};"
                );
                return Err(unusable(reason, &sql));
            }
            Some(_) => {}
        }
    }
    let is_ours = |name: &str| columns.iter().any(|(ours, ..)| *ours == name);
    if let Some(column) = found.columns.iter().find(|column| column.must_be_given && !is_ours(&column.name)) {
        let name = &column.name;
        let name_in_sql = quote::identifier(name);
        let reason = format!("the column {name} of the table {table} must not be null and has no default");
        let sql = match column.plain_type.as_str() {
            "integer" | "bigint" | "smallint" => {
                format!(
                    "ALTER TABLE {table} ALTER COLUMN {name_in_sql} ADD GENERATED BY DEFAULT AS IDENTITY;"
                )
            }
            _ => format!("ALTER TABLE {table} ALTER COLUMN {name_in_sql} DROP NOT NULL;"),
        };
        return Err(unusable(reason, &sql));
    }
    Ok(())
}

fn permitted(found: &Found, wanted: &Wanted, name: &str) -> Result<(), Unreachable> {
    let table = quote::table(&wanted.schema, name);
    let role = quote::identifier(&wanted.role);
    if !found.schema_is_open {
        let schema = quote::identifier(&wanted.schema);
        let reason = format!("{role} may not use the schema {schema}");
        return Err(unusable(reason, &format!("GRANT USAGE ON SCHEMA {schema} TO {role};")));
    }
    let deletions = deletions_of(wanted, name);
    let needed = |privilege: &&Privilege| privilege.name != "DELETE" || deletions == Deletions::Delete;
    let missing: Vec<_> = found
        .privileges
        .iter()
        .filter(needed)
        .filter(|privilege| !privilege.granted)
        .map(|privilege| privilege.name.as_str())
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        let reason = format!("{role} lacks {missing} on the table {table}");
        return Err(unusable(reason, &format!("GRANT {missing} ON {table} TO {role};")));
    }
    if let Some(sequence) = &found.closed_sequence {
        let reason = format!("{role} may not use the sequence {sequence} of the table {table}");
        return Err(unusable(reason, &format!("GRANT USAGE ON SEQUENCE {sequence} TO {role};")));
    }
    Ok(())
}

/// The indexes of the description that are not there. Nobody needs them to write, and to make them on a large table
/// takes long and keeps others out: that is left to people.
fn without(found: &Found, wanted: &Wanted, name: &str, indexes: &[&[&str]]) -> Vec<String> {
    let table = quote::table(&wanted.schema, name);
    indexes
        .iter()
        .filter(|columns| !found.is_indexed(columns))
        .map(|columns| sql::create_index(&table, columns))
        .collect()
}
