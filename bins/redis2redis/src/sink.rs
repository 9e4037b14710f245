//! The sink: a group becomes one script call per run of a stream, all of them pipelined on one connection that never
//! reconnects. When that connection ends, what was under way on it is unknown; the keeper makes the next one.
//!
//! **Order.** Calls go out before `deliver` returns, and a server answers them in that order. A run names the entry
//! that was sent before it ([`Flights`]); the script writes nothing of it if that one did not get there.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sync_core::bridge::{Delivery, Fate, Group, Lost, Sink, Unreachable};
use sync_core::redis::Fault;
use sync_core::redis::call::Call;
use sync_core::redis::connection::{Connection, Connector, ConnectorError};
use sync_core::redis::flights::{Flight, Flights};
use sync_core::redis::link::{Link, Live, takes_writes};
use sync_core::redis::runs::runs_of;

use crate::loops::{LoopCheck, Verdict};
use crate::naming::Naming;
use crate::proofs::Proofs;
use crate::script::{Answer, Rules, Trouble, unfit};
use crate::settings::{Settings, TargetSettings};
use crate::wait::{self, Wait};

/// Another Redis as a sink.
pub(crate) struct RedisSink {
    connector: Connector,
    target: TargetSettings,
    naming: Naming,
    rules: Rules,
    loops: LoopCheck,
    flights: Flights,
    proofs: Arc<Proofs>,
    link: Link,
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
            link: Link::default(),
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
}

impl Sink for RedisSink {
    fn destination(&self) -> String {
        format!("target Redis at {}", self.connector.address())
    }

    fn identity(&self) -> String {
        format!("{} {}", self.connector.address(), self.naming)
    }

    async fn connect(&self) -> Result<BoxFuture<'static, Lost>, Unreachable> {
        self.link.connect(self.target.redis.health_check_interval, self.attempt()).await
    }

    fn deliver(&self, group: Group) -> Delivery {
        let mut fates = vec![Fate::Unknown; group.len()];
        let Some(live) = self.link.live() else { return std::future::ready(fates).boxed() };
        let runs = runs_of(group.len(), |at| match unfit(&group[at]) {
            Some(reason) => {
                fates[at] = Fate::Unfit(reason);
                None
            }
            None => Some(Arc::as_ptr(&group[at].stream)),
        });
        let knows_script = live.knows_script();
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
        self.link.close();
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
        () = live.gone() => {}
    }
    let mut runs = Vec::with_capacity(sent.len());
    for Sent { records, call, .. } in sent {
        let mut answer = match call.answer() {
            Some(reply) => Answer::read(reply, records.len()),
            None => Answer::silence(records.len()),
        };
        match answer.trouble {
            Some(Trouble::ScriptUnknown) => live.set_knows_script(false),
            // It may be a failover: whoever is primary now is asked for when connecting.
            Some(Trouble::ReadOnly(reason)) => live.end(reason),
            Some(Trouble::Unproven(oldest)) => {
                if let Err(fault) = proofs.look(&group[records[0]].stream.name, &oldest).await
                    && let Some(fate) = answer.fates.iter_mut().find(|fate| **fate == Fate::Unknown)
                {
                    *fate = Fate::Busy(format!("whether it was trimmed there cannot be seen: {fault}"));
                }
            }
            None if answer.fates.contains(&Fate::Delivered) => live.set_knows_script(true),
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
