//! Store of the rate-limit counters: the memory of this process, or a Redis server that several gateways share.
//!
//! Errors in this file never quote the configured text, because it may contain a password.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use super::address::HostPort;

const PORT: u16 = 6379;
/// Maximum length of a Unix socket's path, in bytes (`sun_path` in unix(7), without the final NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Store of rate-limit counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum CounterStore {
    /// Memory of this process: `local`.
    #[default]
    Local,
    /// Database on a Redis server, which several gateways can share.
    Redis(Redis),
}

/// Redis server, and the number of one of its databases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Address of the Redis server.
    pub place: RedisPlace,
    /// Number of the database; 0 if the URL names none.
    pub database: u16,
}

/// Address of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RedisPlace {
    /// Host and port, without TLS: `redis://HOST:PORT/DB`.
    Plain(HostPort),
    /// Host and port with TLS: `rediss://HOST:PORT/DB`.
    Tls(HostPort),
    /// Unix socket on this machine: `unix:///PATH?db=DB`, or `redis+unix://`.
    Unix(PathBuf),
}

impl TryFrom<String> for CounterStore {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "local" {
            return Ok(CounterStore::Local);
        }
        let unknown = "not a valid counter store; expected \"local\", \"redis://HOST:PORT/DB\", \
                       \"rediss://HOST:PORT/DB\" or \"unix:///PATH?db=DB\"";
        let (scheme, rest) = text.split_once("://").ok_or(unknown)?;
        let redis = match scheme {
            "redis" => at_host(rest, RedisPlace::Plain)?,
            "rediss" => at_host(rest, RedisPlace::Tls)?,
            "unix" | "redis+unix" => at_socket(rest)?,
            _ => return Err(unknown.to_owned()),
        };
        Ok(CounterStore::Redis(redis))
    }
}

fn at_host(rest: &str, place: fn(HostPort) -> RedisPlace) -> Result<Redis, String> {
    if rest.contains(['@', '?', '#']) {
        return Err(
            "the URL must not contain a user, a password or options; set `store_user`, and name the \
             password's environment variable in `store_password_env`"
                .to_owned(),
        );
    }
    let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let host = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
    let host = host
        .parse()
        .map_err(|_: String| "not a valid host and port of a Redis server; expected HOST:PORT")?;
    Ok(Redis { place: place(host), database: number(database)? })
}

fn at_socket(rest: &str) -> Result<Redis, String> {
    let (path, options) = rest.split_once('?').unwrap_or((rest, "db="));
    let is_path = path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0');
    let database = options.strip_prefix("db=").filter(|_| is_path);
    let database = database
        .ok_or("not a valid socket of a Redis server; expected unix:///PATH or unix:///PATH?db=DB")?;
    Ok(Redis { place: RedisPlace::Unix(path.into()), database: number(database)? })
}

fn number(database: &str) -> Result<u16, String> {
    match database {
        "" => Ok(0),
        number => {
            number.parse().map_err(|_| "not a valid database of a Redis server; expected a number".to_owned())
        }
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = match &self.place {
            RedisPlace::Plain(host) => write!(f, "redis://{host}").map(|()| "/"),
            RedisPlace::Tls(host) => write!(f, "rediss://{host}").map(|()| "/"),
            RedisPlace::Unix(path) => write!(f, "unix://{}", path.display()).map(|()| "?db="),
        }?;
        if self.database == 0 { Ok(()) } else { write!(f, "{behind}{}", self.database) }
    }
}

impl fmt::Display for CounterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CounterStore::Local => f.write_str("local"),
            CounterStore::Redis(redis) => redis.fmt(f),
        }
    }
}

impl Serialize for CounterStore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_store_form_is_parsed_and_displayed() {
        for (text, shown) in [
            ("local", "local"),
            ("redis://redis.internal", "redis://redis.internal:6379"),
            ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"),
            ("rediss://[::1]", "rediss://[::1]:6379"),
            ("rediss://[::1]:7000/", "rediss://[::1]:7000"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
            ("redis+unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ] {
            let store = CounterStore::try_from(text.to_owned()).unwrap();
            assert_eq!(store.to_string(), shown);
            assert_eq!(CounterStore::try_from(shown.to_owned()).unwrap(), store);
        }
    }

    #[test]
    fn error_for_invalid_store_never_repeats_its_text() {
        for text in [
            "redis",
            "memcached://sesame",
            "redis://",
            "redis://:sesame@host",
            "redis://user:sesame@host:1/0",
            "redis://host?password=sesame",
            "redis://host:sesame",
            "redis://host/sesame",
            "redis://host/65536",
            "unix://sesame",
            "unix:///run/redis.sock?pass=sesame",
        ] {
            let error = CounterStore::try_from(text.to_owned()).unwrap_err();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
