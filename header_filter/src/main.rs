//! Sample 3: changes the request on its way to the upstream, and the response on its way to the client.
//!
//! Run it:  `cargo run -p header_filter -- 127.0.0.1:3001`  (start the upstream with `cargo run -p origin`)
//! Try:     `curl -i 127.0.0.1:6188/anything -H 'X-Forwarded-For: 6.6.6.6'`. The JSON in the response is the
//!          request as the upstream saw it. The header fields above it are those of the response.
//! With no argument, the upstream is https://1.1.1.1.

use std::env;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::exit;
use std::time::Duration;

use async_trait::async_trait; // Macro for traits with async methods, such as `ProxyHttp`.
use log::info;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*; // `ProxyHttp`, `Session`, `HttpPeer`, `Server`, `Error`, `Result` and more.
use pingora::server::configuration::ServerConf;

struct HeaderFilter {
    upstream: SocketAddr,
    /// Name that the upstream must prove, and that it expects in `Host`; empty without TLS.
    name: String,
}

#[async_trait] // Pingora declares `ProxyHttp` with this macro, so an implementation needs it, too.
impl ProxyHttp for HeaderFilter {
    type CTX = ();
    fn new_ctx(&self) {} // Called for each request. Without a return type it returns `()`, the `CTX`.

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, !self.name.is_empty(), self.name.clone());
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(10));
        peer.options.write_timeout = Some(Duration::from_secs(10));
        Ok(Box::new(peer))
    }

    // ANCHOR: way_up
    /// Runs when the connection to the upstream is open, just before the request header is sent on it.
    /// `request` is a copy. The client's own request stays unchanged, for logs and for retries.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        request.insert_header("x-proxy-added", "pingora-demo")?;
        request.insert_header("x-forwarded-by", "rust-pingora")?;
        if !self.name.is_empty() {
            request.insert_header("Host", &self.name)?;
        }
        // The client can claim anything in this field. So the proxy replaces the claim by the address that it
        // sees: `insert_header` removes every earlier value. If no address is known, the field is removed.
        match session.client_addr().and_then(|address| address.as_inet()) {
            Some(client) => request.insert_header("X-Forwarded-For", client.ip().to_string())?,
            None => drop(request.remove_header("X-Forwarded-For")),
        }
        Ok(())
    }
    // ANCHOR_END: way_up

    // ANCHOR: way_down
    /// Runs when the upstream's response header has arrived, before the client gets it.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        response.insert_header("x-proxy", "pingora-demo")?;
        // Clients do not need to know which software an upstream runs.
        response.remove_header("Server");
        Ok(())
    }
    // ANCHOR_END: way_down
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
        eprintln!("header_filter: '{argument}' is not a valid upstream; expected IP:PORT, or https://NAME");
        exit(2);
    };
    let listen = env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:6188".to_string());
    // Pingora tries for half a minute to bind a port in use. A short bind here shows the error at once.
    if let Err(error) = TcpListener::bind(&listen) {
        eprintln!("header_filter: cannot listen on {listen}: {error}");
        exit(1);
    }
    info!("listening on http://{listen}, upstream {argument}");

    // By default, Pingora waits five minutes for requests in flight after SIGTERM. One second is enough here.
    let conf = ServerConf { grace_period_seconds: Some(1), ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap(); // Takes over the sockets of an older process that this one replaces: here none.
    let mut proxy =
        http_proxy_service(&server.configuration, HeaderFilter { upstream, name: name.to_string() });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.run_forever();
}
