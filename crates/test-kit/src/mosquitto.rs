//! A private Mosquitto that keeps sessions and messages over an orderly restart. After `kill -9` it may have lost
//! what it had confirmed; where that matters, the fake broker is the better destination.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{LONG, end, free_port, signal, wait_for};

/// One broker. It ends with the value.
pub struct Mosquitto {
    pub port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    pub fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// With these lines for its listener. `{dir}` is its directory.
    pub fn with(listener: &str) -> Self {
        Self::with_options("max_inflight_messages 1000\nmax_queued_messages 1000000", listener)
    }

    /// With these lines before any listener, and these for the listener.
    pub fn with_options(options: &str, listener: &str) -> Self {
        let mut broker =
            Self { port: free_port(), dir: tempfile::tempdir().expect("a directory"), child: None };
        let config = format!(
            "user root\npersistence true\npersistence_location {{dir}}/\nlog_dest stderr\nlog_type all\n{options}\n\
             listener {} 127.0.0.1\n{listener}",
            broker.port
        );
        broker.write("conf", &config.replace("{dir}", &broker.dir.path().display().to_string()));
        broker.up();
        broker
    }

    /// Everybody may publish and read what these ACL lines say.
    pub fn with_acl(acl: &str) -> Self {
        Self::with_acl_and(acl, 1_000_000)
    }

    /// The same, with this `max_queued_messages`.
    pub fn with_acl_and(acl: &str, max_queued: u32) -> Self {
        let broker = Self { port: free_port(), dir: tempfile::tempdir().expect("a directory"), child: None };
        let dir = broker.dir.path().display().to_string();
        broker.write_acl(acl);
        let config = format!(
            "user root\nmax_inflight_messages 1000\nmax_queued_messages {max_queued}\nlog_dest stderr\nlog_type all\n\
             listener {} 127.0.0.1\nallow_anonymous true\nacl_file {dir}/acl\n",
            broker.port
        );
        broker.write("conf", &config);
        let mut broker = broker;
        broker.up();
        broker
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("a file");
    }

    /// New rules for everybody; a running broker takes them with `reread`.
    pub fn write_acl(&self, acl: &str) {
        self.write("acl", acl);
    }

    pub fn reread(&self) {
        signal(self.child.as_ref().expect("it runs").id(), "HUP");
    }

    /// Starts it (again): same port, same directory.
    pub fn up(&mut self) {
        let log = self.dir.path().join("log");
        let file = File::create(&log).expect("a log file");
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("mosquitto starts: cargo xtask test installs it");
        self.child = Some(child);
        let read = || fs::read_to_string(&log).unwrap_or_default();
        wait_for("mosquitto runs", LONG, read, || read().contains(" running").then_some(()));
    }

    /// SIGTERM: it saves what it holds.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        let _ = child.wait();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        end(self.child.as_mut().expect("it runs"));
        self.child = None;
    }

    /// Suspends it, or lets it go on.
    pub fn suspend(&self, suspended: bool) {
        signal(self.child.as_ref().expect("it runs").id(), if suspended { "STOP" } else { "CONT" });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}
