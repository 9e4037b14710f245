//! Settings as a bridge loads them: the descriptions' files, values and their rules, every kind of mistake.

mod layers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::shared::*;
use super::*;
use crate::pattern::Pattern;
use crate::record::{EntryId, StreamName};
use crate::telemetry::log::LogFormat;

const SHARED: &[Group] = &[
    Group { title: "Source Redis", settings: SOURCE_REDIS_GROUP },
    Group { title: "Streams", settings: STREAMS_GROUP },
    Group { title: "Field values", settings: TEXT_GROUP },
    Group { title: "Everywhere", settings: GENERAL_GROUP },
];
const NAMES: &[(&str, &str)] = &[("STREAM_CONSUMER_GROUP", "group"), ("STREAM_CONSUMER_NAME", "consumer")];

/// Spells as redis2redis and redis2kafka do.
static CANONICAL: Bridge = Bridge { name: "canonical", groups: SHARED, defaults: NAMES, spellings: &[] };
/// Spells as redis2mqtt and redis2pg do.
static SHORT: Bridge = Bridge {
    name: "short",
    groups: SHARED,
    defaults: NAMES,
    spellings: &["REDIS_HOST", "REDIS_PASSWORD", "REDIS_DB", "SOURCE_REDIS_DB", "STREAM_READ_TIMEOUT_MS"],
};

#[derive(Debug)]
struct Everything {
    redis: RedisSettings,
    streams: StreamSettings,
    text: TextSettings,
    general: GeneralSettings,
}

fn everything(reader: &mut Reader) -> Everything {
    let redis = RedisSettings::read(reader);
    let streams = StreamSettings::read(reader, redis.db);
    Everything { redis, streams, text: TextSettings::read(reader), general: GeneralSettings::read(reader) }
}

/// Has STREAM_CLEANUP.
static CLEANING: Bridge = Bridge {
    name: "cleaning",
    groups: &[
        Group { title: "Streams", settings: STREAMS_GROUP },
        Group { title: "Databases", settings: &[&SOURCE_REDIS_DB_SEARCH_RANGE, &REDIS_RATE_LIMIT] },
        Group { title: "Clean-up", settings: &[&STREAM_CLEANUP] },
    ],
    defaults: NAMES,
    spellings: &[],
};

/// An env.conf in a directory of its own.
struct Conf {
    dir: TempDir,
}

impl Conf {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let conf = Self { dir };
        conf.write("env.conf", text);
        conf
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inputs(&self, environment: &[(&str, &str)]) -> Inputs {
        Inputs::new(environment.iter().copied(), self.path("env.conf"))
    }

    fn load(
        &self,
        bridge: &'static Bridge,
        environment: &[(&str, &str)],
    ) -> Result<Loaded<Everything>, Mistakes> {
        load(bridge, &self.inputs(environment), everything)
    }

    /// A report without this directory's name.
    fn plain(&self, text: impl ToString) -> String {
        text.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn load_env(environment: &[(&str, &str)]) -> Result<Loaded<Everything>, Mistakes> {
    Conf::new("").load(&CANONICAL, environment)
}

/// The warnings of settings that load.
fn warnings(environment: &[(&str, &str)]) -> Vec<String> {
    load_env(environment).expect("loads").warnings
}

/// The report on settings that do not.
fn report(environment: &[(&str, &str)]) -> String {
    load_env(environment).expect_err("does not load").to_string()
}

#[test]
fn defaults_obey_their_rules() {
    let Loaded { settings, warnings, effective } = load_env(&[]).expect("loads");
    assert_eq!(warnings, [""; 0]);
    assert!(effective.iter().all(|effective| effective.origin == "default"));
    assert_eq!(effective.len(), CANONICAL.settings().count());
    let Everything { redis, streams, text, general } = settings;
    assert_eq!((redis.host.as_str(), redis.port, redis.db, redis.pool_size), ("localhost", 6379, 0, 10));
    let retry = RetrySettings { max_retries: 5, base: Duration::from_secs(1), cap: Duration::from_secs(30) };
    assert_eq!(redis.retry, retry);
    assert!(redis.url.is_none() && redis.password.is_none() && redis.tls.is_none());
    let discovery = streams.discovery.expect("discovery is on");
    assert_eq!(discovery.dbs, (0..=15).collect::<Vec<_>>());
    assert_eq!(discovery.patterns, [Pattern::new("*")]);
    assert_eq!(streams.start_id, StartId::After(EntryId::default()));
    let pid = std::process::id().to_string();
    assert!(streams.consumer.starts_with("consumer-") && streams.consumer.ends_with(&pid));
    assert!(streams.consumer.len() > "consumer--".len() + pid.len());
    assert_eq!((streams.batch_size, streams.poll_interval), (100, Duration::from_secs(1)));
    assert_eq!((streams.rate_limit, streams.ownership), (0, Ownership::Shared));
    assert_eq!((text.encoding, text.value_format), (encoding_rs::UTF_8, ValueFormat::Json));
    assert_eq!(general.admin_addr.map(|addr| addr.to_string()).as_deref(), Some("127.0.0.1:9464"));
    assert_eq!(general.shutdown_timeout, Duration::from_secs(8));
    assert_eq!(general.log.format, None);
}

#[test]
fn the_descriptions_files_load_as_they_stand() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env-samples");
    let load_sample = |bridge: &'static Bridge, name: &str| {
        let no_environment: [(&str, &str); 0] = [];
        load(bridge, &Inputs::new(no_environment, samples.join(name)), everything).expect(name)
    };

    let redis2mqtt = load_sample(&SHORT, "redis2mqtt.env.conf");
    assert_eq!(redis2mqtt.settings.redis.retry.base, Duration::from_secs(5));
    assert_eq!(redis2mqtt.settings.streams.group, "mqtt-group");
    assert_eq!(redis2mqtt.settings.streams.discovery.expect("on").dbs, [0, 1, 2]);
    assert_eq!(redis2mqtt.settings.streams.rate_limit, 1000);
    let template = "%(asctime)s - %(name)s - %(levelname)s - %(message)s";
    assert_eq!(redis2mqtt.settings.general.log.format, LogFormat::parse(template).ok());

    let redis2redis = load_sample(&CANONICAL, "redis2redis.env.conf");
    assert_eq!(redis2redis.warnings, [""; 0]);
    assert_eq!(redis2redis.settings.redis.host, "source-redis");
    assert_eq!(redis2redis.settings.streams.discovery.expect("on").patterns.len(), 3);

    let redis2kafka = load_sample(&CANONICAL, "redis2kafka.env.conf");
    let [nothing_to_read] = redis2kafka.warnings.as_slice() else { panic!("{:?}", redis2kafka.warnings) };
    assert!(nothing_to_read.contains("STREAM_AUTO_DISCOVERY"), "{nothing_to_read}");
    assert_eq!(redis2kafka.settings.redis.host, "localhost");
    assert!(redis2kafka.settings.redis.password.is_none());

    let redis2pg = load_sample(&SHORT, "redis2pg.env.conf");
    assert_eq!(redis2pg.warnings, [""; 0]);
    assert_eq!(redis2pg.settings.streams.named, [StreamName::new(0, "biosignal-stream")]);
    assert_eq!(redis2pg.settings.redis.host, "redis-cache");
}

#[test]
fn every_kind_of_mistake_at_once() {
    let conf = Conf::new(
        b"SOURCE_REDIS_PORT=70000\n\
          REDIS_PASSWORD=hunter2\n\
          REDIS_PASSWORD_FILE=/run/secrets/password\n\
          just words\n\
          REDIS_USERNAME=\"open\n\
          SOURCE_REDIS_SSL=perhaps\n\
          REDIS_DBS_TO_SEARCH=0-15,20-17\n\
          SOURCE_REDIS_ENCODING=klingon\n\
          REDIS_RETRY_INTERVAL=60 # s\n\
          SOURCE_REDIS_BACKOFF_MAX=30\n\
          REDIS_STREAMS=a,db70000:b\n\
          STREAM_BATCH_SIZE=0\n\
          STREAM_READ_TIMEOUT_MS=0\n\
          STREAM_START_ID=now\n\
          STREAM_OWNERSHIP=mine\n\
          STREAM_DISCOVERY_PATTERNS=,\n\
          FILTER_FIELD=type\n\
          REDIS_RATE_LIMIT=-1\n\
          LOG_LEVEL=LOUD\n\
          LOG_FORMAT=pretty\n\
          ADMIN_ADDR=9464\n\
          STREAM_BATCHSIZE=7\n\
          SOURCE_REDIS_POOL_SIZE=\xff\n",
    );
    let environment = [("SHUTDOWN_TIMEOUT", "1e1"), ("SOURCE_REDIS_HOST", "redis://u:hunter2@h")];
    let mistakes = conf.load(&CANONICAL, &environment).expect_err("does not load");
    assert_eq!(
        conf.plain(&mistakes),
        "\
file env.conf line 4: expected KEY=VALUE, a comment or an empty line; a value cannot span lines
REDIS_USERNAME (file env.conf line 5): the closing quote is missing; a value that holds one kind of quote is written in the other
SOURCE_REDIS_POOL_SIZE (file env.conf line 23): the line is not UTF-8
REDIS_PASSWORD_FILE=/run/secrets/password (file env.conf line 3) must not be set beside REDIS_PASSWORD (file env.conf line 2): which of them counts?
SOURCE_REDIS_SSL=perhaps (file env.conf line 6) must be true or false (1, 0, yes, no, on and off will do)
SOURCE_REDIS_HOST=redis://***@h (environment) must be a host name or address alone, without a scheme
SOURCE_REDIS_PORT=70000 (file env.conf line 1) must be a whole number from 1 to 65535
REDIS_RETRY_INTERVAL=60 (file env.conf line 9) must not be above SOURCE_REDIS_BACKOFF_MAX (file env.conf line 10), 30 s
REDIS_STREAMS=a,db70000:b (file env.conf line 11) must be streams as key or dbN:key between commas: database number 70000 is above 65535
REDIS_DBS_TO_SEARCH=0-15,20-17 (file env.conf line 7) must be database numbers such as 0-15 or 0,1,3-5, which 20-17 is not
STREAM_DISCOVERY_PATTERNS=, (file env.conf line 16) must hold at least one item between its commas
STREAM_START_ID=now (file env.conf line 14) must be 0, an entry ID such as 1526919030474-55, or $
STREAM_BATCH_SIZE=0 (file env.conf line 12) must be a whole number from 1 to 1000000
STREAM_READ_TIMEOUT_MS=0 (file env.conf line 13) must be a number of milliseconds from 1 to 2000
FILTER_FIELD=type (file env.conf line 17) needs FILTER_VALUES beside it
STREAM_OWNERSHIP=mine (file env.conf line 15) must be one of shared, exclusive
REDIS_RATE_LIMIT=-1 (file env.conf line 18) must be a whole number from 0 to 4294967295
SOURCE_REDIS_ENCODING=klingon (file env.conf line 8) must be a label of the WHATWG encoding standard, such as utf-8 or windows-1252
LOG_LEVEL=LOUD (file env.conf line 19) must be one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, WARN
LOG_FORMAT=pretty (file env.conf line 20) must be text, json or a template with %(message)s
ADMIN_ADDR=9464 (file env.conf line 21) must be address:port, such as 127.0.0.1:9464 or [::1]:9464, or off
SHUTDOWN_TIMEOUT=1e1 (environment) must be a number of seconds from 0 to 3600
22 mistakes in the settings of canonical"
    );
    assert_eq!(
        conf.plain(mistakes.warnings.join("\n")),
        "STREAM_BATCHSIZE (file env.conf line 22) is no setting of canonical; the nearest is STREAM_BATCH_SIZE"
    );
}

#[test]
fn a_url_beats_a_host() {
    let url = ("REDIS_URL", "redis://h/3");
    let loaded = load_env(&[url, ("SOURCE_REDIS_HOST", "elsewhere"), ("REDIS_SSL", "true")]).expect("loads");
    assert_eq!(
        loaded.warnings,
        ["REDIS_URL (environment) replaces SOURCE_REDIS_HOST (environment), REDIS_SSL (environment)"]
    );
    assert!(loaded.settings.redis.tls.is_none());
    assert_eq!(loaded.settings.redis.db, 3);
    assert!(loaded.effective.contains(&Effective {
        name: "SOURCE_REDIS_DB".into(),
        value: "3".into(),
        origin: "REDIS_URL (environment)".into()
    }));
    let loaded = load_env(&[url, ("REDIS_DB", "5"), ("REDIS_STREAMS", "a,db3:b")]).expect("loads");
    assert_eq!(loaded.settings.redis.db, 5);
    assert_eq!(loaded.settings.streams.named, [StreamName::new(5, "a"), StreamName::new(3, "b")]);
    assert!(
        loaded.warnings[0].contains("REDIS_DB (environment) something else, which counts"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn rules_over_several_settings() {
    let conf = Conf::new("");
    let pem = conf.write("a.pem", "");
    let tls = [("REDIS_SSL", "yes"), ("REDIS_SSL_CERT", pem.as_str())];
    assert!(report(&tls).contains("REDIS_SSL_CERT") && report(&tls).contains("needs SOURCE_REDIS_SSL_KEY"));
    assert!(
        report(&[("REDIS_SSL", "yes"), ("REDIS_SSL_CA", "/absent.pem")]).contains("must be a readable file")
    );
    assert!(warnings(&[("REDIS_SSL_CA", "/absent.pem")])[0].contains("no effect without"));
    assert!(warnings(&[("REDIS_SSL", "1"), ("REDIS_SSL_INSECURE", "1")])[0].contains("not verified"));
    assert!(report(&[("FILTER_VALUES", "a,b")]).contains("needs FILTER_FIELD"));
    assert!(warnings(&[("STREAM_AUTO_DISCOVERY", "off")])[0].contains("REDIS_STREAMS names none"));
    assert_eq!(warnings(&[("STREAM_AUTO_DISCOVERY", "off"), ("REDIS_STREAMS", "a")]), [""; 0]);
    assert!(warnings(&[("REDIS_STREAMS_ENABLED", "0")])[0].contains("no stream is read"));

    let filter =
        load_env(&[("MQTT_FILTER_FIELD", "type"), ("FILTER_VALUES", " alert, ,warning")]).expect("loads");
    let values = filter.settings.streams.filter.map(|filter| filter.values);
    assert_eq!(values, Some(vec!["alert".into(), "warning".into()]));

    let retry = |environment: &[(&str, &str)]| load_env(environment).expect("loads").settings.redis.retry;
    assert_eq!(retry(&[("REDIS_RETRY_INTERVAL", "60")]).cap, Duration::from_secs(60));
    assert_eq!(retry(&[("REDIS_BACKOFF_MAX", "0.5")]).base, Duration::from_millis(500));
}

#[test]
fn single_values() {
    let poll = |environment: &[(&str, &str)]| {
        let loaded = load_env(environment).expect("loads");
        (loaded.settings.streams.poll_interval, loaded.warnings.len())
    };
    assert_eq!(poll(&[("STREAM_READ_TIMEOUT_MS", "1500")]), (Duration::from_millis(1500), 0));
    let shown = load_env(&[("STREAM_READ_TIMEOUT_MS", "1500")]).expect("loads").effective;
    assert!(
        shown.iter().any(|shown| (&*shown.name, shown.value.as_str()) == ("STREAM_POLL_INTERVAL", "1.5"))
    );
    assert_eq!(poll(&[("STREAM_POLL_INTERVAL", "0.1")]), (Duration::from_millis(100), 0));
    assert_eq!(poll(&[("STREAM_READ_TIMEOUT_MS", "5000")]), (Duration::from_secs(2), 1));
    assert!(report(&[("STREAM_POLL_INTERVAL", "0")]).contains("seconds from 0.001 to 2"));

    let settings = |environment: &[(&str, &str)]| load_env(environment).expect("loads").settings;
    let dbs = |text| settings(&[("REDIS_DB_SEARCH_RANGE", text)]).streams.discovery.expect("on").dbs;
    assert_eq!(dbs("0,1,3-5"), [0, 1, 3, 4, 5]);
    assert_eq!(dbs(" 3 - 4 , 0, 3,"), [0, 3, 4]);
    for encoding in ["latin-1", "ISO_8859_1", "windows-1252"] {
        assert_eq!(settings(&[("REDIS_ENCODING", encoding)]).text.encoding, encoding_rs::WINDOWS_1252);
    }
    let start = |text| settings(&[("STREAM_START_ID", text)]).streams.start_id;
    assert_eq!(start("$"), StartId::Latest);
    assert_eq!(start("5-1"), StartId::After(EntryId { ms: 5, seq: 1 }));
    let admin = |text| settings(&[("ADMIN_ADDR", text)]).general.admin_addr.map(|addr| addr.to_string());
    assert_eq!(admin(""), None);
    assert_eq!(admin("off"), None);
    assert_eq!(admin("localhost:1").as_deref(), Some("127.0.0.1:1"));
    assert_eq!(admin("[::]:9464").as_deref(), Some("[::]:9464"));
    let log = |key, value| settings(&[(key, value)]).general.log;
    assert_eq!(log("LOG_LEVEL", "critical").level, tracing::Level::ERROR);
    assert_eq!(log("LOG_LEVEL", "Warn").level, tracing::Level::WARN);
    assert_eq!(log("LOG_FORMAT", "JSON").format, Some(LogFormat::Json));
    assert_eq!(settings(&[("REDIS_HOST", "[::1]")]).redis.host, "::1");
    let named = settings(&[("REDIS_STREAMS", "a, db0:a,,db2:b ")]).streams.named;
    assert_eq!(named, [StreamName::new(0, "a"), StreamName::new(2, "b")]);
}

#[test]
fn help_names_every_setting() {
    let help = SHORT.help();
    for setting in SHORT.settings() {
        assert!(setting.spellings().all(|spelling| help.contains(spelling)), "{}", setting.name);
    }
    assert!(help.contains("  REDIS_HOST [default: localhost] (or SOURCE_REDIS_HOST)\n"), "{help}");
    let milliseconds = "  STREAM_READ_TIMEOUT_MS [default: 1000] (or STREAM_POLL_INTERVAL)\n";
    assert!(help.contains(milliseconds), "{help}");
    assert!(help.contains("  REDIS_PASSWORD[_FILE] (or SOURCE_REDIS_PASSWORD)\n"), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn only_a_bridge_that_lists_clean_up_deletes() {
    let check = |value: &str, expected: Result<Cleanup, &str>| {
        let inputs = Conf::new("").inputs(&[("STREAM_CLEANUP", value)]);
        let loaded = load(&CLEANING, &inputs, |reader| {
            let streams = StreamSettings::read(reader, 0);
            assert_eq!(streams.cleanup, Cleanup::Ack, "until the bridge says so");
            Cleanup::read(reader)
        });
        match (loaded, expected) {
            (Ok(loaded), Ok(expected)) => assert_eq!(loaded.settings, expected, "{value}"),
            (Err(mistakes), Err(rule)) => assert!(mistakes.to_string().contains(rule), "{mistakes}"),
            (loaded, _) => panic!("{value}: {loaded:?}"),
        }
    };
    check("", Ok(Cleanup::Delete));
    check("delete", Ok(Cleanup::Delete));
    check("ACK", Ok(Cleanup::Ack));
    check("trim", Ok(Cleanup::Trim));
    check("xdel", Err("must be one of delete, ack, trim"));
    let loaded = load_env(&[("STREAM_CLEANUP", "delete")]).unwrap();
    assert_eq!(loaded.settings.streams.cleanup, Cleanup::Ack);
}
