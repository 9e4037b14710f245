//! A Redis Cluster of six processes: three primaries, each with a replica.

use super::server::{Server, redis_cli, wait_for};

/// How long a node may be silent before the others replace it, in milliseconds.
const NODE_TIMEOUT: &str = "2000";

const SLOTS: usize = 16384;

/// It ends with the value.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Up, and of one mind.
    pub fn start() -> Self {
        let options = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
        let cluster = Self { nodes: (0..6).map(|_| Server::start(&options)).collect() };
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

    /// For SOURCE_REDIS_URL.
    pub fn url(&self) -> String {
        let ports: Vec<String> = self.nodes.iter().map(|node| node.port.to_string()).collect();
        let others: Vec<String> = ports[1..].iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", ports[0], others.join("&"))
    }

    /// The processes that run.
    pub fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    /// Those of them that own slots.
    pub fn primaries(&self) -> Vec<&Server> {
        let owns_slots = |node: &&Server| self.owners().iter().any(|(port, _)| *port == node.port);
        self.nodes().filter(owns_slots).collect()
    }

    /// The primary that owns a key's slot.
    pub fn owner_of(&self, key: &str) -> &Server {
        let slot = self.slot_of(key);
        let owners = self.owners();
        let owns = |slots: &[(u16, u16)]| slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        let port = owners.iter().find(|(_, slots)| owns(slots)).map(|(port, _)| *port);
        self.nodes().find(|node| Some(node.port) == port).expect("each slot has an owner that runs")
    }

    /// `kill -9` of the primary that owns a key's slot, once its replica has all that it has.
    pub fn kill_owner_of(&mut self, key: &str) {
        let port = self.owner_of(key).port;
        let node = self.node(port);
        node.wait_for_replicas(1);
        node.kill();
    }

    /// The process with this port.
    pub fn node(&mut self, port: u16) -> &mut Server {
        self.nodes.iter_mut().find(|node| node.port == port).expect("it is one of the nodes")
    }

    /// Whether another node owns the slots of the one that had this port.
    pub fn is_replaced(&self, port: u16) -> bool {
        let line = |line: &&str| line.contains(&format!(":{port}@"));
        let nodes = self.nodes().next().expect("a node runs").ask(&["CLUSTER", "NODES"]);
        let owns_slots = |line: &str| line.split(' ').count() > 8;
        !nodes.lines().filter(line).any(owns_slots)
    }

    /// Waits until every node that runs says that the Cluster is well, and all say the same of who owns what.
    pub fn wait_until_well(&self) {
        let state = |node: &Server| node.try_ask(&["CLUSTER", "INFO"]).unwrap_or_default();
        wait_for(
            "the Cluster is well",
            || self.nodes().map(state).collect::<Vec<_>>(),
            || {
                let well = self.nodes().all(|node| state(node).contains("cluster_state:ok"));
                let owners = self.owners();
                let run = owners.iter().all(|(port, _)| self.nodes().any(|it| it.port == *port));
                let owned = owners.iter().flat_map(|(_, slots)| slots);
                let covered =
                    owned.map(|(first, last)| usize::from(last - first) + 1).sum::<usize>() == SLOTS;
                let agreed = self.nodes().all(|node| owners_seen_by(node) == owners);
                (well && run && covered && agreed).then_some(())
            },
        );
    }

    /// Moves so many slots, with their keys, from one primary to another while everything goes on.
    pub fn move_slots(&self, from: &Server, to: &Server, slots: u16) {
        // Where the last move has not been heard of everywhere, the next is refused.
        let check = || redis_cli(&["--cluster", "check", &format!("127.0.0.1:{}", from.port)]);
        wait_for("the nodes to agree", check, || check().ok());
        let id = |node: &Server| node.ask(&["CLUSTER", "MYID"]).trim().to_owned();
        let (address, slots) = (format!("127.0.0.1:{}", from.port), slots.to_string());
        let (from, to) = (id(from), id(to));
        let arguments = [
            &["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to][..],
            &["--cluster-slots", &slots, "--cluster-yes"],
        ];
        redis_cli(&arguments.concat()).unwrap_or_else(|error| panic!("redis-cli --cluster reshard: {error}"));
    }

    /// Begins to move a key's slot to another primary, and stops halfway: the key is there, the slot is not. Which
    /// primary that is.
    pub fn send_ahead(&self, key: &str) -> &Server {
        let from = self.owner_of(key);
        let to = self.primaries().into_iter().find(|other| other.port != from.port).expect("there are three");
        let id = |node: &Server| node.ask(&["CLUSTER", "MYID"]).trim().to_owned();
        let (slot, port) = (self.slot_of(key).to_string(), to.port.to_string());
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        to
    }

    fn slot_of(&self, key: &str) -> u16 {
        let slot = self.nodes().next().expect("a node runs").ask(&["CLUSTER", "KEYSLOT", key]);
        slot.trim().parse().expect("a slot is a number")
    }

    /// As one node sees them.
    fn owners(&self) -> Vec<(u16, Vec<(u16, u16)>)> {
        owners_seen_by(self.nodes().next().expect("a node runs"))
    }
}

/// Port and slots of each primary, in order of the ports.
fn owners_seen_by(node: &Server) -> Vec<(u16, Vec<(u16, u16)>)> {
    let owner = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let port = words.get(1)?.split('@').next()?.rsplit_once(':')?.1.parse().ok()?;
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let slots: Vec<(u16, u16)> = words.get(8..)?.iter().filter_map(range).collect();
        (!slots.is_empty() && !words[2].contains("fail")).then_some((port, slots))
    };
    let mut owners: Vec<_> = node.ask(&["CLUSTER", "NODES"]).lines().filter_map(owner).collect();
    owners.sort_unstable();
    owners
}
