//! TLS-ALPN-01 (RFC 8737). An ACME server connects to port 443, asks for the name by SNI and for the protocol
//! `acme-tls/1`. The server expects a certificate that only the owner of the account's key can make. After the
//! handshake neither side sends data.

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

/// Protocol (ALPN) that marks a handshake as a validation.
pub(in crate::tls) const ACME_TLS: &[u8] = b"acme-tls/1";
/// ALPN list that contains only [`ACME_TLS`].
const ONLY_ACME_TLS: &[u8] = b"\x0aacme-tls/1";
/// Timeout of a validation, which consists only of a handshake.
const LIMIT: Duration = Duration::from_secs(10);

/// Error of the handshake of a validation.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// OpenSSL cannot prepare the handshake.
    #[error("cannot prepare the handshake of a validation: {0}")]
    Setup(#[from] ErrorStack),
    /// The handshake failed. In most cases, no order waits for a validation of the name.
    #[error("the handshake of a validation failed: {0}")]
    Handshake(#[from] openssl::ssl::Error),
    /// The handshake took longer than the timeout.
    #[error("the handshake of a validation took longer than {LIMIT:?}")]
    TooSlow,
}

impl Challenges {
    /// Makes the handshake of a validation and closes the connection. The ClientHello of the connection must
    /// offer `acme-tls/1` (see [`classify`](crate::tls::classify)). No byte of the ClientHello may have been
    /// read before.
    ///
    /// # Errors
    /// Returns an error if the handshake is not completed. The gateway need not react: the ACME server
    /// reports the failed validation.
    pub async fn validate<S>(self: &Arc<Self>, stream: S) -> Result<(), ValidationError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ssl = Ssl::new(self.tls_acceptor()?.context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        let handshake = async {
            std::pin::Pin::new(&mut stream).accept().await?;
            // The ACME server may have closed the connection already.
            let _ = stream.shutdown().await;
            Ok(())
        };
        timeout(LIMIT, handshake).await.unwrap_or(Err(ValidationError::TooSlow))
    }

    /// Returns an acceptor for validations. The acceptor ends handshakes for names that are not being validated.
    ///
    /// # Errors
    /// Returns an error if OpenSSL cannot make the acceptor.
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

/// Reason why there is no certificate for a validation.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCertificate {
    #[error("cannot make the certificate of a validation: {0}")]
    Made(#[from] rcgen::Error),
    #[error("cannot use the certificate of a validation: {0}")]
    Used(#[from] ErrorStack),
}

/// Returns the TLS context for the validation of `name`. Its certificate is self-signed and holds `digest`,
/// the SHA-256 of the key authorization (RFC 8737 3).
pub(super) fn context(name: &str, digest: &[u8; 32]) -> Result<SslContext, NoCertificate> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_certificate(&*X509::from_der(certificate.der())?)?;
    builder.set_private_key(&*PKey::private_key_from_der(key.serialized_der())?)?;
    // The protocol is mandatory (RFC 8737 4), so the handshake of a client that does not offer it fails.
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

    /// Validates `name` as an ACME server does, and returns the agreed protocol and the certificate.
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
    async fn validation_gets_acme_protocol_and_digest() {
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
    async fn handshake_without_awaited_validation_fails() {
        let challenges = Arc::new(Challenges::default());
        let _published = challenges.publish_tls("a.example", context("a.example", &DIGEST).unwrap());
        for (name, protocols) in [("b.example", ONLY_ACME_TLS), ("a.example", b"\x08http/1.1".as_slice())] {
            let error = seen(&challenges, name, protocols).await.unwrap_err();
            assert!(matches!(error, ValidationError::Handshake(_)), "{name}: {error}");
        }
    }
}
