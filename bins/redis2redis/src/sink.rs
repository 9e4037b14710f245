//! The sink: a group becomes one script call per run of a stream, all of them pipelined on one connection that never
//! reconnects. When that connection ends, what was under way on it is unknown; the keeper makes the next one.
//!
//! **Order.** Calls go out before `deliver` returns, and a server answers them in that order. A run names the entry
//! that was sent before it ([`Flights`]); the script writes nothing of it if that one did not get there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Unreachable};
use sync_core::redis::Fault;
use sync_core::redis::connection::{Connection, Connector, ConnectorError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::call::Call;
use crate::flights::{Flight, Flights};
use crate::loops::{LoopCheck, Verdict};
use crate::naming::Naming;
use crate::proofs::Proofs;
use crate::runs::runs_of;
use crate::script::{Answer, Rules, Trouble, unfit};
use crate::settings::{Settings, TargetSettings};
use crate::wait::{self, Wait};

/// A connection that is not usable by then is given up, and another one made.
const PATIENCE: Duration = Duration::from_secs(15);

/// Another Redis as a sink.
pub(crate) struct RedisSink {
    connector: Connector,
    target: TargetSettings,
    naming: Naming,
    rules: Rules,
    loops: LoopCheck,
    flights: Flights,
    proofs: Arc<Proofs>,
    live: Mutex<Option<Live>>,
}

/// The connection of the moment.
#[derive(Clone)]
struct Live {
    client: Client,
    /// Turns true when the connection has ended.
    gone: watch::Receiver<bool>,
    /// Ends the connection, for the reason given.
    end: mpsc::Sender<String>,
    /// Whether the target has the script.
    knows_script: Arc<AtomicBool>,
}

/// A run under way.
struct Sent {
    /// Which records of the group.
    records: Vec<usize>,
    call: Call,
    _flight: Flight,
}

impl RedisSink {
    /// Reads TLS files; connects to nothing.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConnectorError> {
        let target = settings.target.clone();
        let source = Connector::new(settings.redis.clone())?;
        Ok(Self {
            connector: Connector::to_target(target.redis.clone())?,
            naming: Naming::of(settings),
            rules: Rules::new(&target),
            loops: LoopCheck::new(settings, source.clone()),
            flights: Flights::default(),
            proofs: Arc::new(Proofs::new(source)),
            live: Mutex::new(None),
            target,
        })
    }

    /// Before the first connection that is to last: a bridge that would run in circles is not tried again and again. A
    /// target that cannot be reached says so when it is connected to.
    pub(crate) async fn refuse_loop(&self) -> anyhow::Result<()> {
        let Ok(mut connection) = self.connector.connection(self.target.redis.db).await else { return Ok(()) };
        match connection.run(async |client| Ok(self.loops.verdict(&client).await)).await {
            Ok(Verdict::Loop(reason)) => anyhow::bail!(reason),
            Ok(Verdict::NotTold(reason)) => tracing::warn!(
                "whether source and target are the same Redis cannot be seen, so nothing keeps what is written from \
                 being read again: {reason}"
            ),
            Ok(Verdict::Fine) | Err(_) => {}
        }
        Ok(())
    }

    /// A connection to a server that takes writes and is not the source. One that dies meanwhile answers nothing.
    async fn attempt(&self) -> Result<Connection, Unreachable> {
        let unreachable =
            |fault: Fault| Unreachable { needs_human: fault.needs_human(), reason: fault.to_string() };
        let mut connection = self.connector.connection(self.target.redis.db).await.map_err(unreachable)?;
        let on_cluster = self.target.is_cluster();
        connection.run(|client| takes_writes(client, on_cluster)).await.map_err(unreachable)?;
        let verdict = connection.run(async |client| Ok(self.loops.verdict(&client).await)).await;
        match verdict.map_err(unreachable)? {
            Verdict::Loop(reason) => Err(Unreachable { reason: reason.into(), needs_human: true }),
            Verdict::Fine | Verdict::NotTold(_) => Ok(connection),
        }
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for RedisSink {
    fn destination(&self) -> String {
        format!("target Redis at {}", self.connector.address())
    }

    fn identity(&self) -> String {
        format!("{} {}", self.connector.address(), self.naming)
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        let attempt = tokio::time::timeout(PATIENCE, self.attempt()).await;
        let silent = || Err(Unreachable { reason: "no answer in time".into(), needs_human: false });
        let connection = attempt.unwrap_or_else(|_| silent())?;
        let (tell_gone, gone) = watch::channel(false);
        let (end, told_to_end) = mpsc::channel(1);
        let (tell, lost) = oneshot::channel();
        let live =
            Live { client: connection.client(), gone, end, knows_script: Arc::new(AtomicBool::new(false)) };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        let health_check = self.target.redis.health_check_interval;
        tokio::spawn(async move {
            let reason = until_it_ends(connection, health_check, told_to_end).await;
            tell_gone.send_replace(true);
            let _ = tell.send(Lost { reason, by_conflict: false });
        });
        let gone = || Lost { reason: "connection closed".into(), by_conflict: false };
        Ok(lost.map(move |lost| lost.unwrap_or_else(|_| gone())).boxed())
    }

    fn deliver(&self, group: Group) -> Delivery {
        let mut fates = vec![Fate::Unknown; group.len()];
        let Some(live) = self.live() else { return std::future::ready(fates).boxed() };
        let runs = runs_of(group.len(), |at| match unfit(&group[at]) {
            Some(reason) => {
                fates[at] = Fate::Unfit(reason);
                None
            }
            None => Some(Arc::as_ptr(&group[at].stream)),
        });
        let knows_script = live.knows_script.load(Ordering::Relaxed);
        let (mut sent, mut places) = (Vec::with_capacity(runs.len()), Vec::with_capacity(runs.len()));
        for records in runs {
            let entries: Vec<_> = records.iter().map(|&at| &group[at].entry).collect();
            let (stream, last) = (&group[records[0]].stream.name, entries[entries.len() - 1].id);
            let place = self.naming.place(stream);
            let (before, flight) = self.flights.set_out(stream, last);
            let (command, arguments) =
                self.rules.command(&place, before, self.proofs.of(stream), &entries, knows_script);
            sent.push(Sent { records, call: Call::send(&live.client, command, arguments), _flight: flight });
            places.push(place);
        }
        let replicas = self.target.wait_replicas;
        let waits = wait::send(&live.client, replicas, self.target.is_cluster(), &places);
        settle(group, sent, waits, replicas, live, self.proofs.clone(), fates).boxed()
    }

    async fn disconnect(&self) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(live) = live {
            let _ = live.end.try_send("closed".into());
        }
    }
}

/// The fates of a group, once every call has its answer or the connection is gone.
async fn settle(
    group: Group,
    mut sent: Vec<Sent>,
    mut waits: Vec<Wait>,
    replicas: u32,
    mut live: Live,
    proofs: Arc<Proofs>,
    mut fates: Vec<Fate>,
) -> Vec<Fate> {
    let all_answered = async {
        for call in
            sent.iter_mut().map(|sent| &mut sent.call).chain(waits.iter_mut().map(|wait| &mut wait.call))
        {
            call.answered().await;
        }
    };
    tokio::select! {
        biased;
        () = all_answered => {}
        _ = live.gone.wait_for(|gone| *gone) => {}
    }
    let mut runs = Vec::with_capacity(sent.len());
    for Sent { records, call, .. } in sent {
        let mut answer = match call.answer() {
            Some(reply) => Answer::read(reply, records.len()),
            None => Answer::silence(records.len()),
        };
        match answer.trouble {
            Some(Trouble::ScriptUnknown) => live.knows_script.store(false, Ordering::Relaxed),
            // It may be a failover: whoever is primary now is asked for when connecting.
            Some(Trouble::ReadOnly(reason)) => drop(live.end.try_send(reason)),
            Some(Trouble::Unproven(oldest)) => {
                if let Err(fault) = proofs.look(&group[records[0]].stream.name, &oldest).await
                    && let Some(fate) = answer.fates.iter_mut().find(|fate| **fate == Fate::Unknown)
                {
                    *fate = Fate::Busy(format!("whether it was trimmed there cannot be seen: {fault}"));
                }
            }
            None if answer.fates.contains(&Fate::Delivered) => {
                live.knows_script.store(true, Ordering::Relaxed)
            }
            None => {}
        }
        if let Some((entries, first)) = answer.renamed {
            let stream = &group[records[0]].stream.spelled;
            tracing::info!(stream, entries, first, "ID conflict: written with new IDs");
        }
        for (&at, fate) in records.iter().zip(answer.fates) {
            fates[at] = fate;
        }
        runs.push(records);
    }
    for Wait { runs: waited_for, call } in waits {
        let Some(fate) = wait::fate(call.answer(), replicas) else { continue };
        for &at in waited_for.iter().flat_map(|&run| &runs[run]) {
            if fates[at] == Fate::Delivered {
                fates[at] = fate.clone();
            }
        }
    }
    fates
}

/// Whether this is a server to write to, as far as it tells: it may be loading its data, or be a replica.
async fn takes_writes(client: Client, on_cluster: bool) -> Result<(), Fault> {
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
