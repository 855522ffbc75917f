//! Checks that the breaker opens, half-opens and closes, that only results of the current period count, and
//! that an open breaker lets no request through.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ex0405::{Breaker, FAILURES, Guarded, Permit, State};
use pingora::prelude::*;
use testkit::{Behaviour, Client, Fault, Faulty, Origin, eventually, expect, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const PAUSE: Duration = Duration::from_secs(10);

/// Returns the permit of a request that must pass.
fn permit(breaker: &Breaker, now: Instant, which: &str) -> Permit {
    let permit = breaker.admit(now);
    expect!(permit.is_some(), true, "whether {which} passes");
    permit.unwrap()
}

/// Sends requests through a closed breaker at `now`, all of which fail.
fn fail(breaker: &Breaker, count: u32, now: Instant) {
    for _ in 0..count {
        let permit = permit(breaker, now, "a request through a closed breaker");
        breaker.record(permit, false, now);
    }
}

/// Returns a breaker that has opened at `now`.
fn opened(now: Instant) -> Breaker {
    let breaker = Breaker::new(PAUSE);
    fail(&breaker, FAILURES, now);
    breaker
}

/// Describes the breaker's state in words, as seen at `now`.
fn state(breaker: &Breaker, now: Instant) -> String {
    match breaker.state() {
        State::Closed(failures) => format!("closed, after {failures} failures"),
        State::Open(until) => format!("open for {} s", (until - now).as_secs()),
        State::HalfOpen(until) => format!("half open, with a trial for {} s", (until - now).as_secs()),
    }
}

#[test]
fn failures_in_a_row_open_the_breaker() {
    let now = Instant::now();
    let breaker = Breaker::new(PAUSE);
    for count in 1..FAILURES {
        fail(&breaker, 1, now);
        let closed = format!("closed, after {count} failures");
        expect!(state(&breaker, now), closed, "the state after {count} failures");
    }
    fail(&breaker, 1, now);
    expect!(state(&breaker, now), "open for 10 s", "the state after {FAILURES} failures");
    expect!(breaker.admit(now).is_some(), false, "whether a request passes an open breaker");
}

#[test]
fn a_success_in_between_starts_the_count_again() {
    let now = Instant::now();
    let breaker = Breaker::new(PAUSE);
    fail(&breaker, 2, now);
    breaker.record(permit(&breaker, now, "a request after two failures"), true, now);
    let closed = "closed, after 0 failures";
    expect!(state(&breaker, now), closed, "the state after two failures and a success");
    fail(&breaker, 2, now);
    let closed = "closed, after 2 failures";
    expect!(state(&breaker, now), closed, "the state after two failures, a success and two failures");
}

#[test]
fn results_count_in_the_order_in_which_they_come() {
    let now = Instant::now();
    let breaker = Breaker::new(PAUSE);
    let permits =
        [(); FAILURES as usize].map(|()| permit(&breaker, now, "one of several requests at a time"));
    for permit in permits {
        breaker.record(permit, false, now);
    }
    expect!(
        state(&breaker, now),
        "open for 10 s",
        "the state after {FAILURES} requests at a time have failed"
    );
}

#[test]
fn a_half_open_breaker_lets_one_request_through() {
    let now = Instant::now();
    let breaker = opened(now);
    let admitted = [now + PAUSE / 2, now + PAUSE, now + PAUSE].map(|time| breaker.admit(time).is_some());
    expect!(
        admitted,
        [false, true, false],
        "whether a request passes: before the pause is over, after it, and while that request is in flight"
    );
}

#[test]
fn a_half_open_breaker_closes_or_opens_with_the_result() {
    let now = Instant::now();
    let later = now + PAUSE;
    for (success, expected) in [(true, "closed, after 0 failures"), (false, "open for 10 s")] {
        let breaker = opened(now);
        breaker.record(permit(&breaker, later, "the trial"), success, later);
        let what = if success { "succeeds" } else { "fails" };
        expect!(state(&breaker, later), expected, "the state after the trial {what}");
    }
}

#[test]
fn a_trial_without_a_result_is_followed_by_another() {
    let now = Instant::now();
    let [half_open, overdue] = [now + PAUSE, now + 2 * PAUSE];
    let breaker = opened(now);
    let first = permit(&breaker, half_open, "the trial");
    let second = permit(&breaker, overdue, "a request after another pause without a result");
    let third = breaker.admit(overdue).is_some();
    expect!(third, false, "whether a third request passes while the second trial is in flight");
    breaker.record(first, true, overdue);
    let closed = "closed, after 0 failures";
    expect!(state(&breaker, overdue), closed, "the state when the first trial succeeds after all");
    breaker.record(second, false, overdue);
    expect!(state(&breaker, overdue), closed, "the state when the second trial fails after that");
}

#[test]
fn late_results_do_not_change_an_open_breaker() {
    let now = Instant::now();
    for (success, what) in [(false, "fails"), (true, "succeeds")] {
        let breaker = Breaker::new(PAUSE);
        let late = permit(&breaker, now, "a request through a closed breaker");
        fail(&breaker, FAILURES, now);
        breaker.record(late, success, now + PAUSE / 2);
        expect!(
            state(&breaker, now),
            "open for 10 s",
            "the state 5 s later, when a request from before the pause {what}"
        );
    }
}

#[test]
fn late_results_do_not_decide_in_place_of_the_trial() {
    let now = Instant::now();
    let later = now + PAUSE;
    for (success, what) in [(false, "fails"), (true, "succeeds")] {
        let breaker = Breaker::new(PAUSE);
        let late = permit(&breaker, now, "a request through a closed breaker");
        fail(&breaker, FAILURES, now);
        let trial = permit(&breaker, later, "the trial");
        breaker.record(late, success, later);
        let half_open = "half open, with a trial for 10 s";
        expect!(
            state(&breaker, later),
            half_open,
            "the state during a trial, when a request from before the pause {what}"
        );
        breaker.record(trial, !success, later);
        let decided = if success { "open for 10 s" } else { "closed, after 0 failures" };
        expect!(state(&breaker, later), decided, "the state after the trial's own result");
    }
}

#[test]
fn late_failures_do_not_count_when_the_breaker_is_closed_again() {
    let now = Instant::now();
    let later = now + PAUSE;
    let breaker = Breaker::new(PAUSE);
    let late = [(); FAILURES as usize].map(|()| permit(&breaker, now, "a request through a closed breaker"));
    fail(&breaker, FAILURES, now);
    breaker.record(permit(&breaker, later, "the trial"), true, later);
    for permit in late {
        breaker.record(permit, false, later);
    }
    let closed = "closed, after 0 failures";
    expect!(
        state(&breaker, later),
        closed,
        "the state when requests from before the pause fail after the trial"
    );
}

/// Proxy that is shared with the test, which reads its breaker and counts the requests that are over.
#[derive(Clone)]
struct Shared(Arc<(Guarded, AtomicUsize)>);

impl Shared {
    fn new(upstream: std::net::SocketAddr, pause: Duration) -> Shared {
        Shared(Arc::new((Guarded { upstream, breaker: Breaker::new(pause) }, AtomicUsize::new(0))))
    }
    fn breaker(&self) -> &Breaker {
        &self.0.0.breaker
    }
    fn over(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ProxyHttp for Shared {
    type CTX = <Guarded as ProxyHttp>::CTX;
    fn new_ctx(&self) -> Self::CTX {
        self.0.0.new_ctx()
    }
    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        self.0.0.request_filter(session, ctx).await
    }
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        self.0.0.upstream_peer(session, ctx).await
    }
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        self.0.0.logging(session, error, ctx).await;
        self.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_failing_upstream_gets_no_requests_until_it_is_well() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Status(500));
    let proxy = serve(Shared::new(origin.address(), Duration::from_millis(200)));
    let client = Client::new();
    let status = async || client.get(proxy.url("/")).await.status;
    for turn in 1..=FAILURES {
        expect!(status().await, 500, "failing request {turn}, which still reaches the upstream");
    }
    expect!(eventually status().await, 503, "requests after {FAILURES} failures");
    origin.behave(Behaviour::Answer);
    expect!(eventually status().await, 200, "requests when the upstream is healthy and the pause is over");
    expect!(status().await, 200, "the next request, when the breaker has closed");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_has_failed() {
    for fault in [Fault::Reset, Fault::ResetInBody, Fault::Garbage] {
        let faulty = Faulty::start(fault).await;
        let shared = Shared::new(faulty.address(), PAUSE);
        let proxy = serve(shared.clone());
        let _ = Client::new().status(proxy.url("/")).await;
        eventually!(shared.over() == 1);
        let closed = "closed, after 1 failures";
        expect!(state(shared.breaker(), Instant::now()), closed, "the state after one request: {fault:?}");
    }
}

#[tokio::test]
async fn clients_that_leave_do_not_open_the_breaker() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let shared = Shared::new(origin.address(), PAUSE);
    let proxy = serve(shared.clone());
    for turn in 1..=FAILURES as usize {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        eventually!(origin.count("/") == turn || shared.over() == turn);
        drop(client);
        eventually!(shared.over() == turn);
    }
    let closed = "closed, after 0 failures";
    expect!(state(shared.breaker(), Instant::now()), closed, "the state after {FAILURES} clients have left");
}

/// Describes the breaker's state after a request, of which these bytes are sent, to an upstream that stalls.
async fn state_after_timeout(request: &[u8]) -> String {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let shared = Shared::new(origin.address(), PAUSE);
    let proxy = serve(shared.clone());
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(request).await.unwrap();
    eventually!(shared.over() == 1);
    state(shared.breaker(), Instant::now())
}

#[tokio::test]
async fn an_upstream_that_stalls_has_failed() {
    let state = state_after_timeout(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let closed = "closed, after 1 failures";
    expect!(state, closed, "the state after a request that the upstream does not answer");
}

#[tokio::test]
async fn clients_that_are_slow_do_not_open_the_breaker() {
    let state = state_after_timeout(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
    let closed = "closed, after 0 failures";
    expect!(state, closed, "the state after an upload that its client does not finish");
}

#[tokio::test]
async fn a_trial_that_is_sent_again_is_still_the_trial() {
    let faulty = Faulty::start(Fault::CloseReused).await;
    let shared = Shared::new(faulty.address(), PAUSE);
    let proxy = serve(shared.clone());
    let client = Client::new();
    expect!(client.get(proxy.url("/")).await.status, 200, "a request on a new connection");
    eventually!(shared.over() == 1);
    fail(shared.breaker(), FAILURES, Instant::now().checked_sub(PAUSE).unwrap());
    // Pingora sends the trial on the connection of the first request. It is closed, so Pingora makes another one.
    expect!(client.get(proxy.url("/")).await.status, 200, "a trial on a connection that the upstream closes");
}
