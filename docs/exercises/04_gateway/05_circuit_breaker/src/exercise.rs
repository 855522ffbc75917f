//! # Circuit breaker
//!
//! An upstream that fails does not get better by more requests, and clients do not by waiting for it. A circuit
//! breaker watches the answers. After `FAILURES` bad ones in a row it *opens*: requests are answered 503 at
//! once, and the upstream is left in peace for a while. Then it is *half open*: one single request is let
//! through. If that one succeeds the breaker *closes* again, if it fails it stays open for as long once more.
//! Requests that were on their way when it opened have nothing new to say: while it is open, what they record
//! changes nothing.
//!
//! **Your task**: write `admit` and `record`. Time comes in as an argument, so that the rules can be tested
//! without waiting.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::prelude::*;

/// How many bad answers in a row open the breaker.
pub const FAILURES: u32 = 3;

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass; there have been so many failures in a row.
    Closed(u32),
    /// No request passes before this time.
    Open(Instant),
    /// One request has been let through, and is not answered yet.
    HalfOpen,
}

/// Decides whether an upstream is asked at all.
pub struct Breaker {
    state: Mutex<State>,
    pause: Duration,
}

impl Breaker {
    /// One that is closed, and stays open for `pause` whenever it opens.
    pub fn new(pause: Duration) -> Breaker {
        Breaker { state: Mutex::new(State::Closed(0)), pause }
    }

    /// Its state now.
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// Whether a request may pass.
    pub fn admit(&self, now: Instant) -> bool {
        let state = self.state.lock();
        // TODO: an open breaker lets one request through when its time has come, a half-open one none.
        !matches!(*state, State::Open(until) if now < until)
    }

    /// Learns how a request ended that had been let through.
    pub fn record(&self, success: bool, now: Instant) {
        let mut state = self.state.lock();
        let open = State::Open(now + self.pause);
        // TODO: what does this success or failure make of the state? So far nothing ever opens a closed one.
        *state = match *state {
            State::HalfOpen if !success => open,
            other => other,
        };
    }
}

/// Forwards every request to one upstream, while that is well.
pub struct Guarded {
    /// Where to.
    pub upstream: SocketAddr,
    /// Whether to.
    pub breaker: Breaker,
}

/// What is remembered about one request.
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
            return Error::e_explain(HTTPStatus(503), "the upstream is left in peace");
        }
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
        if ctx.admitted {
            // Without a status the client may have left: a breaker for real use would tell that apart.
            let status = session.response_written().map_or(0, |response| response.status.as_u16());
            self.breaker.record((100..500).contains(&status), Instant::now());
        }
    }
}
