//! Request validation: tables of raw requests, each with the RFC section that it is about. All go through one
//! gateway to one origin that records every byte.
//!
//! For every case, the origin must see only the requests that the client sent as requests, each with
//! unambiguous framing. The next client must get its own response.

mod chunks;
mod fields;
mod framing;
mod http2;
mod limits;
mod origin;
mod request_line;
mod responses;

use std::net::SocketAddr;

use futures::{StreamExt, stream};
use origin::{Recorder, Seen};
use testkit::exchange;

use crate::support::{Gateway, Setup};

/// Number of cases that run at the same time.
const AT_ONCE: usize = 8;

/// A case. In the bytes to send, `{}` stands for a path that is unique to the case.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// RFC number and section.
    rfc: &'static str,
    send: &'static [u8],
    expect: Expect,
}

/// Expected result of a case.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The gateway refuses the request with this status and a problem document, and closes the connection. The
    /// origin sees nothing.
    Refused(u16),
    /// The gateway answers with this status, and the connection may stay open. The origin sees nothing.
    Answered(u16),
    /// The origin sees exactly these requests (method and body). The last request sent must close the connection.
    Passes(&'static [(&'static str, &'static str)]),
    /// The first request passes. The gateway refuses the bytes that follow with this status.
    ThenRefused(u16),
}

use Expect::{Answered, Passes, Refused, ThenRefused};

const fn case(name: &'static str, rfc: &'static str, send: &'static [u8], expect: Expect) -> Case {
    Case { name, rfc, send, expect }
}

/// Result of a case.
struct Outcome {
    answer: String,
    seen: Vec<Seen>,
}

impl Outcome {
    /// Returns the statuses of all final responses.
    fn statuses(&self) -> Vec<u16> {
        let heads = self.answer.split("HTTP/1.1 ").skip(1);
        let statuses = heads.filter_map(|head| head.get(..3)?.parse().ok());
        statuses.filter(|status| *status >= 200).collect()
    }

    fn is_problem(&self, status: u16) -> bool {
        let status = format!("\"status\":{status}");
        let says = self.answer.contains("urn:problem-type:gateway:") && self.answer.contains(&status);
        // A response to HEAD has no body.
        self.answer.contains("application/problem+json")
            && self.answer.contains("x-request-id")
            && (says || self.answer.ends_with("\r\n\r\n"))
    }

    /// Returns a description of the fault, if the result is wrong.
    fn fault(&self, expect: Expect) -> Option<String> {
        let statuses = self.statuses();
        let closes = self.answer.to_ascii_lowercase().contains("connection: close");
        let refused = |status: u16, answers: &[u16]| {
            statuses == answers && (status < 300 || self.is_problem(status)) && closes
        };
        let is_right = match expect {
            Refused(status) => refused(status, &[status]) && self.seen.is_empty(),
            Answered(status) => statuses.first() == Some(&status) && self.seen.is_empty(),
            ThenRefused(status) => refused(status, &[200, status]) && self.seen.len() == 1,
            Passes(requests) => {
                let seen =
                    self.seen.iter().map(|seen| (seen.method.as_str(), seen.body.as_str(), seen.is_whole));
                seen.eq(requests.iter().map(|(method, body)| (*method, *body, true)))
                    && statuses == vec![200; requests.len()]
            }
        };
        let ambiguous = self.seen.iter().find_map(Seen::ambiguity);
        if is_right && ambiguous.is_none() {
            return None;
        }
        Some(format!(
            "expected {expect:?}, got {ambiguous:?} {:?}\nthe origin saw {:?}",
            self.answer, self.seen
        ))
    }
}

/// Sends all `cases` and reports all faults at once.
async fn run(cases: &[Case]) {
    let recorder = Recorder::start().await;
    let setup = Setup { tables: "[health_check]\nenabled = false\n", ..Setup::default() };
    let gateway = Gateway::start_over(&[recorder.address], setup).await;
    let outcomes = stream::iter(cases.iter().enumerate())
        .map(|(i, case)| run_one(i, case, gateway.address, &recorder))
        .buffered(AT_ONCE);
    let faults: Vec<String> = outcomes.filter_map(|fault| async { fault }).collect().await;
    assert!(faults.is_empty(), "{} of {}:\n\n{}", faults.len(), cases.len(), faults.join("\n\n"));
    let strangers = recorder.outside("/case/");
    assert!(strangers.is_empty(), "the origin saw what nobody sent: {strangers:?}");
    assert_eq!(complaints(&gateway), Vec::<String>::new());
}

/// Returns the log lines that report an error. Nothing that a client does may cause one.
fn complaints(gateway: &Gateway) -> Vec<String> {
    let log = gateway.process.output();
    // Pingora logs this line if another request has taken the idle connection. It then uses another connection.
    let is_ours = |line: &&str| !line.contains("failed to acquire reusable stream");
    let is_loud = |line: &&str| line.contains("ERROR") || line.contains("panicked");
    log.lines().filter(is_loud).filter(is_ours).map(str::to_owned).collect()
}

async fn run_one(i: usize, case: &Case, gateway: SocketAddr, recorder: &Recorder) -> Option<String> {
    let target = format!("/case/{i}");
    let answer = exchange(gateway, &with_target(case.send, &target)).await;
    let outcome = Outcome { answer, seen: recorder.seen(&target) };
    let canary = format!("GET /case/canary-{i} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let canary_answer = exchange(gateway, canary.as_bytes()).await;
    let canary_fault = (!canary_answer.ends_with(&format!("saw /case/canary-{i}\n")))
        .then(|| format!("the next client got {canary_answer:?}"));
    let fault = outcome.fault(case.expect).or(canary_fault)?;
    Some(format!("{} (RFC {}): {fault}", case.name, case.rfc))
}

fn with_target(send: &[u8], target: &str) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut rest = send;
    while let Some(at) = rest.windows(2).position(|two| two == b"{}") {
        sent.extend_from_slice(&rest[..at]);
        sent.extend_from_slice(target.as_bytes());
        rest = &rest[at + 2..];
    }
    sent.extend_from_slice(rest);
    sent
}
