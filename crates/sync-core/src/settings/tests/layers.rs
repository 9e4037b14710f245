//! Where values come from: precedence, spellings, files, secrets, keys that are no settings.

use super::*;

/// The layer decides first, whatever the spelling; an empty value leaves the word to the next layer.
#[test]
fn precedence() {
    let host = |bridge: &'static Bridge, file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]| {
        let conf = Conf::new(file);
        let inputs =
            flags.iter().fold(conf.inputs(environment), |inputs, (name, value)| inputs.set(name, value));
        load(bridge, &inputs, everything).expect("loads").settings.redis.host
    };
    let file = "SOURCE_REDIS_HOST=file";
    assert_eq!(host(&SHORT, "", &[], &[]), "localhost");
    assert_eq!(host(&SHORT, file, &[], &[]), "file");
    assert_eq!(host(&SHORT, "REDIS_HOST=file", &[("SOURCE_REDIS_HOST", "env")], &[]), "env");
    assert_eq!(host(&SHORT, file, &[("REDIS_HOST", "env")], &[]), "env");
    assert_eq!(host(&SHORT, file, &[("REDIS_HOST", "")], &[]), "file");
    assert_eq!(host(&SHORT, file, &[("REDIS_HOST", "env")], &[("SOURCE_REDIS_HOST", "flag")]), "flag");
    assert_eq!(host(&SHORT, file, &[("REDIS_HOST", "env")], &[("SOURCE_REDIS_HOST", "")]), "env");
    let both = "REDIS_HOST=short\nSOURCE_REDIS_HOST=canonical";
    assert_eq!(host(&SHORT, both, &[], &[]), "short");
    assert_eq!(host(&CANONICAL, both, &[], &[]), "canonical");
    assert_eq!(host(&SHORT, "REDIS_HOST=\nSOURCE_REDIS_HOST=canonical", &[], &[]), "canonical");
}

#[test]
fn the_spelling_passed_over_is_named() {
    let conf = Conf::new("SOURCE_REDIS_HOST=a\nREDIS_HOST=b\nREDIS_DB=1\nSOURCE_REDIS_DB=1\nREDIS_DB=1");
    let warnings = conf.load(&SHORT, &[]).expect("loads").warnings;
    assert_eq!(
        conf.plain(warnings.join("\n")),
        "REDIS_DB stands in env.conf on lines 3 and 5: line 5 counts\n\
         SOURCE_REDIS_HOST (file env.conf line 1) is passed over: REDIS_HOST (file env.conf line 2) is the same \
         setting and counts"
    );
    let differ = Conf::new("REDIS_DB=1\nSOURCE_REDIS_DB=2").load(&SHORT, &[]).expect("loads");
    assert_eq!((differ.settings.redis.db, differ.warnings.len()), (2, 1));
}

#[test]
fn which_file() {
    let conf = Conf::new("SOURCE_REDIS_HOST=standard");
    let other = conf.write("other.conf", "SOURCE_REDIS_HOST=other");
    let host =
        |inputs: Inputs| load(&CANONICAL, &inputs, everything).map(|loaded| loaded.settings.redis.host);
    assert_eq!(host(conf.inputs(&[])).as_deref(), Ok("standard"));
    assert_eq!(host(conf.inputs(&[("CONFIG_FILE", &other)])).as_deref(), Ok("other"));
    let standard = conf.path("env.conf");
    let flag = conf.inputs(&[("CONFIG_FILE", &other)]).config_file(Some(&standard));
    assert_eq!(host(flag).as_deref(), Ok("standard"));
    assert_eq!(host(Inputs::new([("A", "b")], conf.path("absent"))).as_deref(), Ok("localhost"));

    let absent = host(conf.inputs(&[("CONFIG_FILE", "/absent/env.conf")])).expect_err("named and absent");
    assert_eq!(
        absent.to_string(),
        "CONFIG_FILE=/absent/env.conf (environment) must be a readable file: No such file or directory (os error 2)\n\
         1 mistake in the settings of canonical"
    );
    assert!(host(conf.inputs(&[]).config_file(Some(conf.dir.path()))).is_err(), "a directory");
    let inside = Conf::new("CONFIG_FILE=other.conf").load(&CANONICAL, &[]).expect("loads");
    assert!(inside.warnings[0].contains("no effect in a settings file"), "{:?}", inside.warnings);
}

#[test]
fn secrets_stay_out_of_sight() {
    let environment = [
        ("SOURCE_REDIS_URL", "redis://me:hunter2@h:1/2"),
        ("SOURCE_REDIS_PASSWORD", "hunter2"),
        ("REDIS_PASSWORD", "hunter2 too"),
    ];
    let loaded = load_env(&environment).expect("loads");
    let seen = format!("{loaded:?}");
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(seen.contains("redis://***@h:1/2"), "{seen}");
    let redis = loaded.settings.redis;
    assert_eq!(redis.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!(redis.password.map(|secret| secret.to_string()).as_deref(), Some("***"));
    assert_eq!(redis.url.as_ref().map(Secret::expose), Some("redis://me:hunter2@h:1/2"));

    for url in ["http://me:hunter2@h", "hunter2", "redis://me:hunter2/@h", "redis-sentinel://h?x=hunter2"] {
        let report = report(&[("REDIS_URL", url)]);
        assert!(report.contains("REDIS_URL") && !report.contains("hunter2"), "{report}");
    }
}

#[test]
fn secrets_from_files() {
    let conf = Conf::new("SOURCE_REDIS_PASSWORD=from the file");
    let password = |environment: &[(&str, &str)]| {
        let loaded = conf.load(&CANONICAL, environment).map_err(|mistakes| conf.plain(mistakes))?;
        let password = loaded.settings.redis.password.map(|secret| secret.expose().to_owned());
        let origin = loaded.effective.into_iter().find(|effective| effective.name == "SOURCE_REDIS_PASSWORD");
        Ok::<_, String>((password.unwrap_or_default(), conf.plain(origin.expect("shown").origin)))
    };
    let secret = |text: &str| conf.write("secret", text);
    for (written, read) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
        let path = secret(written);
        let origin = "file secret, named in environment".to_owned();
        assert_eq!(password(&[("REDIS_PASSWORD_FILE", &path)]), Ok((read.to_owned(), origin)), "{written:?}");
    }
    // An empty file is like an empty value.
    let from_the_file = Ok(("from the file".to_owned(), "file env.conf line 1".to_owned()));
    assert_eq!(password(&[("REDIS_PASSWORD_FILE", &secret("\n"))]), from_the_file);
    assert_eq!(password(&[("REDIS_PASSWORD_FILE", "")]), from_the_file);
    let path = secret("a");
    let beside_an_empty_value = [("REDIS_PASSWORD_FILE", path.as_str()), ("REDIS_PASSWORD", "")];
    assert_eq!(password(&beside_an_empty_value).expect("loads").0, "a");
    let both = password(&[("REDIS_PASSWORD_FILE", &path), ("SOURCE_REDIS_PASSWORD", "hunter2")]);
    assert_eq!(
        both.expect_err("both"),
        "REDIS_PASSWORD_FILE=secret (environment) must not be set beside SOURCE_REDIS_PASSWORD (environment): which \
         of them counts?\n1 mistake in the settings of canonical"
    );
    let absent = password(&[("REDIS_PASSWORD_FILE", "/absent/secret")]).expect_err("absent");
    assert!(
        absent.starts_with("REDIS_PASSWORD_FILE=/absent/secret (environment) must be the path of a readable")
    );
    let url = conf.write("url", "rediss://:p@h/4\n");
    let redis = load_env(&[("REDIS_URL_FILE", &url)]).expect("loads").settings.redis;
    assert_eq!((redis.db, redis.tls.is_some()), (4, true));
}

#[test]
fn unknown_keys() {
    let check = |file: &str, environment: &[(&str, &str)], expected: &[&str]| {
        let conf = Conf::new(file);
        let warnings = conf.load(&CANONICAL, environment).expect("loads").warnings;
        let warned: Vec<_> = warnings.iter().map(|warning| conf.plain(warning)).collect();
        assert_eq!(warned.len(), expected.len(), "{warned:?}");
        for (warned, expected) in warned.iter().zip(expected) {
            assert!(warned.contains(expected), "{warned}");
        }
    };
    let foreign = "REGISTRY=r\nTAG=t\nREDIS_MAXMEMORY=1gb\nMQTT_QOS=1\nKAFKA_X=1\nTARGET_REDIS_HOST=h\nPG_HOST=h\n\
                   SYNC_INTERVAL=5\nSTREAM_TARGET_TOPIC_MAP={}";
    check(foreign, &[], &[]);
    check(
        "redis_host=h",
        &[],
        &["redis_host (file env.conf line 1) is no setting of canonical; the nearest is REDIS_HOST"],
    );
    check("LOGLEVEL=DEBUG", &[], &["nearest is LOG_LEVEL"]);
    check("REDIS_PASSWORD_FIEL=x", &[], &["nearest is REDIS_PASSWORD_FILE"]);
    check("", &[("STREAM_BATCHSIZE", "1")], &["STREAM_BATCHSIZE (environment)"]);
    check("", &[("PATH", "/bin"), ("LOGLEVEL", "DEBUG"), ("MQTT_QOSS", "1")], &[]);
    let injected = [
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_SERVICE_PORT", "6379"),
        ("REDIS_SERVICE_PORT_REDIS", "6379"),
        ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("REDIS_CACHE_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_NAME", "/app/redis"),
        ("REDIS_ENV_REDIS_VERSION", "7"),
    ];
    check("", &injected, &[]);
}

#[test]
fn an_injected_port_is_explained_and_gives_way() {
    let injected = ("REDIS_PORT", "tcp://10.0.0.1:6379");
    let report = report(&[injected]);
    assert!(report.contains("REDIS_PORT=tcp://10.0.0.1:6379 (environment)"), "{report}");
    assert!(report.contains("Kubernetes") && report.contains("set SOURCE_REDIS_PORT"), "{report}");
    let both = load_env(&[injected, ("SOURCE_REDIS_PORT", "6380")]).expect("loads");
    assert_eq!((both.settings.redis.port, both.warnings), (6380, vec![]));
    load_env(&[injected, ("SOURCE_REDIS_PORT", "tcp://10.0.0.2:6379")]).expect_err("both are injected");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_text_is_a_mistake() {
    use std::os::unix::ffi::OsStringExt as _;
    let load = |key: &str| {
        let environment = [(key, std::ffi::OsString::from_vec(b"\xff".into()))];
        load(&CANONICAL, &Inputs::new(environment, "/absent/env.conf"), everything)
    };
    let mistakes = load("REDIS_PASSWORD").expect_err("not UTF-8");
    assert!(mistakes.to_string().starts_with("REDIS_PASSWORD=*** (environment) must be UTF-8"));
    load("SOMETHING_ELSE").expect("not ours");
}

#[test]
fn loading_again_reads_the_file_again() {
    let conf = Conf::new("STREAM_DISCOVERY_INTERVAL=10");
    let inputs = conf.inputs(&[]).set("LOG_LEVEL", "DEBUG");
    let read = || load(&CANONICAL, &inputs, everything).map(|loaded| loaded.settings);
    assert_eq!(read().expect("loads").streams.discovery_interval, Duration::from_secs(10));
    conf.write("env.conf", "STREAM_DISCOVERY_INTERVAL=3\nLOG_LEVEL=ERROR");
    let again = read().expect("loads");
    assert_eq!(again.streams.discovery_interval, Duration::from_secs(3));
    assert_eq!(again.general.log.level, tracing::Level::DEBUG);
    conf.write("env.conf", "STREAM_DISCOVERY_INTERVAL=soon");
    read().expect_err("a bad file");
}
