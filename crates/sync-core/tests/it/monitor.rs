//! `monitor` against private servers: what it says of streams, that it changes nothing, and what becomes of it when the
//! server does.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sync_core::commands::monitor::{self, MonitorArguments, Output};
use sync_core::commands::{CommandError, Ended};
use sync_core::pattern::Pattern;
use sync_core::record::StreamName;
use sync_core::settings::{Discovery, RedisSettings, StreamSettings};
use sync_core::shutdown::Shutdown;
use test_kit::free_port;
use test_kit::redis::Redis;
use tokio::task::JoinHandle;

use crate::script::{redis_at, streams_of, until};

const GROUP: &str = "bridge";
const SOON: Duration = Duration::from_millis(50);

fn redis(port: u16) -> RedisSettings {
    redis_at(&format!("redis://127.0.0.1:{port}"), 0)
}

/// Every stream of databases 0 and 1.
fn streams() -> StreamSettings {
    let discovery = Discovery { dbs: vec![0, 1], patterns: vec![Pattern::new("*")], exclude: vec![] };
    StreamSettings { discovery: Some(discovery), ..streams_of(GROUP, "consumer") }
}

fn ask(redis: &Redis, command: &str) {
    redis.ask(0, &command.split(' ').collect::<Vec<_>>());
}

/// Entries `from-0` to `to-0`.
fn add(redis: &Redis, key: &str, from: u64, to: u64) {
    const SCRIPT: &str =
        "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('XADD', KEYS[1], i .. '-0', 'n', i) end";
    redis.ask(0, &["EVAL", SCRIPT, "1", key, &from.to_string(), &to.to_string()]);
}

fn read(redis: &Redis, key: &str, count: u64) {
    ask(redis, &format!("XREADGROUP GROUP {GROUP} c COUNT {count} STREAMS {key} >"));
}

async fn once(redis: RedisSettings, streams: StreamSettings) -> Result<(Ended, Value), CommandError> {
    let arguments = MonitorArguments { json: true, once: true, all: false };
    let mut out = Vec::new();
    let stop = std::future::pending();
    let ended = monitor::watch(redis, streams, SOON, Output::Json, &arguments, stop, &mut out).await?;
    Ok((ended, serde_json::from_slice(&out).unwrap()))
}

/// What is said of one stream.
#[track_caller]
fn of<'a>(look: &'a Value, stream: &str) -> &'a Value {
    let streams = look["streams"].as_array().unwrap();
    streams.iter().find(|row| row["stream"] == stream).unwrap_or_else(|| panic!("{stream} is in {look:#}"))
}

fn kinds(row: &Value) -> Vec<&str> {
    row["warnings"].as_array().unwrap().iter().map(|warning| warning["kind"].as_str().unwrap()).collect()
}

/// A monitor that goes on, and what it has written.
struct Watching {
    stop: sync_core::shutdown::Trigger,
    task: JoinHandle<Result<Ended, CommandError>>,
    written: Written,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Watching {
    fn begin(redis: RedisSettings, streams: StreamSettings, output: Output) -> Self {
        let (stop, shutdown) = Shutdown::manual();
        let written = Written::default();
        let mut out = written.clone();
        let task = tokio::spawn(async move {
            let arguments = MonitorArguments::default();
            let stop = shutdown.requested();
            monitor::watch(redis, streams, SOON, output, &arguments, stop, &mut out).await
        });
        Self { stop, task, written }
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }

    fn looks(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for two more looks, so that one has begun since; the last one.
    async fn look(&self) -> Value {
        let before = self.looks().len();
        until("two looks", async || (self.looks().len() >= before + 2, self.text())).await;
        self.looks().pop().unwrap()
    }

    async fn end(self) {
        self.stop.request();
        assert_eq!(self.task.await.unwrap().unwrap(), Ended::Well);
    }
}

#[tokio::test]
async fn the_numbers_are_right_and_nothing_is_written() {
    let server = Redis::start();
    add(&server, "s", 1, 20);
    ask(&server, &format!("XGROUP CREATE s {GROUP} 0"));
    ask(&server, "XGROUP CREATE s others $");
    read(&server, "s", 8);
    ask(&server, &format!("XACK s {GROUP} 1-0 2-0 3-0"));
    add(&server, "s:dead-letter", 1, 3);
    add(&server, "ahead", 1, 7);
    ask(&server, &format!("XGROUP CREATE ahead {GROUP} 0"));
    add(&server, "without", 1, 2);
    server.ask(1, &["XADD", "in-1", "5-5", "n", "5"]);
    server.ask(1, &["XGROUP", "CREATE", "in-1", GROUP, "$"]);
    ask(&server, "SET text x");
    // These and no others.
    ask(&server, "ACL SETUSER watcher on >secret ~* +select +scan +xinfo +xpending +xlen");
    let written = server.info("rdb_changes_since_last_save");
    let watcher = redis_at(&format!("redis://watcher:secret@127.0.0.1:{}", server.port), 0);
    let mut settings = streams();
    settings.named = ["text", "to-come"].map(|key| StreamName::new(0, key)).into();
    let (ended, look) = once(watcher.clone(), settings.clone()).await.unwrap();
    assert_eq!(ended, Ended::Badly);

    let s = of(&look, "s");
    assert_eq!(
        [&s["length"], &s["pending"], &s["consumers"], &s["dead_letters"]],
        [&20.into(), &5.into(), &1.into(), &Value::from(3)]
    );
    assert_eq!((&s["first"], &s["last"]), (&"1-0".into(), &"20-0".into()));
    // By Redis' own count, which nobody can check from here.
    assert_eq!((&s["lag"], &s["lag_exact"]), (&12.into(), &false.into()));
    let oldest = &s["oldest_pending"];
    assert_eq!(
        (&oldest["id"], &oldest["deliveries"], &oldest["age_ms"]),
        (&"4-0".into(), &1.into(), &Value::Null)
    );
    assert!(oldest["pending_ms"].as_u64().unwrap() < 60_000);
    let groups = s["groups"].as_array().unwrap();
    let group =
        |at: usize| [&groups[at]["name"], &groups[at]["own"], &groups[at]["lag"], &groups[at]["lag_exact"]];
    assert_eq!(group(0), [&Value::from(GROUP), &true.into(), &12.into(), &false.into()]);
    assert_eq!(group(1), [&Value::from("others"), &false.into(), &0.into(), &true.into()]);
    assert_eq!(kinds(s), ["dead_letters"]);

    let ahead = of(&look, "ahead");
    assert_eq!((&ahead["lag"], &ahead["lag_exact"]), (&7.into(), &true.into()));
    assert_eq!(kinds(ahead), ["not_read"]);
    let without = of(&look, "without");
    assert_eq!((&without["lag"], kinds(without)), (&Value::Null, vec!["no_group"]));
    let in_1 = of(&look, "db1:in-1");
    assert_eq!((&in_1["health"], &in_1["lag"]), (&"OK".into(), &0.into()));
    assert_eq!(kinds(of(&look, "text")), ["no_stream"]);
    assert_eq!(of(&look, "to-come")["health"], "OK");
    let totals = serde_json::json!({"streams": 6, "ok": 2, "warn": 2, "critical": 2, "length": 30, "lag": 19,
        "lag_exact": false, "pending": 5, "dead_letters": 3});
    assert_eq!(look["totals"], totals);

    let watching = Watching::begin(watcher, settings, Output::Json);
    watching.look().await;
    watching.end().await;
    assert_eq!(server.info("rdb_changes_since_last_save"), written);
    assert_eq!(server.ask(0, &["XINFO", "GROUPS", "without"]).list().len(), 0);
}

#[tokio::test]
async fn one_look_ends_well_only_if_there_is_nothing_to_warn_of() {
    let server = Redis::start();
    let (ended, look) = once(redis(server.port), streams()).await.unwrap();
    assert_eq!((ended, &look["totals"]["streams"]), (Ended::Well, &0.into()));
    add(&server, "s", 1, 5);
    ask(&server, &format!("XGROUP CREATE s {GROUP} 0"));
    read(&server, "s", 9);
    let (ended, look) = once(redis(server.port), streams()).await.unwrap();
    assert_eq!((ended, kinds(of(&look, "s"))), (Ended::Well, vec![]));
    // Trimmed behind the group, and before it.
    add(&server, "s", 6, 205);
    ask(&server, "XTRIM s MAXLEN 190");
    let (ended, look) = once(redis(server.port), streams()).await.unwrap();
    let s = of(&look, "s");
    assert_eq!((ended, &s["lag"], &s["lag_exact"]), (Ended::Badly, &190.into(), &true.into()));
    assert_eq!(kinds(s), ["lost", "near_trimming"]);
    let what = s["warnings"][0]["what"].as_str().unwrap();
    assert_eq!(what, "10 trimmed or deleted before the group was handed them");

    let away = once(redis(free_port()), streams()).await;
    assert!(matches!(away, Err(CommandError::Source { .. })), "{away:?}");
    ask(&server, "ACL SETUSER blind on >secret ~* +select +scan");
    let blind = redis_at(&format!("redis://blind:secret@127.0.0.1:{}", server.port), 0);
    let (ended, look) = once(blind, streams()).await.unwrap();
    let s = of(&look, "s");
    assert_eq!((ended, kinds(s), &s["dead_letters"]), (Ended::Badly, vec!["not_readable"], &Value::Null));
    ask(&server, "ACL SETUSER blind -scan");
    let blind = redis_at(&format!("redis://blind:secret@127.0.0.1:{}", server.port), 0);
    let (ended, look) = once(blind, streams()).await.unwrap();
    assert_eq!((ended, look["problems"].as_array().unwrap().len()), (Ended::Badly, 2));
}

#[tokio::test]
async fn look_by_look() {
    let server = Redis::start();
    add(&server, "s", 1, 10);
    ask(&server, &format!("XGROUP CREATE s {GROUP} 0"));
    let watching = Watching::begin(redis(server.port), streams(), Output::Json);
    let lag = |look: &Value| (of(look, "s")["lag"].clone(), of(look, "s")["lag_exact"].clone());
    assert_eq!(lag(&watching.look().await), (10.into(), true.into()));
    // Half of it is read: what Redis counts is certain, since it was right before.
    read(&server, "s", 4);
    assert_eq!(lag(&watching.look().await), (6.into(), true.into()));
    read(&server, "s", 100);
    assert_eq!(lag(&watching.look().await), (0.into(), true.into()));
    // Deleted ahead: Redis does not know either.
    add(&server, "s", 11, 20);
    read(&server, "s", 2);
    ask(&server, "XDEL s 15-0");
    assert_eq!(lag(&watching.look().await), (Value::Null, false.into()));
    read(&server, "s", 100);
    assert_eq!(lag(&watching.look().await), (0.into(), true.into()));
    // Nobody reads, and more comes.
    for batch in 1.. {
        add(&server, "s", batch * 100, batch * 100 + 99);
        let look = watching.look().await;
        if kinds(of(&look, "s")).contains(&"lag_growing") {
            break;
        }
        assert!(batch < 10, "{look:#}");
    }
    // A new stream, one that is gone, and one that is something else.
    add(&server, "new", 1, 1);
    until("the new stream", async || {
        let look = watching.look().await;
        (look["totals"]["streams"] == 2, look)
    })
    .await;
    ask(&server, "DEL s new");
    ask(&server, "SET new x");
    let look = watching.look().await;
    assert_eq!((kinds(of(&look, "s")), kinds(of(&look, "new"))), (vec!["vanished"], vec!["no_stream"]));
    add(&server, "s", 1, 1);
    assert_eq!(kinds(of(&watching.look().await, "s")), ["no_group"]);
    watching.end().await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_said_once_and_waited_for() {
    let mut server = Redis::durable();
    add(&server, "s", 1, 10);
    let watching = Watching::begin(redis(server.port), streams(), Output::Lines);
    let looks = |text: &str| text.matches("INFO  looked at the streams streams=1 ").count();
    until("a look", async || (looks(&watching.text()) > 0, watching.text())).await;
    server.kill();
    until("it is said", async || (watching.text().contains("does not answer"), watching.text())).await;
    // Long enough for several attempts.
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.up();
    until("it is back", async || (watching.text().contains("answers again"), watching.text())).await;
    let before = looks(&watching.text());
    until("looks", async || (looks(&watching.text()) > before + 1, watching.text())).await;
    let text = watching.text();
    let count = |words: &str| text.matches(words).count();
    assert_eq!((count("source does not answer"), count("source answers again")), (1, 1), "{text}");
    assert!(count("stream needs attention stream=\"s\" health=WARN length=10 first=1-0") > 2, "{text}");
    watching.end().await;
}

#[tokio::test]
async fn at_start_it_tries_as_often_as_the_settings_say() {
    let watching = Watching::begin(redis(free_port()), streams(), Output::Lines);
    let ended = watching.task.await.unwrap();
    assert!(matches!(ended, Err(CommandError::Source { .. })), "{ended:?}");
    assert_eq!(String::from_utf8(watching.written.0.lock().unwrap().clone()).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn ten_thousand_streams_are_asked_about_in_pages() {
    const SCRIPT: &str = "for i = 1, 10000 do local key = 'device:' .. i .. ':stream' \
        redis.call('XADD', key, '1-0', 'n', i) redis.call('XGROUP', 'CREATE', key, ARGV[1], '$') end";
    let server = Redis::start();
    server.ask(0, &["EVAL", SCRIPT, "0", GROUP]);
    let (ended, look) = once(redis(server.port), streams()).await.unwrap();
    assert_eq!((ended, &look["totals"]["ok"]), (Ended::Well, &10_000.into()));
    // A limit is kept: 10,000 streams are some 120 requests.
    let began = tokio::time::Instant::now();
    once(redis(server.port), StreamSettings { rate_limit: 50, ..streams() }).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}
