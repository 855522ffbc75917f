//! Makes self-signed certificates for virtual hosts without a certificate, if HTTPS and `proxy.self_signed` are
//! on. The certificates are made when a configuration is compiled, and kept in memory only.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Config, Domain, PathFault, VirtualHost};
use crate::live::compile::fault::not_validated;
use crate::live::snapshot::Snapshot;
use crate::tls::self_signed::in_memory;
use crate::tls::{Certificate, Certificates, HostCertificates};

/// Names of this machine. The certificate for the domain "*" has these names, because "*" is not a valid name.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Adds a certificate for each virtual host of `config` that none of `certificates` covers. A host keeps its
/// self-signed certificate of the snapshot `before`, because clients may trust it.
///
/// # Errors
/// Returns a fault if OpenSSL cannot make a certificate.
pub(in crate::live) fn add_self_signed(
    certificates: &mut Certificates,
    config: &Config,
    before: Option<&Snapshot>,
) -> Result<(), Vec<PathFault>> {
    if !config.proxy.self_signed || config.proxy.listen_addr.0.is_empty() {
        return Ok(());
    }
    let mut made = Vec::new();
    for (i, host) in config.virtual_hosts.iter().enumerate().filter(|(_, host)| !host.has_certificate()) {
        let names = std::iter::once(&host.domain).chain(&host.aliases);
        let domains: Result<Vec<Domain>, String> = names.map(|name| name.parse()).collect();
        let mut domains = domains.map_err(|_| not_validated("the domain of a virtual host is not valid"))?;
        // All hosts are checked before any certificate is added, because the certificate of a catch-all host
        // would cover every domain.
        domains.retain(|domain| !certificates.cover(domain));
        if domains.is_empty() && !host.default {
            continue;
        }
        let names = names_for(host);
        let kept = before.and_then(|before| kept(before, host, &names));
        let certificate = match kept {
            Some(kept) => kept,
            None => Arc::new(in_memory(&names).map_err(|error| {
                vec![PathFault { path: format!("virtual_hosts/{i}/domain"), detail: error.to_string() }]
            })?),
        };
        let of_host =
            HostCertificates { domain: host.domain.clone(), certificates: vec![certificate], client: None };
        made.push((domains, Arc::new(of_host), host.default));
    }
    for (domains, of_host, is_default) in made {
        certificates.insert(domains, of_host, is_default);
    }
    Ok(())
}

fn names_for(host: &VirtualHost) -> Vec<String> {
    let named = std::iter::once(&host.domain).chain(&host.aliases).filter(|name| *name != "*");
    let local =
        LOCAL.iter().filter(|_| std::iter::once(&host.domain).chain(&host.aliases).any(|name| name == "*"));
    let mut names: Vec<String> = named.cloned().collect();
    names.extend(local.map(|name| (*name).to_owned()));
    names
}

/// Returns the self-signed certificate of `host` in `before`, if its names are `names` and it needs no renewal.
fn kept(before: &Snapshot, host: &VirtualHost, names: &[String]) -> Option<Arc<Certificate>> {
    let of_host = before.certificates.all().iter().find(|shown| shown.domain == host.domain)?;
    let fits = |certificate: &&Arc<Certificate>| {
        certificate.is_generated()
            && certificate.names == names
            && !certificate.needs_renewal(SystemTime::now())
    };
    of_host.certificates.iter().find(fits).cloned()
}

impl Snapshot {
    /// Returns the virtual hosts that use a self-signed certificate of the gateway.
    pub(in crate::live) fn self_signed(&self) -> impl Iterator<Item = &Arc<HostCertificates>> {
        let is_self_signed =
            |host: &&Arc<HostCertificates>| host.certificates.iter().any(|shown| shown.is_generated());
        self.certificates.all().iter().filter(is_self_signed)
    }

    /// Returns true if one of the self-signed certificates is due for renewal.
    pub(in crate::live) fn has_self_signed_to_renew(&self) -> bool {
        let now = SystemTime::now();
        self.self_signed().flat_map(|host| &host.certificates).any(|shown| shown.needs_renewal(now))
    }
}
