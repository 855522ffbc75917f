//! Certificates for virtual hosts that have none, where HTTPS is spoken (`proxy.self_signed`): signed by themselves,
//! made when a configuration is compiled, and kept in memory alone.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Config, Domain, PathFault, VirtualHost};
use crate::live::compile::not_validated;
use crate::live::snapshot::Snapshot;
use crate::tls::self_signed::in_memory;
use crate::tls::{Certificate, Certificates, HostCertificates};

/// The names of the certificate of `"*"`, which is none: those of this machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Adds a certificate for each virtual host of `config` that is shown with none of `certificates`. What `before` has
/// for the same host is taken over: clients that were told to trust it go on to.
///
/// # Errors
/// Where OpenSSL refuses.
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
        let mut domains = domains.map_err(|_| not_validated("a virtual host's domain is no host"))?;
        // Looked at before any is added: the one of a catch-all would do for all.
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

/// The certificate that was made before for the same names, where it lasts for a while.
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
    /// The virtual hosts that are shown with a certificate of the gateway's own making.
    pub(in crate::live) fn self_signed(&self) -> impl Iterator<Item = &Arc<HostCertificates>> {
        let is_self_signed =
            |host: &&Arc<HostCertificates>| host.certificates.iter().any(|shown| shown.is_generated());
        self.certificates.all().iter().filter(is_self_signed)
    }

    /// Whether one of them should be made anew.
    pub(in crate::live) fn has_self_signed_to_renew(&self) -> bool {
        let now = SystemTime::now();
        self.self_signed().flat_map(|host| &host.certificates).any(|shown| shown.needs_renewal(now))
    }
}
