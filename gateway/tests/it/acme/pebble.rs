//! Pebble, the ACME server made for tests, as a child process. It can reject good nonces, and it resolves names
//! by a DNS server of the test.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509StoreContext};
use serde_json::json;
use tempfile::TempDir;
use testkit::tls::{Authority, Identity};
use testkit::{Client, DEADLINE, Dns, Process, Signal, free_address};

/// Message if Pebble is not installed.
const MISSING: &str = "`pebble` is not installed; `make setup-test` installs it";

/// Returns true if Pebble is installed. If not, the caller skips the test, but in CI the test fails.
pub(crate) fn is_there() -> bool {
    let is_there = std::process::Command::new("pebble").arg("-h").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "{MISSING}");
    if !is_there {
        eprintln!("SKIPPED: {MISSING}");
    }
    is_there
}

/// Options of a Pebble.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Lifetime of the certificates, in seconds.
    pub(crate) life_secs: u64,
    /// Percentage of good nonces that Pebble rejects.
    pub(crate) bad_nonces_percent: u8,
    /// Longest delay before a name is checked, in seconds; 0 for no delay.
    pub(crate) validation_secs: u8,
}

impl Default for Options {
    fn default() -> Self {
        Options { life_secs: 90 * 24 * 60 * 60, bad_nonces_percent: 50, validation_secs: 0 }
    }
}

/// Address, files and DNS of a Pebble, which may be started there again and again.
pub(crate) struct Place {
    address: SocketAddr,
    management: SocketAddr,
    authority: Authority,
    identity: Identity,
    directory: TempDir,
    pub(crate) dns: Dns,
}

impl Place {
    /// Creates a place without a running Pebble. Its DNS knows no name.
    pub(crate) async fn new() -> Place {
        let authority = Authority::new();
        let identity = authority.issue("127.0.0.1");
        Place {
            address: free_address(),
            management: free_address(),
            authority,
            identity,
            directory: tempfile::tempdir().unwrap(),
            dns: Dns::start().await,
        }
    }

    /// Returns the URL of the ACME directory.
    pub(crate) fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Returns the file with the root certificate of Pebble's own HTTPS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.authority.certificate_file()
    }

    /// Makes the DNS resolve this name to loopback.
    pub(crate) fn know(&self, name: &str) {
        self.dns.addresses(name, 0, &["127.0.0.1".parse().unwrap()]);
    }

    /// Starts a Pebble that validates names at these ports. It has no state of earlier Pebbles.
    pub(crate) async fn start(&self, options: Options, http_port: u16, tls_port: u16) -> Pebble<'_> {
        let config = json!({"pebble": {
            "listenAddress": self.address,
            "managementListenAddress": self.management,
            "certificate": self.identity.certificate_file(),
            "privateKey": self.identity.key_file(),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": options.life_secs,
        }});
        let file = self.directory.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let arguments = ["-config", file.to_str().unwrap(), "-dnsserver", &self.dns.address().to_string()];
        let nonces = options.bad_nonces_percent.to_string();
        let sleep = options.validation_secs.to_string();
        let mut variables = vec![("PEBBLE_WFE_NONCEREJECT", &*nonces), ("PEBBLE_AUTHZREUSE", "0")];
        match options.validation_secs {
            0 => variables.push(("PEBBLE_VA_NOSLEEP", "1")),
            _ => variables.push(("PEBBLE_VA_SLEEPTIME", &*sleep)),
        }
        let process = Process::spawn("pebble", &arguments, &variables);
        process.line("ACME directory available at").await;
        // Pebble prints the line shortly before it listens.
        testkit::eventually!(TcpStream::connect(self.address).is_ok());
        Pebble { process, place: self }
    }
}

/// A running Pebble.
pub(crate) struct Pebble<'p> {
    process: Process,
    place: &'p Place,
}

impl Pebble<'_> {
    /// Returns the number of orders that Pebble has accepted.
    pub(crate) fn orders(&self) -> usize {
        self.lines("Added order ")
    }

    /// Returns the number of certificates that Pebble has issued.
    pub(crate) fn issued(&self) -> usize {
        self.lines("Issued certificate serial ")
    }

    /// Returns the number of accounts that Pebble has created.
    pub(crate) fn accounts(&self) -> usize {
        self.lines(" accounts in memory")
    }

    fn lines(&self, text: &str) -> usize {
        self.process.output().lines().filter(|line| line.contains(text)).count()
    }

    /// Returns the output of the process so far.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Kills the process without a chance to clean up, like a power cut.
    pub(crate) async fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.ended(DEADLINE).await;
    }

    /// Returns the root of the certificates that this Pebble issues.
    pub(crate) async fn root(&self) -> X509 {
        let url = format!("https://{}/roots/0", self.place.management);
        let root = Client::trusting(&self.place.authority).get(url).await;
        X509::from_pem(&root.body).unwrap()
    }

    /// Returns true if a browser that trusts the root would accept the chain in this PEM for `name`.
    pub(crate) async fn vouches_for(&self, pem: &[u8], name: &str) -> bool {
        let chain = X509::stack_from_pem(pem).unwrap();
        let mut host = X509VerifyParam::new().unwrap();
        host.set_host(name).unwrap();
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(self.root().await).unwrap();
        store.set_param(&host).unwrap();
        let mut between = Stack::new().unwrap();
        for certificate in &chain[1..] {
            between.push(certificate.clone()).unwrap();
        }
        let mut context = X509StoreContext::new().unwrap();
        let verified = context.init(&store.build(), &chain[0], &between, |context| context.verify_cert());
        verified.unwrap()
    }
}
