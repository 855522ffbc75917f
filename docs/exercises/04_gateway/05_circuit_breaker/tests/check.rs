//! Checks that the breaker opens, half-opens and closes, and that an open breaker lets no request through.

use std::time::{Duration, Instant};

use ex0405::{Breaker, FAILURES, Guarded, State};
use testkit::{Behaviour, Client, Origin, expect, serve};

const PAUSE: Duration = Duration::from_secs(10);

/// Returns a breaker that has opened at `now`.
fn opened(now: Instant) -> Breaker {
    let breaker = Breaker::new(PAUSE);
    for _ in 0..FAILURES {
        breaker.admit(now);
        breaker.record(false, now);
    }
    breaker
}

/// Describes the breaker's state in words, as seen at `now`.
fn state(breaker: &Breaker, now: Instant) -> String {
    match breaker.state() {
        State::Closed(failures) => format!("closed, after {failures} failures"),
        State::Open(until) => format!("open for {} s", (until - now).as_secs()),
        State::HalfOpen => "half open".to_owned(),
    }
}

#[test]
fn failures_in_a_row_open_the_breaker() {
    let now = Instant::now();
    let breaker = Breaker::new(PAUSE);
    for count in 1..FAILURES {
        breaker.record(false, now);
        let closed = format!("closed, after {count} failures");
        expect!(state(&breaker, now), closed, "the state after {count} failures");
    }
    breaker.record(false, now);
    expect!(state(&breaker, now), "open for 10 s", "the state after {FAILURES} failures");
    expect!(breaker.admit(now), false, "whether a request passes an open breaker");
}

#[test]
fn a_success_in_between_starts_the_count_again() {
    let now = Instant::now();
    let breaker = Breaker::new(PAUSE);
    for success in [false, false, true, false, false] {
        breaker.record(success, now);
    }
    let closed = "closed, after 2 failures";
    expect!(state(&breaker, now), closed, "the state after two failures, a success and two failures");
}

#[test]
fn a_half_open_breaker_lets_one_request_through() {
    let now = Instant::now();
    let breaker = opened(now);
    let admitted = [now + PAUSE / 2, now + PAUSE, now + PAUSE].map(|time| breaker.admit(time));
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
        breaker.admit(later);
        breaker.record(success, later);
        let what = if success { "succeeds" } else { "fails" };
        expect!(state(&breaker, later), expected, "the state after the single request {what}");
    }
}

#[test]
fn late_results_do_not_change_an_open_breaker() {
    let now = Instant::now();
    for (success, what) in [(false, "fails"), (true, "succeeds")] {
        let breaker = opened(now);
        breaker.record(success, now + PAUSE / 2);
        expect!(
            state(&breaker, now),
            "open for 10 s",
            "the state 5 s later, when a request from before the pause {what}"
        );
    }
}

#[tokio::test]
async fn a_failing_upstream_gets_no_requests_until_it_is_well() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Status(500));
    let breaker = Breaker::new(Duration::from_millis(200));
    let proxy = serve(Guarded { upstream: origin.address(), breaker });
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
