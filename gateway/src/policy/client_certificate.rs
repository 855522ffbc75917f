//! `client_ca_file`: identifies a client by the certificate that it presented in its TLS handshake, and tells
//! the backend the identity.

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::ClientCertificate;
use crate::reply::{Problem, Reply};
use crate::tls::{ClientIdentity, Handshake};

const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// Header field with the client's certificate (RFC 9440 2.2).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// Check of the certificates of a virtual host's clients.
pub struct ClientCertificates {
    /// Identifier of the certificate authority whose certificates are accepted.
    authority: [u8; 32],
    required: bool,
}

impl ClientCertificates {
    /// Creates a check that accepts certificates of `authority`.
    pub fn new(authority: [u8; 32], certificate: ClientCertificate) -> Self {
        ClientCertificates { authority, required: certificate == ClientCertificate::Required }
    }

    /// Returns true if a client without a valid certificate is refused; false if a certificate is optional.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Accepts or refuses a client by its TLS handshake. `handshake` is `None` for a connection without TLS.
    pub fn check(&self, handshake: Option<&Handshake>) -> Verdict {
        if handshake.is_some_and(|handshake| handshake.asked_for != Some(self.authority)) {
            // The handshake asked for no certificate, or for one of another authority (of another host, or
            // configured earlier). A new connection may succeed, hence 421 (RFC 9110 15.5.20).
            let detail = "the TLS connection was made before a change of the configuration, or without the \
                 name of this host";
            return Verdict::Reply(Reply::new(Problem::Misdirected, detail));
        }
        match handshake.and_then(|handshake| handshake.client.as_ref()) {
            Some(ClientIdentity { fault: Some(fault), .. }) if self.required => {
                let detail = format!("the client certificate is not valid here: {fault}");
                Verdict::Reply(Reply::new(Problem::ClientCertificate, detail))
            }
            None if self.required => {
                let detail = "this host requires a client certificate, and the client showed none";
                Verdict::Reply(Reply::new(Problem::ClientCertificate, detail))
            }
            _ => Verdict::Continue(()),
        }
    }

    /// Tells the backend the client's identity. Fields with the same names from the client have been removed
    /// before.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which does not happen: the values are valid.
    pub fn on_request(&self, identity: Option<&ClientIdentity>, request: &mut RequestHeader) -> Result<()> {
        if let Some(identity) = identity.filter(|identity| identity.fault.is_none()) {
            request.insert_header(SUBJECT, identity.subject.clone())?;
            request.insert_header(CLIENT_CERT, identity.certificate.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OURS: [u8; 32] = [1; 32];

    fn identity(fault: Option<&'static str>) -> ClientIdentity {
        let value = HeaderValue::from_static;
        ClientIdentity { fault, subject: value("CN=a"), certificate: value("::") }
    }

    fn outcome(certificate: ClientCertificate, handshake: Option<&Handshake>) -> u16 {
        match ClientCertificates::new(OURS, certificate).check(handshake) {
            Verdict::Continue(()) => 200,
            Verdict::Reply(reply) => reply.status(),
        }
    }

    #[test]
    fn required_certificate_is_enforced_and_optional_is_not() {
        let asked = |client| Some(Handshake { asked_for: Some(OURS), client, ..Handshake::default() });
        let elsewhere =
            Handshake { asked_for: Some([2; 32]), client: Some(identity(None)), ..Handshake::default() };
        for (handshake, required, optional) in [
            (asked(Some(identity(None))), 200, 200),
            (asked(Some(identity(Some("it has expired")))), 403, 200),
            (asked(None), 403, 200),
            (Some(elsewhere), 421, 421),
            (Some(Handshake::default()), 421, 421),
            (None, 403, 200),
        ] {
            let handshake = handshake.as_ref();
            assert_eq!(outcome(ClientCertificate::Required, handshake), required, "{handshake:?}");
            assert_eq!(outcome(ClientCertificate::Optional, handshake), optional, "{handshake:?}");
        }
    }

    #[test]
    fn backend_gets_only_valid_client_identities() {
        let told = |identity| {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            let policy = ClientCertificates::new(OURS, ClientCertificate::Optional);
            policy.on_request(Some(&identity), &mut request).unwrap();
            request.headers.contains_key("x-client-cert-subject")
                && request.headers.contains_key("client-cert")
        };
        assert!(told(identity(None)));
        assert!(!told(identity(Some("it has expired"))));
    }
}
