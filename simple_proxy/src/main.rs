//! Sample 1: the smallest useful Pingora proxy. It forwards every request to one upstream.
//!
//! Run it:  `cargo run -p simple_proxy -- 127.0.0.1:3001`  (start the upstream with `cargo run -p origin`)
//! Try:     `curl -i 127.0.0.1:6188/anything`  (With no argument, the upstream is https://1.1.1.1.)

use std::env;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::exit;
use std::time::Duration;

use async_trait::async_trait; // Macro for traits with async methods, such as `ProxyHttp`.
use log::info;
use pingora::prelude::*; // `ProxyHttp`, `Session`, `HttpPeer`, `Server`, `Error`, `Result` and more.
use pingora::server::configuration::ServerConf;

/// Proxy that knows one address. A proxy is a type that implements `ProxyHttp`.
struct SimpleProxy {
    upstream: SocketAddr,
    /// Name that the upstream must prove; empty without TLS.
    name: String,
}

#[async_trait] // Pingora declares `ProxyHttp` with this macro, so an implementation needs it, too.
impl ProxyHttp for SimpleProxy {
    type CTX = (); // State that the phases of a request share. This proxy needs none.
    fn new_ctx(&self) {} // Called for each request. Without a return type it returns `()`, the `CTX`.

    // ANCHOR: upstream_peer
    /// Decides where the request goes. Besides `new_ctx`, it is the only one without a default. Over TLS, the upstream
    /// must prove its name. If it cannot, the proxy refuses it, and the client gets 502.
    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, !self.name.is_empty(), self.name.clone());
        // Without these timeouts, Pingora would wait for an upstream without a limit.
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(10));
        peer.options.write_timeout = Some(Duration::from_secs(10));
        Ok(Box::new(peer))
    }
    // ANCHOR_END: upstream_peer
}

fn main() {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info,pingora_core=warn"));
    let mut argument = env::args().skip(1).collect::<Vec<_>>().join(" ");
    if argument.is_empty() {
        argument = "https://1.1.1.1".to_string();
    }
    // `https://NAME` is an upstream over TLS, on port 443. `IP:PORT` is an upstream without TLS.
    let (name, address) = match argument.strip_prefix("https://") {
        Some("1.1.1.1") => ("one.one.one.one", "1.1.1.1:443".to_string()),
        Some(name) => (name, format!("{name}:443")),
        None => ("", argument.clone()),
    };
    let Some(upstream) = address.to_socket_addrs().ok().and_then(|mut found| found.next()) else {
        eprintln!("simple_proxy: '{argument}' is not a valid upstream; expected IP:PORT, or https://NAME");
        exit(2);
    };
    let listen = env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:6188".to_string());
    // Pingora tries for half a minute to bind a port in use. A short bind here shows the error at once.
    if let Err(error) = TcpListener::bind(&listen) {
        eprintln!("simple_proxy: cannot listen on {listen}: {error}");
        exit(1);
    }
    info!("listening on http://{listen}, upstream {argument}");
    // By default, Pingora waits five minutes for requests in flight after SIGTERM. One second is enough here.
    let conf = ServerConf { grace_period_seconds: Some(1), ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap(); // Takes over the sockets of an older process that this one replaces: here none.
    let mut proxy =
        http_proxy_service(&server.configuration, SimpleProxy { upstream, name: name.to_string() });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.run_forever();
}
