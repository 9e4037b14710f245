//! How the broker is reached, and when that is tried again. What happens on a connection is in `subscriber.rs`.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use mqtt_client::{Granted, Options, SessionWish, Version};
use rumqttc::QoS;
use sync_core::bridge::Unreachable;
use sync_core::retry::Backoff;
use sync_core::settings::RetrySettings;
use sync_core::telemetry::health::{Health, Severity};
use tokio::time::{Instant, sleep};

use crate::subscriber::{Gone, Subscriber};

/// Hanging up so often in a row is no restart.
const TOO_OFTEN: u32 = 3;

/// What is asked of the broker.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) options: Options,
    pub(crate) version: Version,
    pub(crate) filters: Vec<String>,
    pub(crate) qos: QoS,
}

/// A connection, and whether the broker had kept the session.
pub(crate) struct Connection {
    pub(crate) subscriber: Subscriber,
    pub(crate) session_present: bool,
}

pub(crate) type Attempt = BoxFuture<'static, Result<Connection, Unreachable>>;

/// See the module.
pub(crate) struct Broker {
    wish: Wish,
    retry: RetrySettings,
    /// `mqtt.reconnect_on_failure`.
    reconnects: bool,
    backoff: Backoff,
    /// This process has asked for its filters: with a session, they need not be asked for again.
    has_subscribed: bool,
    /// When the broker refused a filter, until it is asked again.
    refused: Option<Instant>,
    /// Since when there is a connection.
    since: Option<Instant>,
    /// When the broker hung up without a word last, and how often in a row.
    hung_up: Option<(Instant, u32)>,
}

impl Broker {
    pub(crate) fn new(wish: Wish, retry: RetrySettings, reconnects: bool) -> Self {
        Self {
            wish,
            retry,
            reconnects,
            backoff: Backoff::new(retry),
            has_subscribed: false,
            refused: None,
            since: None,
            hung_up: None,
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        self.wish.name()
    }

    /// Attempts at start.
    pub(crate) fn attempts(&self) -> u32 {
        self.retry.max_retries
    }

    /// One attempt, after this time.
    pub(crate) fn attempt(&self, after: Duration) -> Attempt {
        let (wish, has_subscribed) = (self.wish.clone(), self.has_subscribed);
        async move {
            sleep(after).await;
            wish.connect(has_subscribed).await
        }
        .boxed()
    }

    /// An attempt that follows one that failed.
    pub(crate) fn attempt_again(&mut self, unreachable: &Unreachable, health: &Health) -> Attempt {
        let severity = if unreachable.needs_human { Severity::Error } else { Severity::Warn };
        health.down(&self.name(), &unreachable.reason, severity);
        self.hung_up = None;
        let delay = self.backoff.next_delay();
        self.attempt(delay)
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self, health: &Health) {
        self.since = Some(Instant::now());
        health.up(&self.name());
        health.started();
    }

    /// It has ended. The attempt at the next one; an error where there is to be none.
    pub(crate) fn lost(&mut self, gone: Gone, health: &Health) -> Result<Attempt, Gone> {
        let Gone { mut reason, mut taken_over, hung_up } = gone;
        // Some brokers have no word for it, nor has 3.1.1: two clients with one client ID hang each other up. A broker that
        // restarts hangs up as well, but then it is away for a moment, or does not do it again and again.
        if hung_up && self.hangs_up() >= TOO_OFTEN {
            reason.push_str(" again: it seems that another client uses this mqtt.client_id");
            taken_over = true;
        }
        if !self.reconnects {
            return Err(Gone { reason, taken_over, hung_up });
        }
        let severity = if taken_over { Severity::Error } else { Severity::Warn };
        health.down(&self.name(), &reason, severity);
        // A connection that lasted is followed by an attempt at once; one that did not is no reason to hurry. Whoever was
        // replaced waits as long as it ever waits: else two replace each other all the time.
        let lasted = self.since.take().is_some_and(|since| since.elapsed() >= self.retry.cap);
        let delay = if taken_over {
            self.retry.cap
        } else if lasted {
            self.backoff.reset();
            Duration::ZERO
        } else {
            self.backoff.next_delay()
        };
        Ok(self.attempt(delay))
    }

    /// It hung up: how often it did so in a row.
    fn hangs_up(&mut self) -> u32 {
        let before = self.hung_up.filter(|(at, _)| at.elapsed() < self.retry.cap * 2);
        let times = before.map_or(0, |(_, times)| times) + 1;
        self.hung_up = Some((Instant::now(), times));
        times
    }

    /// What the broker says of each filter.
    pub(crate) fn subscribed(&mut self, granted: &[Result<u8, String>], health: &Health) {
        self.has_subscribed = granted.iter().all(Result::is_ok);
        self.refused = (!self.has_subscribed).then(Instant::now);
        for (filter, granted) in self.wish.filters.iter().zip(granted) {
            let part = format!("subscription {filter} at the {}", self.wish.name());
            match granted {
                Ok(qos) => {
                    if *qos < self.wish.qos as u8 {
                        tracing::warn!(
                            "the broker grants QoS {qos} for {filter}, and mqtt.qos is {}",
                            self.wish.qos as u8
                        );
                    }
                    health.up(&part);
                }
                Err(reason) => health.down(&part, &format!("refused: {reason}"), Severity::Error),
            }
        }
    }

    /// What is to be subscribed to once more, where the broker refused a filter a while ago.
    pub(crate) fn ask_again(&mut self) -> Option<(&[String], QoS)> {
        let at = self.refused?;
        if at.elapsed() < self.retry.cap {
            return None;
        }
        self.refused = None;
        Some((&self.wish.filters, self.wish.qos))
    }
}

impl Wish {
    /// For people.
    pub(crate) fn name(&self) -> String {
        format!("MQTT broker {}:{}", self.options.address.host, self.options.address.port)
    }

    async fn connect(self, has_subscribed: bool) -> Result<Connection, Unreachable> {
        let connected = mqtt_client::connect(&self.options, self.version).await;
        let (wire, granted) = connected.map_err(|refused| refused.unreachable)?;
        tracing::debug!(?granted, "MQTT connection");
        self.check(&granted)?;
        let mut subscriber = Subscriber::new(wire, granted.keep_alive);
        if !(has_subscribed && granted.session_present) {
            let asked = subscriber.subscribe(&self.filters, self.qos).await;
            asked.map_err(|gone| Unreachable { reason: gone.reason, needs_human: false })?;
        }
        Ok(Connection { subscriber, session_present: granted.session_present })
    }

    /// What the broker does not do, and is asked for.
    fn check(&self, granted: &Granted) -> Result<(), Unreachable> {
        let needs_human = |reason: String| Err(Unreachable { reason, needs_human: true });
        let shared = self.filters.iter().find(|filter| filter.starts_with("$share/"));
        if let Some(filter) = shared.filter(|_| !granted.shared_subscriptions) {
            return needs_human(format!("it has no shared subscriptions, and mqtt.topics has {filter}"));
        }
        let wild = self.filters.iter().find(|filter| filter.contains(['+', '#']));
        if let Some(filter) = wild.filter(|_| !granted.wildcard_subscriptions) {
            return needs_human(format!("it has no wildcards in filters, and mqtt.topics has {filter}"));
        }
        if let (SessionWish::Resume { expiry }, Some(seconds)) =
            (self.options.session, granted.session_expiry)
            && seconds < expiry
        {
            tracing::warn!(
                "the broker keeps the session for {seconds} s, and mqtt.session_expiry is {expiry} s"
            );
        }
        Ok(())
    }
}
