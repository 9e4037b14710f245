//! The connections of one stay at the server: whoever lines up first gets one first, and that is decided when lining
//! up, not when waiting. (Batches of a stream wait for those before them while they hold a connection: were a later one
//! served first, both would wait for ever.) When a connection cannot be replaced, the stay is over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::connection::{Connection, Connector};
use super::fault::Fault;

/// A connection that nobody uses is asked this often whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    /// One permit for each connection that there may be.
    permits: Arc<Semaphore>,
    max_queries: u64,
    idle: Mutex<Vec<Connection>>,
    /// Why it is over.
    lost: watch::Sender<Option<String>>,
}

/// A place in the line.
pub(crate) struct Turn {
    pool: Pool,
    permit: BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>,
}

/// A connection for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Loan {
    pool: Pool,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Of at most so many connections, the first of which is made.
    pub(crate) fn new(connector: Connector, first: Connection, most: usize, max_queries: u64) -> Self {
        Self(Arc::new(Inner {
            connector,
            permits: Arc::new(Semaphore::new(most)),
            max_queries,
            idle: Mutex::new(vec![first]),
            lost: watch::Sender::new(None),
        }))
    }

    /// Gets in line.
    pub(crate) fn line_up(&self) -> Turn {
        let mut permit: Pin<Box<_>> = Box::pin(self.0.permits.clone().acquire_owned());
        // The semaphore is fair, and takes note of who waits when it is first asked.
        let permit = match permit.as_mut().now_or_never() {
            Some(permit) => std::future::ready(permit).boxed(),
            None => permit as BoxFuture<'static, _>,
        };
        Turn { pool: self.clone(), permit }
    }

    /// The stay is over: nobody gets a connection any more, whoever has one may finish.
    pub(crate) fn lose(&self, reason: &str) {
        self.0.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.0.permits.close();
        self.idle().clear();
    }

    /// Why it is over, once it is. Whoever has a connection then may still be at work with it: the order of batches does
    /// not depend on that.
    pub(crate) async fn lost(self) -> String {
        let mut lost = self.0.lost.subscribe();
        tokio::select! {
            reason = lost.wait_for(Option::is_some) => {
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
            }
            never = self.look_after() => match never {},
        }
    }

    /// Looks now and then whether the server is still there, on a connection that nobody uses. Where none is idle, they
    /// are used, and found dead by that.
    async fn look_after(&self) -> Infallible {
        loop {
            sleep(PING_EVERY).await;
            let idle = self.idle().pop();
            if let Some(mut connection) = idle {
                match connection.ping().await {
                    Ok(()) => self.idle().insert(0, connection),
                    Err(_) => self.probe().await,
                }
            }
        }
    }

    /// Closes what is idle; what is on loan is closed when it comes back.
    pub(crate) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        self.lose("closed");
        for connection in idle {
            connection.close().await;
        }
    }

    /// One connection was found dead: is the server?
    async fn probe(&self) {
        match self.0.connector.connect().await {
            Ok(connection) => self.idle().push(connection),
            Err(fault) => self.lose(&fault.to_string()),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self) -> String {
        self.0.lost.borrow().clone().unwrap_or_default()
    }
}

impl Turn {
    /// A connection, when it is this one's turn: one that is idle, or a new one.
    pub(crate) async fn loan(self) -> Result<Loan, Fault> {
        let Self { pool, permit } = self;
        let permit = permit.await.map_err(|_| Fault::Lost(pool.reason()))?;
        let idle = pool.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => pool.0.connector.connect().await.inspect_err(|fault| match fault {
                // As many as the server allows: whoever has one goes on.
                Fault::Busy(_) => {}
                fault => pool.lose(&fault.to_string()),
            })?,
        };
        Ok(Loan { pool, connection: Some(connection), _permit: permit })
    }
}

impl std::ops::Deref for Loan {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until the loan ends")
    }
}

impl std::ops::DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is there until the loan ends")
    }
}

impl Loan {
    /// What it is lent from.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().filter(Connection::is_sound) else { return };
        if connection.queries >= self.pool.0.max_queries || self.pool.0.permits.is_closed() {
            // Good-bye takes a moment; the server does not need it, and prefers it.
            tokio::spawn(connection.close());
        } else {
            self.pool.idle().push(connection);
        }
    }
}
