//! What is looked at before the first entry: settings, the server, its tables, and what the role may do.

use std::fs;
use std::path::PathBuf;

use test_kit::bridge::Setup;
use test_kit::postgres::Database;
use test_kit::redis::Redis;
use test_kit::{certificate, free_port, wait_until};

use crate::harness::{GROUP, Scene, Sql as _, command, settings, setup, wait_settled, with_key_values};

#[test]
fn the_described_file_works_as_it_stands() {
    let sample = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/sync-core/tests/env-samples/redis2pg.env.conf");
    let (source, sql) = (Redis::start(), Database::create());
    // Only what no file can know; its own log format stays.
    let setup = Setup::of(env!("CARGO_BIN_EXE_redis2pg"))
        .unset("LOG_FORMAT")
        .unset("STREAM_DISCOVERY_INTERVAL")
        .set("REDIS_HOST", "127.0.0.1")
        .set("REDIS_PORT", source.port)
        .set("POSTGRES_HOST", &sql.login.host)
        .set("POSTGRES_PORT", sql.login.port)
        .set("POSTGRES_PASSWORD", &sql.login.password)
        .set("POSTGRES_DB", &sql.name);
    fs::copy(sample, setup.dir().join("env.conf")).unwrap();
    for (db, key) in [(0, "biosignal-stream"), (15, "device:7:stream"), (2, "biosignal-x")] {
        source.ask(db, &["XADD", key, "1-1", "n", "1"]);
    }
    source.ask(0, &["XADD", "other", "1-1", "n", "1"]);
    source.ask(3, &["SET", "state", "on"]);
    let mut bridge = setup.start();
    wait_until(
        "three rows and a value",
        || bridge.lines(),
        || {
            sql.one("SELECT to_regclass('redis_streams') IS NOT NULL AND to_regclass('redis_key_values') IS NOT NULL") == "t"
            && sql.count("redis_streams") == 3
            && sql.count("redis_key_values") == 1
        },
    );
    let streams = sql.rows("SELECT stream_key FROM redis_streams ORDER BY 1");
    assert_eq!(streams, [["biosignal-stream"], ["db15:device:7:stream"], ["db2:biosignal-x"]]);
    assert_eq!(
        sql.rows("SELECT redis_key, redis_value, redis_db FROM redis_key_values"),
        [["state", r#""on""#, "3"]]
    );
    bridge.stop();
    let warnings = bridge.lines_with(" - WARNING - ");
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[test]
fn tables_constraints_and_indexes_are_those_of_the_description() {
    let (source, mut sql) = (Redis::start(), Database::create());
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    // The description's grants: a role that may make a schema of its own and nothing else.
    let role = sql.role("secret", "");
    sql.ask(&format!("GRANT CREATE ON DATABASE {} TO {}", sql.name, role.user));
    let setup = settings(&role, &sql.name)
        .into_iter()
        .fold(with_key_values(&source, &sql), |setup, (name, value)| setup.set(name, value))
        .set("PG_SCHEMA", "Edge data")
        .set("STREAM_TABLE_NAME", "ent\"ries")
        .set("KEY_VALUE_TABLE_NAME", "values");
    let mut bridge = setup.start();
    wait_settled(&source, &bridge, 0, "s");
    let columns = |table: &str| {
        sql.rows(&format!(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'Edge data' \
             AND table_name = '{table}' ORDER BY ordinal_position"
        ))
    };
    assert_eq!(
        columns("ent\"ries"),
        [
            ["id", "bigint"],
            ["stream_key", "text"],
            ["message_id", "text"],
            ["data", "jsonb"],
            ["timestamp", "timestamp with time zone"]
        ]
    );
    assert_eq!(
        columns("values"),
        [
            ["id", "bigint"],
            ["redis_key", "text"],
            ["redis_value", "jsonb"],
            ["redis_db", "integer"],
            ["timestamp", "timestamp with time zone"]
        ]
    );
    let indexes = sql.rows(
        "SELECT regexp_replace(indexdef, '^.*USING btree ', '') FROM pg_indexes WHERE schemaname = 'Edge data' ORDER BY 1",
    );
    let expected = [
        "(id)",
        "(id)",
        "(message_id)",
        "(redis_db)",
        "(redis_db, redis_key)",
        "(redis_key)",
        "(stream_key, \"timestamp\" DESC)",
        "(stream_key, message_id)",
    ];
    assert_eq!(indexes.concat(), expected);
    bridge.stop();
    bridge.check_errors(&[]);
    sql.ask(&format!("DROP OWNED BY {}", role.user));
}

#[test]
fn a_role_with_the_grants_that_schema_prints_works_and_is_warned_of_what_it_cannot_make() {
    let (source, mut sql) = (Redis::start(), Database::create());
    let role = sql.role("secret", "");
    let as_role = |setup: Setup| {
        settings(&role, &sql.name).into_iter().fold(setup, |setup, (name, value)| setup.set(name, value))
    };
    let setup =
        as_role(with_key_values(&source, &sql)).set("KEY_VALUE_DELETIONS", "delete").set("PG_SCHEMA", "edge");
    // Nothing is there, and the role may make nothing: the line says what to run.
    let mut refused = setup.clone().set("PG_MAX_RETRIES", 1).start();
    assert_eq!(refused.wait_exit().0, Some(1));
    let line = refused.wait_line("is not there and cannot be made");
    assert!(
        line.text.contains(r#"CREATE TABLE \"edge\".\"redis_streams\""#)
            || line.text.contains("CREATE TABLE"),
        "{line:?}"
    );
    let (out, code, _) = command(&setup, &["schema"]);
    assert_eq!(code, Some(0));
    sql.ask(&out);
    sql.ask("DROP INDEX edge.redis_streams_message_id_idx");
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    source.ask(0, &["SET", "k", "1"]);
    let mut bridge = setup.start();
    wait_settled(&source, &bridge, 0, "s");
    let warning = bridge.wait_line("indexes are missing");
    assert!(warning.text.contains("(message_id)"), "{warning:?}");
    wait_until("the value is there", || bridge.lines(), || sql.count("edge.redis_key_values") == 1);
    source.ask(0, &["DEL", "k"]);
    wait_until("the value is gone", || bridge.lines(), || sql.count("edge.redis_key_values") == 0);
    bridge.stop();
    bridge.check_errors(&[]);
    sql.ask(&format!("DROP OWNED BY {}", role.user));
}

#[test]
fn a_table_that_cannot_be_used_is_an_error_with_the_sql_that_mends_it() {
    let source = Redis::start();
    let columns = "stream_key text, message_id text, data jsonb";
    for (table, part, mended) in [
        (
            format!("CREATE TABLE redis_streams ({columns}, UNIQUE (stream_key, message_id))"),
            "has no column timestamp",
            true,
        ),
        (
            format!("CREATE TABLE redis_streams ({columns}, \"timestamp\" timestamptz)"),
            "has no unique constraint on (stream_key, message_id)",
            true,
        ),
        (
            "CREATE TABLE redis_streams (stream_key text, message_id text, data text, \"timestamp\" timestamptz, \
             UNIQUE (stream_key, message_id))"
                .to_owned(),
            "the column data",
            true,
        ),
        (
            format!("CREATE TABLE redis_streams (id bigint NOT NULL, {columns}, \"timestamp\" timestamptz, UNIQUE (stream_key, message_id))"),
            "must not be null and has no default",
            true,
        ),
        (
            "CREATE VIEW redis_streams AS SELECT 1 AS stream_key".to_owned(),
            "is no table",
            false,
        ),
    ] {
        let sql = Database::create();
        sql.ask(&table);
        source.ask(0, &["DEL", "s"]);
        source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
        let mut bridge = setup(&source, &sql).set("PG_MAX_RETRIES", 1).start();
        assert_eq!(bridge.wait_exit().0, Some(1), "{table}");
        let line = bridge.wait_line(part);
        if mended {
            let (_, mend) = line.text.split_once("Run: ").unwrap_or_else(|| panic!("{line:?}"));
            sql.ask(&mend.replace("\\\"", "\""));
            let mut bridge = setup(&source, &sql).start();
            wait_settled(&source, &bridge, 0, "s");
            assert_eq!(sql.count("redis_streams"), 1);
            bridge.stop();
        }
    }
}

#[test]
fn a_server_that_is_away_is_one_clear_line_and_exit_code_1() {
    let (source, sql) = (Redis::start(), Database::create());
    for (setup, part) in [
        (setup(&source, &sql).set("PG_PORT", free_port()).set("PG_MAX_RETRIES", 2), "Connection refused"),
        (
            setup(&source, &sql).set("PG_PASSWORD", "wrong").set("PG_MAX_RETRIES", 1),
            "password authentication failed",
        ),
        (setup(&source, &sql).set("PG_DATABASE", "nowhere").set("PG_MAX_RETRIES", 1), "does not exist"),
        (setup(&source, &sql).set("PG_URL", "mysql://h"), "PG_URL"),
        (setup(&source, &sql).set("PG_POOL_SIZE", "x"), "PG_POOL_SIZE"),
    ] {
        let mut bridge = setup.start();
        let (code, _) = bridge.wait_exit();
        assert!(matches!(code, Some(1 | 78)), "{code:?}");
        let line = bridge.wait_line(part);
        assert!(!line.text.contains("wrong"), "{line:?}");
    }
}

#[test]
fn a_url_and_tls_with_an_own_authority() {
    let (source, sql) = (Redis::start(), Database::create());
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let login = &sql.login;
    let url = |query: &str| {
        format!("postgres://{}:{}@localhost:{}/{}{query}", login.user, login.password, login.port, sql.name)
    };
    let bare = |url: String| {
        ["PG_HOST", "PG_PORT", "PG_USER", "PG_PASSWORD", "PG_DATABASE"]
            .into_iter()
            .fold(setup(&source, &sql), |setup, name| setup.unset(name))
            .set("PG_URL", url)
            .set("PG_MAX_RETRIES", 1)
    };
    let ca = certificate("ca.pem");
    let mut bridge = bare(url(&format!("?sslmode=verify-full&sslrootcert={ca}"))).start();
    wait_settled(&source, &bridge, 0, "s");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                     WHERE a.application_name = 'redis2pg' AND a.datname = current_database()";
    assert_eq!(sql.one(encrypted), "t");
    bridge.stop();
    bridge.check_errors(&[]);
    // Without the authority nobody vouches for the server.
    let mut refused = bare(url("?sslmode=verify-full")).start();
    assert_eq!(refused.wait_exit().0, Some(1));
    refused.wait_line("certificate");
}

#[test]
fn check_connects_says_what_it_would_make_and_makes_nothing() {
    let (source, sql) = (Redis::start(), Database::create());
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    let (out, code, ran) = command(&setup(&source, &sql), &["check", "--connect"]);
    assert_eq!(code, Some(0), "{:#?}", ran.lines());
    for part in ["PG_DATABASE", "PostgreSQL server at", GROUP] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.contains("redis_streams") || !ran.lines_with("redis_streams").is_empty(), "{out}");
    assert_eq!(sql.count("pg_tables WHERE schemaname = 'public'"), 0);
}

#[test]
fn sighup_changes_the_databases_that_are_searched() {
    let (source, sql) = (Redis::start(), Database::create());
    let setup = with_key_values(&source, &sql);
    let file = setup.dir().join("env.conf");
    fs::write(&file, "REDIS_DB_SEARCH_RANGE=0\n").unwrap();
    source.ask(0, &["XADD", "s", "1-0", "n", "1"]);
    source.ask(2, &["XADD", "s", "1-0", "n", "1"]);
    source.ask(2, &["SET", "k", "1"]);
    let scene = Scene { bridge: setup.start(), source, sql };
    scene.settled("s");
    assert_eq!(scene.sql.count("redis_streams"), 1);
    fs::write(&file, "REDIS_DB_SEARCH_RANGE=0,2\n").unwrap();
    scene.bridge.signal("HUP");
    scene.bridge.wait_line("Searching Redis databases 0, 2");
    wait_settled(&scene.source, &scene.bridge, 2, "s");
    assert_eq!(scene.sql.count("redis_streams"), 2);
    let copied = || scene.sql.count("redis_key_values WHERE redis_db = 2");
    wait_until("the key of the other database is copied", || scene.bridge.lines(), || copied() == 1);
    scene.end(&[]);
}

#[test]
fn the_eight_numbers_are_metrics_and_a_line_of_the_log() {
    let scene =
        Scene::begin(|setup| setup.set("KEY_VALUE_AUTO_DISCOVERY", "true").set("ADMIN_ADDR", "127.0.0.1:0"));
    scene.add("s", "1-0", &["n", "1"]);
    scene.source.ask(0, &["SET", "k", "1"]);
    scene.settled("s");
    wait_until("the value is there", || scene.bridge.lines(), || scene.sql.count("redis_key_values") == 1);
    let line = scene.bridge.wait_line("Status and metrics are at");
    let port =
        line.text.split("127.0.0.1:").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let page = metrics(port.parse().unwrap());
    for (name, least) in [
        ("redis_sync_all_entries_delivered_total", 1.0),
        ("redis_sync_key_values_written_total", 1.0),
        ("redis_sync_redis_operations_total", 3.0),
        ("redis_sync_postgres_operations_total", 3.0),
        ("redis_sync_streams_discovered", 1.0),
        ("redis_sync_errors_total", 0.0),
        ("redis_sync_all_entries_retried_total", 0.0),
        ("redis_sync_last_delivery_timestamp_seconds", 1.7e9),
        ("redis_sync_key_value_last_pass_timestamp_seconds", 1.7e9),
    ] {
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= least), "{name}: {value:?}\n{page}");
    }
    let mut bridge = scene.bridge;
    bridge.stop();
    let line = bridge.wait_line("so far");
    for part in
        ["messages_processed=1", "key_values_processed=1", "streams_discovered=1", "errors=0", "retries=0"]
    {
        assert!(line.text.contains(part), "{part}: {line:?}");
    }
}

fn metrics(port: u16) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
