//! Sparkplug B (<https://sparkplug.eclipse.org/specification/>, 3.0): which messages are such, and their payloads as JSON. It
//! owns the reading of the protobuf and the names that births give to aliases; it refuses what does not decode.

mod array;
mod births;
mod json;

use bytes::Bytes;
use prost::{DecodeError, Message};

pub(crate) use births::Births;
pub(crate) use json::{Names, TooLarge};

/// Made from the `.proto` by the build script.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/org.eclipse.tahu.protobuf.rs"));
}

pub(crate) use proto::Payload;

/// How the topics of Sparkplug B begin.
const NAMESPACE: &str = "spBv1.0/";

/// What a topic says of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic<'a> {
    /// A Sparkplug payload of an edge node or a device, whose aliases are known from births.
    Of(Origin<'a>),
    /// A Sparkplug payload of nobody in particular: the topic is in the namespace, but has an unknown type of message or
    /// another number of levels than that takes. It is read all the same, and knows no aliases.
    OfNobody,
    /// None: the topic is not in the namespace, or a host's `spBv1.0/STATE/+`, which is JSON.
    NotSparkplug,
}

/// An edge node, or a device of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) group: &'a str,
    pub(crate) node: &'a str,
    pub(crate) device: Option<&'a str>,
    /// Whether the message is a birth.
    pub(crate) birth: bool,
}

impl<'a> Topic<'a> {
    /// Reads the name of a topic: `spBv1.0/group/type/node` or `spBv1.0/group/type/node/device` (chapter 4).
    pub(crate) fn new(topic: &'a str) -> Self {
        let Some(rest) = topic.strip_prefix(NAMESPACE) else { return Self::NotSparkplug };
        let mut levels = rest.split('/');
        let [group, kind, node, device] = [levels.next(), levels.next(), levels.next(), levels.next()];
        let (Some(group), Some(kind)) = (group, kind) else { return Self::OfNobody };
        if group == "STATE" && node.is_none() {
            return Self::NotSparkplug;
        }
        let Some(node) = node.filter(|_| levels.next().is_none()) else { return Self::OfNobody };
        match (kind, device) {
            ("NBIRTH" | "NDATA" | "NCMD" | "NDEATH", None)
            | ("DBIRTH" | "DDATA" | "DCMD" | "DDEATH", Some(_)) => {
                Self::Of(Origin { group, node, device, birth: matches!(kind, "NBIRTH" | "DBIRTH") })
            }
            _ => Self::OfNobody,
        }
    }
}

/// Reads a payload. Messages within messages may nest 100 deep.
pub(crate) fn read(payload: &Bytes) -> Result<Payload, DecodeError> {
    Payload::decode(payload.clone())
}

/// A payload as JSON for people: names are those in it, aliases stay numbers.
pub(crate) fn decode(payload: &Bytes) -> Result<String, String> {
    let payload = read(payload).map_err(|error| format!("is no Sparkplug B payload: {error}"))?;
    let json = json::write(&payload, &Names::default()).map_err(|error| error.to_string())?;
    String::from_utf8(json).map_err(|error| error.to_string())
}

/// A payload as JSON.
pub(crate) fn write(payload: &Payload, names: &Names<'_>) -> Result<Vec<u8>, TooLarge> {
    json::write(payload, names)
}

#[cfg(test)]
mod tests;
