//! Kafka for tests: the shared broker's topics, a private broker that may be stopped, killed and suspended, and what a
//! topic holds.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::oracle::{Arrival, id};
use crate::{LONG, end, free_port, shared, signal, unique, wait_for};

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Vec<u8>,
    /// The value is null, which is another thing than empty.
    pub tombstone: bool,
    pub headers: Vec<(String, String)>,
    pub timestamp: Option<i64>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).expect("the value is JSON")
    }
}

/// Brokers, by an address without security.
#[derive(Clone, Debug)]
pub struct Brokers(pub String);

impl Brokers {
    pub fn shared() -> Self {
        Self(shared("TEST_KAFKA_ADDR"))
    }

    /// A topic of the test's own.
    pub fn topic(&self, partitions: i32) -> String {
        let topic = unique("topic-");
        self.create(&topic, partitions, &[]);
        topic
    }

    pub fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            new = new.set(key, value);
        }
        let made = block_on(self.admin().create_topics([&new], &patient()));
        made.expect("the broker answers").remove(0).expect("the topic is made");
        // Known to the broker's own books, and not yet to all of it.
        wait_for("the topic is there", LONG, || topic, || self.partitions(topic));
    }

    pub fn delete(&self, topic: &str) {
        let gone = block_on(self.admin().delete_topics(&[topic], &patient()));
        gone.expect("the broker answers").remove(0).expect("the topic is deleted");
        wait_for("the topic is gone", LONG, || topic, || self.partitions(topic).is_none().then_some(()));
    }

    /// Sets what is given, and everything else of the topic to its default.
    pub fn configure(&self, topic: &str, config: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in config {
            change = change.set(key, value);
        }
        let changed = block_on(self.admin().alter_configs([&change], &patient()));
        changed.expect("the broker answers").remove(0).expect("the topic is changed");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0).set("log_level", "2");
        config
    }

    fn consumer(&self) -> BaseConsumer {
        // It needs a group to be made, and has none: partitions are assigned by hand.
        let mut config = self.config();
        config
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "100000000")
            .set("enable.partition.eof", "false");
        config.create().expect("a consumer")
    }

    /// The topic's partitions, if it is there.
    pub fn partitions(&self, topic: &str) -> Option<Vec<i32>> {
        let consumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        let topic = metadata.topics().first()?;
        let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
        let ids: Vec<_> = topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
        (topic.error().is_none() && led && !ids.is_empty()).then_some(ids)
    }

    /// All that the topic holds now: each partition in its order, one partition after the other.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer();
        let partitions = self.partitions(topic).unwrap_or_else(|| panic!("topic {topic} is there"));
        let mut records = Vec::new();
        for partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, Duration::from_secs(30))
                .expect("the broker tells what it holds");
            if low == high {
                continue;
            }
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
            consumer.assign(&list).expect("assigned");
            let begun = Instant::now();
            loop {
                assert!(begun.elapsed() < LONG, "read {} records of {topic}", records.len());
                let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                    let at = consumer.position().expect("a position");
                    let offset = at.find_partition(topic, partition).expect("assigned").offset();
                    // What a producer wrote about itself is no record, and stands at the end.
                    if matches!(offset, Offset::Offset(at) if at >= high) {
                        break;
                    }
                    continue;
                };
                let message = message.expect("a record");
                let offset = message.offset();
                if offset < high {
                    records.push(record(&message));
                }
                if offset + 1 >= high {
                    break;
                }
            }
        }
        records
    }

    /// What a topic holds as the ledger has it, by the headers.
    pub fn arrivals(&self, topic: &str) -> Vec<Arrival> {
        let arrival = |record: &Record| Arrival {
            stream: record.header("redis.stream").expect("the header redis.stream").to_owned(),
            id: id(record.header("redis.entry_id").expect("the header redis.entry_id")),
        };
        self.read(topic).iter().map(arrival).collect()
    }

    /// Waits until the topic holds so many records, and reads them.
    pub fn wait_records(&self, topic: &str, count: usize) -> Vec<Record> {
        let held = || self.held(topic);
        wait_for(&format!("{count} records"), LONG, held, || (held() >= count as i64).then_some(()));
        self.read(topic)
    }

    /// How many records it holds.
    pub fn held(&self, topic: &str) -> i64 {
        let consumer = self.consumer();
        let partitions = self.partitions(topic).unwrap_or_default();
        let of = |partition: &i32| {
            let (low, high) =
                consumer.fetch_watermarks(topic, *partition, Duration::from_secs(30)).unwrap_or_default();
            high - low
        };
        partitions.iter().map(of).sum()
    }
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text),
        value: message.payload().unwrap_or_default().to_vec(),
        tombstone: message.payload().is_none(),
        headers: message
            .headers()
            .map(|headers| {
                headers
                    .iter()
                    .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                    .collect()
            })
            .unwrap_or_default(),
        timestamp: message.timestamp().to_millis(),
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A private broker. It ends with the value.
pub struct Kafka {
    pub port: u16,
    controller: u16,
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl Kafka {
    /// As it comes, but that topics are not made by writing to them.
    pub fn start() -> Self {
        Self::with(&["auto.create.topics.enable=false"])
    }

    /// With more settings: `name=value` each.
    pub fn with(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let mut kafka = Self { port: free_port(), controller: free_port(), dir, options, child: None };
        fs::write(kafka.config(), kafka.properties()).expect("write server.properties");
        let formatted = kafka
            .java()
            .args(["kafka.tools.StorageTool", "format", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk", "--config"])
            .arg(kafka.config())
            .output()
            .expect("java starts: cargo xtask test installs it");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        kafka.up();
        kafka
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn brokers(&self) -> Brokers {
        Brokers(self.address())
    }

    /// Starts it (again): same port, same directory.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let file = self.dir.path().join("log");
        let log = File::create(&file).expect("a log file");
        let mut java = self.java();
        let child = java
            .arg("kafka.Kafka")
            .arg(self.config())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log twice"))
            .stdout(log)
            .spawn()
            .expect("java starts");
        let child = self.child.insert(child);
        let log = || fs::read_to_string(&file).unwrap_or_default();
        wait_for("the broker is ready", 2 * LONG, log, || {
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "the broker ended at once: {}", log());
            log().contains("Kafka Server started").then_some(())
        });
    }

    /// SIGTERM: it tells its clients, and writes everything down.
    pub fn stop(&mut self) {
        signal(self.pid(), "TERM");
        self.child.take().expect("it runs").wait().expect("it ends");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        end(&mut self.child.take().expect("it runs"));
    }

    /// Suspends it, or lets it go on: it takes connections and says nothing on any of them.
    pub fn suspend(&self, suspended: bool) {
        signal(self.pid(), if suspended { "STOP" } else { "CONT" });
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("server.properties")
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        // It is up sooner, and costs half of the time until then.
        java.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}/*", shared("TEST_KAFKA_PROGRAMS")));
        java
    }

    fn properties(&self) -> String {
        let Self { port, controller, dir, options, .. } = self;
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
{options}
",
            data = dir.path().join("data").display(),
            options = options.join("\n"),
        )
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}
