//! MQTT packets as bytes, as far as a subscriber and a scripted broker need them.

use std::io::{self, Read, Write};

/// The first byte and the body of a packet.
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut first = [0];
        from.read_exact(&mut first)?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(Self { first: first[0], body })
    }

    /// A packet identifier at the beginning of the body.
    pub(crate) fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

pub(crate) fn write(to: &mut impl Write, first: u8, body: &[u8]) -> io::Result<()> {
    let mut packet = vec![first];
    packet.extend(variable(body.len()));
    packet.extend_from_slice(body);
    to.write_all(&packet)
}

/// A variable byte integer.
pub(crate) fn variable(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

/// A text with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    [length.as_slice(), text.as_bytes()].concat()
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) identifier: u16,
    /// As bytes; MQTT 5 only.
    pub(crate) properties: Vec<u8>,
}

impl Publish {
    pub(crate) fn parse(packet: &Packet, level: u8) -> Self {
        let mut rest = packet.body.as_slice();
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken
        };
        let length = take(2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let topic = String::from_utf8(take(length).to_vec()).expect("a topic is UTF-8");
        let qos = packet.first >> 1 & 3;
        let identifier = if qos > 0 { take(2).to_vec() } else { vec![0, 0] };
        let mut properties = Vec::new();
        if level == 5 {
            let (mut length, mut shift) = (0usize, 0);
            loop {
                let byte = take(1)[0];
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            properties = take(length).to_vec();
        }
        let retain = packet.first & 1 == 1;
        let identifier = u16::from_be_bytes([identifier[0], identifier[1]]);
        Self { topic, payload: rest.to_vec(), qos, retain, identifier, properties }
    }
}
