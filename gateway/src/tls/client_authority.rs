//! Client certificates (mTLS): the authorities that the gateway trusts to issue them, and the identity in a
//! certificate.

use std::path::Path;

use http::HeaderValue;
use openssl::base64;
use openssl::sha::sha256;
use openssl::ssl::{SslAcceptor, SslOptions, SslRef, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameRef, X509Ref, X509VerifyResult};

use super::acceptor;
use super::certificate::reason;

/// Certificate authorities whose client certificates are trusted.
pub struct ClientAuthority {
    /// SHA-256 of the file with the authorities. The hash distinguishes these authorities from others.
    pub id: [u8; 32],
    /// Acceptor for handshakes that ask the client for a certificate. The acceptor resumes no sessions, because a
    /// resumed session could admit a client whose certificate is no longer trusted, or a client under another name.
    pub(super) acceptor: SslAcceptor,
}

/// Certificate that a client has presented.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// Reason why the certificate is not trusted; `None` if it is trusted.
    pub fault: Option<&'static str>,
    /// Subject of the certificate (RFC 4514).
    pub subject: HeaderValue,
    /// Whole certificate, in the form of the `Client-Cert` field (RFC 9440 2.2).
    pub certificate: HeaderValue,
}

impl ClientAuthority {
    /// Reads the authorities in `file` (PEM).
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not PEM, holds no certificate, or OpenSSL refuses it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|error| format!("cannot read '{shown}': {error}"))?;
        let authorities = X509::stack_from_pem(&pem);
        let authorities =
            authorities.map_err(|error| format!("'{shown}' is not in PEM format: {}", reason(&error)))?;
        if authorities.is_empty() {
            return Err(format!("'{shown}' holds no certificate"));
        }
        let id = sha256(&pem);
        let acceptor = || {
            let mut context = acceptor::settings()?;
            let mut store = X509StoreBuilder::new()?;
            for authority in authorities {
                context.add_client_ca(&authority)?;
                store.add_cert(authority)?;
            }
            context.set_cert_store(store.build());
            context.set_session_id_context(&id)?;
            // An invalid certificate does not end the handshake, so that the gateway can tell the client over HTTP
            // what is wrong.
            context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
            context.set_options(SslOptions::NO_TICKET);
            context.set_num_tickets(0)?;
            Ok(context.build())
        };
        let acceptor = acceptor().map_err(|error: openssl::error::ErrorStack| {
            format!("'{shown}' cannot be used: {}", reason(&error))
        })?;
        Ok(ClientAuthority { id, acceptor })
    }

    /// Returns the certificate that the client has presented; `None` if it has presented none.
    pub(super) fn shown(ssl: &SslRef) -> Option<ClientIdentity> {
        let certificate = ssl.peer_certificate()?;
        let result = ssl.verify_result();
        Some(ClientIdentity {
            fault: (result != X509VerifyResult::OK).then(|| result.error_string()),
            subject: value(&distinguished_name(certificate.subject_name())),
            certificate: value(&structured(&certificate)),
        })
    }
}

/// Converts `text` to a field value; empty if `text` is not visible ASCII.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns the certificate as a byte sequence of structured fields (RFC 8941 3.3.5).
fn structured(certificate: &X509Ref) -> String {
    format!(":{}:", base64::encode_block(&certificate.to_der().unwrap_or_default()))
}

/// Returns the name in the form of RFC 4514, the innermost part first, in visible ASCII.
fn distinguished_name(name: &X509NameRef) -> String {
    let parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let kind = entry.object().nid().short_name().unwrap_or("OID");
            let value = entry.data().to_string().unwrap_or_default();
            format!("{kind}={}", escaped(&value))
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// Escapes a value as RFC 4514 2.4 says. Each byte that is not visible ASCII becomes `\HH`.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (i, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' if i == 0 => text.push_str("\\#"),
            b' ' if i == 0 || i == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use openssl::nid::Nid;
    use openssl::x509::X509Name;

    use super::*;

    #[test]
    fn distinguished_name_with_special_characters_is_escaped() {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Ärger, CN=admin").unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, " a\r\nX-User: root#").unwrap();
        let text = distinguished_name(&name.build());
        assert_eq!(text, "CN=\\ a\\0D\\0AX-User: root#,O=\\C3\\84rger\\, CN=admin");
        assert!(HeaderValue::from_str(&text).is_ok());
    }

    #[test]
    fn unusable_ca_file_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wrong = ClientAuthority::read(file.path()).err().unwrap();
        assert!(wrong.ends_with("holds no certificate"), "{wrong}");
        let wrong = ClientAuthority::read(Path::new("/no/such.pem")).err().unwrap();
        assert!(wrong.starts_with("cannot read '/no/such.pem'"), "{wrong}");
    }
}
