//! A gateway's proxy and its ACME service in the process of the test, in front of a Pebble. The intervals are
//! shorter than the real ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::config::{ChallengeKind, Config, Source};
use gateway::drain::Drain;
use gateway::live::{Resolution, Store};
use gateway::proxy;
use gateway::proxy::request_log::RequestLog;
use gateway::telemetry::Metrics;
use gateway::tls::acme::{AcmePlan, AcmeService, AcmeState, AcmeStatus, Cache, Challenges, Statuses, Timing};
use gateway::tls::{Hello, classify};
use gateway::upstream::connection::{BackendConnector, HeadLimits, ResponseLimits};
use gateway::util::backoff::Backoff;
use parking_lot::Mutex;
use tempfile::TempDir;
use testkit::{Background, Origin, ServedProxy, background, eventually, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::pebble::{Options, Pebble, Place};

/// Longest time that a successful step takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Intervals of the ACME service, short for tests.
const TIMING: Timing = Timing {
    retry: Backoff { first: Duration::from_millis(200), most: Duration::from_millis(800) },
    timeout: Duration::from_secs(30),
    poll_most: Duration::from_millis(250),
    at_once: 4,
};

/// Proxy, TLS listener and state of an ACME service, in front of a Pebble.
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) statuses: Arc<Statuses>,
    /// Domains of the certificates that the service has announced.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    plan: watch::Sender<Arc<AcmePlan>>,
    metrics: Arc<Metrics>,
    directory: TempDir,
    proxy: ServedProxy,
    tls: SocketAddr,
}

impl Scene {
    /// Starts a proxy and a listener for TLS validations, without the ACME service.
    pub(crate) async fn new() -> Scene {
        let metrics = Arc::new(Metrics::new().unwrap());
        let backend = Origin::dead();
        let text = format!(
            "[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"a\"\n\
             [[backends]]\nid = \"a\"\naddress = \"{}\"\ntags = [\"a\"]\n",
            backend.address()
        );
        let source = Source::built_in("scene", text);
        let parsed = source.read().unwrap();
        let store = Arc::new(Store::new(source, parsed, Resolution::Resolved, metrics.clone()).unwrap());
        let challenges = Arc::<Challenges>::default();
        let limits = ResponseLimits::new(|| HeadLimits { bytes: 65_536, fields: 200 });
        let connector = BackendConnector::new(limits);
        let proxy = serve(proxy::Gateway::new(proxy::GatewayDeps {
            live: store,
            request_log: RequestLog { metrics: metrics.clone(), access_log: None, timelines: None },
            challenges: challenges.clone(),
            drain: Drain::default(),
            stopping: watch::channel(false).1,
            own_connector: Arc::new(connector.http()),
            connector,
        }));
        Scene {
            place: Place::new().await,
            tls: listen_for_validations(challenges.clone()).await,
            challenges,
            statuses: Arc::default(),
            told: Arc::default(),
            plan: watch::Sender::default(),
            metrics,
            directory: tempfile::tempdir().unwrap(),
            proxy,
        }
    }

    /// Starts a Pebble that validates names at this scene's ports.
    pub(crate) async fn pebble(&self, options: Options) -> Pebble<'_> {
        self.place.start(options, self.proxy.address().port(), self.tls.port()).await
    }

    /// Requests certificates. The first name of each is the domain, the others are its aliases. The DNS
    /// resolves every name to this scene.
    pub(crate) fn want(&self, certificates: &[&[&str]], challenge: ChallengeKind) {
        for name in certificates.iter().copied().flatten() {
            self.place.know(name);
        }
        self.plan.send_replace(Arc::new(self.planned(certificates, challenge)));
    }

    /// Returns the ACME plan for these certificates.
    pub(crate) fn planned(&self, certificates: &[&[&str]], challenge: ChallengeKind) -> AcmePlan {
        let mut text = format!(
            "[proxy]\nlisten_addr = \"127.0.0.1:0\"\n[lets_encrypt]\nemail = \"ops@gateway.example\"\ndirectory_url = \"{}\"\nca_file = \"{}\"\ncache_dir = \"{}\"\n\
             [[backends]]\nid = \"a\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n",
            self.place.directory_url(),
            self.place.ca_file().display(),
            self.directory.path().join("acme").display()
        );
        for names in certificates {
            let (domain, aliases) = names.split_first().unwrap();
            text.push_str(&format!(
                "[[virtual_hosts]]\ndomain = {domain:?}\naliases = {aliases:?}\nenabled_backends_tag = \"a\"\nacme = true\n"
            ));
        }
        if certificates.is_empty() {
            text = text.replace("listen_addr = \"127.0.0.1:0\"\n", "");
            text.push_str("[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"a\"\n");
        }
        let mut plan = AcmePlan::new(&Config::parse("plan", &text).unwrap()).unwrap();
        if let Some(server) = plan.server.as_mut().and_then(Arc::get_mut) {
            server.challenge = challenge;
        }
        plan
    }

    /// Starts the ACME service.
    pub(crate) fn service(&self) -> Background {
        let told = self.told.clone();
        background(Arc::new(AcmeService {
            plan: self.plan.subscribe(),
            challenges: self.challenges.clone(),
            statuses: self.statuses.clone(),
            tell: Arc::new(move |domain| told.lock().push(domain.to_owned())),
            metrics: self.metrics.clone(),
            timing: TIMING,
        }))
    }

    pub(crate) fn status(&self, domain: &str) -> Option<AcmeStatus> {
        self.statuses.load().get(domain).cloned()
    }

    /// Waits until the certificate of `domain` is valid and no work is left.
    pub(crate) async fn valid(&self, domain: &str) {
        let is_valid = || self.status(domain).is_some_and(|status| status.state == AcmeState::Valid);
        eventually!(within LONG, is_valid(), "{domain} is not valid: {:?}", self.status(domain));
    }

    /// Waits until the order of `domain` has failed, and returns its status.
    pub(crate) async fn failed(&self, domain: &str) -> AcmeStatus {
        eventually!(within LONG, self.status(domain).is_some_and(|status| status.last_error.is_some()));
        self.status(domain).unwrap()
    }

    /// Returns the file with the key and the chain of `domain`.
    pub(crate) fn file(&self, domain: &str) -> PathBuf {
        let plan = self.plan.borrow();
        Cache::new(&plan.server.as_ref().unwrap().cache_dir).certificate_file(domain)
    }

    /// Returns the content of that file.
    pub(crate) fn pem(&self, domain: &str) -> Vec<u8> {
        std::fs::read(self.file(domain)).unwrap()
    }

    /// Returns all metrics as text.
    pub(crate) fn counted(&self) -> String {
        self.metrics.encode().unwrap().0
    }
}

/// Starts a listener that completes the handshakes of TLS-ALPN validations only, like the gateway's TLS listener.
async fn listen_for_validations(challenges: Arc<Challenges>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let challenges = challenges.clone();
            tokio::spawn(async move {
                let mut peeked = [0; 4096];
                loop {
                    let length = stream.peek(&mut peeked).await.unwrap();
                    match classify(&peeked[..length]) {
                        Hello::Incomplete if length > 0 => tokio::task::yield_now().await,
                        Hello::Validation if challenges.has_tls() => {
                            return challenges.validate(stream).await.unwrap();
                        }
                        _ => return,
                    }
                }
            });
        }
    });
    address
}
