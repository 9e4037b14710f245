//! Properties of MQTT 5 (2.2.2): what a packet says beside its purpose. They are checked when the packet is received,
//! and read when somebody asks.

use bytes::{Buf as _, Bytes};

/// The properties of a packet, well formed as far as lengths go. Empty under MQTT 3.1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Bytes);

/// One of them. Strings are as received: the standard wants UTF-8, and nobody has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// Zero for bytes, one for UTF-8.
    PayloadFormat(u8),
    /// In seconds, what is left of it.
    MessageExpiry(u32),
    /// A MIME type, as a rule.
    ContentType(&'a [u8]),
    /// Where an answer is to go.
    ResponseTopic(&'a [u8]),
    /// Whose question the answer is for.
    CorrelationData(&'a [u8]),
    /// Of the subscription that this message came by.
    SubscriptionIdentifier(u32),
    /// In seconds.
    SessionExpiry(u32),
    /// The client's identifier, made up by the server.
    AssignedClientId(&'a [u8]),
    /// In seconds; it overrules the client's.
    ServerKeepAlive(u16),
    /// Words about a reason code.
    Reason(&'a [u8]),
    /// Publishes of QoS 1 and 2 that may be unacknowledged at once.
    ReceiveMaximum(u16),
    /// A number in place of a topic.
    TopicAlias(u16),
    /// The highest QoS of a publish.
    MaximumQos(u8),
    /// Whether retained messages are kept.
    RetainAvailable(bool),
    /// A name and a value, of which there may be many.
    User(&'a [u8], &'a [u8]),
    /// The largest packet, in bytes.
    MaximumPacketSize(u32),
    /// Whether `+` and `#` may stand in a filter.
    WildcardSubscriptions(bool),
    /// Whether `$share/…` may stand before a filter.
    SharedSubscriptions(bool),
    /// Any other that the standard has: nobody here asks for it.
    Other(u8),
}

impl Properties {
    /// One after the other, as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'_>> {
        let mut rest = &self.0[..];
        // Nothing is left out: what could not be read was refused when it came.
        std::iter::from_fn(move || next(&mut rest))
    }

    /// As received, without their length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The server's words about its reason code.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.iter().find_map(|property| match property {
            Property::Reason(words) => Some(String::from_utf8_lossy(words).into_owned()),
            _ => None,
        })
    }

    /// Takes them from the front of `body`, with their length. None: they are not well formed.
    pub fn take(body: &mut Bytes) -> Option<Self> {
        // The usual case, without a look further and without a reference to count.
        if body.first() == Some(&0) {
            body.advance(1);
            return Some(Self::default());
        }
        let mut rest = &body[..];
        let length = usize::try_from(variable(&mut rest)?).ok()?;
        let at = body.len() - rest.len();
        let mut properties = rest.get(..length)?;
        while !properties.is_empty() {
            next(&mut properties)?;
        }
        body.advance(at);
        Some(Self(body.split_to(length)))
    }
}

/// The property at the front of `rest`. None: there is none, or it is not well formed.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Property<'a>> {
    let id = byte(rest)?;
    Some(match id {
        1 => Property::PayloadFormat(byte(rest)?),
        2 => Property::MessageExpiry(four(rest)?),
        3 => Property::ContentType(string(rest)?),
        8 => Property::ResponseTopic(string(rest)?),
        9 => Property::CorrelationData(string(rest)?),
        11 => Property::SubscriptionIdentifier(variable(rest)?),
        17 => Property::SessionExpiry(four(rest)?),
        18 => Property::AssignedClientId(string(rest)?),
        19 => Property::ServerKeepAlive(two(rest)?),
        31 => Property::Reason(string(rest)?),
        33 => Property::ReceiveMaximum(two(rest)?),
        35 => Property::TopicAlias(two(rest)?),
        36 => Property::MaximumQos(byte(rest)?),
        37 => Property::RetainAvailable(byte(rest)? != 0),
        38 => Property::User(string(rest)?, string(rest)?),
        39 => Property::MaximumPacketSize(four(rest)?),
        40 => Property::WildcardSubscriptions(byte(rest)? != 0),
        42 => Property::SharedSubscriptions(byte(rest)? != 0),
        // Authentication method and data, response information, another server.
        21 | 22 | 26 | 28 => string(rest).map(|_| Property::Other(id))?,
        // Problem and response information asked for, subscription identifiers available.
        23 | 25 | 41 => byte(rest).map(|_| Property::Other(id))?,
        // Will delay.
        24 => four(rest).map(|_| Property::Other(id))?,
        // Topic aliases that the server would take.
        34 => two(rest).map(|_| Property::Other(id))?,
        _ => return None,
    })
}

fn bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    Some(bytes(rest, 1)?[0])
}

fn two(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes(rest, 2)?.try_into().ok()?))
}

fn four(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes(rest, 4)?.try_into().ok()?))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = two(rest)?;
    bytes(rest, length.into())
}

/// A variable byte integer (MQTT 5, 1.5.5), of four bytes at most.
pub(crate) fn variable(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let next = byte(rest)?;
        value |= u32::from(next & 0x7F) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
