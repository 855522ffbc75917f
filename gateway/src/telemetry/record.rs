//! Record of a finished request: what the access log and the timelines can show of it.

use std::net::IpAddr;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::protocols::tls::SslDigest;
use schemars::JsonSchema;
use serde::Serialize;

/// Maximum length of a user's name in the log, in bytes. The gateway has no control over the names.
pub(super) const MAX_USER: usize = 128;

/// Fields of the log line of one request. None of them is secret: no query, no credentials, no body.
pub struct Record<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// Host of the request, as the client wrote it.
    pub host: &'a str,
    /// Path of the request's target, without the query.
    pub path: &'a str,
    /// Status code that the client got; 499 if the client closed the connection before the response. A gRPC call
    /// usually gets 200; for such a call, this is the HTTP status that corresponds to the call's result.
    pub status: u16,
    /// `grpc-status` of a gRPC call; `None` if there is none.
    pub grpc_status: Option<u8>,
    /// Time from the request's head to the last byte of the response.
    pub duration: Duration,
    /// Id of the request, which is also sent to the backend and to the client.
    pub request_id: &'a str,
    /// Address of the client; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// Name of the authenticated user; `None` if there is none.
    pub user: Option<&'a str>,
    /// Backend that answered, or that got the last attempt; `None` if there was no attempt.
    pub backend: Option<&'a str>,
    /// Number of sent bytes of the response's body; for a WebSocket, number of all bytes that were sent to the
    /// client.
    pub bytes: u64,
    /// Number of received bytes of the request's body; for a WebSocket, number of all bytes that the client sent.
    pub bytes_received: u64,
    /// Number of attempts to have a backend answer the request.
    pub attempts: u32,
    /// Description of the error; `None` if there was none.
    pub error: Option<&'a str>,
    /// Virtual host, route and tag of the request.
    pub way: Way<'a>,
    /// Head of the request.
    pub request: &'a RequestHeader,
    /// Facts about the client's TLS handshake; `None` without TLS.
    pub tls: Option<&'a SslDigest>,
    /// Host that the client named in the TLS handshake; `None` if it named none.
    pub server_name: Option<&'a str>,
    /// Phases that the request has reached; `None` if they were not recorded.
    pub timeline: Option<&'a Timeline>,
}

/// Maximum number of phases of one request. If a request is retried more often, its later phases are not recorded.
const PHASES: usize = 16;

/// Phase of a request. Its name is the name in Pingora.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The request has been routed, and the policies have admitted it.
    RequestFilter,
    /// A backend has been chosen.
    UpstreamPeer,
    /// A connection to the backend has been opened or reused.
    ConnectedToUpstream,
    /// The backend could not be reached.
    FailToConnect,
    /// The connection to the backend broke after it was opened.
    ErrorWhileProxy,
    /// The last byte of the request has been forwarded.
    RequestBodyFilter,
    /// The head of the response has arrived.
    ResponseFilter,
    /// The last byte of the response has been sent.
    Logging,
}

/// Phases that one request has reached, each with its time in microseconds. A number of 32 bits lasts for an hour, and
/// keeps the state of a request small.
#[derive(Clone, Copy, Default)]
pub struct Timeline {
    marks: [Option<(Phase, u32)>; PHASES],
}

impl Timeline {
    /// Records that a phase was reached. `after` is the time since the request's head.
    pub fn mark(&mut self, phase: Phase, after: Duration) {
        if let Some(free) = self.marks.iter_mut().find(|mark| mark.is_none()) {
            *free = Some((phase, u32::try_from(after.as_micros()).unwrap_or(u32::MAX)));
        }
    }

    /// Returns the phases in the order in which they were reached, each with its time.
    pub fn marks(&self) -> impl DoubleEndedIterator<Item = (Phase, Duration)> {
        let time = |after| Duration::from_micros(u64::from(after));
        self.marks.iter().flatten().map(move |(phase, after)| (*phase, time(*after)))
    }

    /// Returns the time at which a phase was last reached; `None` if it was not recorded.
    pub fn last(&self, phase: Phase) -> Option<Duration> {
        self.marks().rev().find_map(|(reached, after)| (reached == phase).then_some(after))
    }
}

/// Virtual host, route and tag of a request. Each is empty if the request was not routed.
#[derive(Clone, Copy, Default)]
pub struct Way<'a> {
    /// Domain of the virtual host.
    pub virtual_host: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Tag of the backends.
    pub tag: &'a str,
}

/// Returns at most the first `most` bytes of `text`, without splitting a character.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_many_attempts_keeps_the_first_phases() {
        let mut timeline = Timeline::default();
        for n in 0..100 {
            timeline.mark(Phase::UpstreamPeer, Duration::from_millis(n));
        }
        assert_eq!(timeline.marks().count(), PHASES);
    }
}
