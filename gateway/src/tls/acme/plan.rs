//! Which certificates there are to be, and who gives them: what of a configuration concerns ACME, compiled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Cache;
use crate::config::{ChallengeKind, Config, Domain, LetsEncrypt};
use crate::util::http_client;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Which certificates are to be had, and from whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcmePlan {
    /// Who gives them; `None`: nobody, and none are wanted.
    pub server: Option<Arc<Server>>,
    /// One for each virtual host with `acme = true`.
    pub wanted: Vec<Wanted>,
}

/// A certificate that is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The virtual host, as its domain is written: a label of metrics.
    pub vhost: String,
    /// Its domain in the one form of a host: the name of the certificate, and of its file.
    pub domain: String,
    /// Every name that it is for: the domain and its aliases.
    pub names: BTreeSet<String>,
}

/// An ACME server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it says what it can do (RFC 8555 7.1.1).
    pub directory_url: String,
    /// Where it may write to; may be empty.
    pub email: String,
    /// Where everything is kept that comes from this server: what comes from another one stays apart.
    pub cache_dir: PathBuf,
    /// How it is shown that a name leads here.
    pub challenge: ChallengeKind,
    /// The roots by which it proves who it is, in DER; empty: the system's.
    pub roots: Vec<Vec<u8>>,
}

/// A `ca_file` that is no good.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRoots(String);

impl AcmePlan {
    /// What `config` wants. Reads the file with the server's roots.
    ///
    /// # Errors
    /// Where that file cannot be read, or holds no certificate.
    pub fn new(config: &Config) -> Result<AcmePlan, BadRoots> {
        let Some(settings) = &config.lets_encrypt else { return Ok(AcmePlan::default()) };
        let wanted = config.virtual_hosts.iter().filter(|host| host.acme).filter_map(|host| {
            let names: BTreeSet<String> =
                std::iter::once(&host.domain).chain(&host.aliases).filter_map(|name| exact(name)).collect();
            Some(Wanted { vhost: host.domain.clone(), domain: exact(&host.domain)?, names })
        });
        Ok(AcmePlan { server: Some(Arc::new(Server::new(settings)?)), wanted: wanted.collect() })
    }
}

/// The host that `domain` means, in its one form, if it is one host.
fn exact(domain: &str) -> Option<String> {
    match domain.parse() {
        Ok(Domain::Exact(host)) => Some(host),
        _ => None,
    }
}

impl Server {
    /// The server that `settings` mean.
    ///
    /// # Errors
    /// Where the file with its roots cannot be read, or holds no certificate.
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

    /// The file with the key and the chain of the certificate `domain`, the key first. It is there once it was
    /// issued, and another one when it was renewed.
    pub fn certificate_file(&self, domain: &str) -> PathBuf {
        Cache::new(&self.cache_dir).certificate_file(domain)
    }
}

/// A name for the directory of a server's files: its host, for people, and part of a hash, for the rest of the URL.
fn identity(url: &str) -> String {
    let host =
        url.split("://").last().and_then(|rest| rest.split(['/', ':', '?']).next()).unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    let hash = openssl::sha::sha256(url.as_bytes());
    format!(
        "{:.100}-{:02x}{:02x}{:02x}{:02x}",
        host.trim_start_matches('.'),
        hash[0],
        hash[1],
        hash[2],
        hash[3]
    )
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
    fn a_virtual_host_and_its_aliases_are_one_certificate() {
        let plan = plan("").unwrap();
        let [wanted] = &plan.wanted[..] else { panic!("{plan:?}") };
        assert_eq!((&*wanted.vhost, &*wanted.domain), ("Shop.Example.", "shop.example"));
        assert_eq!(
            wanted.names.iter().collect::<Vec<_>>(),
            ["api.shop.example", "shop.example", "www.shop.example"]
        );
    }

    #[test]
    fn what_comes_from_different_servers_stays_apart() {
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
    fn roots_are_read_or_it_is_said_why_not() {
        let said = |path: &str| {
            plan(&format!("directory_url = \"https://ca/\"\nca_file = \"{path}\"")).unwrap_err().to_string()
        };
        assert!(said("/no/such/file").contains("cannot read '/no/such/file'"));
        assert!(said("/dev/null").contains("'/dev/null' is no file of at most"));
    }
}
