//! Calls of gRPC, and their differences from other requests. A call is a POST over HTTP/2. Its HTTP status is 200, and
//! its outcome is the field `grpc-status` in its trailers. A call may be a stream in one direction or in both, and
//! last for hours. The client states the timeout of the call in a field. See "gRPC over HTTP2" (PROTOCOL-HTTP2) and
//! "gRPC Web" (PROTOCOL-WEB) in the documentation of gRPC.

mod status;
mod timeout;
mod web;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
pub use status::{MESSAGE, STATUS, Status, message};
use web::Bridge;

/// Field in which a client states the timeout of its call.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Timeout of a call whose client states none. In practice the idle timeout of the stream limits such a call.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Time between the deadline of a call and the moment when the gateway ends the call. Client or backend should end the
/// call before, because Pingora does not reuse a connection on which a read has timed out.
const GRACE: Duration = Duration::from_millis(50);

/// Variant of gRPC that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// gRPC over HTTP/2, from the client to the backend.
    Native,
    /// gRPC-Web, from a browser: the trailers are at the end of the body.
    Web,
    /// gRPC-Web with a body in base64.
    WebText,
}

/// Call of gRPC that is in flight.
#[derive(Debug)]
pub struct Call {
    flavour: Flavour,
    /// Timeout that the client stated; `None` if it stated none.
    timeout: Option<Duration>,
    /// Translator of gRPC-Web; `None` if the call is not translated.
    bridge: Option<Bridge>,
    /// True if the client has been sent the head of a gRPC response, so that only trailers can follow.
    is_answered: bool,
    status: Option<Status>,
    /// HTTP status that the local reply would have had without gRPC; `None` if there was no local reply.
    replied: Option<u16>,
}

impl Call {
    /// Returns the call that a request with these headers makes; `None` if the request is not a gRPC call.
    pub fn of(headers: &HeaderMap) -> Option<Box<Self>> {
        let flavour = Flavour::of(headers.get(header::CONTENT_TYPE)?)?;
        let timeout = headers.get(TIMEOUT).and_then(timeout::parse).filter(|timeout| *timeout < FOREVER);
        Some(Box::new(Call {
            flavour,
            timeout,
            bridge: None,
            is_answered: false,
            status: None,
            replied: None,
        }))
    }

    /// Returns true if the client uses native gRPC, which is impossible over HTTP/1.
    pub fn needs_http2(&self) -> bool {
        self.flavour == Flavour::Native
    }

    /// Returns the time until the gateway must end the call, if the call began `elapsed` ago.
    pub fn time_left(&self, elapsed: Duration) -> Duration {
        self.timeout.map_or(FOREVER, |timeout| (timeout + GRACE).saturating_sub(elapsed))
    }

    /// Returns true if the timeout that the client stated is over; false if the client stated none.
    pub fn is_overdue(&self, elapsed: Duration) -> bool {
        self.timeout.is_some_and(|timeout| elapsed >= timeout)
    }

    /// Returns the content type that the client expects in the response.
    pub fn content_type(&self) -> &'static str {
        match self.flavour {
            Flavour::Native => "application/grpc",
            Flavour::Web => "application/grpc-web+proto",
            Flavour::WebText => "application/grpc-web-text+proto",
        }
    }

    /// Prepares the request of a new attempt: sets the time left, and translates gRPC-Web for a backend over HTTP/2.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which does not happen for these fields.
    pub fn on_request(&mut self, elapsed: Duration, request: &mut RequestHeader) -> Result<()> {
        self.bridge = None;
        if let Some(timeout) = self.timeout {
            // A part of the timeout has been spent in the gateway, and on earlier attempts.
            request.insert_header(TIMEOUT, timeout::format(timeout.saturating_sub(elapsed)))?;
        }
        if request.version != Version::HTTP_2 {
            // Over HTTP/1 nothing is translated, because the backend may speak gRPC-Web itself.
            return Ok(());
        }
        if self.flavour != Flavour::Native {
            self.bridge = Some(Bridge::new(self.flavour == Flavour::WebText, request)?);
        }
        // This field tells a backend that no proxy in between drops trailers.
        request.insert_header(header::TE, "trailers")
    }

    /// Translates a chunk of the request's body, if the call is translated.
    ///
    /// # Errors
    /// Returns an error if the chunk should be base64 and is not.
    pub fn on_request_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        self.bridge.as_mut().map_or(Ok(()), |bridge| bridge.on_request_body(body, end))
    }

    /// Records the status in the head of the response, and translates the head if the call is translated.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which does not happen for these fields.
    pub fn on_response(&mut self, response: &mut ResponseHeader) -> Result<()> {
        let content_type = response.headers.get(header::CONTENT_TYPE);
        self.is_answered = content_type.and_then(Flavour::of).is_some();
        // A call that fails at once has its status in the head ("Trailers-Only").
        self.status = Status::of(&response.headers);
        self.bridge.as_mut().map_or(Ok(()), |bridge| bridge.on_response(response))
    }

    /// Translates a chunk of the response's body, if the call is translated.
    pub fn on_response_body(&mut self, body: &mut Option<Bytes>) {
        if let Some(bridge) = &mut self.bridge {
            bridge.on_response_body(body);
        }
    }

    /// Records the status in the trailers. Returns the bytes to send at the end of the body in place of the trailers;
    /// `None` if the call is not translated.
    ///
    /// # Errors
    /// Returns an error if the trailers are too long for the length field of gRPC-Web.
    pub fn on_trailers(&mut self, trailers: &mut HeaderMap) -> Result<Option<Bytes>> {
        self.status = Status::of(trailers).or(self.status);
        self.bridge.as_mut().map_or(Ok(None), |bridge| bridge.on_trailers(trailers))
    }

    /// Records a local reply: its gRPC status, and the HTTP status that the reply would have had without gRPC.
    pub fn on_reply(&mut self, http_status: u16, status: Status) {
        self.replied = Some(http_status);
        self.status = Some(status);
    }

    /// Records that the client has cancelled the call, or closed its connection.
    pub fn on_cancel(&mut self) {
        self.status = Some(Status::CANCELLED);
    }

    /// Returns true if the client has been sent the head of a gRPC response, and therefore waits for its trailers.
    pub fn awaits_trailers(&self) -> bool {
        self.is_answered
    }

    /// Returns the status with which the call has ended; `None` if it is not known.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Returns the HTTP status with the same meaning as the outcome of the call. `sent` is the HTTP status that the
    /// client has been sent.
    pub fn http_status(&self, sent: u16) -> u16 {
        let said = self.status.filter(|_| sent == 200).map(Status::http);
        self.replied.or(said).unwrap_or(sent)
    }
}

impl Flavour {
    fn of(content_type: &HeaderValue) -> Option<Self> {
        const NATIVE: &[u8] = b"application/grpc";
        let (kind, rest) = content_type.as_bytes().split_at_checked(NATIVE.len())?;
        if !kind.eq_ignore_ascii_case(NATIVE) {
            return None;
        }
        let begins =
            |with: &[u8]| rest.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        let is_whole = |rest: &[u8]| rest.first().is_none_or(|next| b"+; ".contains(next));
        match rest {
            _ if is_whole(rest) => Some(Flavour::Native),
            _ if begins(b"-web-text") && is_whole(&rest[9..]) => Some(Flavour::WebText),
            _ if begins(b"-web") && is_whole(&rest[4..]) => Some(Flavour::Web),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(fields: &[(HeaderName, &'static str)]) -> Option<Box<Call>> {
        let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Call::of(&fields.collect())
    }

    #[test]
    fn content_type_decides_the_flavour_of_a_call() {
        use Flavour::{Native, Web, WebText};
        for (content_type, flavour) in [
            ("application/grpc", Some(Native)),
            ("application/grpc+proto", Some(Native)),
            ("application/gRPC;charset=x", Some(Native)),
            ("application/grpc-web", Some(Web)),
            ("application/grpc-web+json", Some(Web)),
            ("application/grpc-web-text", Some(WebText)),
            ("application/grpc-web-text+proto", Some(WebText)),
            ("application/grpcs", None),
            ("application/grpc-webs", None),
            ("application/grp", None),
            ("application/json", None),
            ("", None),
        ] {
            let found = call(&[(header::CONTENT_TYPE, content_type)]).map(|call| call.flavour);
            assert_eq!(found, flavour, "{content_type}");
        }
        assert!(call(&[]).is_none());
    }

    #[test]
    fn grpc_timeout_field_limits_a_call() {
        let grpc = (header::CONTENT_TYPE, "application/grpc");
        let secs = Duration::from_secs;
        let with = call(&[grpc.clone(), (TIMEOUT, "5S")]).unwrap();
        assert!(!with.is_overdue(secs(4)) && with.is_overdue(secs(5)));
        assert_eq!(with.time_left(secs(3)), secs(2) + GRACE);
        assert_eq!(with.time_left(secs(10)), Duration::ZERO);
        for without in
            [&[grpc.clone()][..], &[grpc.clone(), (TIMEOUT, "soon")], &[grpc, (TIMEOUT, "99999999H")]]
        {
            let call = call(without).unwrap();
            assert!(!call.is_overdue(FOREVER) && call.time_left(secs(9)) == FOREVER, "{without:?}");
        }
    }

    #[test]
    fn backend_gets_the_remaining_timeout() {
        let mut call = call(&[(header::CONTENT_TYPE, "application/grpc"), (TIMEOUT, "5S")]).unwrap();
        let mut request = RequestHeader::build("POST", b"/a.B/C", None).unwrap();
        request.set_version(Version::HTTP_2);
        call.on_request(Duration::from_millis(1500), &mut request).unwrap();
        assert_eq!(request.headers[TIMEOUT], "3500000u");
        assert_eq!(request.headers["te"], "trailers");
    }
}
