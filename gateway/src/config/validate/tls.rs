//! Validation of TLS: HTTPS listeners, certificates with their keys, and authorities of client certificates.

use super::Faults;
use crate::config::schema::{ClientCertificate, Config, VirtualHost};

/// Adds every fault of the TLS settings. The content of certificate and key files is checked later.
pub(super) fn tls(config: &Config, faults: &mut Faults) {
    let is_https = !config.proxy.listen_addr.0.is_empty();
    let self_signed = is_https && config.proxy.self_signed;
    if is_https && !self_signed && !config.virtual_hosts.iter().any(VirtualHost::has_certificate) {
        faults.add(
            "proxy/listen_addr",
            "no virtual host has a certificate: set `cert_file` and `key_file` (`gateway dev-cert localhost` makes \
             a pair for learning), `acme`, or `proxy.self_signed = true`",
        );
    }
    if config.proxy.proxy_protocol && config.proxy.trusted_proxies.is_empty() {
        let detail = "no client can connect: PROXY headers are accepted from `trusted_proxies` only, and that list \
             is empty";
        faults.add("proxy/proxy_protocol", detail);
    }
    let mut default: Option<&str> = None;
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        certificates(host, &at, is_https, faults);
        if host.http_to_https && !is_https && config.proxy.trusted_proxies.is_empty() {
            let detail = "the gateway has no HTTPS listener; set `proxy.listen_addr`, or \
                          `proxy.trusted_proxies` if a proxy in front of the gateway serves HTTPS";
            faults.add(format!("{at}/http_to_https"), detail);
        }
        if host.default {
            match default.replace(&host.domain) {
                Some(first) => faults
                    .add(format!("{at}/default"), format!("'{first}' is already the default virtual host")),
                None if !self_signed && !host.has_certificate() => faults.add(
                    format!("{at}/default"),
                    "the virtual host has no certificate; set `cert_file` and `key_file`, or `acme`",
                ),
                None => {}
            }
        }
    }
}

fn certificates(host: &VirtualHost, at: &str, is_https: bool, faults: &mut Faults) {
    let (certificates, keys) = (&host.cert_file.0, &host.key_file.0);
    if certificates.len() != keys.len() {
        let (certificates, keys) = (certificates.len(), keys.len());
        let key = if certificates < keys { "key_file" } else { "cert_file" };
        faults.add(
            format!("{at}/{key}"),
            format!("each certificate needs its key: there are {certificates} in `cert_file` and {keys} in `key_file`"),
        );
    } else if !certificates.is_empty() && !is_https {
        faults.add(
            format!("{at}/cert_file"),
            "it has no effect without an HTTPS listener; set `proxy.listen_addr`",
        );
    }
    for (key, files) in [("cert_file", certificates), ("key_file", keys)] {
        if files.iter().any(String::is_empty) {
            faults.add(format!("{at}/{key}"), "expected the path of a file");
        }
    }
    if !host.client_ca_file.is_empty() && !is_https {
        faults.add(
            format!("{at}/client_ca_file"),
            "it has no effect without an HTTPS listener; set `proxy.listen_addr`",
        );
    }
    if !host.client_ca_file.is_empty() && !host.has_certificate() {
        let detail =
            "it has no effect without a certificate of the virtual host; set `cert_file` and `key_file`, too";
        faults.add(format!("{at}/client_ca_file"), detail);
    }
    if host.client_certificate != ClientCertificate::default() && host.client_ca_file.is_empty() {
        faults.add(
            format!("{at}/client_certificate"),
            "it needs `client_ca_file`, the roots that client certificates are verified against",
        );
    }
}
