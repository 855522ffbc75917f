//! Choice of the certificate that the gateway presents to a client.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;
use pingora::tls::ext::{ssl_add_chain_cert, ssl_use_certificate, ssl_use_private_key};

use super::{Certificate, ClientAuthority};
use crate::config::Domain;
use crate::route::HostTable;

/// Certificates by the server names that clients ask for.
#[derive(Default)]
pub struct Certificates {
    by_name: HostTable<Arc<HostCertificates>>,
    default: Option<Arc<HostCertificates>>,
    all: Vec<Arc<HostCertificates>>,
    asks_clients: bool,
}

/// Certificates of a virtual host, and the authorities that issue certificates to its clients.
pub struct HostCertificates {
    /// Domain of the virtual host.
    pub domain: String,
    /// Certificates of the virtual host, one for each kind of key. OpenSSL chooses one that the client can
    /// verify.
    pub certificates: Vec<Arc<Certificate>>,
    /// Authorities whose client certificates are trusted; `None` if clients are not asked for a certificate.
    pub client: Option<ClientAuthority>,
}

impl Certificates {
    /// Adds the certificates of a virtual host, for clients that ask for one of `domains`. If `is_default` is
    /// true, they are also used for clients without a server name, and for names that match no domain.
    pub fn insert(
        &mut self,
        domains: impl IntoIterator<Item = Domain>,
        host: Arc<HostCertificates>,
        is_default: bool,
    ) {
        for domain in domains {
            self.by_name.insert(domain, host.clone());
        }
        if is_default {
            self.default = Some(host.clone());
        }
        self.asks_clients |= host.client.is_some();
        self.all.push(host);
    }

    /// Returns the certificates for a client that asks for `server_name`, or for no name. `None` if no virtual host
    /// has certificates for that client.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Arc<HostCertificates>> {
        let named = server_name.and_then(|name| self.by_name.find(Some(name)).ok().flatten());
        let catch_all = || self.by_name.find(None).ok().flatten();
        named.or(self.default.as_ref()).or_else(catch_all)
    }

    /// Returns true if there is a certificate for clients that ask for `domain`: by the exact name, a
    /// wildcard, the default or the catch-all.
    pub fn cover(&self, domain: &Domain) -> bool {
        match domain {
            Domain::Exact(name) => self.find(Some(name)).is_some(),
            // The wildcard has no host name to look up, so a made-up host below its parent is used.
            Domain::Wildcard(parent) => self.find(Some(&format!("any.{parent}"))).is_some(),
            Domain::CatchAll => self.find(None).is_some(),
        }
    }

    /// Returns true if at least one virtual host asks its clients for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// Returns the certificates of all virtual hosts.
    pub fn all(&self) -> &[Arc<HostCertificates>] {
        &self.all
    }
}

impl HostCertificates {
    /// Adds these certificates to the handshake of `ssl`.
    pub(super) fn present(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        for certificate in &self.certificates {
            let Some((leaf, issuers)) = certificate.chain.split_first() else { continue };
            ssl_use_certificate(ssl, leaf)?;
            ssl_use_private_key(ssl, &certificate.key)?;
            for issuer in issuers {
                ssl_add_chain_cert(ssl, issuer)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(domain: &str) -> Arc<HostCertificates> {
        Arc::new(HostCertificates { domain: domain.to_owned(), certificates: Vec::new(), client: None })
    }

    fn table(domains: &[&str], default: &str) -> Certificates {
        let mut table = Certificates::default();
        for domain in domains {
            table.insert([domain.parse().unwrap()], host(domain), *domain == default);
        }
        table
    }

    fn found<'t>(table: &'t Certificates, name: Option<&str>) -> Option<&'t str> {
        table.find(name).map(|host| host.domain.as_str())
    }

    #[test]
    fn find_prefers_exact_then_wildcard_then_default() {
        let table = table(&["a.test", "*.a.test", "b.test"], "b.test");
        assert_eq!(found(&table, Some("a.test")), Some("a.test"));
        assert_eq!(found(&table, Some("A.Test")), Some("a.test"));
        assert_eq!(found(&table, Some("x.a.test")), Some("*.a.test"));
        for other in [Some("c.test"), Some("not a name"), None] {
            assert_eq!(found(&table, other), Some("b.test"), "{other:?}");
        }
    }

    #[test]
    fn cover_is_true_for_names_that_find_a_certificate() {
        let table = table(&["a.test", "*.a.test"], "");
        for (domain, is_covered) in
            [("a.test", true), ("b.a.test", true), ("*.b.a.test", true), ("b.test", false), ("*", false)]
        {
            assert_eq!(table.cover(&domain.parse().unwrap()), is_covered, "{domain}");
        }
        assert!(self::table(&["b.test"], "b.test").cover(&"c.test".parse().unwrap()));
    }

    #[test]
    fn catch_all_serves_names_of_no_other_host() {
        let both = table(&["*", "b.test"], "b.test");
        assert_eq!((found(&both, Some("c.test")), found(&both, None)), (Some("*"), Some("b.test")));
        let no_default = table(&["*", "b.test"], "");
        assert_eq!((found(&no_default, Some("c.test")), found(&no_default, None)), (Some("*"), Some("*")));
        let neither = table(&["b.test"], "");
        assert_eq!((found(&neither, Some("c.test")), found(&neither, None)), (None, None));
    }
}
