//! `client_ca_file`: who a client is, by the certificate that it has shown in its TLS handshake.

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::ClientCertificate;
use crate::reply::{Problem, Reply};
use crate::tls::ClientIdentity;

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

    /// Whether a client is let in that has shown `identity`.
    pub fn check(&self, identity: Option<&ClientIdentity>) -> Verdict {
        match identity {
            Some(identity) if identity.authority != self.authority => {
                // It was held against what was believed when the connection was made, or against what another
                // host believes. On a new connection it may be otherwise (RFC 9110 15.5.20).
                let detail = "the client certificate was shown to another host, or before a change";
                Verdict::Reply(Reply::new(Problem::Misdirected, detail))
            }
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

    fn identity(authority: [u8; 32], fault: Option<&'static str>) -> ClientIdentity {
        let value = HeaderValue::from_static;
        ClientIdentity { authority, fault, subject: value("CN=a"), certificate: value("::") }
    }

    fn outcome(certificate: ClientCertificate, identity: Option<&ClientIdentity>) -> u16 {
        match ClientCertificates::new(OURS, certificate).check(identity) {
            Verdict::Continue(()) => 200,
            Verdict::Reply(reply) => reply.status(),
        }
    }

    #[test]
    fn who_must_have_one_and_who_may() {
        let (good, bad) = (identity(OURS, None), identity(OURS, Some("it has expired")));
        let elsewhere = identity([2; 32], None);
        for (shown, required, optional) in
            [(Some(&good), 200, 200), (Some(&bad), 403, 200), (None, 403, 200), (Some(&elsewhere), 421, 421)]
        {
            assert_eq!(outcome(ClientCertificate::Required, shown), required, "{shown:?}");
            assert_eq!(outcome(ClientCertificate::Optional, shown), optional, "{shown:?}");
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
        assert!(told(identity(OURS, None)));
        assert!(!told(identity(OURS, Some("it has expired"))));
    }
}
