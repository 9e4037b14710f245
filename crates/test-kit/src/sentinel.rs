//! A primary, its two replicas, and three sentinels that watch them under the name `main`.

use crate::redis::Redis;
use crate::{LONG, wait_for, wait_until};

/// It ends with the value.
pub struct Sentinels {
    sentinels: Vec<Redis>,
    servers: Vec<Redis>,
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
    /// Up, with each sentinel knowing all the others and the replicas.
    pub fn start() -> Self {
        Self::with(Passwords::default())
    }

    /// The same with passwords.
    pub fn with(passwords: Passwords) -> Self {
        let mut options: Vec<&str> = passwords.servers.iter().flat_map(|it| ["--masterauth", it]).collect();
        let primary = Redis::guarded("", passwords.servers, &options);
        let port = primary.port.to_string();
        options.extend(["--replicaof", "127.0.0.1", &port]);
        let replica = || Redis::guarded("", passwords.servers, &options);
        let servers = vec![replica(), replica(), primary];
        servers[2].wait_for_replicas(2);
        let mut file = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n"
        );
        if let Some(password) = passwords.servers {
            file += &format!("sentinel auth-pass main {password}\n");
        }
        let sentinel = |_| Redis::guarded(&file, passwords.sentinels, &["--sentinel"]);
        let watched = Self { sentinels: (0..3).map(sentinel).collect(), servers, passwords };
        let agree = || watched.states().iter().all(|state| state.contains("slaves=2,sentinels=3"));
        wait_until("the sentinels know each other", || watched.states(), agree);
        watched
    }

    /// As in settings.
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

    /// The server that all sentinels take for the primary, and that takes itself for it.
    pub fn primary(&self) -> &Redis {
        let port = wait_for("one primary", LONG, || self.states(), || self.agreed_primary());
        self.servers.iter().find(|server| server.port == port).expect("it is one of them")
    }

    /// The server with this port.
    pub fn server(&mut self, port: u16) -> &mut Redis {
        self.servers.iter_mut().find(|server| server.port == port).expect("it is one of them")
    }

    /// All but the server with this port.
    pub fn others(&self, port: u16) -> impl Iterator<Item = &Redis> {
        self.servers.iter().filter(move |server| server.port != port)
    }

    /// `kill -9` of the primary, once its replicas have all that it has; returns when one of them is primary.
    pub fn kill_primary(&mut self) {
        let port = self.primary().port;
        let primary = self.server(port);
        primary.wait_for_replicas(2);
        primary.kill();
        self.wait_until_replaced(port);
    }

    /// SENTINEL FAILOVER: the primary lives, and becomes a replica of one of its replicas.
    pub fn fail_over(&self) {
        let port = self.primary().port;
        self.sentinels[0].ask(0, &["SENTINEL", "FAILOVER", "main"]);
        self.wait_until_replaced(port);
    }

    /// Waits until all sentinels take another server for the primary.
    pub fn wait_until_replaced(&self, port: u16) {
        let replaced = || self.agreed_primary().is_some_and(|primary| primary != port);
        wait_until("another primary", || self.states(), replaced);
    }

    fn agreed_primary(&self) -> Option<u16> {
        let primary = |sentinel: &Redis| {
            let address = sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).ok()?.list();
            address.get(1)?.text().parse::<u16>().ok()
        };
        let primaries: Vec<_> = self.sentinels.iter().map(primary).collect();
        let agreed = primaries[0].filter(|first| primaries.iter().all(|other| *other == Some(*first)))?;
        let server = self.servers.iter().find(|server| server.port == agreed)?;
        (server.info("role")? == "master").then_some(agreed)
    }

    fn states(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| sentinel.info("master0").unwrap_or_default()).collect()
    }
}
