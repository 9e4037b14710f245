//! What is known of topics: whether records may be sent there at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::types::RDKafkaErrorCode as Code;
use sync_core::bridge::Fate;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::Names;
use super::fault::words;
use super::retention;
use super::session::Session;

/// A topic that the brokers make by themselves is there after that.
const MAKING: Duration = Duration::from_secs(2);

/// Who asks for a topic sooner than this after another gets the same answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Topics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    states: Mutex<HashMap<Arc<str>, State>>,
    /// Asking how long a topic keeps its records takes a client of its own: one at a time.
    retention: Semaphore,
    names: Names,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Held by who asks for it, on behalf of all its lines.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// What it was like when it was asked for last, if it was not there to be written to.
    last: Option<(Instant, Fate)>,
    /// How long it keeps its records; `None` as long as that was not asked for.
    retention: Option<Retention>,
    /// The brokers have it.
    open: bool,
    /// It refused records; until one got there, each is sent alone.
    refuses: bool,
    /// Since when it is not there; at first the brokers may be about to make it.
    absent: Option<Instant>,
    /// Times that it does not take.
    times: Times,
}

/// How far from now a record's time may not be, in milliseconds, as far as that is known. The brokers do not say what their
/// limits are (`message.timestamp.before.max.ms`, `…after.max.ms`): of a time that they refuse, half is not tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    before: Option<i64>,
    after: Option<i64>,
}

impl Times {
    fn take(self, distance: i64) -> bool {
        let limit = if distance < 0 { self.before } else { self.after };
        limit.is_none_or(|limit| distance.abs() < limit)
    }

    /// Such a time was refused; whether it was the first one on its side.
    fn refused(&mut self, distance: i64) -> bool {
        let limit = if distance < 0 { &mut self.before } else { &mut self.after };
        let half = distance.saturating_abs() / 2;
        let first = limit.is_none();
        *limit = Some(limit.map_or(half, |limit| limit.min(half)));
        first
    }
}

/// Milliseconds from now.
fn distance(timestamp: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp.saturating_sub(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[derive(Clone, Copy, Debug)]
enum Retention {
    /// Asked for, endless, or not told.
    Unknown,
    Of(Duration),
    /// It was said that records are older than that.
    Said,
}

impl Topics {
    /// Nothing is known yet.
    pub(super) fn new(names: Names) -> Self {
        Self(Arc::new(Inner { states: Mutex::default(), retention: Semaphore::new(1), names }))
    }

    /// Says once of each topic that it will drop records as old as this one.
    pub(super) fn look_at_the_time(&self, topic: &str, timestamp: Option<i64>) {
        let Some(timestamp) = timestamp.and_then(|ms| u64::try_from(ms).ok()) else { return };
        let mut states = self.states();
        let Some(State { retention: Some(retention), .. }) = states.get_mut(topic) else { return };
        let &mut Retention::Of(most) = retention else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.saturating_sub(Duration::from_millis(timestamp)) > most {
            *retention = Retention::Said;
            drop(states);
            tracing::warn!(
                "topic {topic} keeps records for {} s (retention.ms), and is sent older ones, which it will drop: raise \
                 retention.ms, or {}",
                most.as_secs(),
                self.0.names.time_of_sending
            );
        }
    }

    /// Whether records may go there at once, and together.
    pub(super) fn is_open(&self, topic: &str) -> bool {
        self.states().get(topic).is_some_and(|state| state.open && !state.refuses)
    }

    pub(super) fn refuses(&self, topic: &str) -> bool {
        self.states().get(topic).is_some_and(|state| state.refuses)
    }

    /// Records to it were refused for the topic's sake, or it is gone.
    pub(super) fn refused(&self, topic: &Arc<str>) {
        self.change(topic, |state| (state.open, state.refuses) = (false, true));
    }

    /// A record got there.
    pub(super) fn took(&self, topic: &Arc<str>) {
        self.change(topic, |state| state.refuses = false);
    }

    /// Whether a record may bear this time there.
    pub(super) fn takes_the_time(&self, topic: &str, timestamp: Option<i64>) -> bool {
        let Some(timestamp) = timestamp else { return true };
        let times = self.states().get(topic).map(|state| state.times).unwrap_or_default();
        // The usual case, without a look at the clock.
        (times.before.is_none() && times.after.is_none()) || times.take(distance(timestamp))
    }

    /// The brokers refused a record for its time, and took it with the present one.
    pub(super) fn took_without_its_time(&self, topic: &Arc<str>, timestamp: i64) {
        let (distance, mut first) = (distance(timestamp), false);
        self.change(topic, |state| first = state.times.refused(distance));
        if first {
            let (side, setting) = match distance < 0 {
                true => ("old", "before"),
                false => ("far ahead", "after"),
            };
            tracing::warn!(
                "topic {topic} refuses {} where that is too {side} (message.timestamp.{setting}.max.ms): such records bear the \
                 time of sending",
                self.0.names.time
            );
        }
    }

    /// Some topic that the brokers have.
    pub(super) fn an_open_one(&self) -> Option<Arc<str>> {
        self.states().iter().find(|(_, state)| state.open).map(|(topic, _)| topic.clone())
    }

    /// Another producer knows nothing of any topic.
    pub(super) fn close_all(&self) {
        self.states().values_mut().for_each(|state| state.open = false);
    }

    /// Asks for it where that was not done yet; `Err` is what becomes of its records.
    pub(super) async fn open(&self, session: &Arc<Session>, topic: &Arc<str>) -> Result<(), Fate> {
        let asking = self.states().entry(topic.clone()).or_default().asking.clone();
        let _one_of_them = asking.lock().await;
        if let Some(state) = self.states().get(topic) {
            match &state.last {
                _ if state.open => return Ok(()),
                Some((at, fate)) if at.elapsed() < ASK_AGAIN => return Err(fate.clone()),
                _ => {}
            }
        }
        let Ok(answer) = session.ask_for(topic).await else { return Err(Fate::Unknown) };
        let mut states = self.states();
        let state = states.entry(topic.clone()).or_default();
        let now = Instant::now();
        let absent = state.absent.get_or_insert(now).elapsed();
        let fate = match answer {
            None => {
                (state.open, state.absent, state.last) = (true, None, None);
                drop(states);
                self.ask_for_retention(session, topic);
                return Ok(());
            }
            // Asking for it makes it, where the brokers make topics by themselves; that takes a moment.
            Some(Code::UnknownTopicOrPartition) if absent < MAKING => {
                Fate::Busy(format!("topic {topic} does not exist (yet)"))
            }
            Some(Code::UnknownTopicOrPartition) => Fate::Held(format!(
                "topic {topic} does not exist, and the brokers do not make it (auto.create.topics.enable): create it"
            )),
            Some(Code::LeaderNotAvailable) => Fate::Busy(format!("topic {topic} has no leader (yet)")),
            Some(code) => Fate::Held(of_topic(topic, code)),
        };
        if answer != Some(Code::UnknownTopicOrPartition) {
            state.absent = None;
        }
        state.last = Some((now, fate.clone()));
        Err(fate)
    }

    /// Once, beside what is sent: it only serves to warn.
    fn ask_for_retention(&self, session: &Session, topic: &Arc<str>) {
        if self.states().get(topic).is_some_and(|state| state.retention.is_some()) {
            return;
        }
        self.change(topic, |state| state.retention = Some(Retention::Unknown));
        let (topics, topic, config) = (self.clone(), topic.clone(), session.config().clone());
        tokio::spawn(async move {
            let _permit = topics.0.retention.acquire().await;
            if let Some(most) = retention::of(&config, &topic).await {
                topics.change(&topic, |state| state.retention = Some(Retention::Of(most)));
            }
        });
    }

    fn change(&self, topic: &Arc<str>, change: impl FnOnce(&mut State)) {
        change(self.states().entry(topic.clone()).or_default());
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Arc<str>, State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the brokers say of a topic.
pub(super) fn of_topic(topic: &str, code: Code) -> String {
    match code {
        Code::TopicAuthorizationFailed => format!(
            "not permitted to write to topic {topic}: the user needs the operations WRITE and DESCRIBE there ({code:?})"
        ),
        code => format!("topic {topic} takes no records: {}", words(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_refused_by_their_distance_from_now() {
        let mut times = Times::default();
        assert!(times.take(-1_000_000) && times.take(1_000_000));
        assert!(times.refused(8000));
        assert!(times.take(-1_000_000) && times.take(3999) && !times.take(4000));
        assert!(!times.refused(4000) && times.refused(-600));
        assert!(times.take(1999) && !times.take(2000) && times.take(-299) && !times.take(-300));
    }
}
