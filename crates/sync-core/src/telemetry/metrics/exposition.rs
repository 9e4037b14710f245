//! The numbers as Prometheus reads them: OpenMetrics text, every family with HELP and TYPE.
//!
//! - `redis_sync_…{stream="…"}`: one series per stream, or of the worst METRICS_PER_STREAM ones: held first, then
//!   by the oldest pending entry, then by lag. Series may come and go there.
//! - `redis_sync_all_…`: the same over all streams, always there; counters never go down while the process lives.
//! - `redis_sync_…` and `process_…` without a stream: about the process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{BOUNDS, Counter, Extra, Family, Gauge, Metrics, StreamMetrics, Totals, process};
use crate::telemetry::health::Health;

/// Renders everything.
pub(super) fn expose(metrics: &Metrics, health: &Health) -> String {
    let mut registry = Registry::default();
    let (metrics, health) = (metrics.clone(), health.clone());
    registry.register_collector(Box::new(Snapshot { metrics, health }));
    let mut text = String::new();
    let written = prometheus_client::encoding::text::encode(&mut text, &registry);
    // Only the values' own conversions could fail, and all of ours are plain numbers.
    written.expect("every value has a text form");
    text
}

#[derive(Debug)]
struct Snapshot {
    metrics: Metrics,
    health: Health,
}

type OfStream = fn(&StreamMetrics) -> &AtomicU64;
type OfAll = fn(&Totals) -> u64;

const COUNTERS: [(&str, &str, OfStream, OfAll); 6] = [
    ("entries_read", "Entries read from the source, redeliveries included", |s| &s.read, |t| t.read),
    ("entries_delivered", "Entries confirmed by the destination", |s| &s.delivered, |t| t.delivered),
    ("entries_acknowledged", "Entries acknowledged in Redis", |s| &s.acknowledged, |t| t.acknowledged),
    ("entries_filtered", "Entries that the filter dropped", |s| &s.filtered, |t| t.filtered),
    (
        "entries_dead_lettered",
        "Entries that went to the dead-letter stream",
        |s| &s.dead_lettered,
        |t| t.dead_lettered,
    ),
    ("entries_retried", "Deliveries that came back and are tried again", |s| &s.retried, |t| t.retried),
];

const LOST: [(&str, OfStream, OfAll); 2] = [
    ("deleted", |s| &s.lost_deleted, |t| t.lost_deleted),
    ("trimmed", |s| &s.lost_trimmed, |t| t.lost_trimmed),
];

const GAUGES: [(&str, &str, OfStream, OfAll); 2] = [
    ("lag_entries", "Entries not yet delivered to the consumer group", |s| &s.lag, |t| t.lag),
    (
        "pending_entries",
        "Entries delivered to the consumer group and not yet acknowledged",
        |s| &s.pending,
        |t| t.pending,
    ),
];

const OLDEST: &str = "Age of the oldest pending entry";

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let totals = self.metrics.totals();
        self.about_the_process(&mut out)?;
        if self.metrics.has_streams() {
            self.about_redis(&mut out, &totals)?;
            totals_of_all(&mut out, &totals)?;
        }
        one_by_one(&mut out, &self.metrics.worst())?;
        for (name, extra) in &*self.metrics.extra() {
            let name = format!("redis_sync_{name}");
            match extra {
                Extra::Counter(help, counter) => out.counter(&name, help, counter.get())?,
                Extra::Gauge(help, gauge) => out.gauge(&name, help, gauge.get())?,
                Extra::Counters(help, family) => out.counters(&name, help, family)?,
                Extra::Gauges(help, family) => out.gauges(&name, help, family)?,
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn about_the_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let inner = &self.metrics.0;
        out.0
            .encode_descriptor("redis_sync", "Which bridge this is", None, MetricType::Info)?
            .encode_info(&[("bridge", inner.bridge), ("version", inner.version)])?;
        let ready = u64::from(self.health.ready().is_ok());
        out.gauge("redis_sync_ready", "1 while every part of the process works, as /readyz says", ready)?;
        self.delivery(out)?;
        let last = self.metrics.last_delivery().unwrap_or_default();
        out.gauge(
            "redis_sync_last_delivery_timestamp_seconds",
            "When an entry was last confirmed; 0 is never",
            last,
        )?;
        let help = "Failures of servers and streams, each attempt counted";
        out.counter("redis_sync_errors", help, self.health.failures())?;
        out.gauge("process_start_time_seconds", "Start of the process since 1970", inner.started)?;
        if let Some(usage) = process::usage() {
            out.gauge("process_resident_memory_bytes", "Resident memory", usage.resident_bytes)?;
            out.gauge("process_open_fds", "Open file descriptors", usage.open_files)?;
            out.counter("process_cpu_seconds", "User and system processor time", usage.cpu_seconds)?;
        }
        Ok(())
    }

    fn about_redis(&self, out: &mut Out<'_>, totals: &Totals) -> fmt::Result {
        let inner = &self.metrics.0;
        out.gauge("redis_sync_streams", "Streams that this process reads", totals.streams)?;
        let mut budget = out.0.encode_descriptor(
            "redis_sync_read_budget_bytes",
            "Bytes read and not yet settled, and how many may be",
            None,
            MetricType::Gauge,
        )?;
        for (kind, value) in [("used", &inner.budget_used), ("limit", &inner.budget_limit)] {
            budget.encode_family(&[("kind", kind)])?.encode_gauge(&value.load(Relaxed))?;
        }
        let operations = self.metrics.redis_operations();
        let help = "Requests sent to the source Redis; a pipeline or a script counts once";
        out.counter("redis_sync_redis_operations", help, operations)
    }

    fn delivery(&self, out: &mut Out<'_>) -> fmt::Result {
        let histogram = &self.metrics.0.delivery;
        let mut bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets = histogram.buckets.each_ref().map(|bucket| {
            let bound = bounds.next().expect("one bound per bucket");
            (bound, bucket.load(Relaxed))
        });
        // Counted from the same reading, so that it equals the last bucket.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = histogram.microseconds.load(Relaxed) as f64 / 1e6;
        let help = "From handing a group of entries to the destination until it is settled";
        out.0
            .encode_descriptor("redis_sync_delivery_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn totals_of_all(out: &mut Out<'_>, totals: &Totals) -> fmt::Result {
    for (name, help, _, total) in COUNTERS {
        let help = format!("{help}, all streams");
        out.counter(&format!("redis_sync_all_{name}"), &help, total(totals))?;
    }
    let help = "Entries that vanished from the source before they were delivered, all streams";
    let mut lost =
        out.0.encode_descriptor("redis_sync_all_lost_at_source", help, None, MetricType::Counter)?;
    for (reason, _, total) in LOST {
        lost.encode_family(&[("reason", reason)])?
            .encode_counter::<NoLabelSet, _, u64>(&total(totals), None)?;
    }
    for (name, help, _, total) in GAUGES {
        let help = format!("{help}, all streams");
        out.gauge(&format!("redis_sync_all_{name}"), &help, total(totals))?;
    }
    let oldest = totals.oldest_pending_ms as f64 / 1e3;
    out.gauge("redis_sync_all_oldest_pending_seconds", &format!("{OLDEST}, all streams"), oldest)?;
    out.gauge("redis_sync_all_held", "Streams that are held", totals.held)
}

fn one_by_one(out: &mut Out<'_>, streams: &[(Arc<str>, Arc<StreamMetrics>)]) -> fmt::Result {
    if streams.is_empty() {
        return Ok(());
    }
    for (name, help, counter, _) in COUNTERS {
        let name = format!("redis_sync_{name}");
        let mut family = out.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (stream, metrics) in streams {
            family
                .encode_family(&[("stream", &**stream)])?
                .encode_counter::<NoLabelSet, _, u64>(&counter(metrics).load(Relaxed), None)?;
        }
    }
    let help = "Entries that vanished from the source before they were delivered";
    let mut lost = out.0.encode_descriptor("redis_sync_lost_at_source", help, None, MetricType::Counter)?;
    for (stream, metrics) in streams {
        for (reason, counter, _) in LOST {
            lost.encode_family(&[("stream", &**stream), ("reason", reason)])?
                .encode_counter::<NoLabelSet, _, u64>(&counter(metrics).load(Relaxed), None)?;
        }
    }
    for (name, help, gauge, _) in GAUGES {
        out.stream_gauge(name, help, streams, |metrics| gauge(metrics).load(Relaxed))?;
    }
    out.stream_gauge("oldest_pending_seconds", OLDEST, streams, |metrics| {
        metrics.oldest_pending_ms.load(Relaxed) as f64 / 1e3
    })?;
    out.stream_gauge("held", "1 while the stream is held", streams, |metrics| metrics.held.load(Relaxed))
}

/// The library's encoder with the two shapes that we write most.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// The name is without `_total`, which the encoder adds.
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters(&mut self, name: &str, help: &str, family: &Family<Counter>) -> fmt::Result {
        let mut out = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, counter) in &family.numbers {
            out.encode_family(&[(family.label, value.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&counter.get(), None)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, family: &Family<Gauge>) -> fmt::Result {
        let mut out = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, gauge) in &family.numbers {
            out.encode_family(&[(family.label, value.as_str())])?.encode_gauge(&gauge.get())?;
        }
        Ok(())
    }

    fn stream_gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        streams: &[(Arc<str>, Arc<StreamMetrics>)],
        value: impl Fn(&StreamMetrics) -> V,
    ) -> fmt::Result {
        let name = format!("redis_sync_stream_{name}");
        let mut family = self.0.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (stream, metrics) in streams {
            family.encode_family(&[("stream", &**stream)])?.encode_gauge(&value(metrics))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// One sample: name, labels in the order written, value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// Reads the text as the OpenMetrics specification (1.0, "Text Format ABNF") has it, and fails where a family
    /// is announced twice, a sample stands outside its family, or the end is missing.
    fn parse(text: &str) -> Vec<Sample> {
        let body = text.strip_suffix("# EOF\n").expect("the end marker");
        let (mut families, mut family, mut samples) =
            (HashSet::new(), (String::new(), String::new()), vec![]);
        let mut help = "";
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').expect("a help text").0;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(help, name, "HELP comes before TYPE");
                assert!(families.insert(name.to_owned()), "{name} is announced twice");
                family = (name.to_owned(), kind.to_owned());
            } else {
                let end = line.find(['{', ' ']).unwrap();
                let suffix = line[..end].strip_prefix(&family.0).expect("a sample of the family announced");
                let expected: &[&str] = match family.1.as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "info" => &["_info"],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    other => panic!("{other}"),
                };
                assert!(expected.contains(&suffix), "{line}");
                let (labels, rest) = labels(&line[end..]);
                samples.push((line[..end].to_owned(), labels, rest.trim().parse().unwrap()));
            }
        }
        samples
    }

    fn labels(text: &str) -> (Vec<(String, String)>, &str) {
        let Some(mut rest) = text.strip_prefix('{') else { return (vec![], text) };
        let mut labels = vec![];
        loop {
            let (name, after) = rest.split_once("=\"").unwrap();
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        other => panic!("no such escape: {other}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((name.to_owned(), value));
            match after[end..].strip_prefix(',') {
                Some(more) => rest = more,
                None => return (labels, after[end..].strip_prefix('}').expect("a closing brace")),
            }
        }
    }

    #[track_caller]
    fn check(samples: &[Sample], name: &str, labels: &[(&str, &str)], expected: f64) {
        let found: Vec<_> = samples
            .iter()
            .filter(|(sample, have, _)| {
                sample == name && have.iter().map(|(k, v)| (&**k, &**v)).eq(labels.iter().copied())
            })
            .map(|(_, _, value)| *value)
            .collect();
        assert_eq!(found, [expected], "{name} {labels:?}");
    }

    #[test]
    fn every_number_is_there() {
        let (metrics, health) = (Metrics::new("redis2x", "1.2.3", 1000), Health::default());
        let evil = "db1:say \"a\\b\"\n# EOF\ntrue{}";
        let stream = metrics.stream(evil);
        for (at, counter) in [
            &stream.read,
            &stream.delivered,
            &stream.acknowledged,
            &stream.filtered,
            &stream.dead_lettered,
            &stream.retried,
            &stream.lost_deleted,
            &stream.lost_trimmed,
            &stream.lag,
            &stream.pending,
            &stream.oldest_pending_ms,
            &stream.held,
        ]
        .into_iter()
        .enumerate()
        {
            counter.store(at as u64 + 1, Relaxed);
        }
        metrics.stream("other").read.store(u64::MAX / 2, Relaxed);
        metrics.read_budget(10, 20);
        metrics.delivery_seconds(0.002);
        metrics.delivery_seconds(0.0025);
        metrics.delivery_seconds(7200.0);
        metrics.counter("reconnects", "Connections made anew").inc_by(3);
        metrics.gauge("sessions", "Open sessions").set(-2);
        let text = metrics.expose(&health);
        let samples = parse(&text);

        let check = |name: &str, labels: &[(&str, &str)], expected| check(&samples, name, labels, expected);
        let of = [("stream", evil)];
        check("redis_sync_entries_read_total", &of, 1.0);
        check("redis_sync_entries_delivered_total", &of, 2.0);
        check("redis_sync_entries_acknowledged_total", &of, 3.0);
        check("redis_sync_entries_filtered_total", &of, 4.0);
        check("redis_sync_entries_dead_lettered_total", &of, 5.0);
        check("redis_sync_entries_retried_total", &of, 6.0);
        check("redis_sync_lost_at_source_total", &[("stream", evil), ("reason", "deleted")], 7.0);
        check("redis_sync_lost_at_source_total", &[("stream", evil), ("reason", "trimmed")], 8.0);
        check("redis_sync_stream_lag_entries", &of, 9.0);
        check("redis_sync_stream_pending_entries", &of, 10.0);
        check("redis_sync_stream_oldest_pending_seconds", &of, 0.011);
        check("redis_sync_stream_held", &of, 12.0);
        check("redis_sync_entries_read_total", &[("stream", "other")], (u64::MAX / 2) as f64);

        check("redis_sync_all_entries_read_total", &[], (u64::MAX / 2 + 1) as f64);
        check("redis_sync_all_entries_retried_total", &[], 6.0);
        check("redis_sync_all_lost_at_source_total", &[("reason", "deleted")], 7.0);
        check("redis_sync_all_lost_at_source_total", &[("reason", "trimmed")], 8.0);
        check("redis_sync_all_lag_entries", &[], 9.0);
        check("redis_sync_all_pending_entries", &[], 10.0);
        check("redis_sync_all_oldest_pending_seconds", &[], 0.011);
        check("redis_sync_all_held", &[], 1.0);

        check("redis_sync_info", &[("bridge", "redis2x"), ("version", "1.2.3")], 1.0);
        check("redis_sync_ready", &[], 0.0);
        check("redis_sync_streams", &[], 2.0);
        check("redis_sync_read_budget_bytes", &[("kind", "used")], 10.0);
        check("redis_sync_read_budget_bytes", &[("kind", "limit")], 20.0);
        check("redis_sync_delivery_seconds_bucket", &[("le", "0.001")], 0.0);
        check("redis_sync_delivery_seconds_bucket", &[("le", "0.0025")], 2.0);
        check("redis_sync_delivery_seconds_bucket", &[("le", "600.0")], 2.0);
        check("redis_sync_delivery_seconds_bucket", &[("le", "+Inf")], 3.0);
        check("redis_sync_delivery_seconds_count", &[], 3.0);
        check("redis_sync_delivery_seconds_sum", &[], 7200.0045);
        check("redis_sync_reconnects_total", &[], 3.0);
        check("redis_sync_sessions", &[], -2.0);
        health.started();
        assert!(metrics.expose(&health).contains("\nredis_sync_ready 1\n"));
    }

    #[test]
    fn numbers_with_a_label() {
        let metrics = Metrics::default();
        metrics.without_streams();
        let count = |value| metrics.labelled_counter("messages_received", "Received", "filter", value);
        count("a/#").inc_by(2);
        count("say \"+\"\n").inc();
        count("a/#").inc();
        metrics.labelled_gauge("messages_unacknowledged", "Not yet", "filter", "a/#").set(-4);
        let samples = parse(&metrics.expose(&Health::default()));
        check(&samples, "redis_sync_messages_received_total", &[("filter", "a/#")], 3.0);
        check(&samples, "redis_sync_messages_received_total", &[("filter", "say \"+\"\n")], 1.0);
        check(&samples, "redis_sync_messages_unacknowledged", &[("filter", "a/#")], -4.0);
        check(&samples, "redis_sync_delivery_seconds_count", &[], 0.0);
        // Nothing of a source that this process does not have.
        let of_redis = |name: &str| name.contains("redis_operations") || name.contains("_all_");
        assert!(!samples.iter().any(|(name, ..)| of_redis(name) || name == "redis_sync_streams"));
        let labelled = metrics.labelled();
        assert_eq!(labelled["filter"]["a/#"]["messages_received"], 3);
        assert_eq!(labelled["filter"]["a/#"]["messages_unacknowledged"], -4);
    }

    #[test]
    #[should_panic(expected = "messages is registered as something else")]
    fn one_name_is_one_kind_of_number() {
        let metrics = Metrics::default();
        metrics.labelled_counter("messages", "Messages", "filter", "a");
        metrics.labelled_counter("messages", "Messages", "topic", "a");
    }

    #[test]
    fn with_too_many_streams_only_the_worst_show_and_the_totals_stay() {
        let metrics = Metrics::new("redis2x", "1", 1);
        metrics.stream("a").lag.store(1, Relaxed);
        metrics.stream("b").lag.store(2, Relaxed);
        let samples = parse(&metrics.expose(&Health::default()));
        let shown: HashSet<_> = samples
            .iter()
            .flat_map(|(_, labels, _)| labels)
            .filter(|(name, _)| name == "stream")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(shown, HashSet::from(["b"]));
        check(&samples, "redis_sync_all_lag_entries", &[], 3.0);
        check(&samples, "redis_sync_streams", &[], 2.0);
    }
}
