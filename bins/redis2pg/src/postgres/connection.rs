//! One connection, and the statements on it: each within its time, counted, and never used again once it is in doubt.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Postgres};
use sync_core::telemetry::metrics::Counter;
use tokio::time::timeout;

use super::fault::Fault;
use super::settings::{PostgresSettings, TlsMode};

/// A connection that is not usable by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server cancels what takes too long; when nothing is heard of that for so much longer, it is not there any more.
const SILENCE: Duration = Duration::from_secs(5);
/// A process that stands still in a transaction may hold up another one that has taken over from it: the server ends
/// such a transaction. Longer than any turn that a healthy process waits for.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// A statement with its arguments.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// SQL that this program put together from its own words and quoted names.
pub(crate) fn statement(sql: &str) -> Statement<'_> {
    sqlx::query(sql)
}

/// How to connect, checked.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    options: PgConnectOptions,
    query_timeout: Duration,
    /// Statements sent by this process.
    operations: Counter,
}

impl Connector {
    /// Connects to nothing.
    pub(crate) fn new(settings: &PostgresSettings, operations: Counter) -> Self {
        let mode = match settings.tls {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        };
        // Every field is set: the library would look into the environment for what is not.
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&settings.host)
            .port(settings.port)
            .username(&settings.user)
            .password(settings.password.expose())
            .database(&settings.database)
            .ssl_mode(mode)
            .application_name(env!("CARGO_PKG_NAME"))
            .disable_statement_logging();
        if settings.host.starts_with('/') {
            options = options.socket(&settings.host);
        }
        if let Some(ca) = &settings.ca {
            options = options.ssl_root_cert(ca);
        }
        if let Some((cert, key)) = &settings.identity {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        Self { options, query_timeout: settings.query_timeout, operations }
    }

    /// One attempt.
    pub(crate) async fn connect(&self) -> Result<Connection, Fault> {
        let attempt = async {
            let inner = PgConnection::connect_with(&self.options).await?;
            let mut connection = Connection {
                inner,
                query_timeout: self.query_timeout,
                operations: self.operations.clone(),
                queries: 0,
                in_doubt: false,
                in_transaction: false,
            };
            // Order within a batch is ours; what else a role may have set is the administrator's business.
            let setup = format!(
                "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
                 SET default_transaction_isolation = 'read committed'",
                self.query_timeout.as_millis(),
                IDLE_IN_TRANSACTION.as_millis()
            );
            connection.simple(&setup).await?;
            Ok(connection)
        };
        let silent = || Err(Fault::Lost(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())));
        timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_| silent())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: PgConnection,
    query_timeout: Duration,
    operations: Counter,
    pub(crate) queries: u64,
    /// A statement is under way, or ended with a lost connection: nothing else can be sent.
    in_doubt: bool,
    in_transaction: bool,
}

impl Connection {
    /// How many rows the statement wrote.
    pub(crate) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Fault> {
        self.run(async |inner| statement.execute(inner).await.map(|done| done.rows_affected())).await
    }

    /// The rows that the statement returns.
    pub(crate) async fn fetch(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Fault> {
        self.run(async |inner| statement.fetch_all(inner).await).await
    }

    /// Statements without arguments, separated by semicolons, sent as they are. Only [`Connection::commit`] and
    /// [`Connection::rollback`] end a transaction that one of them begins.
    pub(crate) async fn simple(&mut self, sql: &str) -> Result<(), Fault> {
        self.in_transaction |= sql.contains("BEGIN");
        self.run(async |inner| inner.execute(sqlx::raw_sql(sql)).await.map(drop)).await
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Fault> {
        self.simple("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), Fault> {
        self.simple("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Whether it still answers.
    pub(crate) async fn ping(&mut self) -> Result<(), Fault> {
        self.run(async |inner| inner.ping().await).await
    }

    /// Tells the server good-bye.
    pub(crate) async fn close(self) {
        let _ = timeout(SILENCE, self.inner.close()).await;
    }

    /// Whether it may be used again.
    pub(crate) fn is_sound(&self) -> bool {
        !self.in_doubt && !self.in_transaction
    }

    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        self.queries += 1;
        self.operations.inc();
        self.in_doubt = true;
        let patience = self.query_timeout + SILENCE;
        let result = match timeout(patience, work(&mut self.inner)).await {
            Ok(result) => result.map_err(Fault::from),
            Err(_) => Err(Fault::Lost(format!("no answer within {} s", patience.as_secs()))),
        };
        self.in_doubt = matches!(result, Err(Fault::Lost(_)));
        result
    }
}
