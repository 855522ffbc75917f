//! When a connection of HTTP/2 has had its time.
//!
//! It may make so many requests (`proxy.max_requests_per_connection`). Pingora counts those of HTTP/1 itself. For HTTP/2
//! it knows one occasion to have a client go, with GOAWAY and all that is under way answered (RFC 9113 6.8): that the
//! process stops. So each connection gets a notice of its own for that, which is given earlier where its requests are
//! used up.
//!
//! And it may not leave a request open that has been answered. Pingora waits for the rest for ever, and cannot be woken
//! but by the end of the connection.

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
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::http2::OpenStreams;

/// How many requests may come after the notice: they may have been on their way. (A client that keeps the rules sends
/// none, once it has seen the notice.)
const ON_THEIR_WAY: u32 = 1_000;

/// The requests that a connection may still make, and those that it leaves open.
pub struct RequestLimit {
    left: AtomicU64,
    /// How many have come since there are none left.
    beyond: AtomicU32,
    /// How many are under way.
    open: AtomicU32,
    /// How long nothing may be under way after the notice.
    patience: Duration,
    over: watch::Sender<bool>,
    /// That one was left open for too long.
    overdue: Arc<Notify>,
    streams: Arc<OpenStreams>,
}

impl RequestLimit {
    /// So many; 0: more than anybody can make. When they are used up, and nothing has been under way for `patience`, the
    /// connection has had its time.
    pub(super) fn new(requests: u32, patience: Duration, streams: Arc<OpenStreams>) -> Self {
        RequestLimit {
            left: AtomicU64::new(if requests == 0 { u64::MAX } else { requests.into() }),
            beyond: AtomicU32::new(0),
            open: AtomicU32::new(0),
            patience,
            over: watch::Sender::new(false),
            overdue: Arc::default(),
            streams,
        }
    }

    /// What Pingora takes for the process's end.
    pub fn watch(&self) -> ShutdownWatch {
        self.over.subscribe()
    }

    /// Passes on that the process stops. Never returns.
    pub async fn end_with(&self, mut shutdown: ShutdownWatch) {
        if shutdown.wait_for(|stops| *stops).await.is_ok() {
            self.over.send_replace(true);
        }
        std::future::pending().await
    }

    /// Ready once the connection has had its time.
    pub async fn should_close(&self) {
        tokio::select! {
            () = self.is_outstayed() => {}
            () = self.overdue.notified() => {}
        }
    }

    /// Ready once the client stays although it has been told to go. Pingora waits for it to take note of that, and a
    /// client that never does would stay for ever.
    async fn is_outstayed(&self) {
        if self.watch().wait_for(|over| *over).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            let before = self.beyond.load(Ordering::Relaxed);
            sleep(self.patience).await;
            let beyond = self.beyond.load(Ordering::Relaxed);
            let is_idle = self.open.load(Ordering::Relaxed) == 0 && beyond == before;
            if is_idle || beyond > ON_THEIR_WAY {
                return;
            }
        }
    }

    /// One more is made.
    fn take(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match before {
            Ok(1) => drop(self.over.send_replace(true)),
            Ok(_) => {}
            Err(_) => drop(self.beyond.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// One is over.
    fn request_finished(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that has been answered and is not whole: its connection ends with its time, if this is not dropped
/// before.
pub struct UnfinishedRequest(AbortHandle);

impl UnfinishedRequest {
    fn new(turns: &RequestLimit, patience: Duration) -> Self {
        let overdue = turns.overdue.clone();
        let waiting = async move {
            sleep(patience).await;
            overdue.notify_one();
        };
        UnfinishedRequest(tokio::spawn(waiting).abort_handle())
    }
}

impl Drop for UnfinishedRequest {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the streams of a connection find them: of all that Pingora keeps with one, only this is free to be used.
pub(super) fn digest(turns: &Arc<RequestLimit>) -> pingora::Result<ProxyDigest> {
    let response = ResponseHeader::build(StatusCode::OK, Some(0))?;
    Ok(ProxyDigest::new(Box::new(response), Some(Box::new(turns.clone()) as Box<dyn Any + Send + Sync>)))
}

/// The connection of `session` makes one more request.
pub fn take(session: &Session) {
    of(session).inspect(|turns| turns.take());
}

/// That request is over.
pub fn request_finished(session: &Session) {
    of(session).inspect(|turns| turns.request_finished());
}

/// The request of `session` has been answered, and its client has so long to end it; `None` over HTTP/1.
pub fn leave_open(session: &Session, patience: Duration) -> Option<UnfinishedRequest> {
    of(session).map(|turns| UnfinishedRequest::new(turns, patience))
}

/// Returns how many streams of the connection of `session` are open; `None` over HTTP/1.
pub fn open_streams(session: &Session) -> Option<u32> {
    of(session).map(|turns| turns.streams.count())
}

fn of(session: &Session) -> Option<&Arc<RequestLimit>> {
    let digest = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
    digest.and_then(|digest| digest.user_data.as_ref()?.downcast_ref())
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_request_gives_notice_and_those_that_come_all_the_same_do_no_harm() {
        let turns = RequestLimit::new(2, PATIENCE, OpenStreams::alone());
        let watch = turns.watch();
        turns.take();
        assert!(!watch.has_changed().unwrap());
        turns.take();
        assert!(*watch.borrow());
        turns.take();
        assert_eq!(turns.left.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_left_open_ends_the_connection_and_one_that_is_ended_does_not() {
        let turns = RequestLimit::new(0, PATIENCE, OpenStreams::alone());
        turns.take();
        for _ in 0..2 {
            let ended = UnfinishedRequest::new(&turns, PATIENCE);
            assert!(timeout(PATIENCE / 2, turns.should_close()).await.is_err());
            drop(ended);
            assert!(timeout(10 * PATIENCE, turns.should_close()).await.is_err());
        }
        let _left = UnfinishedRequest::new(&turns, PATIENCE);
        assert!(timeout(2 * PATIENCE, turns.should_close()).await.is_ok());
    }

    #[tokio::test]
    async fn the_end_of_the_process_is_one_too() {
        let (stops, shutdown) = watch::channel(false);
        let turns = RequestLimit::new(2, PATIENCE, OpenStreams::alone());
        let mut watch = turns.watch();
        stops.send_replace(true);
        tokio::select! {
            () = turns.end_with(shutdown) => {}
            changed = watch.changed() => changed.unwrap(),
        }
        assert!(*watch.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_all_the_same_has_its_time_and_who_is_still_answered_more() {
        let turns = RequestLimit::new(1, PATIENCE, OpenStreams::alone());
        assert!(timeout(10 * PATIENCE, turns.is_outstayed()).await.is_err(), "it has a turn left");
        turns.take();
        assert!(timeout(10 * PATIENCE, turns.is_outstayed()).await.is_err(), "it is being answered");
        turns.request_finished();
        let start = Instant::now();
        turns.is_outstayed().await;
        assert_eq!(start.elapsed(), PATIENCE);
        for _ in 0..=ON_THEIR_WAY {
            turns.take();
        }
        assert!(timeout(2 * PATIENCE, turns.is_outstayed()).await.is_ok(), "it asks on and on");
    }
}
