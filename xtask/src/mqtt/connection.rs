//! A connection to a broker on this machine: the few packets of MQTT 3.1.1 by which messages are published at QoS 1, and
//! by which is seen what the broker keeps for a session. By hand and not by the bridges' client, whose judge this is.
//! <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>, chapter 3

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{tail, wait_until};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBLISH_AT_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;

/// Messages on their way to the broker at a time.
const WINDOW: usize = 1000;
/// So many bytes are written in one go.
const CHUNK: usize = 32 << 10;

/// Publishes at QoS 1.
pub(crate) struct Publisher {
    broker: BufReader<TcpStream>,
    unwritten: Vec<u8>,
    /// Of the last message. There is no zero, and none is used again within [`WINDOW`].
    pkid: u16,
    unconfirmed: usize,
}

impl Publisher {
    pub(crate) fn connect(port: u16, client_id: &str) -> Result<Self> {
        let (broker, _) = connect(port, client_id, true)?;
        Ok(Self { broker, unwritten: Vec::new(), pkid: 0, unconfirmed: 0 })
    }

    /// On its way; [`Self::confirm`] says when it has arrived.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        if self.unconfirmed == WINDOW {
            self.confirm_all_but(WINDOW / 2)?;
        }
        self.pkid = self.pkid.checked_add(1).unwrap_or(1);
        let mut body = text(topic);
        body.extend_from_slice(&self.pkid.to_be_bytes());
        body.extend_from_slice(payload);
        self.unwritten.extend(packet(PUBLISH_AT_QOS_1, &body));
        self.unconfirmed += 1;
        if self.unwritten.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    /// Returns once the broker has everything.
    pub(crate) fn confirm(&mut self) -> Result<()> {
        self.confirm_all_but(0)
    }

    fn confirm_all_but(&mut self, unconfirmed: usize) -> Result<()> {
        self.write()?;
        while self.unconfirmed > unconfirmed {
            let (kind, _) = read(&mut self.broker)?;
            ensure!(kind == PUBACK, "the broker is to confirm what is published, not to send {kind:#x}");
            self.unconfirmed -= 1;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.broker.get_mut().write_all(&self.unwritten).context("write to the broker")?;
        self.unwritten.clear();
        Ok(())
    }
}

/// The topics of the messages that the broker keeps for a session that its user has left, as far as its window goes: those
/// that were never acknowledged, and those that wait for their turn. None: there is no such session. `log` is the broker's.
pub(crate) fn kept(port: u16, log: &Path, client_id: &str) -> Result<Option<Vec<String>>> {
    // A broker that still reads acknowledgements would pass over the rest of them for the new connection.
    let left = wait_until(Duration::from_secs(30), || {
        fs::read_to_string(log).is_ok_and(|log| has_left(&log, client_id))
    });
    ensure!(left, "{client_id} is still connected; {}", tail(log));
    let (mut broker, session_present) = connect(port, client_id, false)?;
    // Who takes up a session gets its messages at once, so before the answer to this.
    broker.get_mut().write_all(&packet(PINGREQ, &[])).context("write to the broker")?;
    let mut topics = Vec::new();
    loop {
        let (kind, body) = read(&mut broker)?;
        match kind {
            PINGRESP => break,
            _ if kind & 0xf0 == PUBLISH => {
                let length = body.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
                let topic = body.get(2..2 + length).context("a message has a topic")?;
                topics.push(String::from_utf8_lossy(topic).into_owned());
            }
            _ => {}
        }
    }
    // What is not acknowledged stays in the session.
    broker.get_mut().write_all(&packet(DISCONNECT, &[])).context("write to the broker")?;
    Ok(session_present.then_some(topics))
}

/// Whether the last that Mosquitto's log says of a client is that it disconnected.
fn has_left(log: &str, client_id: &str) -> bool {
    let mut lines = log.lines().rev();
    let last = lines.find(|line| line.split([' ', '.']).any(|word| word == client_id));
    last.is_some_and(|line| line.contains(" disconnected"))
}

/// The connection, and whether the broker goes on with an earlier session.
fn connect(port: u16, client_id: &str, clean_session: bool) -> Result<(BufReader<TcpStream>, bool)> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect to the broker")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut broker = BufReader::new(stream);
    let mut body = text("MQTT");
    body.extend([4, u8::from(clean_session) << 1]); // the version, and no will, user or password
    body.extend([0, 0]); // no keep alive
    body.extend(text(client_id));
    broker.get_mut().write_all(&packet(CONNECT, &body)).context("write to the broker")?;
    let (kind, body) = read(&mut broker)?;
    ensure!(kind == CONNACK && body.get(1) == Some(&0), "the broker refuses the client {client_id}");
    Ok((broker, body[0] & 1 == 1))
}

/// First byte, and what follows the length.
fn read(broker: &mut BufReader<TcpStream>) -> Result<(u8, Vec<u8>)> {
    let mut byte = || -> Result<u8> {
        let mut byte = [0];
        broker.read_exact(&mut byte).context("read from the broker")?;
        Ok(byte[0])
    };
    let kind = byte()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let part = byte()?;
        length |= usize::from(part & 0x7f) << shift;
        if part & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    broker.read_exact(&mut body).context("read from the broker")?;
    Ok((kind, body))
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    while length >= 0x80 {
        packet.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

/// With its length before it.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a name is short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the standard's own table of lengths has them (2.2.3).
    #[test]
    fn lengths_are_in_groups_of_seven_bits() {
        for (length, expected) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
        ] {
            let packet = packet(PUBLISH, &vec![0; length]);
            assert_eq!(packet[1..packet.len() - length], *expected, "{length}");
        }
    }

    #[test]
    fn a_client_has_left_that_is_said_to_have() {
        let mut log = "1: New client connected from 127.0.0.1:1 as bench (p5, c0, k60).\n".to_owned();
        assert!(!has_left("", "bench") && !has_left(&log, "bench"));
        log += "2: New client connected from 127.0.0.1:2 as bench-source (p2, c1, k0).\n\
            3: Client bench-source disconnected.\n";
        assert!(!has_left(&log, "bench") && has_left(&log, "bench-source"));
        log += "4: Client bench disconnected.\n5: New connection from 127.0.0.1:3 on port 4.\n";
        assert!(has_left(&log, "bench"));
    }
}
