//! How many requests a connection of HTTP/2 may make (`proxy.max_requests_per_connection`). Pingora counts those of
//! HTTP/1 itself. For HTTP/2 it knows one occasion to have a client go, with GOAWAY and all that is under way
//! answered (RFC 9113 6.8): that the process stops. So each connection gets a notice of its own for that, which is
//! given earlier where its requests are used up.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;

/// The requests that a connection may still make.
pub struct Turns {
    left: AtomicU32,
    over: watch::Sender<bool>,
}

impl Turns {
    /// So many.
    pub(super) fn new(requests: u32) -> Self {
        Turns { left: AtomicU32::new(requests), over: watch::Sender::new(false) }
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

    /// One more is made.
    fn take(&self) {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if before == Ok(1) {
            self.over.send_replace(true);
        }
    }
}

/// Where the streams of a connection find them: of all that Pingora keeps with one, only this is free to be used.
pub(super) fn digest(turns: &Arc<Turns>) -> pingora::Result<ProxyDigest> {
    let response = ResponseHeader::build(StatusCode::OK, Some(0))?;
    Ok(ProxyDigest::new(Box::new(response), Some(Box::new(turns.clone()) as Box<dyn Any + Send + Sync>)))
}

/// The connection of `session` makes one more request.
pub fn take(session: &Session) {
    let digest = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
    let turns = digest.and_then(|digest| digest.user_data.as_ref()?.downcast_ref::<Arc<Turns>>());
    turns.iter().for_each(|turns| turns.take());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_gives_notice_and_those_that_come_all_the_same_do_no_harm() {
        let turns = Turns::new(2);
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
        let turns = Turns::new(2);
        let mut watch = turns.watch();
        stops.send_replace(true);
        tokio::select! {
            () = turns.end_with(shutdown) => {}
            changed = watch.changed() => changed.unwrap(),
        }
        assert!(*watch.borrow());
    }
}
