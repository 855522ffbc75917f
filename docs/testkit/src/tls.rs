//! A certificate authority for one test, and the files and contexts that are made from it.

use std::io;
use std::path::PathBuf;

use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, SslAcceptor, SslMethod, SslVerifyMode, select_next_proto};
use openssl::x509::X509;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority that nobody trusts, except those who are given its certificate.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its key, issued by an [`Authority`], in memory and as two PEM files.
pub struct Identity {
    certificate: String,
    key: String,
    directory: TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let made = KeyPair::generate().and_then(|key| {
            let mut params = CertificateParams::new(Vec::new())?;
            // A name of its own: a certificate whose issuer has the same name would pass as self-signed.
            params.distinguished_name.push(DnType::CommonName, "testkit authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, key)
        });
        let issuer = made.unwrap_or_else(|error| panic!("no certificate authority: {error}"));
        let written = tempfile::tempdir().and_then(|directory| {
            std::fs::write(directory.path().join("authority.pem"), issuer.pem())?;
            io::Result::Ok(directory)
        });
        let directory = written.unwrap_or_else(|error| panic!("no file for the authority: {error}"));
        Authority { issuer, directory }
    }

    /// The file with its certificate. It is there as long as the authority is.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Its certificate, for those who are to trust it.
    pub fn certificate(&self) -> X509 {
        parsed(self.issuer.pem().as_bytes())
    }

    /// A certificate for the host name `name`.
    pub fn issue(&self, name: &str) -> Identity {
        let made = KeyPair::generate().and_then(|key| {
            let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.issuer)?;
            Ok((certificate.pem(), key.serialize_pem()))
        });
        let (certificate, key) = made.unwrap_or_else(|error| panic!("no certificate for {name}: {error}"));
        let written = tempfile::tempdir().and_then(|directory| {
            std::fs::write(directory.path().join("certificate.pem"), &certificate)?;
            std::fs::write(directory.path().join("key.pem"), &key)?;
            io::Result::Ok(directory)
        });
        let directory = written.unwrap_or_else(|error| panic!("no files for {name}: {error}"));
        Identity { certificate, key, directory }
    }
}

impl Identity {
    /// The file with the certificate. It is there as long as the identity is.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The file with the key.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// What a server needs to prove to be this; with `clients`, it wants to see a certificate of theirs. It
    /// speaks HTTP/2 with those who ask for it (ALPN).
    pub(crate) fn acceptor(&self, clients: Option<&Authority>) -> SslAcceptor {
        let build = || {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_certificate(&parsed(self.certificate.as_bytes()))?;
            let key = PKey::private_key_from_pem(self.key.as_bytes())?;
            builder.set_private_key(&key)?;
            builder.set_alpn_select_callback(|_, asked| {
                select_next_proto(b"\x02h2\x08http/1.1", asked).ok_or(AlpnError::NOACK)
            });
            if let Some(clients) = clients {
                builder.cert_store_mut().add_cert(clients.certificate())?;
                builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
            }
            Ok::<_, openssl::error::ErrorStack>(builder.build())
        };
        build().unwrap_or_else(|error| panic!("no TLS server: {error}"))
    }
}

fn parsed(pem: &[u8]) -> X509 {
    X509::from_pem(pem).unwrap_or_else(|error| panic!("the certificate is none: {error}"))
}
