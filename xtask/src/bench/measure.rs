//! One run, timed from outside: Redis says when the first entry was given out and when the last was acknowledged.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::GROUP;
use super::fill::{Load, id};
use crate::bridge::{Bridge, Interrupt};
use crate::process::tail;
use crate::redis::{Redis, Reply};

/// What one run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) seconds: f64,
    /// The program's processor time over the same span, in microseconds per entry.
    pub(super) cpu_us: f64,
    /// Most memory resident at any time; the other command does not say.
    pub(super) peak_mib: Option<f64>,
}

impl Run {
    pub(super) fn rate(&self, entries: usize) -> f64 {
        entries as f64 / self.seconds
    }
}

/// Without progress for so long, a run has failed. Longer than a discovery interval.
pub(super) const STALLED: Duration = Duration::from_secs(30);

/// Waits for the bridge to move everything.
pub(super) fn run(redis: &mut Redis, load: &Load, bridge: &mut Bridge, interrupt: &Interrupt) -> Result<Run> {
    let spread = load.spread();
    let mut left: Vec<(&str, String)> =
        spread.iter().map(|(stream, entries)| (stream.as_str(), id(*entries))).collect();
    // Asking costs Redis a few microseconds a stream; this keeps it near one hundredth of its time.
    let pause = Duration::from_millis(4).max(Duration::from_micros(200) * load.streams.min(200) as u32);
    let (mut seen, mut moved) = (0, Instant::now());
    let mut begun = None;
    while !left.is_empty() {
        let streams: Vec<&str> = left.iter().map(|(stream, _)| *stream).collect();
        let progress = redis.progress(GROUP, &streams)?;
        let now = Instant::now();
        let read: u64 = progress.iter().map(|group| group.read).sum();
        if begun.is_none() && read > 0 {
            begun = Some((now, bridge.process().cpu()?));
        }
        let before = left.len();
        let mut groups = progress.iter();
        left.retain(|(_, last)| {
            groups.next().is_some_and(|group| group.pending > 0 || group.last_delivered != *last)
        });
        let acknowledged: u64 = progress.iter().map(|group| group.acknowledged()).sum();
        if acknowledged != seen || left.len() != before {
            (seen, moved) = (acknowledged, now);
        }
        if moved.elapsed() > STALLED {
            bail!("nothing moved for {} s; {}", STALLED.as_secs(), tail(bridge.log()));
        }
        interrupt.ensure_not()?;
        bridge.ensure_running()?;
        if !left.is_empty() {
            sleep(pause);
        }
    }
    let ended = Instant::now();
    let Some((begun, cpu)) = begun else {
        bail!("the run was over before it was seen to begin: use more entries")
    };
    ensure!(ended > begun, "the run was over before it was seen to begin: use more entries");
    let cpu = bridge.process().cpu()?.saturating_sub(cpu);
    ensure_nothing_put_aside(redis, load)?;
    Ok(Run {
        seconds: (ended - begun).as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / load.entries as f64,
        peak_mib: Some(bridge.process().peak_kib()? as f64 / 1024.0),
    })
}

/// A dead letter is acknowledged too, so it would pass for delivered.
fn ensure_nothing_put_aside(redis: &mut Redis, load: &Load) -> Result<()> {
    let letters: Vec<[String; 2]> = load
        .spread()
        .into_iter()
        .map(|(stream, _)| ["EXISTS".to_owned(), format!("{stream}:dead-letter")])
        .collect();
    let put_aside = redis.pipeline(&letters)?.iter().filter(|reply| **reply != Reply::Integer(0)).count();
    ensure!(put_aside == 0, "{put_aside} streams have dead letters");
    Ok(())
}
