//! TLS-ALPN-01 (RFC 8737): an ACME server connects to port 443, asks for the name by SNI and for the protocol
//! `acme-tls/1`, and finds a certificate that only the account's key could have told how to make. It says nothing
//! over the connection, and is told nothing.

use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslContext, SslContextBuilder, SslMethod, SslVersion,
    select_next_proto,
};
use openssl::x509::X509;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_openssl::SslStream;

use super::Challenges;

/// The protocol that says that a handshake is a validation.
pub(in crate::tls) const ACME_TLS: &[u8] = b"acme-tls/1";
/// The same, as a list of one.
const ONLY_ACME_TLS: &[u8] = b"\x0aacme-tls/1";
/// A validation has nothing to wait for.
const LIMIT: Duration = Duration::from_secs(10);

/// A handshake that was not that of an awaited validation, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// OpenSSL cannot begin it.
    #[error("cannot prepare the handshake of a validation: {0}")]
    Setup(#[from] ErrorStack),
    /// It failed: most often the name is not one that is being validated.
    #[error("the handshake of a validation failed: {0}")]
    Handshake(#[from] openssl::ssl::Error),
    /// It did not end.
    #[error("the handshake of a validation took longer than {LIMIT:?}")]
    TooSlow,
}

impl Challenges {
    /// Makes the handshake of a validation on a connection whose ClientHello offers `acme-tls/1`
    /// ([`classify`](crate::tls::look_at) tells), and closes it. Nothing of the ClientHello must have been read.
    ///
    /// # Errors
    /// Where it is not completed. There is nothing to do about it: the server will say what it missed.
    pub async fn validate<S>(self: &Arc<Self>, stream: S) -> Result<(), ValidationError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ssl = Ssl::new(self.tls_acceptor()?.context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        let handshake = async {
            std::pin::Pin::new(&mut stream).accept().await?;
            // The server may be gone already.
            let _ = stream.shutdown().await;
            Ok(())
        };
        timeout(LIMIT, handshake).await.unwrap_or(Err(ValidationError::TooSlow))
    }

    /// What makes such handshakes: for a name that is not being validated it ends them.
    ///
    /// # Errors
    /// Where OpenSSL cannot make it.
    pub fn tls_acceptor(self: &Arc<Self>) -> Result<SslAcceptor, ErrorStack> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        let challenges = self.clone();
        builder.set_servername_callback(move |ssl, _| {
            let context = ssl.servername(NameType::HOST_NAME).and_then(|name| challenges.tls(name));
            match context.map(|context| ssl.set_ssl_context(&context)) {
                Some(Ok(())) => Ok(()),
                _ => Err(SniError::ALERT_FATAL),
            }
        });
        Ok(builder.build())
    }
}

/// Why there is no certificate for a validation.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCertificate {
    #[error("cannot make the certificate of a validation: {0}")]
    Made(#[from] rcgen::Error),
    #[error("cannot use the certificate of a validation: {0}")]
    Used(#[from] ErrorStack),
}

/// What the handshake of a validation of `name` is made with, where the SHA-256 of the key authorization is `digest`:
/// a certificate that nobody signed but itself, with the digest in it (RFC 8737 3).
pub(super) fn context(name: &str, digest: &[u8; 32]) -> Result<SslContext, NoCertificate> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_certificate(&*X509::from_der(certificate.der())?)?;
    builder.set_private_key(&*PKey::private_key_from_der(key.serialized_der())?)?;
    // The protocol must be agreed on (RFC 8737 4); of a client that does not offer it, this is no validation.
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(ONLY_ACME_TLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use openssl::ssl::{SslConnector, SslVerifyMode};
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const DIGEST: [u8; 32] = [7; 32];

    /// What a validating server sees that asks for `name`: the protocol and the certificate.
    async fn seen(
        challenges: &Arc<Challenges>,
        name: &str,
        protocols: &[u8],
    ) -> Result<(Vec<u8>, X509), ValidationError> {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut tls = SslConnector::builder(SslMethod::tls_client()).unwrap();
        tls.set_verify(SslVerifyMode::NONE);
        tls.set_alpn_protos(protocols).unwrap();
        let ssl = tls.build().configure().unwrap().verify_hostname(false).into_ssl(name).unwrap();
        let mut client = SslStream::new(ssl, theirs).unwrap();
        let challenges = challenges.clone();
        let server = tokio::spawn(async move { challenges.validate(ours).await });
        let connected = std::pin::Pin::new(&mut client).connect().await;
        if connected.is_ok() {
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "closed after the handshake");
        }
        let protocol = client.ssl().selected_alpn_protocol().unwrap_or_default().to_vec();
        server.await.unwrap().map(|()| (protocol, client.ssl().peer_certificate().unwrap()))
    }

    #[tokio::test]
    async fn a_validation_sees_what_it_looks_for() {
        let challenges = Arc::new(Challenges::default());
        let published = challenges.publish_tls("a.example", context("a.example", &DIGEST).unwrap());
        assert!(challenges.has_tls());
        let (protocol, certificate) = seen(&challenges, "A.example", ONLY_ACME_TLS).await.unwrap();
        assert_eq!(protocol, ACME_TLS);
        let names = certificate.subject_alt_names().unwrap();
        assert_eq!(names.iter().map(|name| name.dnsname().unwrap()).collect::<Vec<_>>(), ["a.example"]);
        // id-pe-acmeIdentifier, critical, an octet string with the digest (RFC 8737 6.1).
        let extension =
            [b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20", &DIGEST[..]].concat();
        let der = certificate.to_der().unwrap();
        assert!(der.windows(extension.len()).any(|window| window == extension));
        drop(published);
        assert!(!challenges.has_tls());
    }

    #[tokio::test]
    async fn nobody_else_gets_a_handshake() {
        let challenges = Arc::new(Challenges::default());
        let _published = challenges.publish_tls("a.example", context("a.example", &DIGEST).unwrap());
        for (name, protocols) in [("b.example", ONLY_ACME_TLS), ("a.example", b"\x08http/1.1".as_slice())] {
            let error = seen(&challenges, name, protocols).await.unwrap_err();
            assert!(matches!(error, ValidationError::Handshake(_)), "{name}: {error}");
        }
    }
}
