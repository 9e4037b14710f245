//! The settings of redis2redis as they load.

use std::time::Duration;

use super::*;

fn load_env(environment: &[(&str, &str)]) -> Result<Loaded<Settings>, Mistakes> {
    Settings::load(&Inputs::new(environment.iter().copied(), "/absent/env.conf"))
}

fn target(environment: &[(&str, &str)]) -> TargetSettings {
    load_env(environment).expect("loads").settings.target
}

#[test]
fn the_descriptions_file_says_the_defaults() {
    let sample =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/sync-core/tests/env-samples/redis2redis.env.conf");
    let no_environment: [(&str, &str); 0] = [];
    let loaded = Settings::load(&Inputs::new(no_environment, sample)).expect("loads");
    assert_eq!(loaded.warnings, [""; 0]);
    let mut settings = loaded.settings;
    assert!(settings.general.log.format.take().is_some());
    assert_eq!(
        (settings.redis.host.as_str(), settings.target.redis.host.as_str()),
        ("source-redis", "target-redis")
    );
    let mut defaults = load_env(&[]).expect("loads").settings;
    defaults.redis.host = "source-redis".into();
    defaults.target.redis.host = "target-redis".into();
    assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
}

#[test]
fn defaults() {
    let Loaded { settings, warnings, .. } = load_env(&[]).expect("loads");
    assert_eq!(warnings, [""; 0]);
    let Settings { streams, target, general, .. } = settings;
    assert_eq!(streams.group, "redis-sync-group");
    assert!(streams.consumer.starts_with("redis-sync-consumer-"));
    assert_eq!((target.db, target.maxlen, target.wait_replicas), (TargetDb::Number(0), 0, 0));
    assert_eq!((target.conflict, target.prefix.as_str()), (IdConflict::DeadLetter, ""));
    assert_eq!(target.redis.retry.base, Duration::from_secs(1));
    assert_eq!(general.admin_addr.map(|address| address.port()), Some(9466));
}

#[test]
fn the_database() {
    assert_eq!(target(&[("TARGET_REDIS_DB", "3")]).db, TargetDb::Number(3));
    assert_eq!(target(&[("TARGET_REDIS_DB", "same")]).db, TargetDb::Same);
    assert_eq!(target(&[("TARGET_REDIS_URL", "redis://h/4")]).db, TargetDb::Number(4));
    let both = [("TARGET_REDIS_URL", "redis://h/4"), ("TARGET_REDIS_DB", "same")];
    assert_eq!(target(&both).db, TargetDb::Same);
    for wrong in ["256", "-1", "other"] {
        let mistakes = load_env(&[("TARGET_REDIS_DB", wrong)]).expect_err(wrong).to_string();
        assert!(mistakes.contains("a database number from 0 to 255, or same"), "{mistakes}");
    }
}

#[test]
fn a_cluster_has_one_database() {
    let cluster = ("TARGET_REDIS_URL", "redis-cluster://h:7000");
    assert!(target(&[cluster]).is_cluster());
    let wrong = |database: &'static str| {
        load_env(&[cluster, ("TARGET_REDIS_DB", database)]).expect_err(database).to_string()
    };
    assert!(wrong("1").contains("must be 0"));
    assert!(wrong("same").contains("SOURCE_REDIS_DB_SEARCH_RANGE=0"));
    let one = [cluster, ("TARGET_REDIS_DB", "same"), ("REDIS_DB_SEARCH_RANGE", "0")];
    assert_eq!(target(&one).db, TargetDb::Same);
}

#[test]
fn what_redis2mqtt_has_and_this_bridge_has_not_is_no_mistake() {
    let environment = [("SOURCE_REDIS_ENCODING", "utf-8"), ("VALUE_FORMAT", "json")];
    assert!(load_env(&environment).is_ok());
}
