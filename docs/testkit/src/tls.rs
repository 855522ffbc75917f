//! Certificate authority for one test, and the files and TLS contexts that are made from it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, Ssl, SslAcceptor, SslConnector, SslConnectorBuilder, SslMethod, SslSession,
    SslSessionCacheMode, SslVerifyMode, select_next_proto,
};
use openssl::x509::X509;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::{DEADLINE, exchange_over};

/// Certificate authority that only clients and servers with its certificate trust.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// Certificate and key, issued by an [`Authority`], in memory and as two PEM files.
pub struct Identity {
    certificate: String,
    key: String,
    directory: TempDir,
}

/// Makes a TLS handshake as a client, and asks for `name` (SNI) if there is one. The client trusts the
/// servers that `setup` configures, and does not verify the server's name.
///
/// # Errors
/// Returns the reason as text if the handshake fails.
pub async fn handshake(
    address: SocketAddr,
    name: Option<&str>,
    setup: impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack>,
) -> Result<SslStream<TcpStream>, String> {
    connect(address, ssl(&connector(setup)?, name)?).await
}

/// Makes a handshake, sends `request` and reads the whole response. Then makes a second handshake that
/// resumes the session of the first. Returns true if the server resumed the session, and the second response.
///
/// # Errors
/// Returns the errors of [`handshake`], and an error if the server sends no session.
pub async fn return_visit(
    address: SocketAddr,
    names: [&str; 2],
    request: &[u8],
    setup: impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack>,
) -> Result<(bool, String), String> {
    let session = Arc::new(Mutex::new(None::<SslSession>));
    let kept = session.clone();
    let connector = connector(|builder| {
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        builder.set_new_session_callback(move |_, session| *kept.lock() = Some(session));
        setup(builder)
    })?;
    let mut first = connect(address, ssl(&connector, Some(names[0]))?).await?;
    exchange_over(&mut first, request).await;
    // OpenSSL does not resume a TLS 1.2 session that was not shut down properly.
    let _ = first.shutdown().await;
    let mut again = ssl(&connector, Some(names[1]))?;
    let session = session.lock().take().ok_or("the server sent no session")?;
    // SAFETY: the session was made in the context that this connection is made in.
    unsafe { again.set_session(&session) }.map_err(|error| error.to_string())?;
    let stream = connect(address, again).await?;
    let resumed = stream.ssl().session_reused();
    Ok((resumed, exchange_over(stream, request).await))
}

fn connector(
    setup: impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack>,
) -> Result<SslConnector, String> {
    let build = || {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_verify(SslVerifyMode::NONE);
        setup(&mut builder)?;
        Ok(builder.build())
    };
    build().map_err(|error: ErrorStack| error.to_string())
}

fn ssl(connector: &SslConnector, name: Option<&str>) -> Result<Ssl, String> {
    let ssl = Ssl::new(connector.context()).and_then(|mut ssl| {
        name.map_or(Ok(()), |name| ssl.set_hostname(name))?;
        Ok(ssl)
    });
    ssl.map_err(|error| error.to_string())
}

async fn connect(address: SocketAddr, ssl: Ssl) -> Result<SslStream<TcpStream>, String> {
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
        Pin::new(&mut stream).connect().await.map_err(|error| error.to_string())?;
        Ok(stream)
    };
    let connected = tokio::time::timeout(DEADLINE, connecting).await;
    connected.unwrap_or_else(|_| Err(format!("no handshake within {DEADLINE:?}")))
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

impl Authority {
    /// Creates an authority with a new key.
    pub fn new() -> Authority {
        let made = KeyPair::generate().and_then(|key| {
            let mut params = CertificateParams::new(Vec::new())?;
            // The authority has a distinct name: a certificate whose issuer has the same name would pass as
            // self-signed.
            params.distinguished_name.push(DnType::CommonName, "testkit authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, key)
        });
        let issuer = made.unwrap_or_else(|error| panic!("cannot create a certificate authority: {error}"));
        let written = tempfile::tempdir().and_then(|directory| {
            std::fs::write(directory.path().join("authority.pem"), issuer.pem())?;
            io::Result::Ok(directory)
        });
        let directory = written.unwrap_or_else(|error| panic!("cannot write the authority's file: {error}"));
        Authority { issuer, directory }
    }

    /// Returns the path of the file with the authority's certificate. The file exists as long as the
    /// authority.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Returns the authority's certificate, for clients and servers that trust it.
    pub fn certificate(&self) -> X509 {
        parsed(self.issuer.pem().as_bytes())
    }

    /// Issues a certificate for the host name `name`, with an ECDSA key.
    pub fn issue(&self, name: &str) -> Identity {
        self.issue_for(name, KeyPair::generate(), |_| ())
    }

    /// Issues a certificate for `name` that has expired.
    pub fn issue_expired(&self, name: &str) -> Identity {
        self.issue_for(name, KeyPair::generate(), |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2015, 1, 1), date_time_ymd(2021, 9, 30));
        })
    }

    /// Issues a certificate for `name` with an RSA key.
    pub fn issue_rsa(&self, name: &str) -> Identity {
        self.issue_for(name, KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048), |_| ())
    }

    fn issue_for(
        &self,
        name: &str,
        key: Result<KeyPair, rcgen::Error>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let made = key.and_then(|key| {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            change(&mut params);
            Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
        });
        let (certificate, key) =
            made.unwrap_or_else(|error| panic!("cannot create a certificate for {name}: {error}"));
        let written = tempfile::tempdir().and_then(|directory| {
            std::fs::write(directory.path().join("certificate.pem"), &certificate)?;
            std::fs::write(directory.path().join("key.pem"), &key)?;
            io::Result::Ok(directory)
        });
        let directory = written.unwrap_or_else(|error| panic!("cannot write the files for {name}: {error}"));
        Identity { certificate, key, directory }
    }
}

impl Identity {
    /// Returns the path of the file with the certificate. The file exists as long as the identity.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Returns the path of the file with the key.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// Makes a handshake as a server that speaks `protocols` (ALPN, in wire format).
    ///
    /// # Errors
    /// Returns an error if the handshake fails.
    pub async fn accept(
        &self,
        stream: TcpStream,
        protocols: &'static [u8],
    ) -> io::Result<SslStream<TcpStream>> {
        let acceptor = self.acceptor_for(protocols, None);
        let mut stream = SslStream::new(Ssl::new(acceptor.context())?, stream)?;
        Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
        Ok(stream)
    }

    /// Returns a TLS acceptor with this certificate. With `clients`, it requires a client certificate of that
    /// authority. It offers HTTP/2 to clients that ask for it (ALPN).
    pub(crate) fn acceptor(&self, clients: Option<&Authority>) -> SslAcceptor {
        self.acceptor_for(b"\x02h2\x08http/1.1", clients)
    }

    fn acceptor_for(&self, protocols: &'static [u8], clients: Option<&Authority>) -> SslAcceptor {
        let build = || {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_certificate(&parsed(self.certificate.as_bytes()))?;
            let key = PKey::private_key_from_pem(self.key.as_bytes())?;
            builder.set_private_key(&key)?;
            builder.set_alpn_select_callback(move |_, asked| {
                select_next_proto(protocols, asked).ok_or(AlpnError::NOACK)
            });
            if let Some(clients) = clients {
                builder.cert_store_mut().add_cert(clients.certificate())?;
                builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
            }
            Ok::<_, openssl::error::ErrorStack>(builder.build())
        };
        build().unwrap_or_else(|error| panic!("cannot create a TLS server: {error}"))
    }
}

fn parsed(pem: &[u8]) -> X509 {
    X509::from_pem(pem).unwrap_or_else(|error| panic!("the certificate is not valid PEM: {error}"))
}
