//! Request limit of an HTTP/2 connection, and the other reasons to close such a connection.
//!
//! The number of requests on a connection is limited (`proxy.max_requests_per_connection`). Over HTTP/1, Pingora counts
//! them. Over HTTP/2, Pingora sends GOAWAY and finishes the requests in flight (RFC 9113 6.8) only when the process
//! stops. So each connection has a separate shutdown signal, which is also sent when its limit is reached.
//!
//! A connection is also closed if its client leaves an answered request unfinished for too long. Pingora waits for the
//! rest of such a request without a timeout, and only the end of the connection ends that wait.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::downstream::http2::streams::OpenStreams;

/// Maximum number of requests that may arrive after the GOAWAY. The client may have sent them before it saw the GOAWAY;
/// a client that follows the RFC sends none later.
const ON_THEIR_WAY: u32 = 1_000;

/// Request limit of a connection, with the counters of its requests.
pub struct RequestLimit {
    left: AtomicU64,
    /// Number of requests that have arrived after the limit was reached.
    beyond: AtomicU32,
    /// Number of requests in flight.
    open: AtomicU32,
    /// Idle time after the GOAWAY until the connection is closed.
    timeout: Duration,
    over: watch::Sender<bool>,
    /// Notified when the client has left a request unfinished for too long.
    overdue: Arc<Notify>,
    streams: Arc<OpenStreams>,
}

impl RequestLimit {
    /// Creates a limit of `requests` requests; 0 means no limit. After the limit is reached, the connection must close
    /// as soon as no request has been in flight for `timeout`.
    pub(super) fn new(requests: u32, timeout: Duration, streams: Arc<OpenStreams>) -> Self {
        RequestLimit {
            left: AtomicU64::new(if requests == 0 { u64::MAX } else { requests.into() }),
            beyond: AtomicU32::new(0),
            open: AtomicU32::new(0),
            timeout,
            over: watch::Sender::new(false),
            overdue: Arc::default(),
            streams,
        }
    }

    /// Returns the signal that Pingora sees as the shutdown of the process.
    pub fn watch(&self) -> ShutdownWatch {
        self.over.subscribe()
    }

    /// Sends the connection's shutdown signal when the process stops. Never returns.
    pub async fn end_with(&self, mut shutdown: ShutdownWatch) {
        if shutdown.wait_for(|stops| *stops).await.is_ok() {
            self.over.send_replace(true);
        }
        std::future::pending().await
    }

    /// Waits until the connection must be closed.
    pub async fn should_close(&self) {
        tokio::select! {
            () = self.is_outstayed() => {}
            () = self.overdue.notified() => {}
        }
    }

    /// Waits until the client has stayed too long after the GOAWAY. Pingora would wait for the client without a limit.
    async fn is_outstayed(&self) {
        if self.watch().wait_for(|over| *over).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            let before = self.beyond.load(Ordering::Relaxed);
            sleep(self.timeout).await;
            let beyond = self.beyond.load(Ordering::Relaxed);
            let is_idle = self.open.load(Ordering::Relaxed) == 0 && beyond == before;
            if is_idle || beyond > ON_THEIR_WAY {
                return;
            }
        }
    }

    /// Counts a request that begins.
    fn request_started(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match before {
            Ok(1) => drop(self.over.send_replace(true)),
            Ok(_) => {}
            Err(_) => drop(self.beyond.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Removes a finished request from the requests in flight.
    fn request_finished(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn leave_open(&self, timeout: Duration) -> UnfinishedRequest {
        let overdue = self.overdue.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(timeout).await;
            overdue.notify_one();
        }))
    }
}

/// Timeout of a request whose body is incomplete although the request has been answered. If the timeout ends before
/// this value is dropped, the connection is closed.
pub type UnfinishedRequest = AbortOnDropHandle<()>;

/// Wraps the request limit in a proxy digest, through which each request of the connection finds it. Pingora keeps
/// several values with a connection, but the gateway can set only this one.
pub(super) fn digest(request_limit: &Arc<RequestLimit>) -> pingora::Result<ProxyDigest> {
    let response = ResponseHeader::build(StatusCode::OK, Some(0))?;
    Ok(ProxyDigest::new(
        Box::new(response),
        Some(Box::new(request_limit.clone()) as Box<dyn Any + Send + Sync>),
    ))
}

/// Counts a new request on the connection of `session`.
pub fn request_started(session: &Session) {
    of(session).inspect(|request_limit| request_limit.request_started());
}

/// Counts the end of the request of `session`.
pub fn request_finished(session: &Session) {
    of(session).inspect(|request_limit| request_limit.request_finished());
}

/// Starts a timeout for the rest of the answered request of `session`, at whose end the connection is closed. Returns
/// `None` over HTTP/1, which has no such timeout.
pub fn leave_open(session: &Session, timeout: Duration) -> Option<UnfinishedRequest> {
    of(session).map(|request_limit| request_limit.leave_open(timeout))
}

/// Returns the number of open streams on the connection of `session`; `None` over HTTP/1.
pub fn open_streams(session: &Session) -> Option<u32> {
    of(session).map(|request_limit| request_limit.streams.count())
}

fn of(session: &Session) -> Option<&Arc<RequestLimit>> {
    let digest = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
    digest.and_then(|digest| digest.user_data.as_ref()?.downcast_ref())
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn last_request_sends_goaway_and_later_ones_do_no_harm() {
        let request_limit = RequestLimit::new(2, TIMEOUT, OpenStreams::alone());
        let watch = request_limit.watch();
        request_limit.request_started();
        assert!(!watch.has_changed().unwrap());
        request_limit.request_started();
        assert!(*watch.borrow());
        request_limit.request_started();
        assert_eq!(request_limit.left.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_request_left_unfinished_closes_connection() {
        let request_limit = RequestLimit::new(0, TIMEOUT, OpenStreams::alone());
        request_limit.request_started();
        for _ in 0..2 {
            let ended = request_limit.leave_open(TIMEOUT);
            assert!(timeout(TIMEOUT / 2, request_limit.should_close()).await.is_err());
            drop(ended);
            assert!(timeout(10 * TIMEOUT, request_limit.should_close()).await.is_err());
        }
        let _left = request_limit.leave_open(TIMEOUT);
        assert!(timeout(2 * TIMEOUT, request_limit.should_close()).await.is_ok());
    }

    #[tokio::test]
    async fn process_shutdown_is_forwarded_to_connection() {
        let (stops, shutdown) = watch::channel(false);
        let request_limit = RequestLimit::new(2, TIMEOUT, OpenStreams::alone());
        let mut watch = request_limit.watch();
        stops.send_replace(true);
        tokio::select! {
            () = request_limit.end_with(shutdown) => {}
            changed = watch.changed() => changed.unwrap(),
        }
        assert!(*watch.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_ignores_goaway_is_closed_when_idle_or_flooding() {
        let request_limit = RequestLimit::new(1, TIMEOUT, OpenStreams::alone());
        assert!(timeout(10 * TIMEOUT, request_limit.is_outstayed()).await.is_err(), "it has a turn left");
        request_limit.request_started();
        assert!(timeout(10 * TIMEOUT, request_limit.is_outstayed()).await.is_err(), "it is being answered");
        request_limit.request_finished();
        let start = Instant::now();
        request_limit.is_outstayed().await;
        assert_eq!(start.elapsed(), TIMEOUT);
        for _ in 0..=ON_THEIR_WAY {
            request_limit.request_started();
        }
        assert!(timeout(2 * TIMEOUT, request_limit.is_outstayed()).await.is_ok(), "it asks on and on");
    }
}
