//! A small client of Kafka: `kcat` reads and counts, so that this program is built without a library of Kafka and judges
//! a bridge by other code than the bridge's. What kcat cannot do, to make a topic, is one request of Kafka's protocol
//! (<https://kafka.apache.org/protocol.html>, CreateTopics version 2).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::install;
use crate::process::wait_until;

/// A broker on this machine, plain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kafka(u16);

/// A reader that ends with the value.
pub(crate) struct Consumer {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

/// What is told of each record. A bridge's value is JSON in one line.
pub(crate) struct Record<'a> {
    /// `topic[partition]`
    pub(crate) place: &'a str,
    /// Milliseconds since 1970.
    pub(crate) time: &'a str,
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

const FORMAT: &str = "%t[%p]\t%T\t%k\t%s\n";
const TOPIC_ALREADY_EXISTS: i16 = 36;

impl Kafka {
    pub(crate) fn at(port: u16) -> Self {
        Self(port)
    }

    /// Makes a topic that keeps its records for ever: the bench's bear times of years ago. Returns once it can be
    /// written to.
    pub(crate) fn create(self, topic: &str, partitions: u32) -> Result<()> {
        let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)).context("connect to Kafka")?;
        broker.set_read_timeout(Some(Duration::from_secs(30)))?;
        broker.write_all(&creation(topic, partitions))?;
        let mut length = [0; 4];
        broker.read_exact(&mut length).context("read Kafka's answer")?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        broker.read_exact(&mut answer).context("read Kafka's answer")?;
        let error = created(topic, &answer).context("Kafka's answer is not as its protocol says")?;
        ensure!(error != TOPIC_ALREADY_EXISTS, "make the topic {topic}: it exists");
        ensure!(error == 0, "make the topic {topic}: Kafka answers with error {error}");
        let ready = wait_until(Duration::from_secs(30), || self.written(topic, partitions).is_ok());
        ensure!(ready, "the topic {topic} is made, and cannot be used");
        Ok(())
    }

    /// How many records were ever written there: the sum of the partitions' next offsets.
    pub(crate) fn written(self, topic: &str, partitions: u32) -> Result<u64> {
        let ends = (0..partitions).flat_map(|partition| ["-t".to_owned(), format!("{topic}:{partition}:-1")]);
        let output = self.kcat()?.arg("-Q").args(ends).output().context("start kcat")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ask Kafka for its offsets: {}", said.trim_end());
        let text = String::from_utf8_lossy(&output.stdout);
        let offset = |line: &str| line.rsplit_once(' ')?.1.parse::<u64>().ok();
        let offsets: Option<Vec<u64>> = text.lines().map(offset).collect();
        let offsets = offsets.filter(|offsets| offsets.len() == partitions as usize);
        Ok(offsets
            .with_context(|| format!("kcat names an offset for each partition, not {text:?}"))?
            .iter()
            .sum())
    }

    /// The topics that there are; an answer means that the broker is there.
    pub(crate) fn topics(self) -> Result<Vec<String>> {
        let output = self.kcat()?.args(["-L", "-m", "5"]).output().context("start kcat")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ask Kafka for its topics: {}", said.trim_end());
        // `  topic "NAME" with 1 partitions:`
        let name =
            |line: &str| Some(line.trim_start().strip_prefix("topic \"")?.split_once('"')?.0.to_owned());
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(name).collect())
    }

    /// Every record that the topic holds now, each partition in its order.
    pub(crate) fn each(self, topic: &str, record: impl FnMut(Record<'_>)) -> Result<()> {
        let mut child = self
            .kcat()?
            .args(["-C", "-e", "-q", "-o", "beginning", "-f", FORMAT, "-t", topic])
            .stdout(Stdio::piped())
            .spawn()
            .context("start kcat")?;
        read(child.stdout.take(), record);
        let status = child.wait().context("wait for kcat")?;
        ensure!(status.success(), "read the topic {topic}: kcat ended with {status}");
        Ok(())
    }

    /// Every record of the topics, from the first on and as they come, on a thread of its own.
    pub(crate) fn watch(
        self,
        topics: &[String],
        record: impl FnMut(Record<'_>) + Send + 'static,
    ) -> Result<Consumer> {
        // It reads several topics only as the member of a group, which has to be one of its own.
        let group = format!("watch-{}", topics.join("-"));
        let mut child = self
            .kcat()?
            .args(["-q", "-u", "-X", "auto.offset.reset=earliest", "-f", FORMAT, "-G", &group])
            .args(topics)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start kcat")?;
        let stdout = child.stdout.take();
        let reader = std::thread::spawn(move || read(stdout, record));
        Ok(Consumer { child, reader: Some(reader) })
    }

    /// It ends with this program even when that is killed: setpriv (util-linux) asks the kernel for it.
    fn kcat(self) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(install::path_of("kcat")?)
            .args(["-b", &format!("127.0.0.1:{}", self.0)])
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(output: Option<impl std::io::Read>, mut record: impl FnMut(Record<'_>)) {
    for line in BufReader::new(output.expect("piped")).lines().map_while(Result::ok) {
        let mut parts = line.splitn(4, '\t');
        if let [Some(place), Some(time), Some(key), Some(value)] = [(); 4].map(|()| parts.next()) {
            record(Record { place, time, key, value });
        }
    }
}

/// The request, with its length before it.
fn creation(topic: &str, partitions: u32) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend_from_slice(&19_i16.to_be_bytes()); // CreateTopics
    request.extend_from_slice(&2_i16.to_be_bytes()); // its version
    request.extend_from_slice(&1_i32.to_be_bytes()); // which request this is
    put_text(&mut request, "xtask");
    request.extend_from_slice(&1_i32.to_be_bytes()); // one topic
    put_text(&mut request, topic);
    request.extend_from_slice(&partitions.to_be_bytes());
    request.extend_from_slice(&1_i16.to_be_bytes()); // one replica
    request.extend_from_slice(&0_i32.to_be_bytes()); // Kafka chooses where
    request.extend_from_slice(&1_i32.to_be_bytes()); // one setting
    put_text(&mut request, "retention.ms");
    put_text(&mut request, "-1");
    request.extend_from_slice(&30_000_i32.to_be_bytes()); // milliseconds until it gives up
    request.push(0); // not only as a trial
    let length = u32::try_from(request.len()).expect("a request is short");
    [&length.to_be_bytes(), request.as_slice()].concat()
}

fn put_text(request: &mut Vec<u8>, text: &str) {
    request.extend_from_slice(&i16::try_from(text.len()).expect("a name is short").to_be_bytes());
    request.extend_from_slice(text.as_bytes());
}

/// The error code in the answer: which request, a pause, one topic with its name, and the code.
fn created(topic: &str, answer: &[u8]) -> Option<i16> {
    let code = answer.get(4 + 4 + 4 + 2 + topic.len()..)?.first_chunk()?;
    Some(i16::from_be_bytes(*code))
}
