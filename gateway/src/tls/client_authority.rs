//! Client certificates (mTLS): who issues those that are believed, and what one of them says.

use std::path::Path;

use http::HeaderValue;
use openssl::base64;
use openssl::sha::sha256;
use openssl::ssl::{SslAcceptor, SslOptions, SslRef, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameRef, X509Ref, X509VerifyResult};

use super::acceptor;
use super::certificate::reason;

/// Whose client certificates are believed.
pub struct ClientAuthority {
    /// Tells these authorities from others.
    pub id: [u8; 32],
    /// What handshakes are made with in which a certificate is asked for. They begin anew each time: a session that
    /// is taken up again would let in whoever was believed when it began, or under another name.
    pub(super) acceptor: SslAcceptor,
}

/// What a client has shown.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// Why it is not believed; `None` where it is.
    pub fault: Option<&'static str>,
    /// Its subject (RFC 4514).
    pub subject: HeaderValue,
    /// The whole certificate, as `Client-Cert` has it (RFC 9440 2.2).
    pub certificate: HeaderValue,
}

impl ClientAuthority {
    /// Reads the authorities in `file` (PEM).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|error| format!("cannot read '{shown}': {error}"))?;
        let authorities = X509::stack_from_pem(&pem);
        let authorities = authorities.map_err(|error| format!("'{shown}' is no PEM: {}", reason(&error)))?;
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
            // A certificate that is not valid does not end the handshake: over HTTP the client can be told what is
            // wrong.
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

    /// What the client has shown; `None` where it has shown nothing.
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

/// All that is put in here is visible ASCII.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A byte sequence of structured fields (RFC 8941 3.3.5).
fn structured(certificate: &X509Ref) -> String {
    format!(":{}:", base64::encode_block(&certificate.to_der().unwrap_or_default()))
}

/// A name as RFC 4514 writes it, the innermost part first, in visible ASCII.
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

/// RFC 4514 2.4; and what is not visible ASCII becomes `\HH` for each byte.
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
    fn a_name_is_written_so_that_nothing_passes_for_something_else() {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Ärger, CN=admin").unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, " a\r\nX-User: root#").unwrap();
        let text = distinguished_name(&name.build());
        assert_eq!(text, "CN=\\ a\\0D\\0AX-User: root#,O=\\C3\\84rger\\, CN=admin");
        assert!(HeaderValue::from_str(&text).is_ok());
    }

    #[test]
    fn a_file_that_is_no_good_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wrong = ClientAuthority::read(file.path()).err().unwrap();
        assert!(wrong.ends_with("holds no certificate"), "{wrong}");
        let wrong = ClientAuthority::read(Path::new("/no/such.pem")).err().unwrap();
        assert!(wrong.starts_with("cannot read '/no/such.pem'"), "{wrong}");
    }
}
