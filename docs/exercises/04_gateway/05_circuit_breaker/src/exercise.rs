//! # Circuit breaker
//!
//! If an upstream fails, more requests do not make it better, and clients gain nothing by waiting for it. A
//! circuit breaker watches the responses. After `FAILURES` bad responses in a row, the breaker *opens*:
//! requests get 503 at once, and the upstream gets no requests for a while. Then the breaker is *half open*:
//! it lets one single request through. If this request succeeds, the breaker *closes* again. If the request
//! fails, the breaker stays open for the same time once more. Some requests are already on their way when the
//! breaker opens. They have nothing new to tell: while the breaker is open, their results change nothing.
//!
//! **Your task**: write `admit` and `record`. Both get the time as an argument, so that the rules can be
//! tested without waiting.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::prelude::*;

/// Number of bad responses in a row that opens the breaker.
pub const FAILURES: u32 = 3;

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass. The number counts the failures in a row so far.
    Closed(u32),
    /// No request passes before this time.
    Open(Instant),
    /// A single request has been let through, and is not answered yet.
    HalfOpen,
}

/// Circuit breaker, which decides if a request may go to the upstream.
pub struct Breaker {
    state: Mutex<State>,
    pause: Duration,
}

impl Breaker {
    /// Returns a breaker that is closed. Each time it opens, it stays open for `pause`.
    pub fn new(pause: Duration) -> Breaker {
        Breaker { state: Mutex::new(State::Closed(0)), pause }
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// Returns true if a request may pass.
    pub fn admit(&self, now: Instant) -> bool {
        let state = self.state.lock();
        // TODO: after its pause, an open breaker lets one request pass. A half-open breaker lets none pass.
        !matches!(*state, State::Open(until) if now < until)
    }

    /// Records the result of a request that has been let through.
    pub fn record(&self, success: bool, now: Instant) {
        let mut state = self.state.lock();
        let open = State::Open(now + self.pause);
        // TODO: how does this success or failure change the state? For now, a closed breaker never opens.
        *state = match *state {
            State::HalfOpen if !success => open,
            other => other,
        };
    }
}

/// Proxy that forwards requests to one upstream, while the upstream is well.
pub struct Guarded {
    /// Address of the upstream.
    pub upstream: SocketAddr,
    /// Breaker that stops requests to the upstream while it fails.
    pub breaker: Breaker,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    admitted: bool,
}

#[async_trait]
impl ProxyHttp for Guarded {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { admitted: false }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        ctx.admitted = self.breaker.admit(Instant::now());
        if !ctx.admitted {
            return Error::e_explain(HTTPStatus(503), "the circuit breaker is open");
        }
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
        if ctx.admitted {
            // Without a status, the client may have left. A breaker for real use would distinguish that case.
            let status = session.response_written().map_or(0, |response| response.status.as_u16());
            self.breaker.record((100..500).contains(&status), Instant::now());
        }
    }
}
