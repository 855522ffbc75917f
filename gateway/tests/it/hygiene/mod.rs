//! What is let through, and what is not: tables of requests as they come over the wire, each with the section of the
//! RFC that it is about, all sent through one gateway to one origin that writes down every byte. Whatever a case
//! does, the origin must see the requests that the client sent as such and no others, each framed in one way; and
//! the next client must get its own answer.

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
use testkit::exchange;

use crate::support::{Gateway, Setup};
use origin::{Recorder, Seen};

/// How many cases are under way together.
const AT_ONCE: usize = 8;

/// One case. In what is sent, `{}` stands for a path of its own.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// The RFC and its section.
    rfc: &'static str,
    send: &'static [u8],
    expect: Expect,
}

/// What must become of it.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// It is answered here with this status, as a problem, and the connection ends; the origin sees nothing of it.
    Refused(u16),
    /// It is answered here with this status, and the connection may go on.
    Answered(u16),
    /// The origin sees just these requests: method and body. What is sent must end with a close.
    Passes(&'static [(&'static str, &'static str)]),
    /// The first request passes; what follows it is refused with this status.
    ThenRefused(u16),
}

use Expect::{Answered, Passes, Refused, ThenRefused};

const fn case(name: &'static str, rfc: &'static str, send: &'static [u8], expect: Expect) -> Case {
    Case { name, rfc, send, expect }
}

/// What became of a case.
struct Outcome {
    answer: String,
    seen: Vec<Seen>,
}

impl Outcome {
    /// The statuses of all final answers.
    fn statuses(&self) -> Vec<u16> {
        let heads = self.answer.split("HTTP/1.1 ").skip(1);
        let statuses = heads.filter_map(|head| head.get(..3)?.parse().ok());
        statuses.filter(|status| *status >= 200).collect()
    }

    fn is_problem(&self, status: u16) -> bool {
        let status = format!("\"status\":{status}");
        let says = self.answer.contains("urn:problem-type:gateway:") && self.answer.contains(&status);
        // The answer to a HEAD says nothing.
        self.answer.contains("application/problem+json")
            && self.answer.contains("x-request-id")
            && (says || self.answer.ends_with("\r\n\r\n"))
    }

    /// What is wrong, if anything is.
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

/// Sends all of `cases` and fails with everything that went wrong.
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

/// What the log says in earnest: nothing that a client does is worth it.
fn complaints(gateway: &Gateway) -> Vec<String> {
    let log = gateway.process.output();
    // Pingora finds a connection of its pool taken by another request, and takes another one.
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
