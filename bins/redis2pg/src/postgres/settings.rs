//! How PostgreSQL is reached: PG_*, which may be spelt POSTGRES_*, or one URL. Nothing here connects.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sync_core::settings::rules::{self, Ruled};
use sync_core::settings::{Given, Reader, RetrySettings, Secret, Setting, Show};
use url::Url;

/// One PostgreSQL database, and how it is used.
#[derive(Clone, Debug)]
pub(crate) struct PostgresSettings {
    /// Host name or address; a directory when it begins with a slash: the server's socket is in there.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) database: String,
    pub(crate) tls: TlsMode,
    /// Authorities to trust instead of the system's; verifies also where `tls` would not.
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate chain and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Upper bound of connections.
    pub(crate) pool_size: usize,
    /// A connection is replaced after so many queries.
    pub(crate) max_queries: u64,
    /// The server cancels a statement that takes longer.
    pub(crate) query_timeout: Duration,
    pub(crate) retry: RetrySettings,
}

/// libpq's words for whether and how far TLS is used
/// (<https://www.postgresql.org/docs/15/libpq-ssl.html#LIBPQ-SSL-PROTECTION>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMode {
    Disable,
    /// Where the server offers it. `allow` is the same: the driver has no way to try without TLS first.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Prefer),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

static URL: Setting = Setting::new(
    "PG_URL",
    "postgres://[user[:password]@]host[:port][/database][?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…]; what it says goes \
     before the settings below. Characters such as @ / ? # in a password are written %40 %2F %3F %23.",
)
.aliases(&["POSTGRES_URL", "DATABASE_URL"])
.show(Show::Url);
static HOST: Setting = Setting::new(
    "PG_HOST",
    "Host name or address, or the directory of the server's socket when it begins with a slash.",
)
.aliases(&["POSTGRES_HOST"])
.default("localhost")
.show(Show::Host);
static PORT: Setting = Setting::new("PG_PORT", "1 to 65535.").aliases(&["POSTGRES_PORT"]).default("5432");
static USER: Setting = Setting::new("PG_USER", "Role.").aliases(&["POSTGRES_USER"]).default("postgres");
static PASSWORD: Setting =
    Setting::new("PG_PASSWORD", "Its password.").aliases(&["POSTGRES_PASSWORD"]).default("postgres").secret();
static DATABASE: Setting = Setting::new("PG_DATABASE", "Database.")
    .aliases(&["POSTGRES_DB", "POSTGRES_DATABASE"])
    .default("redis_sync");
static SSLMODE: Setting = Setting::new(
    "PG_SSLMODE",
    "disable, prefer (TLS where the server offers it), require, verify-ca (and a certificate of a trusted authority), \
     verify-full (and with the server's name). With PG_SSL_CA, require verifies the authority, too.",
)
.aliases(&["POSTGRES_SSLMODE"])
.default("prefer");
static SSL_CA: Setting =
    Setting::new("PG_SSL_CA", "PEM file of the authorities to trust instead of the system's.")
        .aliases(&["POSTGRES_SSL_CA", "PG_SSLROOTCERT"]);
static SSL_CERT: Setting =
    Setting::new("PG_SSL_CERT", "PEM file of the client's certificate chain; together with the key.")
        .aliases(&["POSTGRES_SSL_CERT", "PG_SSLCERT"]);
static SSL_KEY: Setting = Setting::new("PG_SSL_KEY", "PEM file of the client's private key.")
    .aliases(&["POSTGRES_SSL_KEY", "PG_SSLKEY"]);
static POOL_SIZE: Setting =
    Setting::new("PG_POOL_SIZE", "Connections at most, 2 to 1000; few are used where few are enough.")
        .aliases(&["POSTGRES_POOL_SIZE"])
        .default("10");
static MAX_QUERIES: Setting =
    Setting::new("PG_MAX_QUERIES", "A connection is replaced after so many queries, 0 is never.")
        .aliases(&["POSTGRES_MAX_QUERIES"])
        .default("50000");
static QUERY_TIMEOUT: Setting = Setting::new(
    "PG_QUERY_TIMEOUT",
    "Seconds until the server cancels a statement, 0.1 to 3600; it is tried again.",
)
.aliases(&["POSTGRES_QUERY_TIMEOUT"])
.default("30.0");
static MAX_RETRIES: Setting =
    Setting::new("PG_MAX_RETRIES", "Connection attempts at start, at least 1; at runtime there is no limit.")
        .aliases(&["POSTGRES_MAX_RETRIES"])
        .default("5");
static BACKOFF_BASE: Setting =
    Setting::new("PG_BACKOFF_BASE", "Seconds before the first retry; each further one waits longer.")
        .aliases(&["POSTGRES_BACKOFF_BASE"])
        .default("1.0");
static BACKOFF_MAX: Setting = Setting::new("PG_BACKOFF_MAX", "Longest wait between retries, seconds.")
    .aliases(&["POSTGRES_BACKOFF_MAX"])
    .default("30.0");

pub(crate) static POSTGRES_GROUP: &[&Setting] = &[
    &URL,
    &HOST,
    &PORT,
    &USER,
    &PASSWORD,
    &DATABASE,
    &SSLMODE,
    &SSL_CA,
    &SSL_CERT,
    &SSL_KEY,
    &POOL_SIZE,
    &MAX_QUERIES,
    &QUERY_TIMEOUT,
    &MAX_RETRIES,
    &BACKOFF_BASE,
    &BACKOFF_MAX,
];

impl PostgresSettings {
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let mode = |given: &Given<'_>| rules::one_of(&MODES)(given);
        let mut settings = Self {
            host: reader.value(&HOST, host),
            port: reader.value(&PORT, rules::port),
            user: reader.value(&USER, no_nul),
            password: Secret::new(reader.value(&PASSWORD, no_nul)),
            database: reader.value(&DATABASE, no_nul),
            tls: reader.value(&SSLMODE, mode),
            ca: reader.optional(&SSL_CA, rules::readable_file),
            identity: reader
                .optional(&SSL_CERT, rules::readable_file)
                .zip(reader.optional(&SSL_KEY, rules::readable_file)),
            pool_size: reader.value(&POOL_SIZE, rules::integer(2..=1000)),
            max_queries: match reader.value(&MAX_QUERIES, rules::integer(0..=u64::MAX)) {
                0 => u64::MAX,
                queries => queries,
            },
            query_timeout: reader.value(&QUERY_TIMEOUT, rules::seconds(0.1..=3600.0)),
            retry: RetrySettings::read(reader, &MAX_RETRIES, &BACKOFF_BASE, &BACKOFF_MAX),
        };
        for (one, other) in [(&SSL_CERT, &SSL_KEY), (&SSL_KEY, &SSL_CERT)] {
            if reader.is_set(one) && !reader.is_set(other) {
                let rule = format!("needs {} beside it", reader.named(other));
                reader.mistake(one, rule);
            }
        }
        if let Some(url) = reader.optional(&URL, Parts::of) {
            settings.replace(reader, url);
        }
        if settings.tls == TlsMode::Require && settings.ca.is_some() {
            // As libpq has it.
            settings.tls = TlsMode::VerifyCa;
        }
        settings
    }

    /// What the URL says counts.
    fn replace(&mut self, reader: &mut Reader, url: Parts) {
        let name = reader.named(&URL);
        let mut replaced = Vec::new();
        let mut said = |setting: &Setting, shown: Option<String>| {
            if reader.is_set(setting) {
                replaced.push(reader.named(setting));
            }
            if let Some(shown) = shown {
                reader.replace(setting.name, shown, name.clone());
            }
        };
        said(&HOST, Some(url.host.clone()));
        self.host = url.host;
        if let Some(port) = url.port {
            said(&PORT, Some(port.to_string()));
            self.port = port;
        }
        if let Some(user) = url.user {
            said(&USER, Some(user.clone()));
            self.user = user;
        }
        if let Some(password) = url.password {
            said(&PASSWORD, Some("***".to_owned()));
            self.password = password;
        }
        if let Some(database) = url.database {
            said(&DATABASE, Some(database.clone()));
            self.database = database;
        }
        if let Some((word, mode)) = url.tls {
            said(&SSLMODE, Some(word));
            self.tls = mode;
        }
        if let Some(ca) = url.ca {
            said(&SSL_CA, Some(ca.display().to_string()));
            self.ca = Some(ca);
        }
        if let Some((cert, key)) = url.identity {
            said(&SSL_CERT, Some(cert.display().to_string()));
            said(&SSL_KEY, Some(key.display().to_string()));
            self.identity = Some((cert, key));
        }
        if !replaced.is_empty() {
            reader.warn(format!("{name} replaces {}", replaced.join(", ")));
        }
    }

    /// Where it leads, for log lines.
    pub(crate) fn address(&self) -> String {
        match self.host.as_str() {
            socket if socket.starts_with('/') => format!("{socket}/{}", self.database),
            host if host.contains(':') => format!("[{host}]:{}/{}", self.port, self.database),
            host => format!("{host}:{}/{}", self.port, self.database),
        }
    }
}

fn host(given: &Given<'_>) -> Ruled<String> {
    if given.text.starts_with('/') { Ok(given.text.to_owned()) } else { rules::host(given) }
}

/// The protocol ends its texts with NUL.
fn no_nul(given: &Given<'_>) -> Ruled<String> {
    if given.text.contains('\0') { Err("must not hold NUL".to_owned()) } else { Ok(given.text.to_owned()) }
}

/// What a URL says.
#[derive(Clone, Debug)]
struct Parts {
    host: String,
    port: Option<u16>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    tls: Option<(String, TlsMode)>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Parts {
    fn of(given: &Given<'_>) -> Ruled<Self> {
        if !given.text.starts_with("postgres://") && !given.text.starts_with("postgresql://") {
            return Err("must begin with postgres:// or postgresql://".to_owned());
        }
        let url = Url::parse(given.text).map_err(|error| {
            format!("must be a URL ({error}); / ? # and @ in the password are written %2F %3F %23 and %40")
        })?;
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| NOT_TEXT.to_owned())
        };
        let some = |text: &str| if text.is_empty() { Ok(None) } else { decoded(text).map(Some) };
        let host = decoded(url.host_str().unwrap_or_default())?;
        let mut parts = Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port(),
            user: some(url.username())?,
            password: url.password().map(decoded).transpose()?.map(Secret::new),
            database: some(url.path().trim_start_matches('/'))?,
            tls: None,
            ca: None,
            identity: None,
        };
        let (mut cert, mut key) = (None, None);
        for (name, value) in url.query_pairs() {
            let file = || {
                rules::readable_file(&Given { text: &value, ..*given })
                    .map_err(|rule| format!("{name} {rule}"))
            };
            match &*name {
                "sslmode" => {
                    let mode = rules::one_of(&MODES)(&Given { text: &value, ..*given });
                    parts.tls =
                        Some((value.clone().into_owned(), mode.map_err(|rule| format!("sslmode {rule}"))?));
                }
                "sslrootcert" => parts.ca = Some(file()?),
                "sslcert" => cert = Some(file()?),
                "sslkey" => key = Some(file()?),
                "host" => parts.host = value.into_owned(),
                _ => {
                    return Err(format!(
                        "must not have {name} behind its ?: sslmode, sslrootcert, sslcert, sslkey and host are known"
                    ));
                }
            }
        }
        if cert.is_some() != key.is_some() {
            return Err("must have sslcert and sslkey, or neither".to_owned());
        }
        parts.identity = cert.zip(key);
        match parts.host.is_empty() {
            true => Err("must name a host".to_owned()),
            false => Ok(parts),
        }
    }
}

const NOT_TEXT: &str = "must be text behind its percent signs";
