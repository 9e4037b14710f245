//! A primary, its replica, and three sentinels that watch them under the name `main`.

use super::server::{Server, wait_for};

/// It ends with the value.
#[derive(Debug)]
pub struct Sentinels {
    sentinels: Vec<Server>,
    servers: Vec<Server>,
    passwords: Passwords,
}

/// Of the servers, and of the sentinels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passwords {
    /// Of the user `default`.
    pub servers: Option<&'static str>,
    /// Theirs is another matter than the servers'.
    pub sentinels: Option<&'static str>,
}

impl Sentinels {
    /// Up, with each sentinel knowing all the others and the replica.
    pub fn start() -> Self {
        Self::with(Passwords::default())
    }

    /// The same with passwords.
    pub fn with(passwords: Passwords) -> Self {
        let mut options = vec!["--save", ""];
        options.extend(passwords.servers.iter().flat_map(|it| ["--masterauth", it]));
        let primary = Server::with("", passwords.servers, &options);
        let port = primary.port.to_string();
        options.extend(["--replicaof", "127.0.0.1", &port]);
        let replica = Server::with("", passwords.servers, &options);
        let mut file = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        );
        if let Some(password) = passwords.servers {
            file += &format!("sentinel auth-pass main {password}\n");
        }
        primary.wait_for_replicas(1);
        let sentinel = |_| Server::with(&file, passwords.sentinels, &["--sentinel"]);
        let sentinels: Vec<Server> = (0..3).map(sentinel).collect();
        let watched = Self { sentinels, servers: vec![primary, replica], passwords };
        wait_for("the sentinels know each other", || watched.states(), || watched.agree().then_some(()));
        watched
    }

    /// For SOURCE_REDIS_URL.
    pub fn url(&self) -> String {
        let ports: Vec<u16> = self.sentinels.iter().map(|sentinel| sentinel.port).collect();
        let [first, second, third] = ports[..] else { panic!("three sentinels") };
        let credentials = self.passwords.servers.map(|it| format!(":{it}@")).unwrap_or_default();
        let theirs = self.passwords.sentinels.map(|it| format!("&sentinelPassword={it}")).unwrap_or_default();
        format!(
            "redis-sentinel://{credentials}127.0.0.1:{first}?node=127.0.0.1:{second}&node=127.0.0.1:{third}\
             &sentinelServiceName=main{theirs}"
        )
    }

    /// The server that all sentinels take for the primary.
    pub fn primary(&self) -> &Server {
        let port = wait_for("one primary", || self.states(), || self.agreed_primary());
        self.servers.iter().find(|server| server.port == port).expect("it is one of the two")
    }

    /// `kill -9` of the primary, once its replica has all that it has; returns when the replica is primary.
    pub fn kill_primary(&mut self) {
        let port = self.primary().port;
        let primary =
            self.servers.iter_mut().find(|server| server.port == port).expect("it is one of the two");
        primary.wait_for_replicas(1);
        primary.kill();
        self.wait_until_replaced(port);
    }

    /// SENTINEL FAILOVER: the primary lives, and becomes the replica of its replica.
    pub fn fail_over(&self) {
        let port = self.primary().port;
        self.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"]);
        self.wait_until_replaced(port);
    }

    fn wait_until_replaced(&self, port: u16) {
        let replaced = || self.agreed_primary().filter(|primary| *primary != port).map(drop);
        wait_for("another primary", || self.states(), replaced);
    }

    fn agreed_primary(&self) -> Option<u16> {
        let primary = |sentinel: &Server| {
            let address = sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).ok()?;
            address.lines().nth(1)?.trim().parse::<u16>().ok()
        };
        let primaries: Vec<_> = self.sentinels.iter().map(primary).collect();
        let agreed = primaries[0].filter(|first| primaries.iter().all(|other| *other == Some(*first)))?;
        let server = self.servers.iter().find(|server| server.port == agreed)?;
        (server.info("role")? == "master").then_some(agreed)
    }

    fn agree(&self) -> bool {
        let knows = |state: &String| state.contains("slaves=1,sentinels=3");
        self.states().iter().all(knows)
    }

    fn states(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| sentinel.info("master0").unwrap_or_default()).collect()
    }
}
