//! Prometheus beside a bridge: each query of the dashboard has an answer, and each alert fires when what it is about
//! happens. It is the files that we ship, with shorter times.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Test;
use super::compose::the_only;
use super::prometheus::Prometheus;
use super::traffic;
use super::trial::{Kind, Trial};
use crate::containers::compose::Project;
use crate::containers::engine::{self, docker, published};
use crate::paths;
use crate::redis::Redis;

/// A bridge looks at lag and pending entries each 30 s.
const FIRES_WITHIN: Duration = Duration::from_secs(120);
/// What a user waits minutes for.
const SHORTER: [(&str, &str); 7] = [
    ("for: 10m", "for: 2s"),
    ("for: 2m", "for: 2s"),
    ("for: 1m", "for: 2s"),
    ("[10m]", "[1m]"),
    ("> 300", "> 5"),
    ("_interval: 15s", "_interval: 1s"),
    ("refresh_interval: 10s", "refresh_interval: 2s"),
];

/// What all bridges have, by redis2redis.
pub(super) fn run(test: &Test) -> Result<usize> {
    let trial = Trial::existing().find(|trial| trial.kind == Kind::Copies).context("there is redis2redis")?;
    let scene = Scene::begin(test, trial)?;
    let passed = scene.dashboard(|query| !query.contains(BUFFER))? + scene.alerts()?;
    scene.project.down(true)?;
    Ok(passed)
}

/// What only a bridge with a buffer has, by redis2kafka.
pub(super) fn run_buffered(test: &Test) -> Result<usize> {
    let trial = Trial::existing().find(|trial| trial.buffer.is_some()).context("there is redis2kafka")?;
    let scene = Scene::begin(test, trial)?;
    let passed = scene.dashboard(|query| query.contains(BUFFER))? + scene.alerts_of_the_buffer()?;
    scene.project.down(true)?;
    Ok(passed)
}

/// The metrics of a buffer begin so.
const BUFFER: &str = "redis_sync_buffer_";

/// A bridge with its servers, and Prometheus.
struct Scene {
    test: Test,
    trial: &'static Trial,
    project: Project,
    prometheus: Prometheus,
    bridge: String,
    source: String,
    target: String,
}

impl Scene {
    fn begin(test: &Test, trial: &'static Trial) -> Result<Self> {
        let test = test.beside("watched");
        let directory = test.dir.join(format!("{}-prometheus", trial.bridge().name));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        for file in ["prometheus.compose.yml", "alerts.yml"] {
            let path = paths::root().join("deploy/monitoring").join(file);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let text = SHORTER.iter().fold(text, |text, (long, short)| text.replace(long, short));
            fs::write(directory.join(file), text).with_context(|| format!("write {file}"))?;
        }
        test.settings(trial, &[])?;
        let project = test.project(trial, "own")?;
        project.set("MONITORING_CONF", &directory.display().to_string());
        let mut services = vec![trial.bridge().services[0], "prometheus"];
        services.extend(trial.servers().map(|server| server.service));
        project.up(&services.iter().map(|service| (*service).to_owned()).collect::<Vec<_>>())?;
        let prometheus = Prometheus(published(&test.shell, &the_only(&project, "prometheus")?, 9090)?);
        let bridge = the_only(&project, trial.bridge().services[0])?;
        let source = the_only(&project, trial.source.service)?;
        let target = the_only(&project, trial.destination.service)?;
        Ok(Self { test, trial, project, prometheus, bridge, source, target })
    }

    /// Those of its queries that are wanted.
    fn dashboard(&self, is_wanted: impl Fn(&str) -> bool) -> Result<usize> {
        let path = paths::root().join("deploy/monitoring/grafana/dashboards/redis-sync.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let dashboard: Value = serde_json::from_str(&text).context("a dashboard is JSON")?;
        let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
        traffic::write(&mut self.source()?, "watched", 100)?;
        let mut queries = 0;
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
            let query = target["expr"].as_str().context("a target has a query")?;
            if !is_wanted(query) {
                continue;
            }
            let query =
                query.replace("$job", ".*").replace("$__rate_interval", "30s").replace("$__range", "5m");
            self.prometheus.await_series(&query, FIRES_WITHIN)?;
            queries += 1;
        }
        ensure!(queries > 3, "the dashboard has {queries} queries");
        println!("monitoring: {queries} queries of the dashboard answered by {}", self.trial.bridge().name);
        Ok(queries)
    }

    fn alerts(&self) -> Result<usize> {
        let untried = self.rules(|alert| !alert.contains("Buffer"))?;
        let count = untried.len();
        let untried = RefCell::new(untried);
        let fires = |names: &[&str], act: &dyn Fn() -> Result<()>| self.fires(&untried, names, act);
        fires(&["RedisSyncDeadLetters"], &|| self.refused())?;

        let held = "device:held:stream";
        fires(&["RedisSyncStreamsHeld", "RedisSyncNotReady"], &|| {
            self.target()?.call(&["SET", held, "no stream"])?;
            self.source()?.call(&["XADD", held, "*", "state", "running"]).map(drop)
        })?;
        self.target()?.call(&["DEL", held])?;

        // One that Prometheus does not see.
        let hidden = format!("{}-hidden", self.test.name);
        fires(&["RedisSyncNoOwner"], &|| self.replica(&hidden))?;
        self.docker(&["rm", "--force", &hidden])?;

        fires(&["RedisSyncMembershipsLost"], &|| self.forgotten())?;

        let backlog = Cell::new(None);
        fires(&["RedisSyncPendingTooOld", "RedisSyncLagGrowing"], &|| {
            self.docker(&["stop", "--time", "1", &self.target])?;
            backlog.set(Some(traffic::write(&mut self.source()?, "backlog", 4_000)?));
            Ok(())
        })?;
        let backlog = backlog.take().context("it was written")?;
        fires(&["RedisSyncLostAtSource"], &|| {
            let trim = |stream| self.source()?.call(&["XTRIM", stream, "MAXLEN", "10"]).map(drop);
            backlog.streams().try_for_each(trim)
        })?;
        self.docker(&["start", &self.target])?;

        fires(&["RedisSyncUnreachable"], &|| self.docker(&["pause", &self.bridge]))?;
        self.docker(&["unpause", &self.bridge])?;
        all_tried(&untried.borrow())?;
        Ok(count)
    }

    fn alerts_of_the_buffer(&self) -> Result<usize> {
        let untried = RefCell::new(self.rules(|alert| alert.contains("Buffer"))?);
        let count = untried.borrow().len();
        self.fires(&untried, &["RedisSyncBufferRefused"], &|| {
            let big = incompressible(2_000_000);
            self.source()?.call(&["XADD", "device:big:stream", "*", "state", &big]).map(drop)
        })?;
        self.fires(&untried, &["RedisSyncBufferTooOld"], &|| {
            self.docker(&["pause", &self.target])?;
            traffic::write(&mut self.source()?, "waiting", 100).map(drop)
        })?;
        self.docker(&["unpause", &self.target])?;
        self.prometheus.await_series("redis_sync_buffer_unsynced == 0", FIRES_WITHIN)?;
        all_tried(&untried.borrow())?;
        Ok(count)
    }

    /// The alerts that Prometheus knows, as far as they are wanted.
    fn rules(&self, is_wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
        let all = self.prometheus.alerts()?;
        let rules: BTreeSet<_> = all.into_iter().filter(|alert| is_wanted(alert)).collect();
        ensure!(!rules.is_empty(), "Prometheus has read no alert rules");
        Ok(rules)
    }

    /// Alerts that are quiet until something happens.
    fn fires(
        &self,
        untried: &RefCell<BTreeSet<String>>,
        names: &[&str],
        act: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let job = self.trial.bridge().name;
        let firing =
            |name: &str| format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\", job=\"{job}\"}}");
        for name in names {
            ensure!(self.prometheus.series(&firing(name))? == 0, "{name} fires before anything has happened");
        }
        act()?;
        for name in names {
            self.prometheus.await_series(&firing(name), FIRES_WITHIN)?;
            untried.borrow_mut().remove(*name);
            println!("monitoring: {name} fired");
        }
        Ok(())
    }

    /// An entry with an ID that the target has passed already.
    fn refused(&self) -> Result<()> {
        let stream = "device:refused:stream";
        self.target()?.call(&["XADD", stream, "9999999999999-0", "state", "running"])?;
        self.source()?.call(&["XADD", stream, "1-1", "state", "running"]).map(drop)
    }

    /// The books are lost again and again: each time all replicas join anew.
    fn forgotten(&self) -> Result<()> {
        let mut source = self.source()?;
        for _ in 0..5 {
            let before = self.prometheus_sees("redis_sync_memberships_lost_total")?;
            source.call(&["DEL", &format!("redis-sync:{{{}}}:members", self.trial.group)])?;
            let more = format!("redis_sync_memberships_lost_total > {before}");
            self.prometheus.await_series(&more, FIRES_WITHIN)?;
            // Joined again, or the next one would be no loss.
            self.prometheus.await_series("redis_sync_ready == 1", FIRES_WITHIN)?;
        }
        Ok(())
    }

    fn prometheus_sees(&self, counter: &str) -> Result<usize> {
        // The number itself is the series' only value: counted up until no series is above it.
        (0..1000)
            .find(|number| {
                self.prometheus.series(&format!("{counter} > {number}")).is_ok_and(|series| series == 0)
            })
            .context("a counter has some value")
    }

    /// Another replica, without pages.
    fn replica(&self, name: &str) -> Result<()> {
        let network = format!("{}_default", self.project.name());
        let conf = format!("{}:/app/conf:ro", self.test.conf(self.trial).display());
        let image = self.test.place.image(self.trial.bridge());
        let run = [
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            &network,
            "--volume",
            &conf,
            "--env",
            "ADMIN_ADDR=off",
        ];
        engine::quietly(docker(&self.test.shell, &run).arg(image))
    }

    fn docker(&self, arguments: &[&str]) -> Result<()> {
        engine::quietly(docker(&self.test.shell, arguments))
    }

    fn source(&self) -> Result<Redis> {
        Redis::connect(published(&self.test.shell, &self.source, 6379)?)
    }

    fn target(&self) -> Result<Redis> {
        Redis::connect(published(&self.test.shell, &self.target, 6379)?)
    }
}

fn all_tried(untried: &BTreeSet<String>) -> Result<()> {
    ensure!(untried.is_empty(), "nothing made these fire: {untried:?}");
    Ok(())
}

/// Letters: Kafka takes a megabyte unless a topic says otherwise, and counts what is left after compression.
fn incompressible(letters: usize) -> String {
    // Marsaglia's xorshift, 2003.
    let mut state = 2_463_534_242_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'a' + (state >> 16) as u8 % 26)
    };
    std::iter::repeat_with(next).take(letters).collect()
}
