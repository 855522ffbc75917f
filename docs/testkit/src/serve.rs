//! A `ProxyHttp` served in the test's own process: no `Server`, no signals, no forks.

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

/// A proxy that serves until it is dropped.
pub struct ServedProxy {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl ServedProxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for ServedProxy {
    fn drop(&mut self) {
        // Nobody is left to stop where the service has ended already.
        let _ = self.stop.send(true);
    }
}

/// Serves `proxy` on a free port of loopback, on the runtime of the test that calls.
pub fn serve<P>(proxy: P) -> ServedProxy
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    serve_on(proxy, |service, address| service.add_tcp(address))
}

/// The same, behind the listener that `listen` adds to the service for the address it is given.
///
/// Pingora can bind port 0 but not say which port it got. So the socket is bound here and handed over
/// in the table through which a new process takes over the listeners of an old one.
pub fn serve_on<P>(proxy: P, listen: impl FnOnce(&mut Service<HttpProxy<P>>, &str)) -> ServedProxy
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    let (listener, address) = bound.unwrap_or_else(|error| panic!("no listener for the proxy: {error}"));

    let mut fds = Fds::new();
    fds.add(address.to_string(), listener.into_raw_fd());
    let mut service = http_proxy_service(&Arc::new(ServerConf::default()), proxy);
    listen(&mut service, &address.to_string());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { service.start_service(Some(Arc::new(Mutex::new(fds))), stopped, 1).await });
    ServedProxy { address, stop }
}

/// A background service that runs until this is dropped.
pub struct Background {
    stop: watch::Sender<bool>,
}

impl Drop for Background {
    fn drop(&mut self) {
        // Nobody is left to stop where the service has ended already.
        let _ = self.stop.send(true);
    }
}

/// Runs `task` as Pingora would, on the runtime of the test that calls.
pub fn background<T>(task: Arc<T>) -> Background
where
    T: BackgroundService + Send + Sync + 'static,
{
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { task.start(stopped).await });
    Background { stop }
}
