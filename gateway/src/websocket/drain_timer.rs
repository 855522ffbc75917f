//! Timer for the Close that a client is sent when the process stops. Each client gets the Close at a different time,
//! so that not all clients reconnect at once.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// Future that becomes ready when the client must be sent a Close, and stays ready.
pub(super) struct DrainTimer(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl DrainTimer {
    /// Creates a timer that starts when `stopping` becomes true. In the first half of `grace_period`, both sides can
    /// finish by themselves. The timer ends at a random time in the third quarter. The last quarter is for the closing
    /// handshake.
    pub(super) fn new(stopping: watch::Receiver<bool>, grace_period: Duration) -> Self {
        DrainTimer(Some(Box::pin(wait(stopping, grace_period.mul_f64(0.5 + 0.25 * fastrand::f64())))))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wait) = &mut self.0 else { return Poll::Ready(()) };
        let polled = wait.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_none()
    }
}

async fn wait(mut stopping: watch::Receiver<bool>, pause: Duration) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        // The sender is dropped, so `stopping` will never become true.
        std::future::pending::<()>().await;
    }
    sleep(pause).await;
}

impl fmt::Debug for DrainTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DrainTimer").field(&self.is_over()).finish()
    }
}
