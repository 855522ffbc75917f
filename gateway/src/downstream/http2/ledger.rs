//! Outcome of each stream of a connection, and budgets against abuse.
//!
//! A reset request costs its client nothing, but the backend may work on it for long (CVE-2023-44487). A client can
//! also make the gateway reset the stream, by breaking a rule (CVE-2025-8671). Therefore a connection has a budget of
//! requests that either side resets before their response is complete. Two answered requests give one reset back, and
//! so does time. So a browser that leaves a page does not use up the budget, and neither do hedged gRPC calls.
//!
//! Frames that request nothing but cause work (PING, SETTINGS, empty DATA) have a separate budget. Data that is sent to
//! the client gives a part of that budget back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use super::frame::{CONTINUATION, DATA, END_STREAM, FrameHead, HEADERS, RST_STREAM};
use super::streams::OpenStreams;

/// Budget for requests that a client resets before they are answered. The unit is half a reset, because a response
/// gives one half back. The maximum is twice as many resets as a client may have concurrent requests.
const RESETS: Allowance = Allowance { most: 400, per_sec: 20 };

/// Cost of a reset, in units of [`RESETS`].
const RESET: u32 = 2;

/// Budget for streams that the gateway has to reset because the client broke a rule.
pub(super) const FAULTS: Allowance = Allowance { most: 64, per_sec: 10 };

/// Budget for frames that request nothing.
const FRAMES: Allowance = Allowance { most: 1_000, per_sec: 100 };

/// Abuse for which the gateway ends a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// The client has reset too many requests.
    Resets,
    /// The client has broken a rule in too many requests.
    Faults,
    /// The client has sent too many frames that request nothing.
    Frames,
    /// The head of one request is too large, or has too many frames.
    Head,
    /// The client has broken a rule of the connection, which is then over (RFC 9113 5.4.1).
    Connection,
}

impl Abuse {
    const ALL: [Abuse; 5] = [Abuse::Resets, Abuse::Faults, Abuse::Frames, Abuse::Head, Abuse::Connection];
}

/// Verdict on a connection: unset, or why it must end. The connection's stream sets it, and the accept loop waits for
/// it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// 0 while the verdict is unset. Otherwise the low 8 bits are the abuse, counted from 1, and the bits above are the
    /// error code for the GOAWAY.
    value: AtomicU32,
    is_there: Notify,
}

impl Verdict {
    /// Sets the verdict. Only the first one counts.
    pub(super) fn set(&self, reason: h2::Reason, abuse: Abuse) {
        let value = u32::from(reason) << 8 | (abuse as u32 + 1);
        if self.value.compare_exchange(0, value, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.is_there.notify_one();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.value.load(Ordering::Acquire) != 0
    }

    /// Waits until the connection must end.
    pub async fn wait(&self) -> (h2::Reason, Abuse) {
        while !self.is_set() {
            self.is_there.notified().await;
        }
        let value = self.value.load(Ordering::Acquire);
        let abuse = Abuse::ALL.into_iter().find(|abuse| *abuse as u32 + 1 == value & 0xff);
        ((value >> 8).into(), abuse.unwrap_or(Abuse::Connection))
    }
}

/// Size of a budget: its maximum, and the number of units that it regains each second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) most: u32,
    per_sec: u32,
}

/// State of a budget: the units that are left of its allowance.
#[derive(Debug)]
pub(super) struct Budget {
    of: Allowance,
    left: u32,
    /// Time of the last refill. To save time, a budget is refilled only when too few units are left.
    refilled: Instant,
}

impl Budget {
    pub(super) fn new(of: Allowance) -> Self {
        Budget { of, left: of.most, refilled: Instant::now() }
    }

    /// Takes one unit. Returns false if no unit is left.
    pub(super) fn spend(&mut self) -> bool {
        self.take(1)
    }

    /// Takes `count` units. Returns false if fewer are left.
    fn take(&mut self, count: u32) -> bool {
        if self.left < count {
            let millis = self.refilled.elapsed().as_millis() * u128::from(self.of.per_sec);
            let given = u32::try_from(millis / 1000).unwrap_or(u32::MAX).min(self.of.most);
            if self.left + given < count {
                return false;
            }
            (self.left, self.refilled) = ((self.left + given).min(self.of.most), Instant::now());
        }
        self.left -= count;
        true
    }

    fn earn(&mut self, count: u32) {
        self.left = (self.left + count).min(self.of.most);
    }
}

/// Record of the open streams of a connection, with the budgets of its client.
#[derive(Debug)]
pub struct Ledger {
    /// Ids of the streams that are open and not answered, in ascending order.
    open: Vec<u32>,
    /// Id of the stream that was opened last.
    last: u32,
    resets: Budget,
    faults: Budget,
    frames: Budget,
    verdict: Arc<Verdict>,
    streams: Arc<OpenStreams>,
}

impl Ledger {
    /// Creates the ledger of a connection. It sets `verdict` when the connection must end, and counts in `streams`.
    pub fn new(verdict: Arc<Verdict>, streams: Arc<OpenStreams>) -> Self {
        let (resets, faults, frames) = (Budget::new(RESETS), Budget::new(FAULTS), Budget::new(FRAMES));
        Ledger { open: Vec::new(), last: 0, resets, faults, frames, verdict, streams }
    }

    /// Records a head or trailers from the client on `stream`. Returns true if they open the stream.
    pub(super) fn on_head(&mut self, stream: u32) -> bool {
        if stream <= self.last {
            return false;
        }
        self.last = stream;
        self.open.push(stream);
        self.streams.open();
        self.frames.earn(4);
        true
    }

    /// Records the start of a frame from the client that is not part of a head.
    pub(super) fn on_frame(&mut self, frame: FrameHead) {
        match frame.kind {
            HEADERS | CONTINUATION => {}
            RST_STREAM if self.close(frame.stream) => self.charge(Abuse::Resets),
            DATA if frame.length > 0 || frame.has(END_STREAM) => {}
            _ => self.charge(Abuse::Frames),
        }
    }

    /// Records the start of a frame from the gateway.
    pub(super) fn on_sent(&mut self, frame: FrameHead) {
        if frame.kind == DATA {
            // A client may send two WINDOW_UPDATE frames for each DATA frame, however small that frame is.
            self.frames.earn(2);
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) && self.close(frame.stream) {
            self.resets.earn(1);
            self.frames.earn(2);
        }
    }

    /// Records that the gateway has reset a stream.
    pub(super) fn on_sent_reset(&mut self, stream: u32, reason: h2::Reason) {
        if !self.close(stream) {
            return;
        }
        match reason {
            // The client has done nothing wrong: its backend has failed, or it has its response.
            h2::Reason::NO_ERROR | h2::Reason::CANCEL | h2::Reason::INTERNAL_ERROR => {}
            // No backend has received the request. The client may not know yet how many streams it may open.
            h2::Reason::REFUSED_STREAM => self.charge(Abuse::Frames),
            _ => self.charge(Abuse::Faults),
        }
    }

    fn charge(&mut self, abuse: Abuse) {
        let is_left = match abuse {
            Abuse::Resets => self.resets.take(RESET),
            Abuse::Faults => self.faults.spend(),
            _ => self.frames.spend(),
        };
        if !is_left {
            self.verdict.set(h2::Reason::ENHANCE_YOUR_CALM, abuse);
        }
    }

    /// Closes a stream. Returns true if the stream was open.
    fn close(&mut self, stream: u32) -> bool {
        let Ok(at) = self.open.binary_search(&stream) else { return false };
        self.open.remove(at);
        self.streams.close();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, length: usize) -> FrameHead {
        FrameHead { length, kind, flags: 0, stream }
    }

    fn ledger() -> (Ledger, Arc<Verdict>) {
        let verdict = Arc::<Verdict>::default();
        let mut ledger = Ledger::new(verdict.clone(), OpenStreams::alone());
        // The budgets must not be refilled during a test, however slow the machine is.
        let later = Instant::now() + std::time::Duration::from_secs(3600);
        for budget in [&mut ledger.resets, &mut ledger.faults, &mut ledger.frames] {
            budget.refilled = later;
        }
        (ledger, verdict)
    }

    /// Returns the number of calls of `again` until the connection must end, at most `most`.
    fn allowed(most: u32, mut again: impl FnMut(&mut Ledger, u32)) -> u32 {
        let (mut ledger, verdict) = ledger();
        (0..most)
            .take_while(|i| {
                again(&mut ledger, 2 * i + 1);
                !verdict.is_set()
            })
            .count()
            .try_into()
            .unwrap()
    }

    fn answer(ledger: &mut Ledger, stream: u32) {
        ledger.on_sent(FrameHead { flags: END_STREAM, ..frame(HEADERS, stream, 10) });
    }

    #[test]
    fn resets_use_up_the_budget_and_responses_refill_it() {
        let reset = |ledger: &mut Ledger, stream| {
            ledger.on_head(stream);
            ledger.on_frame(frame(RST_STREAM, stream, 4));
        };
        assert_eq!(allowed(10_000, reset), RESETS.most / RESET);
        // A reset after the response costs nothing.
        let late = |ledger: &mut Ledger, stream| {
            ledger.on_head(stream);
            answer(ledger, stream);
            ledger.on_frame(frame(RST_STREAM, stream, 4));
        };
        assert_eq!(allowed(900, late), 900);
        // One reset for two responses is within the budget, as with hedged calls. One for each response is too much.
        let among = |answered: u32| {
            move |ledger: &mut Ledger, stream| {
                let of_wave = |i: u32| 10 * stream + 2 * i + 1;
                for i in 0..=answered {
                    ledger.on_head(of_wave(i));
                }
                ledger.on_frame(frame(RST_STREAM, of_wave(0), 4));
                (1..=answered).for_each(|i| answer(ledger, of_wave(i)));
            }
        };
        assert_eq!(allowed(10_000, among(2)), 10_000);
        assert_eq!(allowed(10_000, among(1)), RESETS.most - RESET + 1);
    }

    #[test]
    fn faults_and_useless_frames_use_up_their_budgets() {
        let fault = |reason: h2::Reason| {
            allowed(10_000, move |ledger, stream| {
                ledger.on_head(stream);
                ledger.on_sent_reset(stream, reason);
            })
        };
        assert_eq!(fault(h2::Reason::PROTOCOL_ERROR), FAULTS.most);
        assert_eq!(fault(h2::Reason::FLOW_CONTROL_ERROR), FAULTS.most);
        for not_theirs in [h2::Reason::INTERNAL_ERROR, h2::Reason::NO_ERROR, h2::Reason::REFUSED_STREAM] {
            assert_eq!(fault(not_theirs), 10_000);
        }
        for nothing in [
            frame(6, 0, 8),
            frame(4, 0, 0),
            frame(2, 1, 5),
            frame(8, 0, 4),
            frame(DATA, 1, 0),
            frame(99, 0, 3),
        ] {
            assert_eq!(allowed(10_000, |ledger, _| ledger.on_frame(nothing)), FRAMES.most, "{nothing:?}");
        }
        let windows = |ledger: &mut Ledger, _: u32| {
            ledger.on_sent(frame(DATA, 1, 1));
            ledger.on_frame(frame(8, 1, 4));
            ledger.on_frame(frame(8, 0, 4));
        };
        assert_eq!(allowed(10_000, windows), 10_000);
        assert_eq!(allowed(10_000, |ledger, _| ledger.on_frame(frame(DATA, 1, 1))), 10_000);
    }

    #[test]
    fn time_refills_a_budget_up_to_its_maximum() {
        let hour = std::time::Duration::from_secs(3600);
        let mut budget = Budget::new(Allowance { most: 30, per_sec: 1 });
        budget.left = 0;
        budget.refilled = Instant::now() + hour;
        assert!(!budget.spend());
        budget.refilled = Instant::now() - std::time::Duration::from_secs(20);
        assert!((0..20).all(|_| budget.spend()));
        budget.left = 0;
        budget.refilled = Instant::now() - std::time::Duration::from_secs(40);
        assert!(budget.spend());
        assert_eq!(budget.left, 29, "no more than there may be");
    }

    #[tokio::test]
    async fn the_first_verdict_holds() {
        let verdict = Verdict::default();
        verdict.set(h2::Reason::ENHANCE_YOUR_CALM, Abuse::Resets);
        verdict.set(h2::Reason::PROTOCOL_ERROR, Abuse::Connection);
        assert_eq!(verdict.wait().await, (h2::Reason::ENHANCE_YOUR_CALM, Abuse::Resets));
    }
}
