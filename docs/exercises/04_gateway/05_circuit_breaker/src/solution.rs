//! Circuit breaker: an upstream that keeps failing gets no requests for a while.

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
        let mut state = self.state.lock();
        match *state {
            State::Closed(_) => true,
            State::Open(until) if now >= until => {
                *state = State::HalfOpen;
                true
            }
            State::Open(_) | State::HalfOpen => false,
        }
    }

    /// Records the result of a request that has been let through.
    pub fn record(&self, success: bool, now: Instant) {
        let mut state = self.state.lock();
        let open = State::Open(now + self.pause);
        *state = match *state {
            State::Open(until) => State::Open(until),
            _ if success => State::Closed(0),
            State::Closed(failures) if failures + 1 < FAILURES => State::Closed(failures + 1),
            State::Closed(_) | State::HalfOpen => open,
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
