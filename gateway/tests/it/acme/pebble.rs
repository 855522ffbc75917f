//! Pebble, the ACME server made for tests, as a child process: with bad nonces, and names from a test's own DNS.

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

/// Where the tests can be had that need it.
const MISSING: &str = "`pebble` is not installed; `make setup-test` installs it";

/// Whether there is a Pebble. Where not, the test is skipped, but never in CI.
pub(crate) fn is_there() -> bool {
    let is_there = std::process::Command::new("pebble").arg("-h").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "{MISSING}");
    if !is_there {
        eprintln!("SKIPPED: {MISSING}");
    }
    is_there
}

/// How a Pebble is set up.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// How long certificates live.
    pub(crate) life_secs: u64,
    /// How many of the nonces are refused that are good.
    pub(crate) bad_nonces_percent: u8,
    /// How long it takes at most until a name is looked at; 0: no time.
    pub(crate) validation_secs: u8,
}

impl Default for Options {
    fn default() -> Self {
        Options { life_secs: 90 * 24 * 60 * 60, bad_nonces_percent: 50, validation_secs: 0 }
    }
}

/// Where a Pebble is, and what it is made with; it may be started there again and again.
pub(crate) struct Place {
    address: SocketAddr,
    management: SocketAddr,
    authority: Authority,
    identity: Identity,
    directory: TempDir,
    pub(crate) dns: Dns,
}

impl Place {
    /// A place where none is yet. Its DNS knows no name.
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

    /// Where ACME begins.
    pub(crate) fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The root by which it proves who it is.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.authority.certificate_file()
    }

    /// From now on this name leads to loopback.
    pub(crate) fn know(&self, name: &str) {
        self.dns.addresses(name, 0, &["127.0.0.1".parse().unwrap()]);
    }

    /// Starts a Pebble that checks names at these ports, and knows nothing of those before it.
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
        // It says so a moment before it listens.
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
    /// How many orders it has taken.
    pub(crate) fn orders(&self) -> usize {
        self.lines("Added order ")
    }

    /// How many certificates it has issued.
    pub(crate) fn issued(&self) -> usize {
        self.lines("Issued certificate serial ")
    }

    /// How many accounts it has made.
    pub(crate) fn accounts(&self) -> usize {
        self.lines(" accounts in memory")
    }

    fn lines(&self, text: &str) -> usize {
        self.process.output().lines().filter(|line| line.contains(text)).count()
    }

    /// What it has said.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.ended(DEADLINE).await;
    }

    /// The root of what it issues.
    pub(crate) async fn root(&self) -> X509 {
        let url = format!("https://{}/roots/0", self.place.management);
        let root = Client::trusting(&self.place.authority).get(url).await;
        X509::from_pem(&root.body).unwrap()
    }

    /// Whether browsers that trust its root would take the chain in this PEM for `name`.
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
