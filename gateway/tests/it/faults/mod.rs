//! The fault matrix: results of requests while a backend is broken in various ways.
//!
//! A cell says what the client gets, and how often the faulty backend and the good one have seen the request:
//! "200 1+1" is a response from the second of two attempts. In every cell no POST may be seen twice, no request
//! may take longer than its deadline, and the next request must succeed. With MATRIX=1 in the environment the
//! test prints the tables.

mod client;
mod dns;
mod harness;
mod scenes;
mod silent;

use std::time::Duration;

use harness::{ALONE, Row, SPARE, check};
use testkit::{Fault, Health};

/// Response of the faulty backend.
const SOUND: &str = "200 1+0";
/// Response of the good backend; the faulty one has not seen the request.
const OTHER: &str = "200 0+1";
/// Response of the good backend, after the faulty one had the request.
const SECOND: &str = "200 1+1";
const CUT: &str = "200 cut 1+0";
const REFUSED: &str = "502 connection_refused 0+0";
/// The connection ended before the backend read the request. The gateway cannot know that the request was not read.
const UNREAD: &str = "502 connection_terminated 0+0";
const TERMINATED: &str = "502 connection_terminated 1+0";
const NOT_HTTP: &str = "502 http_protocol_error 1+0";
const TIMEOUT: &str = "504 http_response_timeout 1+0";
const DOWN: &str = "503 destination_unavailable 0+0";

/// The gateway may see the failure when it opens the connection, or later. If no bytes were sent, it may retry
/// a request of any method.
const ON_ACCEPT: &str = "502 connection_terminated 0+0 or 200 0+1";

/// Each attempt takes one of the two seconds.
const TWO_TIMEOUTS: &str = "504 http_response_timeout 2+0 or 504 http_response_timeout 3+0";

/// `attempts` is 3, and one more attempt is free: the idle connection may have been closed by the backend at
/// that moment.
const RACED: &str = "502 connection_terminated 4+0";

const A_SECOND: Duration = Duration::from_secs(1);

#[rustfmt::skip]
const MATRIX: &[Row] = &[
    Row { name: "refused", up: false, want: [OTHER; 3], ..SPARE },
    Row { name: "refused", up: false, want: [REFUSED; 3], ..ALONE },

    Row { name: "reset on accept", fault: Fault::ResetOnAccept,
          want: [OTHER, ON_ACCEPT, ON_ACCEPT], ..SPARE },
    Row { name: "reset before the request was read", fault: Fault::ResetUnread,
          want: [OTHER, UNREAD, UNREAD], ..SPARE },
    Row { name: "reset before the request was read", fault: Fault::ResetUnread, want: [UNREAD; 3], ..ALONE },
    Row { name: "reset after the request was read", fault: Fault::Reset,
          want: [SECOND, TERMINATED, TERMINATED], ..SPARE },
    Row { name: "reset after the request was read", fault: Fault::Reset,
          want: ["502 connection_terminated 3+0", TERMINATED, TERMINATED], ..ALONE },
    Row { name: "reset in the middle of the body", fault: Fault::ResetInBody, want: [CUT; 3], ..SPARE },

    Row { name: "silence after the request", fault: Fault::Silence,
          want: [SECOND, TIMEOUT, TIMEOUT], ..SPARE },
    Row { name: "silence after the request", fault: Fault::Silence,
          want: [TWO_TIMEOUTS, TIMEOUT, TIMEOUT], ..ALONE },
    Row { name: "one byte a second", fault: Fault::Drip(A_SECOND), read_timeout: 3,
          want: [SOUND; 3], ..SPARE },

    Row { name: "Content-Length too long", fault: Fault::LengthTooLong, want: [CUT; 3], ..SPARE },
    Row { name: "Content-Length too short", fault: Fault::LengthTooShort, want: [SOUND; 3], ..SPARE },
    Row { name: "two Content-Lengths that differ", fault: Fault::LengthsDiffer,
          want: [SECOND, NOT_HTTP, NOT_HTTP], ..SPARE },
    Row { name: "two Content-Lengths that are equal", fault: Fault::LengthsRepeat,
          want: [SOUND; 3], ..SPARE },
    Row { name: "a Content-Length twice in one field", fault: Fault::LengthsListed,
          want: [SOUND; 3], ..SPARE },
    Row { name: "101 unasked", fault: Fault::SwitchUnasked,
          want: [SECOND, NOT_HTTP, NOT_HTTP], ..SPARE },
    Row { name: "garbage", fault: Fault::Garbage, want: [SECOND, NOT_HTTP, NOT_HTTP], ..SPARE },

    Row { name: "closes a kept connection as the request comes", fault: Fault::CloseReused, warm: true,
          want: [SOUND, UNREAD, UNREAD], ..ALONE },
    Row { name: "closes a kept connection as the request comes", fault: Fault::CloseReused, warm: true,
          want: [OTHER, UNREAD, UNREAD], ..SPARE },
    Row { name: "reset after the request was read, on a kept connection", fault: Fault::Reset, warm: true,
          want: [SECOND, TERMINATED, TERMINATED], ..SPARE },
    Row { name: "reset after the request was read, on a kept connection", fault: Fault::Reset, warm: true,
          want: [RACED, TERMINATED, TERMINATED], ..ALONE },
    Row { name: "answers before the upload has ended", fault: Fault::AnswerEarly, want: [SOUND; 3], ..SPARE },
    Row { name: "answers before the upload has ended, and closes", fault: Fault::AnswerEarlyAndClose,
          want: [SOUND; 3], ..SPARE },
    Row { name: "100 (Continue) is sent", expects: true,
          want: [SOUND, "100 200 1+0", "100 200 1+0"], ..SPARE },
    Row { name: "100 (Continue) is not sent", fault: Fault::IgnoreExpectation, expects: true,
          want: [SOUND; 3], ..SPARE },

    Row { name: "probes pass, requests get 500", fault: Fault::Status(500), health: Some(Health::Passes),
          want: ["500 1+0"; 3], ..SPARE },
    Row { name: "probes pass, requests are reset", fault: Fault::Reset, health: Some(Health::Passes),
          want: [SECOND, TERMINATED, TERMINATED], ..SPARE },
    Row { name: "probes fail, requests are fine", health: Some(Health::Fails), want: [OTHER; 3], ..SPARE },
    Row { name: "probes fail, requests are fine", health: Some(Health::Fails), want: [DOWN; 3], ..ALONE },
    Row { name: "every other probe fails, one is enough", health: Some(Health::Flaps),
          want: ["200 1+0 or 200 0+1"; 3], ..SPARE },
    Row { name: "every other probe fails, it takes two", health: Some(Health::Flaps), threshold: 2,
          want: [SOUND; 3], ..ALONE },
];

#[tokio::test]
async fn the_matrix() {
    check(MATRIX).await;
}
