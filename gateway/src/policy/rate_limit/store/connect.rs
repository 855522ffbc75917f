//! How a store is connected to: over TCP, over TLS, or at a socket of this machine.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::SslConnector;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_openssl::SslStream;

use crate::config::{CounterStore, HostPort, RateLimit, Redis, RedisPlace};
use crate::outgoing;

/// How a store is connected to, compiled from the keys of a window.
pub struct StoreSettings {
    /// Where it is.
    pub redis: Redis,
    /// How long a request waits for it.
    pub timeout: Duration,
    user: String,
    password_env: String,
    /// What that variable holds. Never shown, never logged.
    password: Option<String>,
    ca_file: String,
    tls: Option<SslConnector>,
}

/// Why a store cannot be connected to, ever.
#[derive(Debug, PartialEq, Eq)]
pub struct BadStore {
    /// The key that says so.
    pub key: &'static str,
    /// What is wrong.
    pub detail: String,
}

/// Why it was not connected to, this time.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] openssl::ssl::Error),
    #[error("TLS: {0}")]
    OpenSsl(#[from] ErrorStack),
    #[error("{0}")]
    Redis(#[from] RedisError),
}

impl StoreSettings {
    /// What `window` says of its store; `None` where it is counted here.
    ///
    /// # Errors
    /// Where the password's variable is not set, or the file with certificates is no good.
    pub fn new(window: &RateLimit) -> Result<Option<Self>, BadStore> {
        let CounterStore::Redis(redis) = &window.store else { return Ok(None) };
        let is_tls = matches!(redis.place, RedisPlace::Tls(_));
        Ok(Some(StoreSettings {
            redis: redis.clone(),
            timeout: window.store_timeout_ms.duration(),
            user: window.store_user.clone(),
            password: password(&window.store_password_env)?,
            password_env: window.store_password_env.clone(),
            tls: is_tls.then(|| tls(&window.store_ca_file)).transpose()?,
            ca_file: window.store_ca_file.clone(),
        }))
    }

    /// Whether `window` means the same store, connected to in the same way.
    pub fn are_of(&self, window: &RateLimit) -> bool {
        window.store == CounterStore::Redis(self.redis.clone())
            && window.store_timeout_ms.duration() == self.timeout
            && window.store_user == self.user
            && window.store_password_env == self.password_env
            && window.store_ca_file == self.ca_file
    }

    /// Connects, proves who the gateway is, and chooses the database. The task works for the connection, and ends
    /// with it.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, JoinHandle<()>), NoConnection> {
        // No command that the work does not need: a user may be allowed that and no more.
        let mut login =
            RedisConnectionInfo::default().set_db(self.redis.database.into()).set_skip_set_lib_name();
        if !self.user.is_empty() {
            login = login.set_username(&self.user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        // Whoever asks has a deadline of its own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let stream = self.stream().await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
        Ok((connection, tokio::spawn(driver)))
    }

    async fn stream(&self) -> Result<Pin<Box<dyn Stream>>, NoConnection> {
        Ok(match (&self.redis.place, &self.tls) {
            (RedisPlace::Unix(path), _) => Box::pin(UnixStream::connect(path).await?),
            (RedisPlace::Tls(host), Some(tls)) => {
                let ssl = tls.configure()?.into_ssl(&host.host)?;
                let mut stream = SslStream::new(ssl, tcp(host).await?)?;
                Pin::new(&mut stream).connect().await?;
                Box::pin(stream)
            }
            (RedisPlace::Plain(host) | RedisPlace::Tls(host), _) => Box::pin(tcp(host).await?),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

async fn tcp(host: &HostPort) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.host.as_str(), host.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn password(variable: &str) -> Result<Option<String>, BadStore> {
    if variable.is_empty() {
        return Ok(None);
    }
    match std::env::var(variable) {
        Ok(password) if !password.is_empty() => Ok(Some(password)),
        _ => {
            let detail = format!("the environment variable {variable} is not set, or empty");
            Err(BadStore { key: "store_password_env", detail })
        }
    }
}

/// TLS with a server whose certificate leads to one in `ca_file`, or to one of the system's.
fn tls(ca_file: &str) -> Result<SslConnector, BadStore> {
    let bad = |detail| BadStore { key: "store_ca_file", detail };
    let roots = outgoing::roots(ca_file).map_err(bad)?;
    Ok(outgoing::tls(&roots).map_err(|error| bad(error.to_string()))?.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Result<Option<StoreSettings>, BadStore> {
        StoreSettings::new(&toml::from_str(toml).unwrap())
    }

    #[test]
    fn what_can_never_work_is_named_with_its_key() {
        assert!(settings("").unwrap().is_none(), "it is counted here");
        assert!(settings("store = \"rediss://redis.internal\"").unwrap().is_some());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roots.pem");
        let with_roots = format!("store = \"rediss://a\"\nstore_ca_file = \"{}\"", file.display());
        let bad = settings(&with_roots).err().unwrap();
        assert!(bad.key == "store_ca_file" && bad.detail.starts_with("cannot read "), "{bad:?}");
        std::fs::write(&file, "nothing").unwrap();
        let bad = settings(&with_roots).err().unwrap();
        assert!(bad.detail.contains("holds no certificate"), "{bad:?}");
        let bad = settings("store = \"redis://a\"\nstore_password_env = \"NOBODY_SETS_THIS\"").err().unwrap();
        assert_eq!(bad.key, "store_password_env");
    }

    #[test]
    fn a_store_is_the_same_as_long_as_it_is_connected_to_in_the_same_way() {
        let of = |toml: &str| toml::from_str::<RateLimit>(toml).unwrap();
        let store = "store = \"redis://a\"";
        let settings = settings(store).unwrap().unwrap();
        assert!(settings.are_of(&of(&format!("{store}\nrequests = 7\nname = \"other\""))));
        for other in ["store = \"redis://a/1\"", "", "store = \"redis://a\"\nstore_timeout_ms = 51"] {
            assert!(!settings.are_of(&of(other)), "{other}");
        }
    }
}
