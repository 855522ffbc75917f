//! Listening sockets, and the start of each connection, before its first request.
//!
//! Sockets are bound before any service starts, so that a port in use causes one clear error. (Pingora would bind in
//! the task of a service, retry for half a minute, and then panic.) The gateway hands its sockets to Pingora in a
//! table. In a binary upgrade, a new process takes the listeners of the old one from such a table.

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
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
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
use crate::downstream::{http2, session, stream};
use crate::drain::{Drain, LINGER, Part};
use crate::proxy::Gateway;
use crate::telemetry::{Limit, Metrics};
use crate::upstream::connection::BackendConnector;

/// Buffer sizes over plain TCP. By default, Pingora has a buffer of 64 KiB for each client, even an idle one. Over
/// plain TCP that buffer is useless, because heads and bodies are read into other buffers of the same size.
const PLAIN_BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(0), write: None };

/// Buffer sizes over TLS. OpenSSL first reads the beginning of a record to learn its length, and then reads the rest.
/// With a small buffer, both reads are one system call, except for large bodies.
const TLS_BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(4 * 1024), write: None };

/// Listening socket of the proxy.
pub struct Socket {
    /// Listener that accepts the connections.
    pub listener: TcpListener,
    /// Address to which the socket is bound.
    pub address: SocketAddr,
    /// True if clients must use TLS on the socket; false for plain HTTP.
    pub is_https: bool,
}

/// Count of open client connections, with their maximum number.
pub struct Connections {
    open: AtomicUsize,
    limit: usize,
    accepting: AtomicBool,
    metrics: Arc<Metrics>,
    drain: Drain,
    /// Signal that becomes true when idle connections must close.
    closes_idle: watch::Sender<bool>,
}

impl Connections {
    /// Creates a count of zero; `limit` is the maximum number of open connections.
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

    /// Records that no connection is accepted any more, and waits until idle connections may be closed. They may be
    /// closed at once, but after a hand-over only when no request has been in flight for [`LINGER`].
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

    /// Returns true if no connection is accepted any more and no connection is open.
    pub fn are_drained(&self) -> bool {
        !self.accepting.load(Ordering::Acquire) && self.open.load(Ordering::Acquire) == 0
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until connections without a request in flight must close: when the process stops without a hand-over, or
    /// when `cleanup` closes idle connections.
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

    /// Counts a connection until the guard is dropped. Returns `None` if the limit is exceeded.
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

/// Proxy that counts its connections.
struct Counted {
    proxy: Arc<HttpProxy<Gateway, BackendConnector>>,
    connections: Arc<Connections>,
    opener: Opener,
}

impl Counted {
    /// Serves the requests of an HTTP/1 connection, one after another. Pingora's function for this (`process_new` of
    /// `HttpServerApp`) waits up to a minute for the first request, regardless of the configuration. Here the stream
    /// limits the idle time (`downstream::stream`).
    async fn serve_http1(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let mut closes_idle = self.connections.closes_idle.subscribe();
        let mut settings = None::<HttpPersistentSettings>;
        loop {
            let begins = tokio::select! {
                biased;
                begins = stream::request_begins(&mut stream) => begins,
                _ = closes_idle.wait_for(|closes| *closes) => false,
            };
            if !begins {
                return;
            }
            let mut session = ServerSession::new_http1(stream);
            match settings.take() {
                Some(settings) => settings.apply_to_session(&mut session),
                None => session.set_keepalive(if *shutdown.borrow() { None } else { session::KEPT }),
            }
            let Some(served) = self.proxy.process_new_http(session, shutdown).await else { return };
            (stream, settings) = served.consume();
        }
    }

    /// Counts an HTTP/2 connection that has ended because of abuse; `None` counts nothing.
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
            // The connection is closed before anything is read. A client over the limit must not use the resources that
            // the limit protects.
            self.connections.metrics.connections_refused.inc();
            return None;
        };
        // The large futures are boxed, so that none of them takes memory while an HTTP/1 connection is idle.
        let opened = tokio::select! {
            opened = Box::pin(self.opener.open(stream)) => opened?,
            // No request is in flight, because the client has not sent one yet.
            () = self.connections.are_cut_off(shutdown.clone()) => return None,
        };
        let Opened { stream, place: _place, request_limit } = opened;
        let Some((request_limit, idle)) = request_limit else {
            self.serve_http1(Box::new(stream), shutdown).await;
            return None;
        };
        let serving = http2::connection::serve(stream, &self.proxy, request_limit.watch(), idle);
        tokio::select! {
            abuse = Box::pin(serving) => self.count(abuse),
            () = request_limit.end_with(shutdown.clone()) => {}
            () = request_limit.should_close() => {}
        }
        None
    }

    /// Closes idle connections after the listeners have been closed.
    async fn cleanup(&self) {
        self.connections.let_go().await;
        self.connections.closes_idle.send_replace(true);
        self.proxy.cleanup().await;
    }
}

/// Pingora service that runs the proxy on sockets that are bound already.
pub struct ProxyService {
    service: Service<Counted>,
    sockets: Vec<Socket>,
    /// Startup step of the service, which ends when the service listens; `None` after that.
    starts: Option<Part>,
}

impl ProxyService {
    /// Creates a service that serves `proxy` on `sockets`. `opener` prepares each connection. `starts` is told when the
    /// service listens.
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
        // The sockets are in the table, so Pingora does not wait before it has spawned its accept loops. They exist
        // after the first poll. If that poll panics, `starts` is not told.
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
