//! When a client is told to go, once the process stops.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// Ready when it is time to go, and from then on.
pub(super) struct DrainTimer(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl DrainTimer {
    /// Once `stopping` is true, half of `patience` is for both ends to come to an end by themselves, and the last
    /// quarter for the farewell. In between each has its own moment, or all would come back in the same.
    pub(super) fn new(stopping: watch::Receiver<bool>, patience: Duration) -> Self {
        DrainTimer(Some(Box::pin(wait(stopping, patience.mul_f64(0.5 + 0.25 * fastrand::f64())))))
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
        // Nobody is left who could stop.
        std::future::pending::<()>().await;
    }
    sleep(pause).await;
}

impl fmt::Debug for DrainTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Going").field(&self.is_over()).finish()
    }
}
