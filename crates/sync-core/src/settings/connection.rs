//! Reads how one Redis deployment is reached, and the two parts that other servers' settings share: TLS and
//! retries. Nothing here connects.

use super::reader::{Given, Reader};
use super::rules::{self, Ruled};
use super::shared::{RedisTable, SOURCE_REDIS};
use super::table::Setting;
use super::{RedisSettings, RetrySettings, TlsSettings};

impl RedisSettings {
    /// SOURCE_REDIS_* and their aliases.
    pub fn read(reader: &mut Reader) -> Self {
        Self::read_from(reader, &SOURCE_REDIS)
    }

    /// The settings of `table`, all of which the bridge has in its groups.
    pub fn read_from(reader: &mut Reader, table: &RedisTable) -> Self {
        Self::read_with(reader, table, rules::integer(0..=u64::from(u16::MAX)))
    }

    /// The same, with a rule of the bridge's own for the database.
    pub fn read_with(
        reader: &mut Reader,
        table: &RedisTable,
        database: impl Fn(&Given<'_>) -> Ruled<u16>,
    ) -> Self {
        let url = reader.optional(&table.url, |given| Ok((Url::inspect(given.text)?, rules::secret(given)?)));
        let mut db = reader.value(&table.db, database);
        let mut tls = reader.value(&table.ssl, rules::boolean);
        let mut secret_url = None;
        if let Some((Url { tls: url_tls, db: url_db }, url)) = url {
            say_what_the_url_replaces(reader, table);
            tls = url_tls;
            secret_url = Some(url);
            match url_db {
                Some(number) if !reader.is_set(&table.db) => {
                    db = number;
                    reader.replace(table.db.name, number.to_string(), reader.named(&table.url));
                }
                Some(number) if number != db => {
                    let (written, url) = (reader.named(&table.db), reader.named(&table.url));
                    reader.warn(format!(
                        "{url} says database {number}, and {written} something else, which counts"
                    ));
                }
                _ => {}
            }
        }
        Self {
            url: secret_url,
            host: reader.value(&table.host, rules::host),
            port: reader.value(&table.port, rules::port),
            username: reader.optional(&table.username, rules::text),
            password: reader.optional(&table.password, rules::secret),
            tls: TlsSettings::read(
                reader,
                tls,
                &TlsTable {
                    switch: "rediss:// or …_SSL=true",
                    ca: &table.ssl_ca,
                    cert: &table.ssl_cert,
                    key: &table.ssl_key,
                    insecure: &table.ssl_insecure,
                },
            ),
            db,
            pool_size: reader.value(&table.pool_size, rules::integer(1..=10_000)),
            retry: RetrySettings::read(reader, &table.max_retries, &table.backoff_base, &table.backoff_max),
            health_check_interval: reader.value(&table.health_check_interval, rules::seconds(0.1..=86400.0)),
        }
    }
}

fn say_what_the_url_replaces(reader: &mut Reader, table: &RedisTable) {
    let replaced: Vec<_> = [&table.host, &table.port, &table.username, &table.password, &table.ssl]
        .into_iter()
        .filter(|setting| reader.is_set(setting))
        .map(|setting| reader.named(setting))
        .collect();
    if !replaced.is_empty() {
        reader.warn(format!("{} replaces {}", reader.named(&table.url), replaced.join(", ")));
    }
}

/// The settings that make up one connection's TLS.
pub struct TlsTable<'a> {
    /// What a person sets to switch TLS on, for the warning that these files do nothing.
    pub switch: &'a str,
    /// Authorities.
    pub ca: &'a Setting,
    /// Client certificate.
    pub cert: &'a Setting,
    /// Its key.
    pub key: &'a Setting,
    /// Do not verify.
    pub insecure: &'a Setting,
}

impl TlsSettings {
    /// `None` when TLS is off; files that are set nevertheless are named in a warning.
    pub fn read(reader: &mut Reader, on: bool, table: &TlsTable<'_>) -> Option<Self> {
        let insecure = reader.value(table.insecure, rules::boolean);
        if !on {
            for setting in [table.ca, table.cert, table.key, table.insecure] {
                if reader.is_set(setting) && (setting.name != table.insecure.name || insecure) {
                    reader.warn(format!("{} has no effect without {}", reader.named(setting), table.switch));
                }
            }
            return None;
        }
        for (one, other) in [(table.cert, table.key), (table.key, table.cert)] {
            if reader.is_set(one) && !reader.is_set(other) {
                let rule = format!("needs {} beside it", reader.named(other));
                reader.mistake(one, rule);
            }
        }
        if insecure {
            reader
                .warn(format!("{}: the server's certificate is not verified", reader.named(table.insecure)));
        }
        Some(Self {
            ca: reader.optional(table.ca, rules::readable_file),
            cert: reader.optional(table.cert, rules::readable_file),
            key: reader.optional(table.key, rules::readable_file),
            insecure,
        })
    }
}

impl RetrySettings {
    /// Attempts at start, first and longest delay. Where only one of the delays is set, the other's default
    /// gives way to it.
    pub fn read(reader: &mut Reader, max_retries: &Setting, base: &Setting, max: &Setting) -> Self {
        let max_retries = reader.value(max_retries, rules::integer(1..=u64::from(u32::MAX)));
        Self { max_retries, ..Self::read_delays(reader, base, max) }
    }

    /// The same where nothing limits the attempts at start either.
    pub fn read_delays(reader: &mut Reader, base: &Setting, max: &Setting) -> Self {
        let delay = rules::seconds(0.001..=86400.0);
        let first = reader.value(base, &delay);
        let longest = reader.value(max, &delay);
        let (first, longest) = match (reader.is_good(base), reader.is_good(max)) {
            (true, true) if first > longest => {
                let rule = format!("must not be above {}, {} s", reader.named(max), longest.as_secs_f64());
                reader.mistake(base, rule);
                (first, longest)
            }
            (true, false) if first > longest => {
                reader.replace(max.name, first.as_secs_f64().to_string(), reader.named(base));
                (first, first)
            }
            (false, true) if first > longest => {
                reader.replace(base.name, longest.as_secs_f64().to_string(), reader.named(max));
                (longest, longest)
            }
            _ => (first, longest),
        };
        Self { max_retries: u32::MAX, base: first, cap: longest }
    }
}

/// What the settings take from a Redis URL; the client library reads the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    /// `/db` at its end; a Cluster has none.
    db: Option<u16>,
}

impl Url {
    fn inspect(text: &str) -> Ruled<Self> {
        const SCHEMES: &str =
            "must begin with redis://, rediss://, unix://, redis-cluster:// or redis-sentinel://";
        let (scheme, rest) = text.split_once("://").ok_or(SCHEMES)?;
        let (server, kind) = match scheme.split_once('-') {
            Some((server, kind)) => (server, Some(kind)),
            None => (scheme, None),
        };
        let tls = match server {
            "unix" if kind.is_none() => {
                return match rest.starts_with('/') && rest.len() > 1 {
                    true => Ok(Self { tls: false, db: None }),
                    false => {
                        Err("must name the socket's whole path, as in unix:///run/redis.sock".to_owned())
                    }
                };
            }
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(SCHEMES.to_owned()),
        };
        if !matches!(kind, None | Some("cluster" | "sentinel")) {
            return Err(SCHEMES.to_owned());
        }
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        if path.contains('@') || query.contains('@') && !query.contains('=') || address.contains('#') {
            return Err("must have / ? # and @ in the password written as %2F %3F %23 and %40".to_owned());
        }
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() {
            return Err("must name a host".to_owned());
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err("must have a port from 1 to 65535 or none".to_owned());
        }
        if kind == Some("sentinel") && !query.contains("sentinelServiceName=") {
            return Err(
                "must name the service, as in redis-sentinel://host:26379?sentinelServiceName=mymaster"
                    .into(),
            );
        }
        let db = match path {
            "" => None,
            digits => Some(digits.parse().map_err(|_| "must end with a database number after / or without")?),
        };
        Ok(Self { tls, db: db.filter(|_| kind != Some("cluster")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let good = |text: &str, tls: bool, db: Option<u16>| {
            assert_eq!(Url::inspect(text), Ok(Url { tls, db }), "{text}");
        };
        good("redis://h", false, None);
        good("redis://h:6379/", false, None);
        good("redis://u:p@h:6379/3", false, Some(3));
        good("redis://:p:q@[::1]:6379/3", false, Some(3));
        good("redis://[::1]/3", false, Some(3));
        good("rediss://h/0", true, Some(0));
        good("unix:///run/redis.sock", false, None);
        good("redis-cluster://h:1?node=i:2", false, None);
        good("redis-cluster://h:1/1", false, None);
        good("rediss-cluster://h:1", true, None);
        good("redis-sentinel://h:1/2?sentinelServiceName=m", false, Some(2));
        good("valkey://h", false, None);

        let bad = |text: &str, part: &str| {
            let rule = Url::inspect(text).expect_err(text);
            assert!(rule.contains(part), "{text}: {rule}");
        };
        bad("http://h", "must begin with");
        bad("h:6379", "must begin with");
        bad("redis-ring://h", "must begin with");
        bad("unix://run", "whole path");
        bad("redis://", "a host");
        bad("redis://:p@", "a host");
        bad("redis://h:0", "a port");
        bad("redis://h:x", "a port");
        bad("redis://h/x", "database number");
        bad("redis://u:a/b@h", "%2F");
        bad("redis://u:a?b@h", "%3F");
        bad("redis-sentinel://h", "sentinelServiceName");
    }
}
