//! What librdkafka is told: keys and values, checked one by one, and which of them nobody may set.
//! <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md> has its keys.

use std::collections::BTreeMap;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};
use sync_core::settings::Secret;

/// How Kafka is reached and written to.
#[derive(Clone, Debug)]
pub struct Client {
    /// By their one name. Some values are secrets.
    keys: BTreeMap<String, Secret>,
    pub(crate) names: Names,
}

/// What the user calls things that a message may be about.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The setting that says how long a record may be.
    pub max_request_size: &'static str,
    /// The time that records bear, such as "the time in the entries' IDs".
    pub time: &'static str,
    /// How to have them bear the time of sending, such as "set KAFKA_TIMESTAMP=now".
    pub time_of_sending: &'static str,
}

/// A key that cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// As it was given.
    pub key: String,
    /// What it breaks. Without the value: it may be a secret.
    pub rule: String,
}

/// What makes a producer: nothing times out in mid-stream, and nothing is confirmed that a broker alone has. What is under
/// way is bounded by whoever hands records over, not by the client library.
pub(crate) const PRODUCER: [(&str, &str); 7] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("message.timeout.ms", "0"),
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "2097151"),
    // An unknown topic is looked at before anything is sent there.
    ("topic.metadata.propagation.max.ms", "1000"),
    ("log.connection.close", "false"),
];

/// What else nobody may set, since delivery depends on it.
const DELIVERY: [&str; 8] = [
    "topic.blacklist",
    "plugin.library.paths",
    "enable.gapless.guarantee",
    "retries",
    "transactional.id",
    "delivery.report.only.error",
    "queuing.strategy",
    "produce.offset.report",
];

/// Names that stand for another one: what a key is called must not decide which of two values counts.
const ALIASES: [(&str, &str); 8] = [
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

const WHY: &str = "that nothing is lost and order is kept depends on it";

/// The most with which an idempotent producer keeps order (KIP-679).
pub const MOST_IN_FLIGHT: u32 = 5;

/// librdkafka's own (`message.max.bytes`).
const MAX_REQUEST_SIZE: usize = 1_000_000;

/// The name by which a key is known here, of those that librdkafka has for it.
#[must_use]
pub fn one_name(key: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

/// Whether a key is one that delivery depends on, so that nobody may set it.
#[must_use]
pub fn is_of_delivery(key: &str) -> bool {
    let key = one_name(key);
    key.starts_with("test.") || DELIVERY.contains(&key) || PRODUCER.iter().any(|(set, _)| *set == key)
}

/// Whether this is one `host:port`, or `host` alone.
#[must_use]
pub fn is_server(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    !(port.is_some_and(|(host, port)| host.is_empty() || !is_port(port))
        || text.is_empty()
        || text.contains(char::is_whitespace)
        || text.contains(['@', '/']))
}

/// Of a client that nobody uses: nobody wants to hear of it.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl Client {
    /// Nothing is set yet: at least `bootstrap.servers` is to follow.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self { keys: BTreeMap::new(), names }
    }

    /// Of keys and values that a person wrote, in librdkafka's own terms. What delivery depends on may stand there with the
    /// value that it has anyway (`acks=all`). All mistakes at once, in the order of the pairs.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        names: Names,
    ) -> Result<Self, Vec<Mistake>> {
        let mut client = Self::new(names);
        let mut mistakes = Vec::new();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in pairs {
            let twice = seen.insert(one_name(key), key);
            let checked = match twice {
                Some(other) => Err(format!("is another name of {other}, which is set too")),
                None => client.put_of_person(key, value),
            };
            if let Err(rule) = checked {
                mistakes.push(Mistake { key: key.to_owned(), rule });
            }
        }
        if !seen.contains_key("bootstrap.servers") {
            let rule = "must be set, or metadata.broker.list: host:port of some brokers between commas";
            mistakes.push(Mistake { key: "bootstrap.servers".into(), rule: rule.into() });
        }
        if mistakes.is_empty() { Ok(client) } else { Err(mistakes) }
    }

    fn put_of_person(&mut self, key: &str, value: &str) -> Result<(), String> {
        let name = one_name(key);
        if let Some((_, ours)) = PRODUCER.iter().find(|(set, _)| *set == name) {
            let same = value.eq_ignore_ascii_case(ours) || (name == "acks" && value == "-1");
            return if same { Ok(()) } else { Err(format!("must be {ours}, or not set: {WHY}")) };
        }
        if is_of_delivery(name) {
            return Err(format!("must not be set: {WHY}"));
        }
        if name == "statistics.interval.ms" {
            return Err("must not be set: nobody reads these statistics".into());
        }
        if name == "bootstrap.servers" {
            // librdkafka takes a protocol before each.
            let bare = |server: &str| server.split_once("://").map_or(server, |(_, bare)| bare).to_owned();
            let wrong = value.split(',').map(str::trim).find(|server| !is_server(&bare(server)));
            if let Some(server) = wrong {
                return Err(format!(
                    "must be host:port of some brokers between commas, which {server:?} is not"
                ));
            }
        }
        self.put(name, value).map_err(|words| format!("is refused by librdkafka: {words}"))?;
        if name == "max.in.flight" && value.trim().parse().is_ok_and(|most: u32| most > MOST_IN_FLIGHT) {
            return Err(format!("must be at most {MOST_IN_FLIGHT}: with more, Kafka keeps no order"));
        }
        Ok(())
    }

    /// Sets a key, if librdkafka knows it and takes the value; else what it has to say, without the value: that may be a
    /// secret. Whether the values go together shows only when a producer is made of them.
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        match ClientConfig::new().set(key, value).create_native_config() {
            Ok(_) => {
                self.keys.insert(one_name(key).to_owned(), Secret::new(value));
                Ok(())
            }
            Err(KafkaError::ClientConfig(_, description, _, _)) => Err(description),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the values go together, and the files that they name can be used: else what librdkafka has to say. No
    /// broker is asked.
    pub fn try_out(&self) -> Result<(), String> {
        let mut config = self.config();
        // Without servers it connects to nobody.
        config.remove("bootstrap.servers");
        for (key, value) in PRODUCER {
            config.set(key, value);
        }
        match config.create_with_context::<_, BaseProducer<Quiet>>(Quiet) {
            Ok(_) => Ok(()),
            Err(KafkaError::ClientCreation(words)) => Err(words),
            // It would tell the value, too; but each key was looked at by itself.
            Err(KafkaError::ClientConfig(_, words, key, _)) => Err(format!("{key}: {words}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The value of a key, by whatever name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(one_name(key)).map(Secret::expose)
    }

    /// Where Kafka is, for messages.
    #[must_use]
    pub fn servers(&self) -> &str {
        self.get("bootstrap.servers").unwrap_or_default()
    }

    /// The longest record, in bytes, with its key.
    #[must_use]
    pub fn max_request_size(&self) -> usize {
        self.get("message.max.bytes").and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(MAX_REQUEST_SIZE)
    }

    /// As the client library takes it, but for what makes a producer.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in &self.keys {
            config.set(key, value.expose());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names { max_request_size: "max", time: "the time", time_of_sending: "do" };

    fn mistakes(pairs: &[(&str, &str)]) -> Vec<String> {
        let all = [&[("bootstrap.servers", "b:9092")], pairs].concat();
        let mistakes = Client::from_pairs(all, NAMES).err().unwrap_or_default();
        mistakes.into_iter().map(|Mistake { key, rule }| format!("{key} {rule}")).collect()
    }

    #[test]
    fn what_a_person_wrote_is_told_to_librdkafka_by_one_name() {
        let pairs = [
            ("metadata.broker.list", "SSL://a:9092, [::1]:9093,c"),
            ("client.id", "plant-7"),
            ("queue.buffering.max.ms", "20"),
            ("acks", "-1"),
            ("enable.idempotence", "True"),
            ("message.max.bytes", "5000000"),
            ("sasl.password", "s3cret"),
        ];
        let client = Client::from_pairs(pairs, NAMES).expect("no mistake");
        assert_eq!(client.servers(), "SSL://a:9092, [::1]:9093,c");
        assert_eq!(client.max_request_size(), 5_000_000);
        let config = client.config();
        assert_eq!((config.get("linger.ms"), config.get("client.id")), (Some("20"), Some("plant-7")));
        assert_eq!((config.get("acks"), config.get("sasl.password")), (None, Some("s3cret")));
        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[test]
    fn librdkafkas_own_limit_counts_where_none_is_set() {
        let client = Client::from_pairs([("bootstrap.servers", "b")], NAMES).expect("no mistake");
        assert_eq!(client.max_request_size(), 1_000_000);
    }

    #[test]
    fn mistakes_come_together_and_without_values() {
        let found = mistakes(&[
            ("acks", "1"),
            ("retries", "3"),
            ("linger.ms", "s3cret"),
            ("lingre.ms", "s3cret"),
            ("compression.type", "rar"),
        ]);
        let expected = [
            "acks must be all, or not set: that nothing is lost",
            "retries must not be set: that nothing is lost",
            "linger.ms is refused by librdkafka: ",
            "lingre.ms is refused by librdkafka: No such configuration property",
            "compression.type is refused by librdkafka: ",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected) && !found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn what_delivery_depends_on_is_known_by_all_its_names() {
        for key in [
            "request.required.acks",
            "message.send.max.retries",
            "delivery.timeout.ms",
            "test.mock.num.brokers",
        ] {
            assert!(is_of_delivery(key), "{key}");
            assert_eq!(mistakes(&[(key, "2")]).len(), 1, "{key}");
        }
        assert_eq!(mistakes(&[("request.required.acks", "all"), ("delivery.timeout.ms", "0")]), [""; 0]);
    }

    #[test]
    fn librdkafka_has_these_other_names() {
        for (alias, name) in ALIASES {
            let native = ["7", "gzip", "PLAIN"].into_iter().find_map(|value| {
                let native = ClientConfig::new().set(alias, value).create_native_config().ok()?;
                Some((native.get(name).expect("a key"), value))
            });
            assert!(native.is_some_and(|(found, value)| found == value), "{alias} is not {name}");
        }
    }

    #[test]
    fn two_values_under_two_names_are_a_mistake() {
        let found = mistakes(&[("linger.ms", "1"), ("queue.buffering.max.ms", "2")]);
        assert_eq!(found, ["queue.buffering.max.ms is another name of linger.ms, which is set too"]);
    }

    #[test]
    fn servers_are_needed_and_looked_at() {
        let found = Client::from_pairs([("client.id", "a")], NAMES).expect_err("no servers");
        assert!(found.len() == 1 && found[0].key == "bootstrap.servers", "{found:?}");
        for wrong in ["", "a:99999", "a:9092,,b", "a b", "user@a:1"] {
            let found = Client::from_pairs([("metadata.broker.list", wrong)], NAMES).expect_err(wrong);
            assert!(found.len() == 1 && found[0].key == "metadata.broker.list", "{found:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_shows_without_a_broker() {
        let try_out = |pairs: &[(&str, &str)]| {
            let all = [&[("bootstrap.servers", "nowhere.invalid:9092")], pairs].concat();
            Client::from_pairs(all, NAMES).expect("each by itself is good").try_out()
        };
        assert_eq!(try_out(&[("client.id", "a"), ("linger.ms", "5")]), Ok(()));
        let wrong = |pairs: &[(&str, &str)], words: &str| {
            let error = try_out(pairs).expect_err(words);
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        };
        wrong(&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")], "sasl.username");
        wrong(&[("security.protocol", "SSL"), ("ssl.ca.location", "/nonexistent.pem")], "ssl.ca.location");
        wrong(&[("security.protocol", "SSL"), ("ssl.key.pem", "s3cret")], "ssl.key.pem");
    }

    #[test]
    fn more_in_flight_than_keeps_order_is_a_mistake() {
        assert!(mistakes(&[("max.in.flight.requests.per.connection", "6")])[0].contains("at most 5"));
        assert_eq!(mistakes(&[("max.in.flight", "5")]), [""; 0]);
    }
}
