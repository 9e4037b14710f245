//! A Redis Cluster of six processes: three primaries, each with a replica.

use std::process::{Command, Stdio};

use crate::redis::{Redis, Reply};
use crate::{LONG, free_port, wait_for, wait_until};

/// How long a node may be silent before the others replace it, in milliseconds.
const NODE_TIMEOUT: &str = "2000";

const SLOTS: usize = 16384;

/// Port and slots of each primary, in order of the ports.
type Owners = Vec<(u16, Vec<(u16, u16)>)>;

/// It ends with the value.
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Up, of one mind, and with replicas that would take over.
    pub fn start() -> Self {
        let node = |_| {
            let bus = free_port().to_string();
            let timeout = ["--cluster-node-timeout", NODE_TIMEOUT];
            Redis::with(&[&["--cluster-enabled", "yes", "--cluster-port", &bus], &timeout[..]].concat())
        };
        let cluster = Self { nodes: (0..6).map(node).collect() };
        let addresses: Vec<String> =
            cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut arguments = vec!["--cluster", "create"];
        arguments.extend(addresses.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        redis_cli(&arguments).unwrap_or_else(|error| panic!("redis-cli --cluster create: {error}"));
        cluster.wait_until_well();
        for primary in cluster.primaries() {
            primary.wait_for_replicas(1);
        }
        cluster
    }

    /// As in settings.
    pub fn url(&self) -> String {
        let ports: Vec<String> = self.nodes.iter().map(|node| node.port.to_string()).collect();
        let others: Vec<String> = ports[1..].iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", ports[0], others.join("&"))
    }

    /// The processes that run.
    pub fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    /// Those of them that own slots.
    pub fn primaries(&self) -> Vec<&Redis> {
        let owners = self.owners();
        self.nodes().filter(|node| owners.iter().any(|(port, _)| *port == node.port)).collect()
    }

    /// The primary that owns a key's slot.
    pub fn owner_of(&self, key: &str) -> &Redis {
        let slot = self.slot_of(key);
        let owners = self.owners();
        let owns = |slots: &[(u16, u16)]| slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        let port = owners.iter().find(|(_, slots)| owns(slots)).map(|(port, _)| *port);
        self.nodes().find(|node| Some(node.port) == port).expect("each slot has an owner that runs")
    }

    /// One command, where its key is: the second word.
    pub fn ask(&self, words: &[&str]) -> Reply {
        self.owner_of(words[1]).ask(0, words)
    }

    /// `kill -9` of the primary that owns a key's slot, once its replica has all that it has.
    pub fn kill_owner_of(&mut self, key: &str) {
        let port = self.owner_of(key).port;
        let node = self.node(port);
        node.wait_for_replicas(1);
        node.kill();
    }

    /// The process with this port.
    pub fn node(&mut self, port: u16) -> &mut Redis {
        self.nodes.iter_mut().find(|node| node.port == port).expect("it is one of the nodes")
    }

    /// Whether another node owns the slots of the one that had this port.
    pub fn is_replaced(&self, port: u16) -> bool {
        !self.owners().iter().any(|(owner, _)| *owner == port)
    }

    /// Waits until every node that runs says that the Cluster is well, and all say the same of who owns what.
    pub fn wait_until_well(&self) {
        let state =
            |node: &Redis| node.try_ask(&["CLUSTER", "INFO"]).map_or_else(|error| error, |it| it.text());
        wait_until(
            "the Cluster is well",
            || self.nodes().map(state).collect::<Vec<_>>(),
            || {
                let well = self.nodes().all(|node| state(node).contains("cluster_state:ok"));
                let owners = self.owners();
                let run = owners.iter().all(|(port, _)| self.nodes().any(|it| it.port == *port));
                let owned = owners.iter().flat_map(|(_, slots)| slots);
                let covered = owned.map(|(first, last)| usize::from(last - first) + 1).sum::<usize>();
                let agreed = self.nodes().all(|node| owners_seen_by(node) == owners);
                well && run && covered == SLOTS && agreed
            },
        );
    }

    /// Moves so many slots, with their keys, from one primary to another while everything goes on.
    pub fn move_slots(&self, from: &Redis, to: &Redis, slots: u16) {
        // Where the last move has not been heard of everywhere, the next is refused.
        let address = format!("127.0.0.1:{}", from.port);
        let check = || redis_cli(&["--cluster", "check", &address]);
        wait_for("the nodes agree", LONG, check, || check().ok());
        let (from, to, slots) = (id(from), id(to), slots.to_string());
        let arguments = [
            &["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to][..],
            &["--cluster-slots", &slots, "--cluster-yes"],
        ];
        redis_cli(&arguments.concat()).unwrap_or_else(|error| panic!("redis-cli --cluster reshard: {error}"));
    }

    /// Begins to move a key's slot to another primary, and stops halfway: the key is there, the slot is not. Which
    /// primary that is.
    pub fn send_ahead(&self, key: &str) -> &Redis {
        let from = self.owner_of(key);
        let to = self.primaries().into_iter().find(|other| other.port != from.port).expect("there are three");
        let (slot, port) = (self.slot_of(key).to_string(), to.port.to_string());
        to.ask(0, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.ask(0, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        from.ask(0, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        to
    }

    fn slot_of(&self, key: &str) -> u16 {
        let slot = self.any_node().ask(0, &["CLUSTER", "KEYSLOT", key]).text();
        slot.parse().expect("a slot is a number")
    }

    /// As one node sees them.
    fn owners(&self) -> Owners {
        owners_seen_by(self.any_node())
    }

    fn any_node(&self) -> &Redis {
        self.nodes().next().expect("a node runs")
    }
}

fn id(node: &Redis) -> String {
    node.ask(0, &["CLUSTER", "MYID"]).text()
}

fn owners_seen_by(node: &Redis) -> Owners {
    let owner = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let port = words.get(1)?.split('@').next()?.rsplit_once(':')?.1.parse().ok()?;
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let slots: Vec<(u16, u16)> = words.get(8..)?.iter().filter_map(range).collect();
        (!slots.is_empty()).then_some((port, slots))
    };
    let mut owners: Owners = node.ask(0, &["CLUSTER", "NODES"]).text().lines().filter_map(owner).collect();
    owners.sort_unstable();
    owners
}

/// What `redis-cli` prints, or what it complains of.
fn redis_cli(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("redis-cli").args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli runs: cargo xtask test installs it");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr) + &text(&output.stdout)),
    }
}
