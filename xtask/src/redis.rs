//! A small Redis client for our own commands: one connection, RESP2 by hand, pipelining. Values that are no text
//! are not its business. <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// One connection to a Redis on this machine.
pub(crate) struct Redis {
    stream: BufReader<TcpStream>,
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Integer(i64),
    Text(String),
    List(Vec<Reply>),
    Error(String),
}

/// How far a consumer group is on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupProgress {
    /// Entries that some consumer was given and did not acknowledge yet.
    pub(crate) pending: u64,
    /// Entries that any consumer was ever given.
    pub(crate) read: u64,
    /// The newest of them.
    pub(crate) last_delivered: String,
}

impl GroupProgress {
    /// Given to a consumer and acknowledged since.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.read.saturating_sub(self.pending)
    }
}

impl Redis {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
            .with_context(|| format!("connect to Redis on port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// One command; an error reply is an error.
    pub(crate) fn call(&mut self, command: &[&str]) -> Result<Reply> {
        let reply = self.pipeline(&[command])?.pop().context("one command, one reply")?;
        match reply {
            Reply::Error(error) => bail!("Redis refused {}: {error}", command.first().unwrap_or(&"")),
            reply => Ok(reply),
        }
    }

    /// Many commands in one go; an error reply is its command's alone.
    pub(crate) fn pipeline<C: AsRef<[S]>, S: AsRef<str>>(&mut self, commands: &[C]) -> Result<Vec<Reply>> {
        let mut request = Vec::new();
        for command in commands {
            encode(command.as_ref(), &mut request);
        }
        self.stream.get_mut().write_all(&request).context("write to Redis")?;
        commands.iter().map(|_| decode(&mut self.stream)).collect()
    }

    pub(crate) fn select(&mut self, db: u16) -> Result<()> {
        self.call(&["SELECT", &db.to_string()]).map(drop)
    }

    /// The server's process.
    pub(crate) fn server_pid(&mut self) -> Result<u32> {
        let Reply::Text(info) = self.call(&["INFO", "server"])? else { bail!("INFO is text") };
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .context("INFO names no process_id")?;
        pid.trim().parse().context("process_id is a number")
    }

    /// The group's progress on each stream, in the order asked for; what does not exist is at its beginning.
    pub(crate) fn progress(&mut self, group: &str, streams: &[&str]) -> Result<Vec<GroupProgress>> {
        let commands: Vec<[&str; 3]> = streams.iter().map(|stream| ["XINFO", "GROUPS", stream]).collect();
        let replies = self.pipeline(&commands)?;
        Ok(replies.iter().map(|reply| group_progress(reply, group).unwrap_or_default()).collect())
    }
}

fn encode(command: &[impl AsRef<str>], request: &mut Vec<u8>) {
    request.extend(format!("*{}\r\n", command.len()).into_bytes());
    for word in command {
        let word = word.as_ref();
        request.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
}

fn decode(stream: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).context("read from Redis")?;
    ensure!(line.ends_with("\r\n"), "Redis closed the connection");
    let (kind, rest) = line.trim_end().split_at_checked(1).context("an empty reply")?;
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(rest.parse()?),
        "$" | "*" if rest == "-1" => Reply::Nil,
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()? + 2];
            stream.read_exact(&mut bytes).context("read from Redis")?;
            bytes.truncate(bytes.len() - 2);
            Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => Reply::List((0..rest.parse::<usize>()?).map(|_| decode(stream)).collect::<Result<_>>()?),
        _ => bail!("no reply begins with {kind:?}"),
    })
}

/// XINFO GROUPS is a list of groups, each an alternating list of names and values. `entries-read` is nil until the
/// first entry was read.
fn group_progress(reply: &Reply, group: &str) -> Option<GroupProgress> {
    let Reply::List(groups) = reply else { return None };
    groups.iter().find_map(|fields| {
        let Reply::List(fields) = fields else { return None };
        let field = |name: &str| {
            fields.chunks_exact(2).find(|pair| pair[0] == Reply::Text(name.into())).map(|pair| &pair[1])
        };
        let number = |name: &str| match field(name) {
            Some(Reply::Integer(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        if field("name") != Some(&Reply::Text(group.into())) {
            return None;
        }
        let Some(Reply::Text(last_delivered)) = field("last-delivered-id") else { return None };
        Some(GroupProgress {
            pending: number("pending"),
            read: number("entries-read"),
            last_delivered: last_delivered.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_kind_of_reply() {
        let bytes = b"+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n*2\r\n$1\r\nx\r\n*-1\r\n-ERR no\r\n";
        let mut stream = BufReader::new(&bytes[..]);
        let expected = [
            Reply::Text("OK".into()),
            Reply::Integer(-7),
            Reply::Text("a\r\nbc".into()),
            Reply::Nil,
            Reply::List(vec![Reply::Text("x".into()), Reply::Nil]),
            Reply::Error("ERR no".into()),
        ];
        for reply in expected {
            assert_eq!(decode(&mut stream).unwrap(), reply);
        }
        assert!(decode(&mut stream).is_err(), "a closed connection");
    }

    #[test]
    fn finds_its_group_among_others() {
        let text = |text: &str| Reply::Text(text.into());
        let group = |name: &str, read| {
            Reply::List(vec![
                text("name"),
                text(name),
                text("consumers"),
                Reply::Integer(1),
                text("pending"),
                Reply::Integer(3),
                text("last-delivered-id"),
                text("17-4"),
                text("entries-read"),
                read,
            ])
        };
        let reply = Reply::List(vec![group("other", Reply::Integer(99)), group("mine", Reply::Integer(10))]);
        let progress = group_progress(&reply, "mine").unwrap();
        assert_eq!(progress, GroupProgress { pending: 3, read: 10, last_delivered: "17-4".into() });
        assert_eq!(progress.acknowledged(), 7);
        assert_eq!(group_progress(&reply, "nobody"), None);
        assert_eq!(group_progress(&Reply::Error("ERR no such key".into()), "mine"), None);
        assert_eq!(group_progress(&Reply::List(vec![group("new", Reply::Nil)]), "new").unwrap().read, 0);
    }
}
