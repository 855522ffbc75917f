//! Sample 2: several upstreams take turns, and an upstream that is down gets no requests.
//!
//! Run it:  `cargo run -p load_balancer -- 127.0.0.1:3001 127.0.0.1:3002`  (and `cargo run -p origin`)
//! Try:     `curl 127.0.0.1:6188/` several times, then stop an origin and try again.
//! With no argument, the upstreams are https://1.1.1.1 and https://1.0.0.1.
//!
//! Two things keep clients away from a dead upstream. A health check in the background takes the upstream out
//! of the rotation. A retry saves the requests that arrive before the health check has noticed.

use std::collections::HashMap;
use std::env;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait; // Macro for traits with async methods, such as `ProxyHttp`.
use env_logger::Env;
use log::{info, warn};
use pingora::lb::Backend;
use pingora::lb::health_check::TcpHealthCheck;
use pingora::prelude::*; // `ProxyHttp`, `Session`, `HttpPeer`, `Server`, `Error`, `Result` and more.
use pingora::server::configuration::ServerConf;

struct Balancer {
    /// Upstreams, shared with the background service, which keeps the health of each one up to date.
    upstreams: Arc<LoadBalancer<RoundRobin>>,
    /// Upstreams over TLS, each with the name that it must prove.
    names: HashMap<SocketAddr, String>,
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
        let name = upstream.addr.as_inet().and_then(|address| self.names.get(address));
        let mut peer = HttpPeer::new(&upstream, name.is_some(), name.cloned().unwrap_or_default());
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

fn fail(code: i32, what: String) -> ! {
    eprintln!("load_balancer: {what}");
    exit(code)
}

fn main() {
    // Without this format, a health check that fails would log a page of peer options.
    env_logger::Builder::from_env(Env::default().default_filter_or("info,pingora_core=warn"))
        .format(|out, record| writeln!(out, "{:5} {:.120}", record.level(), record.args().to_string()))
        .init();
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.is_empty() {
        arguments = vec!["https://1.1.1.1".to_string(), "https://1.0.0.1".to_string()];
    }
    let (mut addresses, mut names) = (Vec::new(), HashMap::new());
    for argument in &arguments {
        // `https://NAME` is an upstream over TLS, on port 443. `IP:PORT` is an upstream without TLS.
        let (name, address) = match argument.strip_prefix("https://") {
            Some(ip @ ("1.1.1.1" | "1.0.0.1")) => (Some("one.one.one.one"), format!("{ip}:443")),
            Some(name) => (Some(name), format!("{name}:443")),
            None => (None, argument.clone()),
        };
        let Some(upstream) = address.to_socket_addrs().ok().and_then(|mut found| found.next()) else {
            fail(2, format!("'{argument}' is not a valid upstream; expected IP:PORT, or https://NAME"))
        };
        addresses.push(upstream);
        names.extend(name.map(|name| (upstream, name.to_string())));
    }
    let listen = env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:6188".to_string());
    // Pingora tries for half a minute to bind a port in use. A short bind here shows the error at once.
    if let Err(error) = TcpListener::bind(&listen) {
        fail(1, format!("cannot listen on {listen}: {error}"))
    }
    info!("listening on http://{listen}, upstreams {}", arguments.join(" "));
    let upstreams = LoadBalancer::<RoundRobin>::try_from_iter(addresses);
    let mut upstreams =
        upstreams.unwrap_or_else(|error| fail(2, format!("cannot use these upstreams: {error}")));
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
    let balancer = Balancer { upstreams: health_checks.task(), names }; // A clone of that `Arc`.
    let mut proxy = http_proxy_service(&server.configuration, balancer);
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.add_service(health_checks);
    server.run_forever();
}
