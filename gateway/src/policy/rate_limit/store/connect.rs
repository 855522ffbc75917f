//! Connects to a store over TCP, TLS, or a Unix socket.

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
use crate::policy::rate_limit::store::response_limit::Bounded;
use crate::util::http_client;
pub use crate::util::http_client::Roots;
use crate::util::secrets::Secrets;

/// Connection settings of a store, compiled from the keys of a window.
pub struct StoreSettings {
    /// Location of the store.
    pub redis: Redis,
    /// Maximum time that a request waits for the store.
    pub timeout: Duration,
    user: String,
    password_env: String,
    /// Password from the variable `password_env`, never shown or logged; `None` without a variable.
    password: Option<String>,
    ca_file: String,
    /// Root certificates in `ca_file`. If the file gets other certificates, a new store is made.
    roots: Roots,
    tls: Option<SslConnector>,
}

/// Reason why the settings of a store cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadStore {
    /// Key of the table that is wrong.
    pub key: &'static str,
    /// Description of the fault.
    pub detail: String,
}

/// Reason why one attempt to connect failed.
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
    /// Reads the root certificates in the `store_ca_file` of a window.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has no certificates.
    pub fn roots(ca_file: &str) -> Result<Roots, BadStore> {
        http_client::roots(ca_file).map_err(bad_roots)
    }

    /// Compiles the settings of the store that `window` names. One of `roots` must have issued the certificate
    /// that the store presents. Returns `None` if `window` names no store.
    ///
    /// # Errors
    /// Returns an error if the password's variable is not set, or OpenSSL refuses the roots.
    pub fn new(window: &RateLimit, roots: Roots, secrets: &Secrets) -> Result<Option<Self>, BadStore> {
        let CounterStore::Redis(redis) = &window.store else { return Ok(None) };
        let is_tls = matches!(redis.place, RedisPlace::Tls(_));
        let tls = is_tls.then(|| http_client::tls(&roots)).transpose();
        let tls = tls.map_err(|error| bad_roots(error.to_string()))?;
        Ok(Some(StoreSettings {
            redis: redis.clone(),
            timeout: window.store_timeout_ms.duration(),
            user: window.store_user.clone(),
            password: password(&window.store_password_env, secrets)?,
            password_env: window.store_password_env.clone(),
            tls: tls.map(|tls| tls.build()),
            ca_file: window.store_ca_file.clone(),
            roots,
        }))
    }

    /// Returns true if `window` names this store with the same connection settings.
    pub fn are_of(&self, window: &RateLimit, roots: &Roots) -> bool {
        window.store == CounterStore::Redis(self.redis.clone())
            && window.store_timeout_ms.duration() == self.timeout
            && window.store_user == self.user
            && window.store_password_env == self.password_env
            && window.store_ca_file == self.ca_file
            && *roots == self.roots
    }

    /// Connects, authenticates the gateway, and chooses the database. The returned task drives the connection,
    /// and ends when the connection ends.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, JoinHandle<()>), NoConnection> {
        // The login sends only necessary commands, because the Redis user may lack other permissions.
        let mut login =
            RedisConnectionInfo::default().set_db(self.redis.database.into()).set_skip_set_lib_name();
        if !self.user.is_empty() {
            login = login.set_username(&self.user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        // Each query has a separate timeout (see `Store::ask`), so the connection needs none.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let stream = self.stream().await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
        Ok((connection, tokio::spawn(driver)))
    }

    async fn stream(&self) -> Result<Bounded<Pin<Box<dyn Stream>>>, NoConnection> {
        let stream: Pin<Box<dyn Stream>> = match (&self.redis.place, &self.tls) {
            (RedisPlace::Unix(path), _) => Box::pin(UnixStream::connect(path).await?),
            (RedisPlace::Tls(host), Some(tls)) => {
                let ssl = tls.configure()?.into_ssl(&host.host)?;
                let mut stream = SslStream::new(ssl, tcp(host).await?)?;
                Pin::new(&mut stream).connect().await?;
                Box::pin(stream)
            }
            (RedisPlace::Plain(host) | RedisPlace::Tls(host), _) => Box::pin(tcp(host).await?),
        };
        Ok(Bounded::new(stream))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

async fn tcp(host: &HostPort) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.host.as_str(), host.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn password(variable: &str, secrets: &Secrets) -> Result<Option<String>, BadStore> {
    if variable.is_empty() {
        return Ok(None);
    }
    let password = secrets.variable("rate_limit.store_password_env", variable);
    password.map_err(|detail| BadStore { key: "store_password_env", detail })
}

fn bad_roots(detail: String) -> BadStore {
    BadStore { key: "store_ca_file", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Result<Option<StoreSettings>, BadStore> {
        let window: RateLimit = toml::from_str(toml).unwrap();
        let roots = StoreSettings::roots(&window.store_ca_file)?;
        StoreSettings::new(&window, roots, &Secrets::required())
    }

    #[test]
    fn unusable_setting_is_reported_with_its_key() {
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
    fn store_is_the_same_if_its_connection_settings_are() {
        let of = |toml: &str| toml::from_str::<RateLimit>(toml).unwrap();
        let store = "store = \"redis://a\"";
        let settings = settings(store).unwrap().unwrap();
        let same = of(&format!("{store}\nrequests = 7\nname = \"other\""));
        assert!(settings.are_of(&same, &Vec::new()));
        assert!(!settings.are_of(&same, &vec![b"root".to_vec()]), "its file has been replaced");
        for other in ["store = \"redis://a/1\"", "", "store = \"redis://a\"\nstore_timeout_ms = 51"] {
            assert!(!settings.are_of(&of(other), &Vec::new()), "{other}");
        }
    }
}
