//! The connection of a sink that writes to Redis: one that never reconnects, watched and pinged until it ends. What was
//! under way on it then is unknown; the keeper of the sink makes the next one.
//!
//! Whoever sends on it does so with [`super::call`], a run of a stream's entries in a call ([`super::runs`]), and says
//! with each what was sent before it ([`super::flights`]).

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::Fault;
use super::connection::Connection;
use crate::bridge::{Lost, Unreachable};

/// A connection that is not usable by then is given up, and another one made.
const PATIENCE: Duration = Duration::from_secs(15);

/// The link of the moment, if there is one.
#[derive(Default)]
pub struct Link(Mutex<Option<Live>>);

/// A connection in use.
#[derive(Clone)]
pub struct Live {
    /// That sends on it.
    pub client: Client,
    /// Turns true when the connection has ended.
    gone: watch::Receiver<bool>,
    /// Ends the connection, for the reason given.
    end: mpsc::Sender<String>,
    /// Whether the server has the script.
    knows_script: Arc<AtomicBool>,
}

impl Link {
    /// One attempt, bounded in time. `attempt` connects and looks whether this is a server to write to.
    pub async fn connect(
        &self,
        health_check: Duration,
        attempt: impl Future<Output = Result<Connection, Unreachable>>,
    ) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let attempt = tokio::time::timeout(PATIENCE, attempt).await;
        let silent = || Err(Unreachable { reason: "no answer in time".into(), needs_human: false });
        let connection = attempt.unwrap_or_else(|_| silent())?;
        let (tell_gone, gone) = watch::channel(false);
        let (end, told_to_end) = mpsc::channel(1);
        let (tell, lost) = oneshot::channel();
        let live =
            Live { client: connection.client(), gone, end, knows_script: Arc::new(AtomicBool::new(false)) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        tokio::spawn(async move {
            let reason = until_it_ends(connection, health_check, told_to_end).await;
            tell_gone.send_replace(true);
            let _ = tell.send(Lost { reason, by_conflict: false });
        });
        let gone = || Lost { reason: "connection closed".into(), by_conflict: false };
        Ok(lost.map(move |lost| lost.unwrap_or_else(|_| gone())).boxed())
    }

    /// What to send on. What is sent after its end gets no answer.
    pub fn live(&self) -> Option<Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the connection.
    pub fn close(&self) {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(live) = live {
            live.end("closed".into());
        }
    }
}

impl Live {
    /// Returns when the connection has ended.
    pub async fn gone(&mut self) {
        let _ = self.gone.wait_for(|gone| *gone).await;
    }

    /// Ends it.
    pub fn end(&self, reason: String) {
        let _ = self.end.try_send(reason);
    }

    /// Whether the server has answered to the script's hash.
    pub fn knows_script(&self) -> bool {
        self.knows_script.load(Ordering::Relaxed)
    }

    /// Whether it has the script (any more).
    pub fn set_knows_script(&self, knows: bool) {
        self.knows_script.store(knows, Ordering::Relaxed);
    }
}

/// Whether this is a server to write to, as far as it tells: it may be loading its data, or be a replica.
pub async fn takes_writes(client: Client, on_cluster: bool) -> Result<(), Fault> {
    ping(&client).await?;
    if on_cluster {
        return Ok(());
    }
    let role = client.custom::<Value, Value>(fred::cmd!("ROLE"), Vec::new()).await;
    match role {
        Ok(Value::Array(role)) if role.first().is_some_and(|role| role.as_bytes() == Some(b"slave")) => {
            Err(Fault::Busy("it is a replica, which takes no writes".into()))
        }
        // Who may not ask finds out by writing.
        _ => Ok(()),
    }
}

async fn ping(client: &Client) -> Result<(), Fault> {
    match client.ping::<Value>(None).await.map_err(Fault::from) {
        // That it is not permitted is an answer, too.
        Err(Fault::Denied(reason)) if reason.starts_with("NOPERM") => Ok(()),
        answer => answer.map(drop),
    }
}

/// Watches a connection, and pings it now and then, until it ends or is to end; then closes it. The reason why.
async fn until_it_ends(
    mut connection: Connection,
    health_check: Duration,
    mut told: mpsc::Receiver<String>,
) -> String {
    loop {
        tokio::select! {
            biased;
            reason = connection.ended() => return reason,
            reason = told.recv() => return reason.unwrap_or_else(|| "not needed any more".into()),
            () = tokio::time::sleep(health_check) => {}
        }
        if let Err(fault) = connection.run(async |client| ping(&client).await).await {
            return fault.to_string();
        }
    }
}
