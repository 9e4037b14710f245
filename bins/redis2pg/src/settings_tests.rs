//! The settings of redis2pg as they load.

use std::time::Duration;

use super::*;
use crate::postgres::settings::TlsMode;

fn load_env(environment: &[(&str, &str)]) -> Result<Loaded<Settings>, Mistakes> {
    Settings::load(&Inputs::new(environment.iter().copied(), "/absent/env.conf"))
}

fn settings(environment: &[(&str, &str)]) -> Settings {
    load_env(environment).expect("loads").settings
}

fn mistakes(environment: &[(&str, &str)]) -> String {
    load_env(environment).expect_err("a mistake").to_string()
}

#[test]
fn the_descriptions_file_reads_as_it_stands() {
    let sample =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/sync-core/tests/env-samples/redis2pg.env.conf");
    let no_environment: [(&str, &str); 0] = [];
    let loaded = Settings::load(&Inputs::new(no_environment, sample)).expect("loads");
    assert_eq!(loaded.warnings, [""; 0]);
    let Settings { redis, streams, postgres, tables, key_values, .. } = loaded.settings;
    assert_eq!((redis.host.as_str(), redis.port), ("redis-cache", 6379));
    assert_eq!(streams.group, "sync-group");
    assert_eq!(streams.named.len(), 1);
    assert_eq!(postgres.address(), "remote-postgres-server:5432/edn");
    assert_eq!((postgres.user.as_str(), postgres.password.expose()), ("postgres", "postgres"));
    assert_eq!(tables.schema, "public");
    assert_eq!(key_values.map(|key_values| key_values.interval), Some(Duration::from_secs(5)));
}

#[test]
fn defaults() {
    let Loaded { settings, warnings, .. } = load_env(&[]).expect("loads");
    assert_eq!(warnings, [""; 0]);
    let Settings { streams, postgres, tables, general, key_values, .. } = settings;
    assert_eq!(streams.group, "redis-pg-sync");
    assert!(streams.consumer.starts_with("redis-pg-sync-1-"));
    assert_eq!((streams.rate_limit, streams.poll_interval), (100, Duration::from_millis(100)));
    assert_eq!(postgres.address(), "localhost:5432/redis_sync");
    assert_eq!((postgres.pool_size, postgres.max_queries), (10, 50_000));
    assert_eq!((postgres.query_timeout, postgres.tls), (Duration::from_secs(30), TlsMode::Prefer));
    assert_eq!((tables.streams.as_str(), tables.key_values.as_str()), ("redis_streams", "redis_key_values"));
    assert!(!tables.overwrite && tables.data == DataFormat::Object);
    let key_values = key_values.expect("on");
    assert_eq!((key_values.interval, key_values.deletions), (Duration::from_secs(1), Deletions::Keep));
    assert_eq!(general.admin_addr.map(|address| address.port()), Some(9467));
}

#[test]
fn a_url_goes_before_the_settings_that_it_speaks_of() {
    let url = "postgres://us%40er:p%2Fw@[::1]:6000/my%20db?sslmode=disable";
    let loaded =
        load_env(&[("POSTGRES_URL", url), ("PG_PORT", "7000"), ("PG_POOL_SIZE", "3")]).expect("loads");
    let postgres = loaded.settings.postgres;
    assert_eq!(postgres.address(), "[::1]:6000/my db");
    assert_eq!((postgres.user.as_str(), postgres.password.expose()), ("us@er", "p/w"));
    assert_eq!((postgres.tls, postgres.pool_size), (TlsMode::Disable, 3));
    assert!(loaded.warnings.iter().any(|warning| warning.contains("PG_PORT")), "{:?}", loaded.warnings);
    let shown = format!("{:?} {postgres:?} {:?}", loaded.effective, loaded.warnings);
    assert!(!shown.contains("p%2Fw") && !shown.contains("p/w"), "{shown}");
    // What it does not say stands elsewhere.
    let postgres = settings(&[("PG_URL", "postgres://h"), ("PG_USER", "u"), ("PG_PASSWORD", "w")]).postgres;
    assert_eq!((postgres.address().as_str(), postgres.user.as_str()), ("h:5432/redis_sync", "u"));
    let socket = settings(&[("PG_URL", "postgres://u@%2Frun%2Fpostgresql/d")]).postgres;
    assert_eq!(socket.address(), "/run/postgresql/d");
    for (url, part) in [
        ("mysql://h", "postgres://"),
        ("postgres://", "a host"),
        ("postgres://h:x/d", "a URL"),
        ("postgres://h/d?sslmode=never", "sslmode must be one of"),
        ("postgres://h/d?sslrootcert=/absent", "sslrootcert must be a readable file"),
        ("postgres://h/d?sslcert=/dev/null", "sslcert and sslkey"),
        ("postgres://h/d?target=1", "must not have target"),
    ] {
        let mistakes = mistakes(&[("PG_URL", url)]);
        assert!(mistakes.contains("PG_URL") && mistakes.contains(part), "{url}: {mistakes}");
    }
}

#[test]
fn an_own_authority_is_verified_where_tls_is_required() {
    let tls = |mode| settings(&[("PG_SSLMODE", mode), ("PG_SSL_CA", "/dev/null")]).postgres.tls;
    assert_eq!(tls("require"), TlsMode::VerifyCa);
    assert_eq!((tls("prefer"), tls("verify-full")), (TlsMode::Prefer, TlsMode::VerifyFull));
    assert_eq!(settings(&[("PG_SSLMODE", "require")]).postgres.tls, TlsMode::Require);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes = mistakes(&[
        ("PG_PORT", "0"),
        ("PG_POOL_SIZE", "1"),
        ("STREAM_TABLE_NAME", "same"),
        ("KEY_VALUE_TABLE_NAME", "same"),
        ("PG_SCHEMA", &"x".repeat(64)),
        ("KEY_VALUE_DELETIONS", "drop"),
        ("DATA_FORMAT", "xml"),
        ("PG_SSL_CERT", "/dev/null"),
    ]);
    for part in [
        "PG_PORT",
        "PG_POOL_SIZE",
        "must not be the table of STREAM_TABLE_NAME",
        "63 bytes",
        "KEY_VALUE_DELETIONS",
        "DATA_FORMAT",
        "PG_SSL_KEY",
    ] {
        assert!(mistakes.contains(part), "{part}: {mistakes}");
    }
}

#[test]
fn the_own_spelling_counts_and_the_other_is_a_warning() {
    let loaded = load_env(&[("REDIS_HOST", "own"), ("SOURCE_REDIS_HOST", "other")]).expect("loads");
    assert_eq!(loaded.settings.redis.host, "own");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("SOURCE_REDIS_HOST")));
    let loaded = load_env(&[("REDIS_DB", "3"), ("SOURCE_REDIS_DB", "4")]).expect("loads");
    assert_eq!(loaded.settings.redis.db, 4);
    assert!(loaded.warnings.iter().any(|warning| warning.contains("REDIS_DB")));
    let misspelt = load_env(&[("POSTGRES_PASSWORT", "x"), ("POSTGRES_HOSTT", "x")]).expect("loads");
    assert_eq!(misspelt.warnings.len(), 2, "{:?}", misspelt.warnings);
    let off =
        load_env(&[("KEY_VALUE_AUTO_DISCOVERY", "false"), ("KEY_VALUE_PATTERNS", "a*")]).expect("loads");
    assert_eq!(off.settings.key_values, None);
    assert!(off.warnings.iter().any(|warning| warning.contains("KEY_VALUE_PATTERNS")));
}
