//! Looking for streams: by pattern in each database, and the named ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use fred::clients::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Live;
use super::deal::Found;
use crate::bridge::Sink;
use crate::lane::Shared;
use crate::record::StreamName;
use crate::redis::connection::{Connection, select};
use crate::redis::{Fault, cluster, discovery, groups};
use crate::settings::{Discovery, StartId};
use crate::telemetry::health::Severity;

/// Looks for streams with one connection of its own.
pub(super) struct Search {
    connection: Option<Connection>,
    /// How many databases the server has, where known.
    databases: Option<Option<u32>>,
    /// Named streams, and databases, of which something was said already.
    reported: HashSet<String>,
    searching: Option<Vec<u16>>,
    /// The source was reported down from here.
    reported_down: bool,
}

impl Search {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection: Some(connection),
            databases: None,
            reported: HashSet::new(),
            searching: None,
            reported_down: false,
        }
    }

    /// Searches now and then until a stop is requested, and tells what there is. `failed` hears of what could not be
    /// taken up: it is told again soon.
    pub(super) async fn run<S: Sink>(
        mut self,
        shared: Arc<Shared<S>>,
        mut live: watch::Receiver<Live>,
        found: mpsc::Sender<Found>,
        failed: mpsc::Receiver<Fault>,
    ) {
        let stop = shared.stop.clone();
        tokio::select! {
            () = self.go_on(&shared, &mut live, found, failed) => {}
            () = stop.requested() => {}
        }
    }

    async fn go_on<S>(
        &mut self,
        shared: &Shared<S>,
        live: &mut watch::Receiver<Live>,
        found: mpsc::Sender<Found>,
        mut failed: mpsc::Receiver<Fault>,
    ) {
        loop {
            let settings = live.borrow_and_update().clone();
            if found.send(self.pass(shared, &settings).await).await.is_err() {
                return;
            }
            let mut interval = settings.interval;
            if self.reported_down {
                interval = interval.min(shared.redis_retry.base);
            }
            tokio::select! {
                () = sleep(interval) => {}
                Ok(()) = live.changed() => {}
                Some(fault) = failed.recv() => {
                    self.failed(shared, &fault);
                    sleep(shared.redis_retry.base).await;
                }
            }
        }
    }

    /// The streams to be read, by database. A database that cannot be searched now is absent: what was found there
    /// before goes on being read.
    async fn pass<S>(&mut self, shared: &Shared<S>, live: &Live) -> Found {
        let mut live = live.clone();
        if shared.connector.is_cluster() {
            live.discovery.as_mut().map(cluster::search_its_database);
        }
        let mut named: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        for stream in &shared.settings.named {
            named.entry(stream.db).or_default().push(stream.key.clone());
        }
        let range = live.discovery.as_ref().map(|discovery| discovery.dbs.clone()).unwrap_or_default();
        let range = self.existing(shared, range).await;
        if self.searching.as_ref() != Some(&range) {
            if !range.is_empty() {
                let list: Vec<_> = range.iter().map(u16::to_string).collect();
                tracing::info!("Searching Redis databases {}", list.join(", "));
            }
            self.searching = Some(range.clone());
        }
        let mut found = BTreeMap::new();
        let mut answered = true;
        for db in range.iter().copied().chain(named.keys().copied()).collect::<BTreeSet<u16>>() {
            let discovery = live.discovery.as_ref().filter(|_| range.contains(&db));
            match self.database(shared, db, discovery, named.get(&db).map_or(&[], Vec::as_slice)).await {
                Ok(streams) => {
                    found.insert(db, streams);
                }
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => {
                    answered = false;
                    self.failed(shared, &fault);
                }
                Err(fault) => {
                    if self.reported.insert(format!("database {db}")) {
                        tracing::error!(database = db, "cannot look for streams: {fault}");
                    }
                }
            }
        }
        if answered && std::mem::take(&mut self.reported_down) {
            shared.health.up("source Redis");
        }
        // Databases that left the range are given up.
        let searched = |db| live.discovery.as_ref().is_some_and(|discovery| discovery.dbs.contains(&db));
        for db in (0..=u8::MAX).map(u16::from).filter(|db| !searched(*db) && !named.contains_key(db)) {
            found.insert(db, BTreeSet::new());
        }
        found
    }

    fn failed<S>(&mut self, shared: &Shared<S>, fault: &Fault) {
        self.reported_down = true;
        shared.health.down("source Redis", &fault.to_string(), Severity::Warn);
    }

    /// Does something in one database. A connection kept from the last pass may have ended meanwhile: that is no
    /// outage, and a new one is tried at once.
    async fn in_database<S, T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        shared: &Shared<S>,
        db: u16,
        work: impl Fn(Client) -> F,
    ) -> Result<T, Fault> {
        loop {
            let kept = self.connection.take();
            let may_be_stale = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => shared.connector.connection(shared.default_db).await?,
            };
            let ask = async |client: Client| {
                select(&client, db).await?;
                work(client).await
            };
            match connection.run(ask).await {
                Err(Fault::Lost(_)) if may_be_stale => {}
                Err(fault @ (Fault::Lost(_) | Fault::Busy(_))) => return Err(fault),
                result => {
                    self.connection = Some(connection);
                    return result;
                }
            }
        }
    }

    async fn database<S>(
        &mut self,
        shared: &Shared<S>,
        db: u16,
        search: Option<&Discovery>,
        named: &[Bytes],
    ) -> Result<BTreeSet<Bytes>, Fault> {
        let mut streams = BTreeSet::new();
        if let Some(search) = search {
            let suffix = &shared.settings.dead_letter_suffix;
            let scan = async |client: Client| discovery::scan(&client, search, suffix, &shared.limiter).await;
            match self.in_database(shared, db, scan).await {
                Ok(found) => streams = found,
                // Named streams are read all the same.
                Err(fault) if fault.needs_human() && !named.is_empty() => {
                    if self.reported.insert(format!("search {db}")) {
                        tracing::error!(
                            database = db,
                            "cannot look for streams, only named ones are read: {fault}"
                        );
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
        let ask = async |client: Client| discovery::types(&client, named, &shared.limiter).await;
        let types = match self.in_database(shared, db, ask).await {
            Ok(types) => types,
            // Reading them shows what they are.
            Err(fault) if fault.needs_human() => vec!["stream".to_owned(); named.len()],
            Err(fault) => return Err(fault),
        };
        let excluded = |key: &[u8]| search.is_some_and(|search| search.excludes(key));
        for (key, kind) in named.iter().zip(types).filter(|(key, _)| !excluded(key)) {
            let spelled = StreamName::new(db, key.clone()).spell(shared.default_db);
            match kind.as_str() {
                "stream" => {
                    streams.insert(key.clone());
                }
                "none" if self.reported.insert(format!("absent {spelled}")) => {
                    tracing::info!(
                        stream = spelled,
                        "named in REDIS_STREAMS and not there yet: read once it exists"
                    );
                }
                "none" => {}
                kind => {
                    if self.reported.insert(format!("type {spelled}")) {
                        tracing::warn!(
                            stream = spelled,
                            "named in REDIS_STREAMS and not read: the key holds a {kind}"
                        );
                    }
                }
            }
        }
        Ok(streams)
    }

    /// Without the databases that the server does not have: they are named in one warning.
    async fn existing<S>(&mut self, shared: &Shared<S>, range: Vec<u16>) -> Vec<u16> {
        if self.databases.is_none() {
            let ask = async |client: Client| Ok(discovery::databases(&client).await);
            self.databases = self.in_database(shared, shared.default_db, ask).await.ok();
        }
        let Some(Some(count)) = self.databases else { return range };
        let (there, beyond): (Vec<u16>, Vec<u16>) = range.into_iter().partition(|db| u32::from(*db) < count);
        if !beyond.is_empty() && self.reported.insert(format!("beyond {beyond:?}")) {
            tracing::warn!(
                "the server has {count} databases: {beyond:?} of SOURCE_REDIS_DB_SEARCH_RANGE are not there"
            );
        }
        there
    }

    /// STREAM_START_ID=$, before anything is read: at the first start, which is when the group exists nowhere, it is
    /// created on all that there is, whoever will own it. Ends early when a stop is requested.
    pub(super) async fn begin_at_the_end<S>(&mut self, shared: &Shared<S>, live: &watch::Receiver<Live>) {
        let settings = &shared.settings;
        if settings.start_id != StartId::Latest || !settings.auto_create_groups || !settings.enabled {
            return;
        }
        let stop = shared.stop.clone();
        let live = live.borrow().clone();
        let begin = async {
            let found = self.pass(shared, &live).await;
            if let Err(fault) = self.create_at_the_end(shared, &found).await {
                // Reading too much is the safe side.
                tracing::warn!("STREAM_START_ID=$ is not applied everywhere: {fault}");
            }
        };
        tokio::select! {
            () = begin => {}
            () = stop.requested() => {}
        }
    }

    async fn create_at_the_end<S>(&mut self, shared: &Shared<S>, found: &Found) -> Result<(), Fault> {
        let group = &shared.settings.group;
        let found: Vec<(u16, Vec<Bytes>)> = found
            .iter()
            .filter(|(_, streams)| !streams.is_empty())
            .map(|(db, streams)| (*db, streams.iter().cloned().collect()))
            .collect();
        for (db, keys) in &found {
            let ask = async |client: Client| groups::having_group(&client, keys, group).await;
            if self.in_database(shared, *db, ask).await?.contains(&true) {
                return Ok(());
            }
        }
        for (db, keys) in found {
            let at_the_end: Vec<_> = keys.into_iter().map(|key| (key, StartId::Latest)).collect();
            let create = async |client: Client| groups::create(&client, &at_the_end, group).await;
            self.in_database(shared, db, create).await?;
            tracing::info!(
                group,
                streams = at_the_end.len(),
                database = db,
                "created the consumer group at the end of what is there: STREAM_START_ID is $"
            );
        }
        Ok(())
    }
}
