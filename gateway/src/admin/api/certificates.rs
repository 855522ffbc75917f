//! The certificates that clients are shown.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Answer, Api};
use crate::tls::acme::AcmeStatus;
use crate::tls::{Certificate, HostCertificates};

/// All certificates.
#[derive(Serialize, JsonSchema)]
pub(super) struct CertificatesView {
    /// Those that clients are shown.
    shown: Vec<ShownCertificate>,
    /// How those are that come by ACME, shown or not yet.
    acme: Vec<AcmeStatus>,
}

/// A certificate that clients are shown.
#[derive(Serialize, JsonSchema)]
struct ShownCertificate {
    /// The virtual host that shows it.
    virtual_host: String,
    /// The kind of its key: rsa, ecdsa or other.
    key: &'static str,
    /// The names that it is for.
    names: Vec<String>,
    /// From when it counts, in seconds since 1970.
    not_before: u64,
    /// Until when.
    not_after: u64,
    /// The file that it was read from; empty where it is self-signed.
    file: String,
    /// Whether the gateway has made it, because the virtual host has none.
    self_signed: bool,
    /// What its owner should know: that it ends soon, or has ended.
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

/// The certificates that clients are shown, until when they count, and how those are that come by ACME
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
