//! Timer for a deadline that each request or each byte moves to a later time.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Timer that is created at the first wait and then kept. A later deadline does not reset it at once, because a reset
/// for each wait would cost more than a needless wake-up.
#[derive(Debug, Default)]
pub struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Returns `Ready` if `deadline` has passed. Each call may have another deadline.
    pub fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // The timer was set for an earlier deadline.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn timer_follows_a_deadline_that_moves() {
        let (start, mut timer) = (Instant::now(), LazyTimer::default());
        for deadlines in [[200, 100], [150, 300]] {
            let [before, deadline] = deadlines.map(|millis| start + Duration::from_millis(millis));
            poll_fn(|cx| {
                let _ = timer.poll_until(before, cx);
                timer.poll_until(deadline, cx)
            })
            .await;
            assert_eq!(Instant::now(), deadline);
        }
    }
}
