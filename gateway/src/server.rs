//! Assembly of the gateway: listeners, proxy and background services on one Pingora server.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::services::background::background_service;
use tracing::{info, warn};

use crate::admin::{AccessError, Api, ApiAccess, ApiServer, HttpListener, MetricsServer, Readiness};
use crate::config::{Config, ConfigError, HealthCheck, MAX_ATTEMPTS, Parsed, Source};
use crate::demo::DemoOrigins;
use crate::drain::{Drain, StartupBarrier};
use crate::listener::{BindError, Connections, Opener, ProxyService, Socket};
use crate::live::{Reloader, Resolution, RolloutService, Rollouts, Snapshot, Store};
use crate::policy::auth::KeySetService;
use crate::policy::rate_limit::StoreKeeper;
use crate::process::descriptors::{self, TooFewDescriptors};
use crate::process::event_loop::{CaughtSignals, RunError};
use crate::process::signals::Lifecycle;
use crate::process::start::{PrepareError, Start, StartOptions};
use crate::process::upgrade::Listeners;
use crate::proxy::request_log::RequestLog;
use crate::proxy::{self, Gateway};
use crate::telemetry::log::{self, LoggingError};
use crate::telemetry::{Metrics, Timelines};
use crate::tls::acme::{AcmeService, Challenges, Timing};
use crate::upstream::connection::{self, BackendConnector, ResponseLimits};
use crate::upstream::{Discoverer, HealthChecker};

/// Reason why the gateway cannot start, or cannot continue to run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The gateway cannot listen on an address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Logging cannot start.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The configuration is invalid, or cannot be used on this machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The management API would be open to every client.
    #[error(transparent)]
    ApiAccess(#[from] AccessError),
    /// The system refuses a signal handler.
    #[error("cannot catch SIGTERM, SIGINT, SIGHUP, SIGQUIT and SIGUSR1: {0}")]
    Signals(std::io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] openssl::error::ErrorStack),
    /// A metric was defined twice.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The server has started, but then ended by itself.
    #[error(transparent)]
    Ended(#[from] RunError),
    /// The connections need more file descriptors than the system allows.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The preparation before the first service has failed.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Runs the gateway with the configuration `parsed` until a signal ends the process. Follows changes of its `source`.
/// With `demo`, also serves the demo origins, and prints a welcome on standard error.
///
/// # Errors
/// Returns an error if the gateway cannot start, or if it stops without a request to stop: see [`StartError`].
pub fn run(
    source: Source,
    parsed: Parsed,
    demo: Option<DemoOrigins>,
    options: StartOptions,
) -> Result<(), StartError> {
    // This must be the first use of OpenSSL. It prevents OpenSSL's cleanup at exit, during which other threads may
    // still read its data.
    openssl::init();
    let mut start = Start::prepare(&parsed.config, options)?;
    let served = serve(source, parsed, demo, &mut start);
    if let Err(error) = &served {
        start.fail(&error.to_string());
    }
    served
}

fn serve(
    source: Source,
    parsed: Parsed,
    demo: Option<DemoOrigins>,
    start: &mut Start,
) -> Result<(), StartError> {
    let config = &parsed.config.clone();
    let room = descriptors::make_room(config)?;
    let signals = CaughtSignals::catch().map_err(StartError::Signals)?;
    let access = ApiAccess::new(&config.admin, config.proxy.management_api_addr);
    let access = config.proxy.management_api.then_some(access).transpose()?;
    let Sockets { proxy: sockets, management, metrics: metrics_listener } =
        Sockets::open(config, &mut start.listeners)?;
    let announcer = start.settle(config)?;
    let (log, access_log) = log::start(&config.logging)?;

    let metrics = Arc::new(Metrics::new()?);
    let live = Arc::new(Store::new(source, parsed, Resolution::Resolved, metrics.clone())?);
    let rollouts = Arc::new(Rollouts::new(live.clone(), metrics.clone()));
    let timelines = access.is_some().then(Arc::<Timelines>::default);
    announce(&live.load());
    room.warning.iter().for_each(|warning| warn!("{warning}"));
    let (mut barrier, drain) = (StartupBarrier::default(), Drain::default());
    let connections = Arc::new(Connections::new(room.connections, metrics.clone(), drain.clone()));
    let readiness = Readiness::default();

    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let listening: Vec<(bool, SocketAddr)> =
        sockets.iter().map(|socket| (socket.is_https, socket.address)).collect();
    let challenges = Arc::<Challenges>::default();
    let current = live.clone();
    let limits = ResponseLimits::new(move || current.load().proxy.response_head);
    let connector = BackendConnector::new(limits);
    // One for all of the gateway's own requests, because each connector loads the system's authorities.
    let own_connector = Arc::new(connector.http());
    let gateway = Gateway::new(proxy::GatewayDeps {
        live: live.clone(),
        request_log: RequestLog { metrics: metrics.clone(), access_log, timelines: timelines.clone() },
        challenges: challenges.clone(),
        drain: drain.clone(),
        stopping: readiness.stopping(),
        connector: connector.clone(),
        own_connector: own_connector.clone(),
    });
    let mut options = HttpServerOptions::default();
    // CONNECT requests must reach the gateway's code, so that they are refused and logged like any other request.
    options.allow_connect_method_proxying = true;
    let proxy = connection::http_proxy(&server.configuration, gateway, connector, options);
    let opener = Opener::new(live.clone(), metrics.clone(), challenges.clone(), listening.clone())?;
    server.add_service(ProxyService::new(proxy, sockets, connections.clone(), opener, barrier.part()));
    server.add_service(background_service(
        "health checks",
        HealthChecker::new(live.watches().health_plan(), own_connector),
    ));
    server.add_service(background_service("discovery", discoverer(&live, config, &metrics)));
    let acme = certificates(&live, challenges, &metrics);
    let acme_statuses = acme.statuses.clone();
    server.add_service(background_service("certificates", acme));
    let stores = StoreKeeper::new(live.watches().counter_stores());
    server.add_service(background_service("stores of rate limits", stores));
    server.add_service(background_service(
        "keys of issuers",
        KeySetService { sets: live.watches().key_sets() },
    ));
    server.add_service(background_service("rollouts", RolloutService(rollouts.clone())));
    let mut door = |listener| HttpListener { listener, starts: barrier.part(), drain: drain.clone() };
    let (management, management_address) = management.unzip();
    if let (Some(listener), Some(access), Some(timelines)) = (management, access, timelines) {
        let (store, metrics) = (live.clone(), metrics.clone());
        let api = Api { store, rollouts, metrics, timelines, acme_statuses, access };
        server.add_service(background_service("management API", ApiServer::new(door(listener), api)));
    }
    let (metrics_listener, metrics_address) = metrics_listener.unzip();
    let metrics_server =
        MetricsServer::new(metrics_listener.map(door), metrics.clone(), readiness.clone(), log.handle());
    server.add_service(background_service("metrics", metrics_server));
    if let (Some(demo), Some((_, address))) = (demo, listening.first()) {
        eprintln!("{}", demo.welcome(*address, management_address, metrics_address));
        server.add_service(background_service("demo origins", demo));
    }

    for (is_https, address) in listening {
        info!("listening on {}://{address}", if is_https { "https" } else { "http" });
    }
    if let Some(address) = management_address {
        info!("management API and page on http://{address}/");
    }
    if let Some(address) = metrics_address {
        info!("metrics on http://{address}/metrics");
    }
    let upgrade_state = start.upgrade_state(&metrics);
    let reloader = Reloader::start(live, metrics);
    let grace_period = config.proxy.shutdown_timeout_secs.duration();
    let log = log.handle();
    let lifecycle = Lifecycle {
        signals,
        log: log.clone(),
        barrier,
        announcer,
        readiness,
        drain,
        connections,
        grace_period,
        upgrade_state,
    };
    let on_sighup = || {
        log.reopen();
        reloader.request();
    };
    Ok(lifecycle.run(server, on_sighup)?)
}

/// Creates the service that resolves the host names of backends, and passes new addresses to `live`.
fn discoverer(live: &Arc<Store>, config: &Config, metrics: &Metrics) -> Discoverer {
    let [answered, failed] = metrics.lookups();
    let (known, live) = (live.watches().resolved(), live.clone());
    let servers = config.proxy.nameservers.clone();
    Discoverer { known, servers, tell: Arc::new(move |news| live.follow_names(news)), answered, failed }
}

/// Creates the service that obtains certificates from an ACME server.
fn certificates(live: &Arc<Store>, challenges: Arc<Challenges>, metrics: &Arc<Metrics>) -> AcmeService {
    let store = live.clone();
    let tell = move |domain: &str| {
        if let Err(error) = store.follow_files() {
            warn!(domain, "the new certificate is not used yet: {error}");
        }
    };
    AcmeService {
        plan: live.watches().acme_plan(),
        challenges,
        statuses: Arc::default(),
        tell: Arc::new(tell),
        metrics: metrics.clone(),
        timing: Timing::default(),
    }
}

type Bound = (TcpListener, SocketAddr);

/// Listening sockets of the process, all bound before any service starts.
struct Sockets {
    proxy: Vec<Socket>,
    /// Listener of the management API; `None` if the API is off.
    management: Option<Bound>,
    /// Metrics listener; `None` if metrics are off.
    metrics: Option<Bound>,
}

impl Sockets {
    fn open(config: &Config, listeners: &mut Listeners) -> Result<Self, BindError> {
        let Config { proxy, metrics, .. } = config;
        let http = proxy.listen_addr_http.0.iter().map(|address| (*address, "proxy.listen_addr_http", false));
        let https = proxy.listen_addr.0.iter().map(|address| (*address, "proxy.listen_addr", true));
        let operators =
            [(proxy.management_api, proxy.management_api_addr), (metrics.enabled, metrics.listen_addr)];
        let operators = operators.into_iter().filter_map(|(on, address)| on.then_some(address));
        let all: Vec<SocketAddr> =
            http.clone().chain(https.clone()).map(|(address, ..)| address).chain(operators).collect();
        let sockets = http.chain(https).map(|(address, key, is_https)| {
            let (listener, address) = listeners.open(address, key, &all)?;
            Ok(Socket { listener, address, is_https })
        });
        let sockets = sockets.collect::<Result<_, BindError>>()?;
        let mut open = |on: bool, address, key| on.then(|| listeners.open(address, key, &all)).transpose();
        Ok(Sockets {
            proxy: sockets,
            management: open(proxy.management_api, proxy.management_api_addr, "proxy.management_api_addr")?,
            metrics: open(metrics.enabled, metrics.listen_addr, "metrics.listen_addr")?,
        })
    }
}

/// Logs the backends that are served. The list is short enough for a person to read.
fn announce(snapshot: &Snapshot) {
    const SHOWN: usize = 8;
    let instances = snapshot.instances().map(|instance| &instance.state);
    let shown = instances.take(SHOWN).map(|backend| format!("{} {}", backend.name, backend.endpoint));
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if let Some(more) = snapshot.instances().count().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push_str(&format!(" and {more} more"));
    }
    info!("backends: {shown}");
    if snapshot.config.has_lenient_health_check() {
        info!(
            "health checks: no path is configured, so they request {}, and any status below 500 passes; set \
             health_check.path (or PINGORA_HEALTH_CHECK_PATH) so that only 200 to 399 pass",
            HealthCheck::default().http_path()
        );
    }
}

fn server_conf(config: &Config) -> ServerConf {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    // The main thread ends the process when every request is answered. Pingora's grace period only has to be longer.
    let grace_period = config.proxy.shutdown_timeout_secs.duration() + Duration::from_secs(60);
    ServerConf {
        threads: if config.proxy.threads == 0 { cores() } else { config.proxy.threads },
        upstream_keepalive_pool_size: config.keepalive_pool_size().get(),
        // Each route has a separate number of attempts. This is only the upper bound.
        max_retries: MAX_ATTEMPTS as usize,
        grace_period_seconds: Some(grace_period.as_secs()),
        ..ServerConf::default()
    }
}
