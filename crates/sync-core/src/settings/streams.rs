//! Reads which streams a bridge reads and how.

use std::time::Duration;

use bytes::Bytes;

use super::reader::{Given, Reader};
use super::rules::{self, Ruled};
use super::shared::*;
use super::{Cleanup, Discovery, Filter, Ownership, StartId, StreamSettings};
use crate::record::EntryId;

/// A longer wait gains nothing, since data ends it at once, and would hold up a stop.
const LONGEST_POLL: Duration = Duration::from_secs(2);
/// As often as lag and losses are looked at: a stream grows for so long at most by what nobody needs.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);

impl StreamSettings {
    /// The settings of the streams group. Streams named without `dbN:` are in `default_db`.
    pub fn read(reader: &mut Reader, default_db: u16) -> Self {
        let enabled = reader.value(&REDIS_STREAMS_ENABLED, rules::boolean);
        let named = reader.optional(&REDIS_STREAMS, rules::streams(default_db)).unwrap_or_default();
        let discovering = reader.value(&STREAM_AUTO_DISCOVERY, rules::boolean);
        // Read whether or not discovery is on, so that a mistake shows before it is switched on.
        let discovery = Discovery {
            dbs: reader.value(&SOURCE_REDIS_DB_SEARCH_RANGE, rules::databases),
            patterns: reader.value(&STREAM_DISCOVERY_PATTERNS, rules::patterns),
            exclude: reader.optional(&STREAM_EXCLUDE_PATTERNS, rules::patterns).unwrap_or_default(),
        };
        if !enabled {
            reader.warn(format!("no stream is read: {}", reader.named(&REDIS_STREAMS_ENABLED)));
        } else if !discovering && named.is_empty() {
            let off = reader.named(&STREAM_AUTO_DISCOVERY);
            reader.warn(format!("no stream is read: {off} is off and REDIS_STREAMS names none"));
        }
        let base = reader.value(&STREAM_CONSUMER_NAME, rules::text);
        Self {
            enabled,
            named,
            dbs: discovery.dbs.clone(),
            discovery: discovering.then_some(discovery),
            discovery_interval: reader.value(&STREAM_DISCOVERY_INTERVAL, rules::seconds(0.1..=86400.0)),
            auto_create_groups: reader.value(&STREAM_AUTO_CREATE_CONSUMER_GROUPS, rules::boolean),
            start_id: reader.value(&STREAM_START_ID, start_id),
            group: reader.value(&STREAM_CONSUMER_GROUP, rules::text),
            consumer: format!("{base}-{}-{}", reader.host(), std::process::id()),
            consumer_base: base,
            batch_size: reader.value(&STREAM_BATCH_SIZE, rules::integer(1..=1_000_000)),
            poll_interval: poll_interval(reader),
            filter: filter(reader),
            dead_letter_suffix: reader.value(&STREAM_DEAD_LETTER_SUFFIX, rules::text),
            dead_letter_maxlen: reader.value(&STREAM_DEAD_LETTER_MAXLEN, rules::integer(0..=u64::MAX)),
            ownership: reader.value(
                &STREAM_OWNERSHIP,
                rules::one_of(&[("shared", Ownership::Shared), ("exclusive", Ownership::Exclusive)]),
            ),
            source_name: reader.optional(&SOURCE_NAME, rules::text),
            max_deliveries: reader.value(&STREAM_MAX_DELIVERIES, rules::integer(0..=u64::from(u32::MAX))),
            rate_limit: reader.value(&REDIS_RATE_LIMIT, rules::integer(0..=u64::from(u32::MAX))),
            cleanup: Cleanup::Ack,
            cleanup_interval: CLEANUP_INTERVAL,
        }
    }
}

impl Cleanup {
    /// STREAM_CLEANUP, of a bridge that lists it: for [`StreamSettings::cleanup`].
    pub fn read(reader: &mut Reader) -> Self {
        let words = [("delete", Self::Delete), ("ack", Self::Ack), ("trim", Self::Trim)];
        reader.value(&STREAM_CLEANUP, rules::one_of(&words))
    }
}

fn start_id(given: &Given<'_>) -> Ruled<StartId> {
    match given.text {
        "$" => Ok(StartId::Latest),
        text => match text.parse::<EntryId>() {
            Ok(id) => Ok(StartId::After(id)),
            Err(_) => Err("must be 0, an entry ID such as 1526919030474-55, or $".to_owned()),
        },
    }
}

/// A longer interval than allowed is shortened: it was a good one for the programs the descriptions are of.
fn poll_interval(reader: &mut Reader) -> Duration {
    let longest = LONGEST_POLL.as_secs_f64();
    let interval = reader.value(&STREAM_POLL_INTERVAL, |given| {
        rules::seconds(0.001..=86400.0)(given).or_else(|_| rules::seconds(0.001..=longest)(given))
    });
    if interval <= LONGEST_POLL {
        return interval;
    }
    let named = reader.named(&STREAM_POLL_INTERVAL);
    reader.warn(format!("{named} is shortened to {longest} s; data ends an idle read at once"));
    reader.replace(
        STREAM_POLL_INTERVAL.name,
        longest.to_string(),
        format!("the longest that {named} may be"),
    );
    LONGEST_POLL
}

fn filter(reader: &mut Reader) -> Option<Filter> {
    let field = reader.optional(&FILTER_FIELD, rules::text);
    let values = reader.optional(&FILTER_VALUES, rules::list);
    for (one, other) in [(&FILTER_FIELD, &FILTER_VALUES), (&FILTER_VALUES, &FILTER_FIELD)] {
        if reader.is_set(one) && !reader.is_set(other) {
            let rule = format!("needs {} beside it", reader.named(other));
            reader.mistake(one, rule);
        }
    }
    let values = values?.into_iter().map(Bytes::from).collect();
    Some(Filter { field: field?.into(), values })
}
