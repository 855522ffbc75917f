//! Validation of `[lets_encrypt]` and `acme = true`: the ACME server must be usable, and the server must be able to
//! check every name of the host.

use std::net::IpAddr;

use http::Uri;

use super::Faults;
use crate::config::schema::{Config, VirtualHost};
use crate::config::{Domain, LetsEncrypt};

/// Maximum number of names that Let's Encrypt puts into one certificate.
const MAX_NAMES: usize = 100;

/// Adds every fault of `[lets_encrypt]` and of the virtual hosts with `acme = true`.
pub(super) fn acme(config: &Config, faults: &mut Faults) {
    if let Some(settings) = &config.lets_encrypt {
        lets_encrypt(settings, faults);
    }
    for (i, host) in config.virtual_hosts.iter().enumerate().filter(|(_, host)| host.acme) {
        let at = format!("virtual_hosts/{i}/acme");
        match &config.lets_encrypt {
            None => faults.add(
                at.as_str(),
                "a certificate by ACME needs the table [lets_encrypt], which names the ACME server; add the \
                 table",
            ),
            Some(_) if config.proxy.listen_addr.0.is_empty() => {
                faults.add(
                    at.as_str(),
                    "the certificate has no effect without an HTTPS listener; set `proxy.listen_addr`",
                );
            }
            Some(_) => {}
        }
        if !host.cert_file.0.is_empty() {
            faults.add(
                at.as_str(),
                "the virtual host already has a certificate; remove either `acme` or `cert_file`",
            );
        }
        names(host, &at, faults);
    }
}

fn lets_encrypt(settings: &LetsEncrypt, faults: &mut Faults) {
    let email = &settings.email;
    let is_address = email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if !email.is_empty() && (!is_address || email.contains(|c: char| c.is_whitespace() || ",<>?".contains(c)))
    {
        let detail =
            format!("{email:?} is not a valid email address; expected something like \"ops@example.com\"");
        faults.add("lets_encrypt/email", detail);
    }
    if settings.cache_dir.is_empty() {
        faults.add("lets_encrypt/cache_dir", "certificates and their keys need a directory, as in \"acme\"");
    }
    let url = &settings.directory_url;
    let is_https =
        url.parse::<Uri>().is_ok_and(|url| url.scheme_str() == Some("https") && url.host().is_some());
    if !url.is_empty() && !is_https {
        let detail = format!(
            "{url:?} is not a valid URL of an ACME server; expected something like \"https://ca.example.com/directory\" \
             (ACME uses https only)"
        );
        faults.add("lets_encrypt/directory_url", detail);
    }
    if url.is_empty() && !settings.ca_file.is_empty() {
        faults.add(
            "lets_encrypt/ca_file",
            "it has no effect without `directory_url`, the server that these roots are for",
        );
    }
}

fn names(host: &VirtualHost, at: &str, faults: &mut Faults) {
    let names = std::iter::once(&host.domain).chain(&host.aliases);
    for name in names.clone() {
        // Another check reports an invalid domain.
        let Ok(domain) = name.parse::<Domain>() else { continue };
        let detail = match &domain {
            Domain::Wildcard(_) => format!(
                "'{name}' is a wildcard; its certificate needs a DNS challenge, which is not supported; \
                 name each host, or use a certificate of your own"
            ),
            Domain::CatchAll => {
                "\"*\" cannot be a name in a certificate; name the hosts as `domain` and `aliases`".to_owned()
            }
            Domain::Exact(host) if is_address(host) => {
                format!("'{name}' is an IP address; ACME certificates are only supported for host names")
            }
            Domain::Exact(_) => continue,
        };
        faults.add(at, detail);
    }
    if names.count() > MAX_NAMES {
        faults.add(
            at,
            format!("a certificate has at most {MAX_NAMES} names; divide `aliases` among virtual hosts"),
        );
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acme_host_with_catch_all_or_too_many_names_is_refused() {
        let mut config = Config { lets_encrypt: Some(LetsEncrypt::default()), ..Config::default() };
        config.proxy.listen_addr.0.push(([127, 0, 0, 1], 8443).into());
        let host = VirtualHost { domain: "*".to_owned(), acme: true, ..VirtualHost::default() };
        let aliases = (0..MAX_NAMES).map(|i| format!("{i}.example")).collect();
        let many = VirtualHost { domain: "b".to_owned(), aliases, acme: true, ..VirtualHost::default() };
        config.virtual_hosts = vec![host, many];
        let mut faults = Faults::default();
        acme(&config, &mut faults);
        let said: Vec<_> = faults.0.iter().map(|fault| (&*fault.path, &fault.detail[..10])).collect();
        assert_eq!(said, [("virtual_hosts/0/acme", "\"*\" cannot"), ("virtual_hosts/1/acme", "a certific")]);
    }
}
