//! The pages on ADMIN_ADDR: `/healthz`, `/readyz`, `/metrics`, `/api/status` and an index.
//!
//! It only reads. Nothing can be changed through it, and no record's content is shown.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::info;

use super::health::Health;
use super::log::escape;
use super::metrics::Metrics;
use super::status::Status;

/// How long requests under way may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("ADMIN_ADDR {addr}: {}{}", plain(reason), hint(reason))]
pub struct BindError {
    addr: String,
    reason: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another replica on this host? Each needs one of its own, or off)",
        _ => "",
    }
}

/// `Address already in use (os error 98)` → `address already in use`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

/// Listens, but does not answer yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Admin {
    /// Takes the address (`host:port`; port 0 is any free one), so that a mistake shows at start.
    pub async fn bind(addr: &str) -> Result<Self, BindError> {
        let failed = |reason| BindError { addr: addr.to_owned(), reason };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr })
    }

    /// Where it listens: the port is the real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `shutdown` is ready. Logs where it can be found.
    pub async fn serve(
        self,
        health: Health,
        metrics: Metrics,
        status: Status,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        info!("Status and metrics are at http://{}/", self.addr);
        let (over, is_over) = tokio::sync::oneshot::channel();
        let serve =
            axum::serve(self.listener, router(health, metrics, status)).with_graceful_shutdown(async move {
                shutdown.await;
                // The receiver is gone when the server ended by itself: then nobody waits.
                let _ = over.send(());
            });
        let overdue = async {
            match is_over.await {
                Ok(()) => tokio::time::sleep(GRACE).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serve.into_future() => ended,
            // A client that neither asks nor hangs up must not hold the process.
            () = overdue => Ok(()),
        }
    }
}

fn router(health: Health, metrics: Metrics, status: Status) -> Router {
    let ready = health.clone();
    let (of_status, numbers) = (health.clone(), metrics.clone());
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async move { readyz(&ready) }))
        .route(
            "/metrics",
            get(|| async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.expose(&health)) }),
        )
        .route(
            "/api/status",
            get(|| async move { ([(header::CONTENT_TYPE, JSON)], status.page(&of_status, &numbers)) }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
}

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#protocol-negotiation>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const JSON: &str = "application/json";

const INDEX: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>redis-sync</title>
<h1>redis-sync</h1>
<ul>
<li><a href=\"/healthz\">/healthz</a>: whether the process lives
<li><a href=\"/readyz\">/readyz</a>: whether it can do its work, else why not
<li><a href=\"/metrics\">/metrics</a>: numbers for Prometheus
<li><a href=\"/api/status\">/api/status</a>: who owns which stream, and how far each is, as JSON
</ul>
";

fn readyz(health: &Health) -> Response {
    match health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reasons) => {
            let mut text = String::new();
            for reason in reasons {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", escape(&reason));
            }
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::telemetry::health::Severity;
    use crate::telemetry::log::capture::capture;

    struct Running {
        addr: SocketAddr,
        health: Health,
        stop: oneshot::Sender<()>,
        server: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Running {
        let admin = Admin::bind("127.0.0.1:0").await.unwrap();
        let (addr, health) = (admin.local_addr(), Health::default());
        let metrics = Metrics::new("redis2x", "1", 1000);
        metrics.stream("device:1").lag.store(7, std::sync::atomic::Ordering::Relaxed);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { stopped.await.unwrap() };
        let status = Status::default();
        status.streams([("device:1".to_owned(), 1)].into());
        let server = tokio::spawn(admin.serve(health.clone(), metrics, status, shutdown));
        Running { addr, health, stop, server }
    }

    /// Status, headers in lower case, body.
    async fn fetch(addr: SocketAddr, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn pages() {
        let running = start().await;
        let get = |path| fetch(running.addr, path);
        let short = |(status, _, body): (u16, String, String)| (status, body);

        assert_eq!(short(get("/healthz").await), (200, "ok\n".to_owned()));
        assert_eq!(short(get("/readyz").await), (503, "the process is starting\n".to_owned()));
        running.health.started();
        assert_eq!(short(get("/readyz").await), (200, "ready\n".to_owned()));
        running.health.down("stream evil\nready", "no permission", Severity::Error);
        running.health.down("broker", "away", Severity::Warn);
        assert_eq!(
            short(get("/readyz").await),
            (503, "broker: away\nstream evil\\nready: no permission\n".to_owned())
        );
        assert_eq!(short(get("/healthz").await).0, 200);

        let (status, head, body) = get("/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(body.contains("\nredis_sync_stream_lag_entries{stream=\"device:1\"} 7\n"), "{body}");
        assert!(body.ends_with("# EOF\n"));

        let (status, head, body) = get("/api/status").await;
        assert!(status == 200 && head.contains("content-type: application/json"), "{head}");
        assert!(body.contains(r#""stream":"device:1""#), "{body}");

        let (status, _, body) = get("/").await;
        assert_eq!(status, 200);
        assert!(["/healthz", "/readyz", "/metrics", "/api/status"].iter().all(|page| body.contains(page)));
        for path in ["/metrics/", "/healthz/x", "/nothing", "/%2e%2e/etc/passwd"] {
            assert_eq!(short(get(path).await), (404, "not found\n".to_owned()), "{path}");
        }
    }

    #[tokio::test]
    async fn a_silent_client_does_not_hold_the_process() {
        let log = capture(tracing::level_filters::LevelFilter::INFO);
        let running = start().await;
        assert_eq!(fetch(running.addr, "/healthz").await.0, 200);
        assert_eq!(log.take(), [format!("INFO Status and metrics are at http://{}/", running.addr)]);
        let mut client = TcpStream::connect(running.addr).await.unwrap();
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        // A later connection was answered, so the silent one has been accepted.
        assert_eq!(fetch(running.addr, "/healthz").await.0, 200);
        // From here on the clock jumps to the next timer whenever nothing else is to be done.
        tokio::time::pause();
        running.stop.send(()).unwrap();
        running.server.await.unwrap().unwrap();
        assert!(TcpStream::connect(running.addr).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_is_taken() {
        let first = Admin::bind("127.0.0.1:0").await.unwrap();
        let addr = first.local_addr().to_string();
        let error = Admin::bind(&addr).await.unwrap_err();
        let reason = format!("ADMIN_ADDR {addr}: address already in use (another replica on this host? ");
        assert!(error.to_string().starts_with(&reason), "{error}");
        assert!(std::error::Error::source(&error).is_none(), "or it would be said twice");
        let error = Admin::bind("nonsense").await.unwrap_err();
        assert!(error.to_string().starts_with("ADMIN_ADDR nonsense: invalid socket address"), "{error}");
    }
}
