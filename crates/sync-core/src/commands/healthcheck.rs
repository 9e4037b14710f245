//! `healthcheck`: whether a running bridge lives, by its own `/healthz`. For containers, whose images hold neither a
//! shell nor an HTTP client. It asks about the process alone: a server that is away is no reason to kill one that waits
//! for it.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{CommandError, Ended};
use crate::program::BridgeSettings;
use crate::settings::shared::ADMIN_ADDR;
use crate::settings::{Given, Inputs, rules};

/// Of connecting, and of each wait for an answer: a process that is slower than this does not work.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the bridge that was started with the same environment and settings.
pub fn run<T: BridgeSettings>(inputs: &Inputs, out: &mut impl io::Write) -> Result<Ended, CommandError> {
    let Some(address) = admin_address::<T>(inputs)? else {
        writeln!(out, "ADMIN_ADDR is off: there is nothing to ask, and nothing is known to be wrong")?;
        return Ok(Ended::Well);
    };
    let answer = ask(reached_at(address)?);
    let lives = matches!(&answer, Ok(status) if status.split(' ').nth(1) == Some("200"));
    let said = answer.unwrap_or_else(|error| error.to_string());
    writeln!(out, "http://{address}/healthz: {said}")?;
    Ok(if lives { Ended::Well } else { Ended::Badly })
}

/// The environment goes before the file, so where it names the address no file is read: one that was broken after the
/// start says nothing about the process, which goes on with what it had read before.
fn admin_address<T: BridgeSettings>(inputs: &Inputs) -> Result<Option<SocketAddr>, CommandError> {
    if let Some(text) = inputs.variable(ADMIN_ADDR.name) {
        return rules::listen_address(&Given { setting: &ADMIN_ADDR, key: ADMIN_ADDR.name, text })
            .map_err(|rule| CommandError::Usage(format!("{} (environment) {rule}", ADMIN_ADDR.name)));
    }
    match T::load(inputs) {
        Ok(loaded) => Ok(loaded.settings.general().admin_addr),
        Err(mistakes) => Err(CommandError::Usage(mistakes.to_string())),
    }
}

/// Who listens everywhere is asked where it is nearest.
fn reached_at(address: SocketAddr) -> Result<SocketAddr, CommandError> {
    if address.port() == 0 {
        let rule = format!("{} must name its port, or nobody knows where to ask", ADMIN_ADDR.name);
        return Err(CommandError::Usage(rule));
    }
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, address.port()))
}

/// The status line of the answer.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: a server may answer as soon as it has read the first.
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    // Whatever answers there, no more than this of it is read.
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/") { Ok(status.to_owned()) } else { Err(io::Error::other("no HTTP answer")) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::settings::{GeneralSettings, Loaded, Mistakes};

    /// Settings that cannot be read: a file that was broken while the bridge runs.
    struct Broken;

    impl BridgeSettings for Broken {
        fn load(_: &Inputs) -> Result<Loaded<Self>, Mistakes> {
            Err(Mistakes { bridge: "broken", mistakes: Vec::new(), warnings: Vec::new() })
        }

        fn general(&self) -> &GeneralSettings {
            unreachable!("it never loads")
        }
    }

    fn check(admin_addr: &str) -> Result<(Ended, String), CommandError> {
        let inputs = Inputs::new([("ADMIN_ADDR", admin_addr)], "/nonexistent/env.conf");
        let mut out = Vec::new();
        run::<Broken>(&inputs, &mut out).map(|ended| (ended, String::from_utf8(out).unwrap()))
    }

    /// Answers one request.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\n"));
            client.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn what_is_answered() {
        let (ended, said) = check(&server("HTTP/1.1 200 OK\r\n\r\nok\n").to_string()).unwrap();
        assert_eq!(ended, Ended::Well);
        assert!(said.ends_with("/healthz: HTTP/1.1 200 OK\n"), "{said}");
        let (ended, said) = check(&server("HTTP/1.1 503 Service Unavailable\r\n\r\n").to_string()).unwrap();
        assert_eq!(ended, Ended::Badly);
        assert!(said.contains("503"), "{said}");
        let (ended, said) = check(&server("-ERR this is a Redis\r\n").to_string()).unwrap();
        assert_eq!(ended, Ended::Badly);
        assert!(said.contains("no HTTP answer"), "{said}");
    }

    #[test]
    fn nobody_listens() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (ended, said) = check(&free.to_string()).unwrap();
        assert_eq!(ended, Ended::Badly);
        assert!(said.contains("refused"), "{said}");
    }

    #[test]
    fn whoever_listens_everywhere_is_asked_on_loopback() {
        let port = server("HTTP/1.1 200 OK\r\n\r\n").port();
        assert_eq!(check(&format!("0.0.0.0:{port}")).unwrap().0, Ended::Well);
        let v6 = reached_at("[::]:7".parse().unwrap()).unwrap();
        assert_eq!(v6, "[::1]:7".parse().unwrap());
    }

    #[test]
    fn nothing_to_ask() {
        for off in ["", "off"] {
            let (ended, said) = check(off).unwrap();
            assert_eq!(ended, Ended::Well);
            assert!(said.contains("ADMIN_ADDR is off"), "{said}");
        }
        for bad in ["127.0.0.1:0", "nonsense"] {
            assert!(matches!(check(bad), Err(CommandError::Usage(_))), "{bad}");
        }
        let inputs = Inputs::new([("OTHER", "")], "/nonexistent/env.conf");
        assert!(matches!(run::<Broken>(&inputs, &mut Vec::new()), Err(CommandError::Usage(_))));
    }
}
