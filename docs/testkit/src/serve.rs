//! A `ProxyHttp` served in the test's own process, without a `Server`, signals or forks.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::prelude::*;
use pingora::proxy::{HttpProxy, http_proxy_service};
use pingora::server::Fds;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::background::BackgroundService;
use pingora::services::listening::Service;
use tokio::sync::watch;

/// Proxy that serves until it is dropped.
pub struct ServedProxy {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl ServedProxy {
    /// Returns the proxy's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a URL of the proxy with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for ServedProxy {
    fn drop(&mut self) {
        // The send fails if the service has already ended, which is fine.
        let _ = self.stop.send(true);
    }
}

/// Serves `proxy` on a free port of loopback, on the runtime of the calling test.
pub fn serve<P>(proxy: P) -> ServedProxy
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    serve_on(proxy, |service, address| service.add_tcp(address))
}

/// Serves `proxy` on the listener that `listen` adds to the service for the given address.
///
/// Pingora can bind port 0, but it does not report the port that it got. So the socket is bound here, and
/// passed to Pingora in the table through which a new process takes over the listeners of an old one.
pub fn serve_on<P>(proxy: P, listen: impl FnOnce(&mut Service<HttpProxy<P>>, &str)) -> ServedProxy
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    let (listener, address) =
        bound.unwrap_or_else(|error| panic!("cannot create a listener for the proxy: {error}"));

    let mut fds = Fds::new();
    fds.add(address.to_string(), listener.into_raw_fd());
    let mut service = http_proxy_service(&Arc::new(ServerConf::default()), proxy);
    listen(&mut service, &address.to_string());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { service.start_service(Some(Arc::new(Mutex::new(fds))), stopped, 1).await });
    ServedProxy { address, stop }
}

/// Background service that runs until this value is dropped.
pub struct Background {
    stop: watch::Sender<bool>,
}

impl Drop for Background {
    fn drop(&mut self) {
        // The send fails if the service has already ended, which is fine.
        let _ = self.stop.send(true);
    }
}

/// Runs `task` as Pingora does, on the runtime of the calling test.
pub fn background<T>(task: Arc<T>) -> Background
where
    T: BackgroundService + Send + Sync + 'static,
{
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { task.start(stopped).await });
    Background { stop }
}
