//! How many requests a connection of HTTP/2 may make (`proxy.max_requests_per_connection`). Pingora counts those of
//! HTTP/1 itself. For HTTP/2 it knows one occasion to have a client go, with GOAWAY and all that is under way
//! answered (RFC 9113 6.8): that the process stops. So each connection gets a notice of its own for that, which is
//! given earlier where its requests are used up.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::sleep;

/// How many requests may come after the notice: they may have been on their way. (A client that keeps the rules sends
/// none, once it has seen the notice.)
const ON_THEIR_WAY: u32 = 1_000;

/// The requests that a connection may still make.
pub struct Turns {
    left: AtomicU32,
    /// How many have come since there are none left.
    beyond: AtomicU32,
    /// How many are under way.
    open: AtomicU32,
    /// How long nothing may be under way after the notice.
    patience: Duration,
    over: watch::Sender<bool>,
}

impl Turns {
    /// So many. When they are used up, and nothing has been under way for `patience`, the connection has had its time.
    pub(super) fn new(requests: u32, patience: Duration) -> Self {
        let (beyond, open) = (AtomicU32::new(0), AtomicU32::new(0));
        Turns { left: AtomicU32::new(requests), beyond, open, patience, over: watch::Sender::new(false) }
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

    /// Ready once the client stays although it has been told to go. Pingora waits for it to take note of that, and a
    /// client that never does would stay for ever.
    pub async fn is_outstayed(&self) {
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
    fn give_back(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the streams of a connection find them: of all that Pingora keeps with one, only this is free to be used.
pub(super) fn digest(turns: &Arc<Turns>) -> pingora::Result<ProxyDigest> {
    let response = ResponseHeader::build(StatusCode::OK, Some(0))?;
    Ok(ProxyDigest::new(Box::new(response), Some(Box::new(turns.clone()) as Box<dyn Any + Send + Sync>)))
}

/// The connection of `session` makes one more request.
pub fn take(session: &Session) {
    of(session).inspect(|turns| turns.take());
}

/// That request is over.
pub fn give_back(session: &Session) {
    of(session).inspect(|turns| turns.give_back());
}

fn of(session: &Session) -> Option<&Arc<Turns>> {
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
        let turns = Turns::new(2, PATIENCE);
        let watch = turns.watch();
        turns.take();
        assert!(!watch.has_changed().unwrap());
        turns.take();
        assert!(*watch.borrow());
        turns.take();
        assert_eq!(turns.left.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_end_of_the_process_is_one_too() {
        let (stops, shutdown) = watch::channel(false);
        let turns = Turns::new(2, PATIENCE);
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
        let turns = Turns::new(1, PATIENCE);
        assert!(timeout(10 * PATIENCE, turns.is_outstayed()).await.is_err(), "it has a turn left");
        turns.take();
        assert!(timeout(10 * PATIENCE, turns.is_outstayed()).await.is_err(), "it is being answered");
        turns.give_back();
        let start = Instant::now();
        turns.is_outstayed().await;
        assert_eq!(start.elapsed(), PATIENCE);
        for _ in 0..=ON_THEIR_WAY {
            turns.take();
        }
        assert!(timeout(2 * PATIENCE, turns.is_outstayed()).await.is_ok(), "it asks on and on");
    }
}
