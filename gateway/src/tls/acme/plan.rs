//! The part of a configuration that concerns ACME, compiled: the wanted certificates and the server that
//! issues them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Cache;
use crate::config::{ChallengeKind, Config, Domain, LetsEncrypt};
use crate::util::http_client;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Wanted certificates, and the server that issues them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcmePlan {
    /// Server that issues the certificates; `None` if no certificates are wanted.
    pub server: Option<Arc<Server>>,
    /// Wanted certificates, one for each virtual host with `acme = true`.
    pub planned: Vec<PlannedCertificate>,
}

/// Certificate that a virtual host wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCertificate {
    /// Domain of the virtual host as the configuration writes it. Metrics have this domain as a label.
    pub vhost: String,
    /// Domain in its normalized form. The certificate and its file are named after it.
    pub domain: String,
    /// Names that the certificate must be valid for: the domain and its aliases.
    pub names: BTreeSet<String>,
}

/// ACME server, and the settings for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// URL of the server's directory (RFC 8555 7.1.1).
    pub directory_url: String,
    /// Contact address for the server; may be empty.
    pub email: String,
    /// Directory for the files of this server only.
    pub cache_dir: PathBuf,
    /// Challenge by which the gateway proves control of a name.
    pub challenge: ChallengeKind,
    /// Root certificates that the server's certificate is verified with, in DER; empty for the system's roots.
    pub roots: Vec<Vec<u8>>,
}

/// Error in the file that `ca_file` names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRoots(String);

impl AcmePlan {
    /// Compiles the plan of `config`. Reads the file with the server's roots.
    ///
    /// # Errors
    /// Returns an error if that file cannot be read, or holds no certificate.
    pub fn new(config: &Config) -> Result<AcmePlan, BadRoots> {
        let Some(settings) = &config.lets_encrypt else { return Ok(AcmePlan::default()) };
        let planned = config.virtual_hosts.iter().filter(|host| host.acme).filter_map(|host| {
            let names: BTreeSet<String> =
                std::iter::once(&host.domain).chain(&host.aliases).filter_map(|name| exact(name)).collect();
            Some(PlannedCertificate { vhost: host.domain.clone(), domain: exact(&host.domain)?, names })
        });
        Ok(AcmePlan { server: Some(Arc::new(Server::new(settings)?)), planned: planned.collect() })
    }
}

/// Returns the normalized form of `domain`; `None` if it is not a single host.
fn exact(domain: &str) -> Option<String> {
    match domain.parse() {
        Ok(Domain::Exact(host)) => Some(host),
        _ => None,
    }
}

impl Server {
    /// Creates the server of `settings`.
    ///
    /// # Errors
    /// Returns an error if the file with its roots cannot be read, or holds no certificate.
    pub fn new(settings: &LetsEncrypt) -> Result<Server, BadRoots> {
        let directory_url = match (&*settings.directory_url, settings.staging) {
            ("", true) => LETS_ENCRYPT_STAGING,
            ("", false) => LETS_ENCRYPT,
            (other, _) => other,
        };
        Ok(Server {
            directory_url: directory_url.to_owned(),
            email: settings.email.clone(),
            cache_dir: Path::new(&settings.cache_dir).join(identity(directory_url)),
            challenge: settings.challenge,
            roots: http_client::roots(&settings.ca_file).map_err(BadRoots)?,
        })
    }

    /// Returns the path of the file with the certificate for `domain`. The file contains the key first, then the
    /// chain. The file exists after the first issue, and each renewal replaces it.
    pub fn certificate_file(&self, domain: &str) -> PathBuf {
        Cache::new(&self.cache_dir).certificate_file(domain)
    }
}

/// Returns the name of the directory for the files of the server at `url`. The name is the host, which people can
/// read, and part of a hash of the whole URL.
fn identity(url: &str) -> String {
    let host =
        url.split("://").last().and_then(|rest| rest.split(['/', ':', '?']).next()).unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    let hash = openssl::sha::sha256(url.as_bytes());
    format!("{:.100}-{}", host.trim_start_matches('.'), hex::encode(&hash[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "
        [proxy]
        listen_addr = \"127.0.0.1:8443\"
        [[virtual_hosts]]
        domain = \"Shop.Example.\"
        aliases = [\"www.shop.example\", \"api.shop.example\"]
        enabled_backends_tag = \"a\"
        acme = true
        [[virtual_hosts]]
        domain = \"*\"
        enabled_backends_tag = \"a\"
        [[backends]]
        id = \"one\"
        address = \"127.0.0.1:3001\"
        tags = [\"a\"]
    ";

    fn plan(lets_encrypt: &str) -> Result<AcmePlan, BadRoots> {
        AcmePlan::new(&Config::parse("file", &format!("[lets_encrypt]\n{lets_encrypt}\n{HOSTS}")).unwrap())
    }

    #[test]
    fn virtual_host_and_aliases_share_one_certificate() {
        let plan = plan("").unwrap();
        let [planned] = &plan.planned[..] else { panic!("{plan:?}") };
        assert_eq!((&*planned.vhost, &*planned.domain), ("Shop.Example.", "shop.example"));
        assert_eq!(
            planned.names.iter().collect::<Vec<_>>(),
            ["api.shop.example", "shop.example", "www.shop.example"]
        );
    }

    #[test]
    fn each_server_gets_its_own_cache_directory() {
        let server = |text: &str| plan(text).unwrap().server.unwrap();
        let (staging, production) = (server(""), server("staging = false"));
        assert_eq!(staging.directory_url, LETS_ENCRYPT_STAGING);
        assert_eq!(production.directory_url, LETS_ENCRYPT);
        assert_ne!(staging.cache_dir, production.cache_dir);
        let [one, other] =
            ["a", "b"].map(|path| server(&format!("directory_url = \"https://ca:99/{path}\"")));
        assert_ne!(one.cache_dir, other.cache_dir);
        let name = one.cache_dir.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("ca-") && name.len() == 11, "{name}");
        assert!(!identity("https://../../etc/").contains('/'));
        assert!(identity(&format!("https://{}/", "a".repeat(300))).len() < 120);
    }

    #[test]
    fn unreadable_ca_file_is_reported_with_the_reason() {
        let said = |path: &str| {
            plan(&format!("directory_url = \"https://ca/\"\nca_file = \"{path}\"")).unwrap_err().to_string()
        };
        assert!(said("/no/such/file").contains("cannot read '/no/such/file'"));
        assert!(said("/dev/null").contains("'/dev/null' is not a regular file of at most"));
    }
}
