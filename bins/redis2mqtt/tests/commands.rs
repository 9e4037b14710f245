//! `check` and `dead-letters`, by the real binary on a real Redis and a real broker: what a person sees, and what is
//! changed by it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};
use std::time::Duration;

use fred::prelude::*;
use fred::types::Value;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};

fn variable(name: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the servers are is told to tests by the environment"
    )]
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}

/// One test's keys, group and topics, and a client to arrange and look with.
struct Place {
    name: String,
    redis: Client,
    dir: tempfile::TempDir,
}

/// What a run of the binary came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    async fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let redis =
            Builder::from_config(Config::from_url(&variable("TEST_REDIS_URL")).unwrap()).build().unwrap();
        redis.init().await.unwrap();
        Self { name, redis, dir: tempfile::tempdir().unwrap() }
    }

    fn key(&self, stream: &str) -> String {
        format!("{}:{stream}", self.name)
    }

    /// The binary with this test's settings.
    fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Ran {
        let broker = variable("TEST_MQTT_ADDR");
        let (host, port) = broker.rsplit_once(':').unwrap();
        let pattern = format!("{}:*", self.name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis2mqtt"));
        command
            .args(arguments)
            .env_clear()
            .current_dir(self.dir.path())
            .env("SOURCE_REDIS_URL", variable("TEST_REDIS_URL"))
            .env("SOURCE_REDIS_DB_SEARCH_RANGE", "0")
            .env("STREAM_DISCOVERY_PATTERNS", pattern)
            .env("STREAM_CONSUMER_GROUP", &self.name)
            .env("MQTT_BROKER_HOST", host)
            .env("MQTT_BROKER_PORT", port)
            .env("MQTT_BASE_TOPIC", &self.name)
            .envs(settings.iter().copied());
        let Output { status, stdout, stderr } = command.output().unwrap();
        Ran {
            code: status.code(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    async fn add(&self, key: &str, id: &str, fields: &[(&str, &[u8])]) -> String {
        let fields: Vec<(&str, Value)> =
            fields.iter().map(|(name, value)| (*name, Value::Bytes(value.to_vec().into()))).collect();
        self.redis.xadd(key, false, None, id, fields).await.unwrap()
    }

    /// A dead letter of `stream`, as a bridge writes it.
    async fn letter(
        &self,
        stream: &str,
        group: &str,
        id: &str,
        reason: &str,
        fields: &[(&str, &[u8])],
    ) -> String {
        let key = self.key(stream);
        let header: [(&str, &[u8]); 7] = [
            ("bridge", b"redis2mqtt"),
            ("group", group.as_bytes()),
            ("stream", key.as_bytes()),
            ("id", id.as_bytes()),
            ("reason", reason.as_bytes()),
            ("time", b"2026-01-02T03:04:05.678Z"),
            ("attempts", b"2"),
        ];
        self.add(&format!("{key}:dead-letter"), "*", &[&header[..], fields].concat()).await
    }

    async fn length(&self, key: &str) -> u64 {
        self.redis.xlen(key).await.unwrap()
    }
}

impl Ran {
    #[track_caller]
    fn expect(&self, code: i32, lines: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for line in lines {
            assert!(
                self.out.lines().any(|written| written.trim() == *line),
                "no line {line:?} in\n{}",
                self.out
            );
        }
    }
}

/// Columns, whatever their width.
fn words(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Everything published below a topic, from now on.
async fn subscribed(base: &str) -> EventLoop {
    let broker = variable("TEST_MQTT_ADDR");
    let (host, port) = broker.rsplit_once(':').unwrap();
    let options = MqttOptions::new(format!("{base}-reader"), host, port.parse().unwrap());
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe(format!("{base}/#"), QoS::AtLeastOnce).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    events
}

async fn received(events: &mut EventLoop, count: usize) -> Vec<Publish> {
    let mut publishes = Vec::new();
    let receive = async {
        while publishes.len() < count {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                publishes.push(publish);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), receive).await.expect("everything arrives");
    publishes
}

#[tokio::test]
async fn check_shows_each_value_with_its_origin_and_no_secret() {
    let place = Place::new("check-settings").await;
    std::fs::write(place.dir.path().join("env.conf"), "MQTT_QOS=2\nMQTT_PASSWORD=hunter2\nMQTT_QSO=1\n")
        .unwrap();
    let ran = place.run(&["check", "--log-level", "DEBUG"], &[("MQTT_USERNAME", "me")]);
    ran.expect(0, &[]);
    let lines = words(&ran.out);
    for line in [
        "SETTING VALUE ORIGIN",
        "MQTT_QOS 2 file ./env.conf line 1",
        "MQTT_PASSWORD *** file ./env.conf line 2",
        "MQTT_USERNAME me environment",
        "MQTT_KEEP_ALIVE 60 default",
        "LOG_LEVEL DEBUG command line",
    ] {
        assert!(lines.iter().any(|written| written == line), "no line {line:?} in\n{}", ran.out);
    }
    let warning = lines.iter().position(|line| line.starts_with("warning: MQTT_QSO")).expect("a warning");
    assert!(
        warning > lines.iter().rposition(|line| line.ends_with("default")).unwrap(),
        "warnings come last"
    );
    assert!(!ran.out.contains("hunter2") && ran.err.is_empty(), "{}{}", ran.out, ran.err);

    let ran = place.run(&["check"], &[("MQTT_QOS", "3"), ("SOURCE_REDIS_URL", "redis://u:hunter2@/:x")]);
    ran.expect(78, &[]);
    assert!(ran.err.contains("MQTT_QOS=3 (environment)"), "{}", ran.err);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    // A file that cannot be used is found without connecting.
    let ran = place.run(&["check"], &[("MQTT_USE_TLS", "true"), ("MQTT_TLS_CA", "/no/such/ca.pem")]);
    assert_ne!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.err.contains("/no/such/ca.pem"), "{}", ran.err);
}

#[tokio::test]
async fn check_connect_tells_what_would_be_done_and_does_nothing() {
    let place = Place::new("check-connect").await;
    for number in 1..=22 {
        place.add(&place.key(&format!("s{number:02}")), "1-1", &[("a", b"1")]).await;
    }
    for id in ["2-1", "3-1"] {
        place.add(&place.key("s01"), id, &[("a", b"1")]).await;
    }
    let _: Value = place.redis.xgroup_create(place.key("s01"), &place.name, "0", false).await.unwrap();
    let new = vec![fred::types::streams::XID::NewInGroup];
    let _: Value =
        place.redis.xreadgroup(&place.name, "c", Some(1), None, false, place.key("s01"), new).await.unwrap();
    let _: Value = place.redis.set(place.key("text"), "x", None, None, false).await.unwrap();
    let _ = place.letter("s01", &place.name, "1-1", "r", &[]).await;
    let named = [place.key("absent"), place.key("text"), place.key("s02")].join(",");
    let settings = [("REDIS_STREAMS", named.as_str())];

    let ran = place.run(&["check", "--connect"], &settings);
    let keys = |text: &str| text.replace("NAME", &place.name);
    ran.expect(
        0,
        &[
            &keys("database 0: 22 streams, 21 without the group NAME"),
            "… and 2 more (--all names them)",
            &keys("NAME:absent: named in REDIS_STREAMS and not there yet: read once it exists"),
            &keys("NAME:text: named in REDIS_STREAMS and not read: the key holds a string"),
        ],
    );
    let lines = words(&ran.out);
    for line in [keys("NAME:s01 exists 1 2"), keys("NAME:s02 new: all that the stream holds")] {
        assert!(lines.contains(&line), "no line {line:?} in\n{}", ran.out);
    }
    assert!(ran.out.contains("permissions of the Redis user default: SCAN"), "{}", ran.out);
    assert!(!ran.out.contains(&keys("NAME:s22")), "{}", ran.out);
    assert!(place.run(&["check", "--connect", "--all"], &settings).out.contains(&keys("NAME:s22")));

    let ran = place.run(&["check", "--connect"], &[("STREAM_START_ID", "5-5")]);
    assert!(words(&ran.out).contains(&keys("NAME:s02 new: after 5-5")), "{}", ran.out);
    let ran = place.run(&["check", "--connect"], &[("STREAM_AUTO_CREATE_CONSUMER_GROUPS", "false")]);
    assert!(ran.out.contains("missing: not read"), "{}", ran.out);

    let groups: Value = place.redis.xinfo_groups(place.key("s02")).await.unwrap();
    assert!(matches!(groups, Value::Array(groups) if groups.is_empty()), "no group was created");
    let kind: String = place.redis.r#type(place.key("absent")).await.unwrap();
    assert_eq!(kind, "none");
}

#[tokio::test]
async fn check_connect_names_what_the_user_may_not_do() {
    let place = Place::new("check-rights").await;
    place.add(&place.key("s"), "1-1", &[("a", b"1")]).await;
    let set_user = async |rights: &str| {
        let arguments: Vec<String> = ["SETUSER", &place.name, "reset", "on", ">pw"]
            .into_iter()
            .chain(rights.split(' '))
            .map(str::to_owned)
            .collect();
        let _: Value = place.redis.custom(fred::cmd!("ACL"), arguments).await.unwrap();
    };
    let url = variable("TEST_REDIS_URL").replace("redis://", &format!("redis://{}:pw@", place.name));
    let check = || place.run(&["check", "--connect"], &[("SOURCE_REDIS_URL", url.as_str())]);

    set_user(&format!("~{}:s +@all -xack", place.name)).await;
    let ran = check();
    let missing = format!("{}:s", place.name);
    ran.expect(
        1,
        &[
            &format!(
                "missing: XACK on 1 of 1 stream ({missing}): This user has no permissions to run the 'xack' command"
            ),
            &format!(
                "missing: XADD (dead letters) on 1 of 1 stream ({missing}): This user has no permissions to access the '{missing}:dead-letter' key"
            ),
        ],
    );
    set_user("~* +@all -@admin -acl").await;
    let ran = check();
    ran.expect(0, &[]);
    assert!(ran.out.contains("permissions cannot be checked"), "{}", ran.out);
    set_user("~* +@all -scan").await;
    let ran = check();
    ran.expect(1, &[]);
    assert!(ran.out.contains("database 0: cannot look for streams: NOPERM"), "{}", ran.out);
    let _: Value = place.redis.custom(fred::cmd!("ACL"), vec!["DELUSER", &place.name]).await.unwrap();
}

#[tokio::test]
async fn check_connect_says_which_server_is_out_of_reach() {
    let place = Place::new("check-down").await;
    // Bound and not listening: nobody else answers there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let url = format!("redis://127.0.0.1:{port}");
    let ran = place.run(
        &["check", "--connect"],
        &[("SOURCE_REDIS_URL", &url), ("MQTT_BROKER_HOST", "127.0.0.1"), ("MQTT_BROKER_PORT", &port)],
    );
    ran.expect(1, &[]);
    for line in ["cannot reach the source Redis at 127.0.0.1:", "cannot reach the MQTT broker 127.0.0.1:"] {
        assert!(ran.out.lines().any(|written| written.starts_with(line)), "{}", ran.out);
    }
}

#[tokio::test]
async fn letters_are_listed_and_shown() {
    let place = Place::new("letters").await;
    let own = place.name.clone();
    for (id, reason) in [("1-1", "too large"), ("2-1", "bad name"), ("3-1", "too large")] {
        place
            .letter("s", &own, id, reason, &[("text", "grün\u{7}".as_bytes()), ("bytes", b"\xff\x00")])
            .await;
    }
    place.letter("s", "others", "1-1", "not ours", &[("secret", b"theirs")]).await;
    place.letter("t", "others", "1-1", "not ours", &[]).await;
    let key = place.key("s");

    let ran = place.run(&["dead-letters", "list", "--json"], &[]);
    ran.expect(0, &[]);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert_eq!((&lines[0]["stream"], &lines[0]["reason"]), (&key.as_str().into(), &"too large".into()));
    assert_eq!((&lines[0]["letters"], &lines[0]["others"]), (&3.into(), &1.into()));
    assert_eq!((&lines[1]["letters"], &lines[1]["others"]), (&0.into(), &1.into()));
    let ran = place.run(&["dead-letters", "list", "--stream", &key], &[]);
    let line = words(&ran.out).into_iter().find(|line| line.starts_with(&format!("{key} 3 1 "))).unwrap();
    assert!(line.ends_with(" too large"), "{line}");
    assert!(!ran.out.contains(&place.key("t")));
    place.run(&["dead-letters", "list", "--stream", "nothing-here"], &[]).expect(0, &["no dead letters"]);

    let ran = place.run(&["dead-letters", "show", &key, "--id", "2-1"], &[]);
    ran.expect(
        0,
        &[
            "reason    bad name",
            "time      2026-01-02T03:04:05.678Z",
            "attempts  2",
            "text = grün\\u{7}",
            "bytes = base64:/wA=",
        ],
    );
    assert!(!ran.out.contains("entry 1-1"), "{}", ran.out);
    let ran = place.run(&["dead-letters", "show", &key, "--limit", "2"], &[]);
    ran.expect(0, &["… and more: --limit says how many are shown"]);
    assert!(ran.out.contains("entry 2-1") && !ran.out.contains("entry 3-1"), "{}", ran.out);
    let ran = place.run(&["dead-letters", "show", &key, "--json"], &[]);
    let letters: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 3, "those of others are not shown");
    assert_eq!(letters[0]["id"], "1-1");
    assert_eq!(
        letters[0]["fields"],
        serde_json::json!([["text", "grün\u{7}"], ["bytes", {"$base64": "/wA="}]])
    );
}

#[tokio::test]
async fn replay_publishes_in_order_and_never_touches_the_source_stream() {
    let place = Place::new("replay").await;
    let (own, key) = (place.name.clone(), place.key("s"));
    place.add(&key, "9-9", &[("n", b"9")]).await;
    for number in 1..=5u8 {
        let (id, text) = (format!("{number}-1"), number.to_string());
        place.letter("s", &own, &id, "was too large", &[("n", text.as_bytes())]).await;
    }
    place.letter("s", "others", "1-1", "not ours", &[("n", b"7")]).await;
    place.letter("t", &own, "1-1", "was too large", &[("n", &[b'x'; 3000])]).await;
    let letters = format!("{key}:dead-letter");

    let ran = place.run(&["dead-letters", "replay", "--all"], &[]);
    ran.expect(2, &[]);
    assert!(ran.err.contains("--yes"), "{}", ran.err);
    place.run(&["dead-letters", "replay", "--yes"], &[]).expect(2, &[]);
    assert_eq!(place.length(&letters).await, 6, "nothing was done");

    let mut events = subscribed(&place.name).await;
    let two = ["dead-letters", "replay", "--stream", &key, "--id", "2-1", "--id", "1-1", "--yes"];
    place.run(&two, &[]).expect(0, &["2 letters delivered and removed, 0 stayed"]);
    let ran = place.run(&["dead-letters", "replay", "--all", "--yes"], &[("MQTT_MAX_PACKET_SIZE", "2000")]);
    ran.expect(
        1,
        &[
            &format!("{key}: 3 of 3 letters delivered and removed"),
            &format!("{}: 0 of 1 letter delivered and removed", place.key("t")),
            "3 letters delivered and removed, 1 stayed",
        ],
    );
    assert!(ran.out.contains("entry 1-1 refused again: the packet would be"), "{}", ran.out);
    let published: Vec<(String, serde_json::Value)> = received(&mut events, 5)
        .await
        .into_iter()
        .map(|publish| (publish.topic, serde_json::from_slice(&publish.payload).unwrap()))
        .collect();
    for (number, (topic, payload)) in (1..).zip(&published) {
        assert_eq!(*topic, format!("{own}/{}", key.replace(':', "/")));
        assert_eq!(payload["stream"], key.as_str());
        assert_eq!(payload["id"], format!("{number}-1"));
        assert_eq!(payload["data"], serde_json::json!({ "n": number }));
    }
    assert_eq!(place.length(&letters).await, 1, "the letter of the others stays");
    assert_eq!(place.length(&format!("{}:dead-letter", place.key("t"))).await, 1);
    assert_eq!(place.length(&key).await, 1);
    place.run(&["dead-letters", "replay", "--stream", &key, "--yes"], &[]).expect(0, &["nothing to deliver"]);
}

#[tokio::test]
async fn purge_removes_old_letters_of_its_own_group() {
    let place = Place::new("purge").await;
    let (own, key) = (place.name.clone(), place.key("s"));
    let letters = format!("{key}:dead-letter");
    // Written in 2001, says its ID.
    let header: [(&str, &[u8]); 7] = [
        ("bridge", b"redis2mqtt"),
        ("group", own.as_bytes()),
        ("stream", key.as_bytes()),
        ("id", b"1-1"),
        ("reason", b"r"),
        ("time", b"2001-09-09T01:46:40.000Z"),
        ("attempts", b"1"),
    ];
    place.add(&letters, "1000000000000-0", &header).await;
    place.letter("s", &own, "2-1", "r", &[]).await;
    place.letter("s", "others", "3-1", "r", &[]).await;

    let ran = place.run(&["dead-letters", "purge"], &[]);
    ran.expect(2, &[]);
    assert_eq!(place.length(&letters).await, 3);
    place.run(&["dead-letters", "purge", "--older-than", "soon", "--yes"], &[]).expect(2, &[]);
    place
        .run(&["dead-letters", "purge", "--older-than", "30d", "--yes"], &[])
        .expect(0, &[&format!("{key}: 1 removed")]);
    assert_eq!(place.length(&letters).await, 2);
    // The dead-letter stream's own name means the same.
    place
        .run(&["dead-letters", "purge", "--stream", &letters, "--yes"], &[])
        .expect(0, &[&format!("{key}: 1 removed")]);
    let left = place.run(&["dead-letters", "list", "--json"], &[]);
    assert!(left.out.contains("\"letters\":0,\"others\":1"), "{}", left.out);
}
