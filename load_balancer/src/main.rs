//! Sample 2: several upstreams take turns, and an upstream that is down gets no requests.
//!
//! Run it:  `cargo run -p load_balancer -- 127.0.0.1:3001 127.0.0.1:3002`  (and `cargo run -p origin`)
//! Try:     `curl 127.0.0.1:6188/` several times, then stop an origin and try again.
//! With no argument, the upstreams are 1.1.1.1:443 and 1.0.0.1:443, over TLS.
//!
//! Two things keep clients away from a dead upstream. A health check in the background takes the upstream out
//! of the rotation. A retry saves the requests that arrive before the health check has noticed.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait; // Macro for traits with async methods, such as `ProxyHttp`.
use log::{info, warn};
use pingora::lb::Backend;
use pingora::lb::health_check::TcpHealthCheck;
use pingora::prelude::*; // `ProxyHttp`, `Session`, `HttpPeer`, `Server`, `Error`, `Result` and more.
use pingora::server::configuration::ServerConf;

struct Balancer {
    /// Upstreams, shared with the background service, which keeps the health of each one up to date.
    upstreams: Arc<LoadBalancer<RoundRobin>>,
}

/// State of one request: the chosen upstream, and the upstreams that could not be reached.
#[derive(Default)]
struct RequestCtx {
    chosen: Option<Backend>,
    unreachable: Vec<Backend>,
}

#[async_trait] // Pingora declares `ProxyHttp` with this macro, so an implementation needs it, too.
impl ProxyHttp for Balancer {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::default()
    }

    // ANCHOR: phases
    /// Selects the next healthy upstream. It skips the upstreams that this request could not reach.
    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        // Offers upstreams in turn until the closure accepts one, 256 at most. Round robin ignores the key.
        let chosen = self
            .upstreams
            .select_with(b"", 256, |upstream, healthy| healthy && !ctx.unreachable.contains(upstream));
        // `None` is an ordinary result, not a bug: `unwrap` would turn an outage into a panic.
        let Some(upstream) = chosen else {
            return Error::e_explain(HTTPStatus(503), "no upstream is healthy");
        };
        let tls = upstream.addr.as_inet().is_some_and(|address| address.port() == 443);
        let sni = if tls { "one.one.one.one" } else { "" };
        let mut peer = HttpPeer::new(&upstream, tls, sni.to_string());
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(10));
        peer.options.write_timeout = Some(Duration::from_secs(10));
        ctx.chosen = Some(upstream);
        Ok(Box::new(peer))
    }

    /// Lets the request try another upstream. When connecting fails, nothing has been sent yet, so a retry is
    /// safe for any method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(upstream) = ctx.chosen.take() {
            warn!("{} cannot be reached, trying another", upstream.addr);
            ctx.unreachable.push(upstream);
            // Pingora then calls `upstream_peer` again.
            error.set_retry(true);
        }
        error
    }
    // ANCHOR_END: phases
}

fn main() {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    let mut upstreams: Vec<String> = env::args().skip(1).collect();
    if upstreams.is_empty() {
        upstreams = vec!["1.1.1.1:443".to_string(), "1.0.0.1:443".to_string()];
    }
    if let Some(wrong) = upstreams.iter().find(|argument| argument.parse::<SocketAddr>().is_err()) {
        eprintln!(
            "load_balancer: '{wrong}' is not a valid upstream; expected IP:PORT …, as in 127.0.0.1:3001"
        );
        exit(2);
    }
    let listen = env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:6188".to_string());
    // Pingora tries for half a minute to bind a port in use. A short bind here shows the error at once.
    if let Err(error) = TcpListener::bind(&listen) {
        eprintln!("load_balancer: cannot listen on {listen}: {error}");
        exit(1);
    }

    info!("listening on http://{listen}, upstreams {}", upstreams.join(" "));
    let mut upstreams = match LoadBalancer::<RoundRobin>::try_from_iter(upstreams) {
        Ok(upstreams) => upstreams,
        Err(error) => {
            eprintln!("load_balancer: cannot use these upstreams: {error}");
            exit(2);
        }
    };
    // ANCHOR: health_checks
    // An upstream is healthy if a TCP connection opens. All upstreams are checked at once, every five seconds.
    upstreams.set_health_check(TcpHealthCheck::new());
    upstreams.health_check_frequency = Some(Duration::from_secs(5));
    upstreams.parallel_health_check = true;
    let health_checks = background_service("health checks", upstreams); // Wraps them in an `Arc`.
    // ANCHOR_END: health_checks

    // By default, Pingora waits five minutes for requests in flight after SIGTERM. One second is enough here.
    let conf = ServerConf { grace_period_seconds: Some(1), ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap(); // Takes over the sockets of an older process that this one replaces: here none.
    let balancer = Balancer { upstreams: health_checks.task() }; // A clone of that `Arc`.
    let mut proxy = http_proxy_service(&server.configuration, balancer);
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.add_service(health_checks);
    server.run_forever();
}
