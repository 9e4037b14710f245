//! Between a bridge and its Redis: swallows a reply and cuts the connection, as a network does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens on loopback; ends with the test.
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// How many replies that hold the mark are still to be swallowed.
    swallow: Arc<AtomicU32>,
    /// How many connections are still accepted, and how many after them are closed at once.
    accept: Arc<AtomicU32>,
    refuse: Arc<AtomicU32>,
    cut_off: watch::Sender<bool>,
}

impl Proxy {
    /// Replies that hold `mark` are those that [`Proxy::swallow`] is about.
    pub(crate) async fn start(server_url: &str, mark: &'static [u8]) -> Self {
        let server = server_url.trim_start_matches("redis://").split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let swallow = Arc::new(AtomicU32::new(0));
        let (accept, refuse) = (Arc::new(AtomicU32::new(u32::MAX)), Arc::new(AtomicU32::new(0)));
        let (cut_off, cut) = watch::channel(false);
        let (counter, accepted, refused) = (swallow.clone(), accept.clone(), refuse.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !take_one(&accepted) && take_one(&refused) {
                    continue;
                }
                tokio::spawn(pass(
                    client,
                    TcpStream::connect(server.clone()).await.unwrap(),
                    mark,
                    counter.clone(),
                    cut.clone(),
                ));
            }
        });
        Self { url, swallow, accept, refuse, cut_off }
    }

    /// The next so many marked replies are lost with their connections.
    pub(crate) fn swallow(&self, replies: u32) {
        self.swallow.store(replies, SeqCst);
    }

    /// After so many more connections, so many are closed at once.
    pub(crate) fn refuse(&self, after: u32, connections: u32) {
        self.accept.store(after, SeqCst);
        self.refuse.store(connections, SeqCst);
    }

    /// While it is so, nothing passes in either direction; what was sent meanwhile arrives afterwards.
    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut_off.send_replace(cut);
    }

    pub(crate) fn left_to_refuse(&self) -> u32 {
        self.refuse.load(SeqCst)
    }

    pub(crate) fn left(&self) -> u32 {
        self.swallow.load(SeqCst)
    }
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    mark: &'static [u8],
    swallow: Arc<AtomicU32>,
    mut cut: watch::Receiver<bool>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut cut_too = cut.clone();
    let asking = tokio::spawn(async move {
        let mut request = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut request).await {
            let _ = cut_too.wait_for(|cut| !cut).await;
            if to_server.write_all(&request[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut reply = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_server.read(&mut reply).await {
        let _ = cut.wait_for(|cut| !cut).await;
        let marked = reply[..length].windows(mark.len()).any(|window| window == mark);
        if marked && take_one(&swallow) {
            break;
        }
        if to_client.write_all(&reply[..length]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
