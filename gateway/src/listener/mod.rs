//! Listening sockets, and the part of a connection before its first request.
//!
//! Sockets are bound before any service starts, so that a port in use is one clear error. (Pingora binds in the task
//! of a service, retries for half a minute, and panics there.) The sockets are then handed to Pingora in the table
//! through which a new process takes over the listeners of an old one.

mod addresses;
mod bind;
mod connection;
mod peer;
pub mod proxy_protocol;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
pub use bind::{BindError, bind, bind_beside, is_ipv6_only, leaves_ipv4};
use connection::Opened;
pub use connection::Opener;
use pingora::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::listeners::ListenerConfig;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::HttpProxy;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::listening::Service;
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use tokio::sync::watch;

use crate::downstream::http2::Abuse;
use crate::downstream::{http2, session};
use crate::drain::{Drain, LINGER, Part};
use crate::proxy::Gateway;
use crate::telemetry::{Limit, Metrics};
use crate::upstream::connection::BackendConnector;

/// Buffers over plain TCP. By default Pingora holds 64 KiB for the reads from each client, idle clients included.
/// Over plain TCP this has no use: heads and bodies are read into their own buffers, which are as large.
const PLAIN_BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(0), write: None };

/// Buffers over TLS. OpenSSL reads the first bytes of a record to learn its length, and then the rest. A small buffer
/// makes one system call of the two, except for large bodies.
const TLS_BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(4 * 1024), write: None };

/// Socket that is listened on.
pub struct Socket {
    /// Listener of the socket.
    pub listener: TcpListener,
    /// Address to which the socket is bound.
    pub address: SocketAddr,
    /// True if TLS is spoken on the socket.
    pub is_https: bool,
}

/// Open client connections, and their maximum number.
pub struct Connections {
    open: AtomicUsize,
    limit: usize,
    accepting: AtomicBool,
    metrics: Arc<Metrics>,
    drain: Drain,
    /// True when idle connections must close.
    closes_idle: watch::Sender<bool>,
}

impl Connections {
    /// Creates a count without open connections. `limit` is their maximum number.
    pub fn new(limit: usize, metrics: Arc<Metrics>, drain: Drain) -> Self {
        Connections {
            open: AtomicUsize::new(0),
            limit,
            accepting: AtomicBool::new(true),
            metrics,
            drain,
            closes_idle: watch::Sender::new(false),
        }
    }

    /// Records that no connection is accepted any more. Returns when idle connections may be closed: at once, or
    /// after a hand-over when no request has been in flight for [`LINGER`].
    async fn let_go(&self) {
        /// Interval of the checks for requests in flight.
        const LOOK: Duration = Duration::from_millis(20);
        self.accepting.store(false, Ordering::Release);
        let mut quiet_since = Instant::now();
        while self.drain.allows_linger() && quiet_since.elapsed() < LINGER {
            tokio::time::sleep(LOOK).await;
            if self.metrics.requests_active.get() > 0 {
                quiet_since = Instant::now();
            }
        }
    }

    /// Returns true if no connection is accepted any more and none is open.
    pub fn are_drained(&self) -> bool {
        !self.accepting.load(Ordering::Acquire) && self.open.load(Ordering::Acquire) == 0
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until connections without a request in flight must close. This is when the process stops, or some time
    /// after another process has replaced it.
    async fn are_cut_off(&self, mut shutdown: ShutdownWatch) {
        let stops = async {
            let stops = shutdown.wait_for(|stops| *stops).await.is_ok();
            if !stops || self.drain.has_begun() {
                std::future::pending::<()>().await;
            }
        };
        let mut closes_idle = self.closes_idle.subscribe();
        tokio::select! {
            () = stops => {}
            _ = closes_idle.wait_for(|closes| *closes) => {}
        }
    }

    /// Counts a connection until the guard is dropped. Returns `None` if too many are open.
    fn enter(&self) -> Option<OpenConnection<'_>> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        self.metrics.connections_active.inc();
        let connection = OpenConnection(self);
        (before < self.limit).then_some(connection)
    }
}

struct OpenConnection<'c>(&'c Connections);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections_active.dec();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Proxy with a count of its connections.
struct Counted {
    proxy: Arc<HttpProxy<Gateway, BackendConnector>>,
    connections: Arc<Connections>,
    opener: Opener,
}

impl Counted {
    /// Serves the requests of an HTTP/1 connection, one after another, as `process_new` of Pingora's `HttpServerApp`
    /// does. Pingora's function waits up to a minute for a first request, regardless of the configuration. Here the
    /// stream limits the idle time (`downstream::stream`).
    async fn serve_http1(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(if *shutdown.borrow() { None } else { session::KEPT });
        let mut served = self.proxy.process_new_http(session, shutdown).await;
        while let Some((stream, settings)) = served.map(ReusedHttpStream::consume) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            served = self.proxy.process_new_http(session, shutdown).await;
        }
    }

    /// Counts an HTTP/2 connection that had to be ended because of abuse.
    fn count(&self, abuse: Option<Abuse>) {
        let limit = match abuse {
            Some(Abuse::Resets) => Limit::Http2Resets,
            Some(Abuse::Faults) => Limit::Http2Faults,
            Some(Abuse::Frames) => Limit::Http2Frames,
            Some(Abuse::Head) => Limit::Http2Head,
            Some(Abuse::Connection) => Limit::Http2Protocol,
            None => return,
        };
        self.connections.metrics.limits.counter(limit).inc();
    }
}

#[async_trait]
impl ServerApp for Counted {
    /// Serves a connection from its first byte to its close.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Some(_open) = self.connections.enter() else {
            // The connection is closed unread: a client over the limit gets none of the resources that the limit
            // protects.
            self.connections.metrics.connections_refused.inc();
            return None;
        };
        let opened = tokio::select! {
            opened = self.opener.open(stream) => opened?,
            // No request is in flight: the client has not sent one yet.
            () = self.connections.are_cut_off(shutdown.clone()) => return None,
        };
        let Opened { stream, place: _place, request_limit } = opened;
        let Some((request_limit, idle)) = request_limit else {
            self.serve_http1(Box::new(stream), shutdown).await;
            return None;
        };
        tokio::select! {
            abuse = http2::connection::serve(stream, &self.proxy, request_limit.watch(), idle) => self.count(abuse),
            () = request_limit.end_with(shutdown.clone()) => {}
            () = request_limit.should_close() => {}
        }
        None
    }

    /// Ends idle connections after the listeners have been closed.
    async fn cleanup(&self) {
        self.connections.let_go().await;
        self.connections.closes_idle.send_replace(true);
        self.proxy.cleanup().await;
    }
}

/// Pingora service that runs the proxy on sockets which are already bound.
pub struct ProxyService {
    service: Service<Counted>,
    sockets: Vec<Socket>,
    /// Part of the startup that ends when the service listens.
    starts: Option<Part>,
}

impl ProxyService {
    /// Creates a service that serves `proxy` on `sockets`. `opener` decides which connections are served. `starts` is
    /// told when the service listens.
    pub fn new(
        proxy: HttpProxy<Gateway, BackendConnector>,
        sockets: Vec<Socket>,
        connections: Arc<Connections>,
        opener: Opener,
        starts: Part,
    ) -> Self {
        let counted = Counted { proxy: Arc::new(proxy), connections, opener };
        let mut service = Service::new("proxy".to_owned(), counted);
        for socket in &sockets {
            let buffers = if socket.is_https { TLS_BUFFERS } else { PLAIN_BUFFERS };
            service.add_listener(ListenerConfig::tcp(socket.address.to_string()).l4_buffer(buffers));
        }
        ProxyService { service, sockets, starts: Some(starts) }
    }
}

#[async_trait]
impl ServiceWithDependents for ProxyService {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        if let Some(fds) = &fds {
            let mut fds = fds.lock();
            for Socket { listener, address, .. } in self.sockets.drain(..) {
                fds.add(address.to_string(), listener.into_raw_fd());
            }
        }
        let starts = self.starts.take();
        let mut serving = pin!(self.service.start_service(fds, shutdown, listeners_per_fd, ready));
        // The sockets are in the table, so Pingora waits for nothing before it has spawned its accept loops. They
        // exist after its first step. If that step has panicked, `starts` is not told.
        if futures::poll!(serving.as_mut()).is_pending() {
            starts.into_iter().for_each(Part::listens);
            serving.await;
        }
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_over_the_limit_are_refused_and_leave_no_trace() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let connections = Connections::new(2, metrics.clone(), Drain::default());
        let (first, second) = (connections.enter(), connections.enter());
        assert!(first.is_some() && second.is_some());
        assert!(connections.enter().is_none());
        assert_eq!(connections.open(), 2);
        drop(first);
        assert!(connections.enter().is_some());
        drop(second);
        assert_eq!(connections.open(), 0);
        assert_eq!(metrics.connections_active.get(), 0);
    }
}
