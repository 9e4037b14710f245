//! Keys that are no setting of the bridge: which of them are somebody's slip and deserve a warning, and which
//! belong to another bridge, to a compose file or to the orchestrator. Never an error.

use super::layers::Written;
use super::report::Notes;
use super::table::Bridge;

/// Whose keys a layer holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// All were meant for a bridge: the file, the command line.
    Ours,
    /// The environment: only what begins like one of the bridge's own settings is looked at.
    Everybodys,
}

/// The compose files that the bridges' descriptions give use these.
const COMPOSE: &[&str] =
    &["REGISTRY", "TAG", "REDIS_TIME_TO_LIVE", "REDIS_MAXMEMORY", "REDIS_MAXMEMORY_POLICY"];

/// Families of settings. A key of a family of which the bridge has no member belongs to another bridge.
const FAMILIES: &[&str] = &[
    "SOURCE_REDIS_",
    "REDIS_",
    "STREAM_",
    "FILTER_",
    "TARGET_REDIS_",
    "MQTT_",
    "KAFKA_",
    "BUFFER_",
    "PG_",
    "POSTGRES_",
    "KEY_VALUE_",
    "UNS_",
];

/// Settings of single bridges that stand in a family others have too, or in none.
const OF_OTHER_BRIDGES: &[&str] = &[
    "STREAM_TARGET_TOPIC_MAP",
    "STREAM_CLEANUP",
    "STREAM_TABLE_NAME",
    "STREAM_CONFLICT_OVERWRITE",
    "TARGET_STREAM_PREFIX",
    "TARGET_STREAM_MAXLEN",
    "TARGET_ID_CONFLICT",
    "TARGET_REDIS_WAIT_REPLICAS",
    "TARGET_REDIS_TIME_TO_LIVE",
    "TARGET_REDIS_SYNC_TTL",
    "SYNC_INTERVAL",
    "MONITOR_INTERVAL",
    "DATA_FORMAT",
];

/// Warns of each key that looks like a slip, and names the setting it resembles most.
pub(super) fn look_through(bridge: &Bridge, layer: &[Written], whose: Whose, notes: &mut Notes) {
    for Written { key, value, origin } in layer {
        if is_known(bridge, key)
            || COMPOSE.contains(&key.as_str())
            || OF_OTHER_BRIDGES.contains(&key.as_str())
        {
            continue;
        }
        let family = FAMILIES.iter().find(|family| key.starts_with(**family));
        let worth_a_word = match family {
            Some(family) => own_names(bridge).any(|name| name.starts_with(*family)),
            None => whose == Whose::Ours,
        };
        if worth_a_word && !(whose == Whose::Everybodys && is_injected(key, value)) {
            let nearest = nearest(bridge, key);
            notes
                .warn(format!("{key} ({origin}) is no setting of {}; the nearest is {nearest}", bridge.name));
        }
    }
}

/// Not the aliases, which come from other bridges.
fn own_names(bridge: &Bridge) -> impl Iterator<Item = &'static str> {
    bridge.settings().map(|setting| setting.name).chain(bridge.spellings.iter().copied())
}

/// Whether the bridge reads this key, as a setting's spelling or as the file of a secret.
pub(super) fn is_known(bridge: &Bridge, key: &str) -> bool {
    keys(bridge).any(|known| known == key)
}

fn keys(bridge: &Bridge) -> impl Iterator<Item = String> {
    bridge.settings().flat_map(|setting| {
        setting.spellings().flat_map(move |spelling| {
            let file = setting.is_secret().then(|| format!("{spelling}_FILE"));
            std::iter::once(spelling.to_owned()).chain(file)
        })
    })
}

fn nearest(bridge: &Bridge, key: &str) -> String {
    nearest_of(key, keys(bridge)).unwrap_or_default()
}

/// Which of the known keys this one resembles most, whatever the letter case.
pub fn nearest_of(key: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let key: String = key.to_ascii_uppercase().chars().take(64).collect();
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(&key, &known.to_ascii_uppercase()), known))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, known)| known)
}

/// Whether Kubernetes (service links) or Docker (container links) put this variable there: for a service `redis`
/// they set REDIS_PORT=tcp://10.0.0.1:6379, REDIS_SERVICE_HOST, REDIS_PORT_6379_TCP_ADDR and more.
pub fn is_injected(key: &str, value: &str) -> bool {
    let numbered_port = key.split("_PORT_").skip(1).any(|rest| {
        let (port, protocol) = rest.split_once('_').unwrap_or_default();
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|known| protocol.starts_with(known))
    });
    is_injected_port(key, value)
        || numbered_port
        || key.ends_with("_SERVICE_HOST")
        || key.ends_with("_SERVICE_PORT")
        || key.contains("_SERVICE_PORT_")
        || key.contains("_ENV_")
        || (key.ends_with("_NAME") && value.starts_with('/'))
}

/// The one of them that has a setting's name, such as REDIS_PORT.
pub(super) fn is_injected_port(key: &str, value: &str) -> bool {
    key.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}
