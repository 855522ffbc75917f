//! `client_ca_file`: who a client is, by the certificate that it has shown in its TLS handshake.

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::ClientCertificate;
use crate::reply::{Problem, Reply};
use crate::tls::{ClientIdentity, Handshake};

const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// RFC 9440 2.2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// What clients of a virtual host must prove.
pub struct ClientCertificates {
    /// Whose certificates are believed.
    authority: [u8; 32],
    required: bool,
}

impl ClientCertificates {
    /// Certificates of `authority` are believed.
    pub fn new(authority: [u8; 32], certificate: ClientCertificate) -> Self {
        ClientCertificates { authority, required: certificate == ClientCertificate::Required }
    }

    /// Whether nobody is let in without one.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether a client is let in, by its handshake; without TLS there was none.
    pub fn check(&self, handshake: Option<&Handshake>) -> Verdict {
        if handshake.is_some_and(|handshake| handshake.asked_for != Some(self.authority)) {
            // It was asked for nothing, or for what was believed when the connection was made, or for what another
            // host believes. On a new connection it may be otherwise (RFC 9110 15.5.20).
            let detail = "the TLS connection was made before a change, or without the name of this host";
            return Verdict::Reply(Reply::new(Problem::Misdirected, detail));
        }
        match handshake.and_then(|handshake| handshake.client.as_ref()) {
            Some(ClientIdentity { fault: Some(fault), .. }) if self.required => {
                let detail = format!("the client certificate is not valid here: {fault}");
                Verdict::Reply(Reply::new(Problem::ClientCertificate, detail))
            }
            None if self.required => {
                let detail = "this host needs a client certificate, and none was shown";
                Verdict::Reply(Reply::new(Problem::ClientCertificate, detail))
            }
            _ => Verdict::Continue(()),
        }
    }

    /// Tells the backend who the client is. Whatever the client says itself in these fields has been taken out.
    ///
    /// # Errors
    /// Never in practice: the values are valid.
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
    fn who_must_have_one_and_who_may() {
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
    fn backends_hear_only_of_those_who_are_believed() {
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
