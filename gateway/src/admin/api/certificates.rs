//! Endpoint for the certificates of the gateway.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Answer, Api};
use crate::tls::acme::AcmeStatus;
use crate::tls::{Certificate, HostCertificates};

/// List of certificates.
#[derive(Serialize, JsonSchema)]
pub(super) struct CertificatesView {
    /// Certificates in use.
    shown: Vec<ShownCertificate>,
    /// State of each certificate from the ACME server, in use or not yet.
    acme: Vec<AcmeStatus>,
}

/// A certificate in use.
#[derive(Serialize, JsonSchema)]
struct ShownCertificate {
    /// Domain of the virtual host that presents the certificate.
    virtual_host: String,
    /// Algorithm of the certificate's key: rsa, ecdsa or other.
    key: &'static str,
    /// Names that the certificate is valid for.
    names: Vec<String>,
    /// Start of the certificate's validity, in seconds since 1970.
    not_before: u64,
    /// End of the certificate's validity, in seconds since 1970.
    not_after: u64,
    /// File that the certificate was read from; empty if it is self-signed.
    file: String,
    /// True if the gateway made the certificate, because the virtual host has none.
    self_signed: bool,
    /// Warning for the operator about the certificate's validity; null if there is no reason for a warning.
    warning: Option<String>,
}

impl ShownCertificate {
    fn new(host: &HostCertificates, certificate: &Certificate, now: SystemTime) -> Self {
        ShownCertificate {
            virtual_host: host.domain.clone(),
            key: certificate.kind,
            names: certificate.names.clone(),
            not_before: seconds(certificate.not_before),
            not_after: seconds(certificate.not_after),
            file: certificate.pair().map(|pair| pair.certificate.display().to_string()).unwrap_or_default(),
            self_signed: certificate.is_generated(),
            warning: certificate.warning(now),
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lists the certificates in use, and the state of each certificate from the ACME server
#[utoipa::path(get, path = "/api/v1/certificates", tag = "observe",
    responses((status = 200, body = ref("#/components/schemas/CertificatesView"))))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Answer {
    let (snapshot, now) = (api.store.load(), SystemTime::now());
    let of_host = |host: &Arc<HostCertificates>| {
        let shown = host.certificates.iter().map(|certificate| ShownCertificate::new(host, certificate, now));
        shown.collect::<Vec<_>>()
    };
    let shown: Vec<ShownCertificate> = snapshot.certificates.all().iter().flat_map(of_host).collect();
    let acme = api.acme_statuses.load().values().cloned().collect();
    Ok(api.read(&snapshot, axum::Json(CertificatesView { shown, acme })))
}
