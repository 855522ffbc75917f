//! Warnings about settings that are allowed but most likely wrong. `gateway check` prints them, and the gateway
//! logs them.

use std::net::IpAddr;

use http::Uri;

use crate::config::{Auth, AuthKind, Config};
use crate::live::snapshot::Snapshot;

/// Domains of private networks: never assigned in public DNS (RFC 6761, 6762, 8375; ICANN for `internal`), or
/// usual inside a cluster.
const OWN: [&str; 7] = ["localhost", "internal", "local", "home.arpa", "test", "svc", "lan"];

impl Snapshot {
    /// Returns warnings for the operator, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.certificate_warnings();
        warnings.extend(open_questions(&self.config));
        warnings.extend(self.uncertified());
        warnings.extend_from_slice(&self.missing_secrets);
        warnings.sort_unstable();
        warnings.dedup();
        warnings
    }
}

impl Snapshot {
    /// Returns a warning for each name that is redirected to HTTPS but has no certificate. Hosts with ACME are
    /// left out, because their certificate may not exist yet. Without an HTTPS listener there are no warnings,
    /// because a proxy in front of the gateway then has the certificates.
    fn uncertified(&self) -> impl Iterator<Item = String> {
        let is_https = !self.config.proxy.listen_addr.0.is_empty();
        let hosts =
            self.config.virtual_hosts.iter().filter(move |host| is_https && host.http_to_https && !host.acme);
        let hosts = hosts.filter(|host| host.cert_file.0.is_empty());
        let names = hosts.flat_map(|host| {
            std::iter::once(&host.domain).chain(&host.aliases).map(move |name| (host, name))
        });
        names.filter(|(_, name)| !self.has_certificate_for(name)).map(|(host, name)| {
            format!(
                "virtual host '{}' redirects clients to HTTPS (http_to_https), but there is no certificate \
                 for '{name}', so they cannot connect; add cert_file and key_file, or acme = true, or \
                 remove http_to_https",
                host.domain
            )
        })
    }

    /// Returns true if clients that connect to `name` get a certificate that is valid for it.
    fn has_certificate_for(&self, name: &str) -> bool {
        let is_any = name == "*";
        // A wildcard name is tested with an example of a host that it covers.
        let asked = name.replacen('*', "any", 1);
        let shown = self.certificates.find(Some(&asked).filter(|_| !is_any).map(String::as_str));
        let shown = shown.map(|shown| &shown.certificates).filter(|shown| !shown.is_empty());
        shown.is_some_and(|shown| is_any || shown.iter().all(|certificate| certificate.covers(name)))
    }
}

/// Returns a warning for each auth server that gets passwords and cookies without TLS over a public network.
fn open_questions(config: &Config) -> impl Iterator<Item = String> {
    let tables = config.levels().filter_map(|(_, tables)| tables.auth);
    let asked = tables.filter(|auth| auth.kind == AuthKind::Forward);
    asked.filter_map(in_the_open).map(|host| {
        format!(
            "forward auth calls '{host}' over http: an attacker on the network path can read passwords and \
             cookies, and can answer in its place; use https"
        )
    })
}

/// Returns the host of the auth URL if the URL is without TLS and the host is not in a private network.
fn in_the_open(auth: &Auth) -> Option<String> {
    let url: Uri = auth.url.parse().ok()?;
    let host = url.host().filter(|_| url.scheme_str() == Some("http"))?.to_ascii_lowercase();
    let name = host.trim_matches(['[', ']']).trim_end_matches('.');
    let is_own = match name.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        // A name without a dot is resolved by the local network's DNS.
        Err(_) => {
            let ends = |own: &str| name.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
            !name.contains('.') || OWN.iter().any(|own| ends(own))
        }
    };
    (!is_own).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_server_on_public_http_gets_warning() {
        let asked = |url: &str| {
            in_the_open(&toml::from_str(&format!("kind = \"forward\"\nurl = \"{url}\"")).unwrap())
        };
        for own in [
            "https://auth.example.com/",
            "http://127.0.0.1:9/",
            "http://[::1]/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://authelia:9091/",
            "http://LOCALHOST/",
            "http://auth.internal./",
            "http://auth.default.svc/",
            "http://auth.default.svc.cluster.local/",
        ] {
            assert_eq!(asked(own), None, "{own}");
        }
        for (other, host) in [
            ("http://auth.example.com/check?code=s3cret", "auth.example.com"),
            ("HTTP://8.8.8.8/", "8.8.8.8"),
            ("http://[2001:db8::1]/", "2001:db8::1"),
            ("http://127.0.0.1.example.com/", "127.0.0.1.example.com"),
            ("http://notinternal.com/", "notinternal.com"),
            ("http://a.notinternal/", "a.notinternal"),
        ] {
            assert_eq!(asked(other).as_deref(), Some(host), "{other}");
        }
    }
}
