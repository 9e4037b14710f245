//! A byte stream to the broker: TCP, TLS or websockets. It knows nothing of MQTT.

use std::future::ready;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use sync_core::bridge::Unreachable;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// Where the broker is, and how it is spoken to below MQTT.
#[derive(Clone)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// Of TCP.
    pub port: u16,
    /// Where TLS is spoken.
    pub tls: Option<Arc<ClientConfig>>,
    /// The URL's path, where MQTT is spoken over websockets.
    pub websocket_path: Option<String>,
    /// For messages.
    pub names: Names,
}

/// What the user calls settings that a message may be about.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// `true` switches TLS on.
    pub tls: &'static str,
    /// The file with the authorities that are trusted.
    pub ca: &'static str,
}

/// Any byte stream.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// One attempt.
pub(crate) async fn connect(address: &Address) -> Result<Box<dyn Socket>, Unreachable> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await;
    let tcp = tcp.map_err(|error| unreachable(format!("cannot connect: {error}"), false))?;
    tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string(), false))?;
    let socket: Box<dyn Socket> = match &address.tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                unreachable(format!("{:?} is no name that a certificate could be for", address.host), true)
            })?;
            let tls = TlsConnector::from(config.clone()).connect(name, tcp).await;
            Box::new(tls.map_err(|error| unreachable(tls_failed(&error, address.names), true))?)
        }
    };
    match &address.websocket_path {
        None => Ok(socket),
        Some(path) => websocket(address, path, socket).await,
    }
}

fn tls_failed(error: &io::Error, names: Names) -> String {
    let text = error.to_string();
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            format!(": it does not answer in TLS on this port ({} is true)", names.tls)
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => {
            format!(": is {} the authority that signed its certificate?", names.ca)
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            ": it hung up (does it ask for a client certificate, or not speak TLS?)".to_owned()
        }
        _ => String::new(),
    };
    format!("no TLS: {text}{hint}")
}

/// MQTT 5, chapter 6: binary frames, subprotocol `mqtt`.
async fn websocket(
    address: &Address,
    path: &str,
    socket: Box<dyn Socket>,
) -> Result<Box<dyn Socket>, Unreachable> {
    let scheme = if address.tls.is_some() { "wss" } else { "ws" };
    let refused =
        |error: &dyn std::fmt::Display| unreachable(format!("no websocket at {path}: {error}"), false);
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let uri: Uri =
        format!("{scheme}://{host}:{}{path}", address.port).parse().map_err(|error| refused(&error))?;
    let mut request = uri.into_client_request().map_err(|error| refused(&error))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) =
        tokio_tungstenite::client_async(request, socket).await.map_err(|error| refused(&error))?;
    let (sink, stream) = socket.split();
    let incoming = stream.filter_map(|message| {
        ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let outgoing = sink
        .with(|bytes: Bytes| ready(Ok::<_, WsError>(Message::Binary(bytes))))
        .sink_map_err(io::Error::other);
    Ok(Box::new(tokio::io::join(StreamReader::new(incoming), SinkWriter::new(CopyToBytes::new(outgoing)))))
}

fn unreachable(reason: String, needs_human: bool) -> Unreachable {
    Unreachable { reason, needs_human }
}
