//! Reads the certificates of a configuration. Files that have not changed are not read again.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::self_signed::add_self_signed;
use crate::config::{Config, Domain, PathFault, VirtualHost};
use crate::live::compile::fault::not_validated;
use crate::live::snapshot::Snapshot;
use crate::tls::acme::AcmePlan;
use crate::tls::{BadPair, Certificate, Certificates, ClientAuthority, HostCertificates, Pair};

/// Reads the certificates of `config`. Certificates of the snapshot `before` are reused if their files have not
/// changed.
///
/// # Errors
/// Returns a fault for each file that cannot be used.
pub(in crate::live) fn certificates(
    config: &Config,
    acme: &AcmePlan,
    before: Option<&Snapshot>,
) -> Result<Arc<Certificates>, Vec<PathFault>> {
    let known = before.iter().flat_map(|before| before.certificates.all());
    let mut known: HashMap<Pair, Arc<Certificate>> = known
        .flat_map(|host| &host.certificates)
        .filter(|certificate| certificate.is_current())
        .filter_map(|certificate| Some((certificate.pair()?.clone(), certificate.clone())))
        .collect();
    let mut faults = Vec::new();
    let mut certificates = Certificates::default();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        let mut shown = Vec::new();
        // A certificate by ACME may not exist yet. If it cannot be read, the gateway orders it again.
        let ordered = acme_pair(acme, host).filter(|pair| pair.certificate.exists());
        if let Some(certificate) = ordered.and_then(|pair| known.get(&pair).cloned().or_else(|| read(&pair)))
        {
            shown.push(certificate);
        }
        for pair in pairs(host) {
            match known.get(&pair).cloned().map_or_else(|| pair.read().map(Arc::new), Ok) {
                Ok(certificate) => {
                    known.insert(pair, certificate.clone());
                    shown.push(certificate);
                }
                Err(bad) => faults.push(fault(&at, bad)),
            }
        }
        // A host that has no certificate yet must still request client certificates.
        if shown.is_empty() && host.client_ca_file.is_empty() {
            continue;
        }
        let authority = Some(Path::new(&host.client_ca_file)).filter(|file| !file.as_os_str().is_empty());
        let client = authority.map(ClientAuthority::read).transpose().unwrap_or_else(|detail| {
            faults.push(PathFault { path: format!("{at}/client_ca_file"), detail });
            None
        });
        let domains: Result<Vec<Domain>, String> = names(host).map(|name| name.parse()).collect();
        let domains = domains.map_err(|_| not_validated("the domain of a virtual host is not valid"))?;
        let of_host = HostCertificates { domain: host.domain.clone(), certificates: shown, client };
        certificates.insert(domains, Arc::new(of_host), host.default);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    add_self_signed(&mut certificates, config, before)?;
    Ok(Arc::new(certificates))
}

/// Returns the file of the certificate that `host` gets by ACME, or `None` if the host does not use ACME.
/// Certificate and key are in the same file.
pub(super) fn acme_pair(acme: &AcmePlan, host: &VirtualHost) -> Option<Pair> {
    let mut selection = acme.planned.iter().filter(|_| host.acme);
    let selection = selection.find(|selection| selection.vhost == host.domain)?;
    let file = acme.server.as_ref()?.certificate_file(&selection.domain);
    Some(Pair { certificate: file.clone(), key: file })
}

fn read(pair: &Pair) -> Option<Arc<Certificate>> {
    match pair.read() {
        Ok(certificate) => Some(Arc::new(certificate)),
        Err(BadPair::Certificate(detail) | BadPair::Key(detail)) => {
            warn!("a certificate by ACME cannot be shown: {detail}");
            None
        }
    }
}

fn names(host: &VirtualHost) -> impl Iterator<Item = &String> {
    std::iter::once(&host.domain).chain(&host.aliases)
}

fn pairs(host: &VirtualHost) -> impl Iterator<Item = Pair> {
    let files = host.cert_file.0.iter().zip(&host.key_file.0);
    files.map(|(certificate, key)| Pair { certificate: certificate.into(), key: key.into() })
}

fn fault(at: &str, bad: BadPair) -> PathFault {
    let (key, detail) = match bad {
        BadPair::Certificate(detail) => ("cert_file", detail),
        BadPair::Key(detail) => ("key_file", detail),
    };
    PathFault { path: format!("{at}/{key}"), detail }
}

/// Logs each certificate that is in use `now` and was not in use `before`. Self-signed certificates of the
/// gateway are not logged here, because a warning names their hosts.
pub(in crate::live) fn tell_of_certificates(before: &Snapshot, now: &Snapshot) {
    let known: HashSet<(&str, *const Certificate)> =
        each(before).map(|(host, shown)| (host, Arc::as_ptr(shown))).collect();
    for (virtual_host, shown) in each(now) {
        if !known.contains(&(virtual_host, Arc::as_ptr(shown))) {
            let not_after = httpdate::fmt_http_date(shown.not_after);
            let Some(pair) = shown.pair() else { continue };
            let file = pair.certificate.display();
            info!(virtual_host, key = shown.kind, not_after, %file, "a new certificate is shown");
        }
    }
}

/// Returns every certificate, with the domain of its virtual host.
fn each(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Arc<Certificate>)> {
    let hosts = snapshot.certificates.all().iter();
    hosts.flat_map(|host| host.certificates.iter().map(|shown| (&*host.domain, shown)))
}

impl Snapshot {
    /// Returns warnings for the operator about certificates that are self-signed, expire soon, or are not valid
    /// for a name of their host.
    pub(in crate::live) fn certificate_warnings(&self) -> Vec<String> {
        let now = std::time::SystemTime::now();
        let configured: HashMap<&str, &VirtualHost> =
            self.config.virtual_hosts.iter().map(|host| (&*host.domain, host)).collect();
        let of_self_signed = |host: &Arc<HostCertificates>| {
            format!(
                "virtual host '{}' has no certificate: over HTTPS it is shown with a self-signed one, which clients \
                 refuse until they are told to trust it; set `cert_file` and `key_file`, or `acme`",
                host.domain
            )
        };
        let mut warnings: Vec<String> = self.self_signed().map(of_self_signed).collect();
        for host in self.certificates.all() {
            for certificate in &host.certificates {
                warnings.extend(certificate.warning(now));
            }
            for name in configured.get(&*host.domain).copied().into_iter().flat_map(names) {
                let is_covered = |certificate: &Arc<Certificate>| certificate.covers(name);
                // No certificate can cover "*".
                if name != "*" && !host.certificates.iter().all(is_covered) {
                    warnings.push(format!(
                        "a certificate of virtual host '{}' is not for '{name}': clients will refuse it",
                        host.domain
                    ));
                }
            }
        }
        warnings
    }
}
