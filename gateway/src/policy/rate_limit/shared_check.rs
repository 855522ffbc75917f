//! Check of a request that the store must count. The gateway remembers when the store refuses a client.

use std::time::Instant;

use super::store::Ask;
use super::{Count, Quota, Store, Tally, Verdict, Windows};

/// Result of a check.
pub enum CheckOutcome<'w> {
    /// The verdict is known.
    Done(Verdict<Quota>),
    /// The store has to count the request.
    Waits(Waiting<'w>),
}

impl CheckOutcome<'_> {
    /// Returns the verdict, and waits for the store if necessary.
    pub async fn verdict(self) -> Verdict<Quota> {
        match self {
            CheckOutcome::Done(verdict) => verdict,
            CheckOutcome::Waits(waiting) => waiting.verdict().await,
        }
    }
}

/// Check that waits for the store: this gateway has already counted the request in its own windows.
pub struct Waiting<'w> {
    pub(super) windows: &'w Windows,
    pub(super) store: &'w Store,
    pub(super) tally: Tally,
    pub(super) asks: Vec<Ask>,
    pub(super) now: Instant,
}

impl Waiting<'_> {
    /// Returns the verdict according to the store. If the store does not respond in time, this gateway itself
    /// counts the request in the store's windows.
    async fn verdict(mut self) -> Verdict<Quota> {
        let (windows, shared) = (self.windows, self.windows.shared());
        let is_taken = match self.store.count(&self.asks).await {
            Some(counts) => {
                self.tally.counts[shared.clone()]
                    .iter_mut()
                    .zip(counts)
                    .for_each(|(known, new)| *known = new);
                windows.remember_refusals(&self.tally, self.now);
                self.tally.counts[shared].iter().all(|count| count.allowed)
            }
            None => windows.take(shared, &mut self.tally, self.now),
        };
        if !is_taken {
            windows.give_back(0..windows.local, &mut self.tally, self.now);
        }
        windows.verdict(&self.tally)
    }
}

impl Windows {
    /// Returns true if the store has refused this client in a window that has not passed. The gateway then does
    /// not ask the store, because a client that ignores refusals must not keep the store busy.
    pub(super) fn is_known_to_be_refused(&self, tally: &mut Tally, now: Instant) -> bool {
        let mut is_refused = false;
        for i in self.shared() {
            let window = &self.windows[i];
            let known = self.counters.peek(self.refusal(i, tally), 1, window.ms, now);
            if !known.allowed {
                tally.counts[i] = Count { used: window.limit, ..known };
                is_refused = true;
            }
        }
        for i in (0..self.local).filter(|_| is_refused) {
            let window = &self.windows[i];
            tally.counts[i] = self.counters.peek(tally.keys[i], window.limit, window.ms, now);
        }
        is_refused
    }

    fn remember_refusals(&self, tally: &Tally, now: Instant) {
        for i in self.shared().filter(|i| !tally.counts[*i].allowed) {
            self.counters.count(self.refusal(i, tally), 1, tally.counts[i].reset_ms, now);
        }
    }

    /// Returns the key under which a refusal by the window at `i` is remembered. The key includes the limit, so
    /// that the gateway asks the store again after a change of the limit.
    fn refusal(&self, i: usize, tally: &Tally) -> u64 {
        self.counters.key(("refused", tally.keys[i], self.windows[i].limit))
    }
}
