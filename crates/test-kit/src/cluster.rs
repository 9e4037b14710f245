//! A private Cluster, and a primary with replicas under Sentinels: real ones, quick to notice.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::redis::{Client, Redis, Reply};
use crate::{end, free_port, wait_until};

/// Replicas begin at once.
const QUICK_SYNC: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// Three primaries with a replica each. They end with the value.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let node = || {
            let bus = free_port().to_string();
            let cluster =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
            Redis::with(&[&cluster[..], &QUICK_SYNC].concat())
        };
        let cluster = Self { nodes: (0..6).map(|_| node()).collect() };
        let addresses = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        cli(["--cluster", "create"]
            .map(str::to_owned)
            .into_iter()
            .chain(addresses)
            .chain(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned)));
        cluster.wait_ok(6);
        let replication = || -> String {
            cluster.nodes.iter().map(|node| node.ask(0, &["INFO", "replication"]).text()).collect()
        };
        // A replica that never had its primary's data does not take over.
        wait_until("the replicas are in step", replication, || {
            replication().matches("state=online").count() == 3
        });
        cluster
    }

    /// Waits until so many nodes say that all is well.
    pub fn wait_ok(&self, nodes: usize) {
        let well = || -> Vec<u16> {
            let is_well = |node: &&Redis| {
                let answer =
                    Client::open(node.port).and_then(|mut client| client.ask(&[b"CLUSTER", b"INFO"]));
                answer.is_ok_and(|answer| answer.text().contains("cluster_state:ok"))
            };
            self.nodes.iter().filter(is_well).map(|node| node.port).collect()
        };
        wait_until("the Cluster is up", well, || well().len() >= nodes);
    }

    /// As in settings.
    pub fn url(&self) -> String {
        let mut ports = self.nodes.iter().map(|node| node.port);
        let first = ports.next().expect("six nodes");
        let others: Vec<_> = ports.map(|port| format!("node=127.0.0.1:{port}")).collect();
        format!("redis-cluster://127.0.0.1:{first}?{}", others.join("&"))
    }

    /// One command, at the node that has the key.
    pub fn ask(&self, words: &[&str]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut ports: Vec<u16> = self.nodes.iter().map(|node| node.port).collect();
        for _ in 0..20 {
            let port = ports.pop().expect("a node answers");
            match Client::open(port).and_then(|mut client| client.ask(&words)) {
                Err(_) => {}
                Ok(Reply::Error(error)) if error.starts_with("MOVED") => {
                    let (_, port) = error.rsplit_once(':').expect("MOVED slot host:port");
                    ports.push(port.parse().expect("a port"));
                }
                Ok(reply) => return reply,
            }
        }
        panic!("no node answers {words:?}");
    }

    /// Which of the nodes has this key.
    pub fn owner(&self, key: &str) -> usize {
        let slot = self.ask(&["CLUSTER", "KEYSLOT", key]).text();
        let slots = self.ask(&["CLUSTER", "SLOTS"]).list();
        let slot: i64 = slot.parse().expect("a slot");
        let has = |range: &Vec<Reply>| {
            let bound = |at: usize| range[at].text().parse::<i64>().expect("a slot");
            (bound(0)..=bound(1)).contains(&slot)
        };
        let range = slots.into_iter().map(Reply::list).find(has).expect("every slot has an owner");
        let port = range[2].clone().list()[1].text();
        self.nodes.iter().position(|node| node.port.to_string() == port).expect("one of ours")
    }

    /// Moves slots from one node to another, while both work.
    pub fn move_slots(&self, from: usize, to: usize, slots: usize) {
        let id = |at: usize| self.nodes[at].ask(0, &["CLUSTER", "MYID"]).text();
        let address = format!("127.0.0.1:{}", self.nodes[from].port);
        wait_until(
            "the nodes agree",
            || (),
            || {
                let checked = Command::new("redis-cli").args(["--cluster", "check", &address]).output();
                checked.is_ok_and(|output| output.status.success())
            },
        );
        let (from, to, slots) = (id(from), id(to), slots.to_string());
        cli([
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &slots,
            "--cluster-yes",
        ]
        .map(str::to_owned));
    }
}

fn cli(arguments: impl IntoIterator<Item = String>) {
    let output = Command::new("redis-cli").args(arguments).output().expect("redis-cli runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A primary with two replicas, and three Sentinels that watch them. They end with the value.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    ports: Vec<u16>,
    children: Vec<Child>,
    _dir: TempDir,
}

impl Sentinels {
    pub fn start() -> Self {
        let primary = Redis::with(&QUICK_SYNC);
        let replica = || Redis::with(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
        let replicas = [replica(), replica()];
        wait_until(
            "the replicas are in step",
            || (),
            || primary.ask(0, &["INFO", "replication"]).text().matches("state=online").count() == 2,
        );
        let dir = tempfile::tempdir().expect("a directory");
        let (mut ports, mut children) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let port = free_port();
            let file = dir.path().join(format!("{number}.conf"));
            let settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n",
                dir.path().display(),
                primary.port
            );
            fs::write(&file, settings).expect("write the settings");
            let log = File::create(dir.path().join(format!("{number}.log"))).expect("a log file");
            let child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(log)
                .spawn()
                .expect("a Sentinel starts");
            children.push(child);
            ports.push(port);
        }
        let [one, other] = replicas;
        let sentinels = Self { servers: vec![primary, one, other], ports, children, _dir: dir };
        let known =
            || -> Vec<String> { sentinels.ports.iter().map(|&port| sentinels.known_to(port)).collect() };
        wait_until("the Sentinels know each other and the replicas", known, || {
            known().iter().all(|line| line.contains("slaves=2,sentinels=3"))
        });
        sentinels
    }

    fn known_to(&self, port: u16) -> String {
        let answer = Client::open(port).and_then(|mut client| client.ask(&[b"INFO", b"sentinel"]));
        answer.map_or_else(|error| error.to_string(), |answer| answer.text())
    }

    /// As in settings.
    pub fn url(&self) -> String {
        let [first, second, third] = self.ports[..] else { panic!("three Sentinels") };
        format!(
            "redis-sentinel://127.0.0.1:{first}?node=127.0.0.1:{second}&node=127.0.0.1:{third}&sentinelServiceName=mymaster"
        )
    }

    /// Which of the servers is the primary now, as the first Sentinel says.
    pub fn primary(&self) -> usize {
        let mut client = Client::open(self.ports[0]).expect("the Sentinel answers");
        let words: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", b"mymaster"];
        let port = client.ask(&words).expect("the Sentinel answers").list()[1].text();
        self.servers.iter().position(|server| server.port.to_string() == port).expect("one of ours")
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
    }
}
