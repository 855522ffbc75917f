//! What is particular about a call of gRPC. It is a POST over HTTP/2 whose outcome is not its HTTP status, which
//! is 200, but the field `grpc-status` in its trailers; which may be a stream in either direction or in both, and
//! last for hours; and which says itself how long it may take. See "gRPC over HTTP2" (PROTOCOL-HTTP2) and
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

/// The field in which a client says how long its call may take.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long a call may take that does not say. What really bounds it is how long it may be silent.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long after its deadline a call is given up here. By then client and backend should both have done so
/// themselves, which costs less: Pingora takes a connection out of use on which a read has timed out.
const GRACE: Duration = Duration::from_millis(50);

/// As what a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// gRPC, over HTTP/2 all the way.
    Native,
    /// gRPC-Web, from a browser: trailers stand at the end of the body.
    Web,
    /// The same, and the body is base64.
    WebText,
}

/// A call of gRPC that is under way.
#[derive(Debug)]
pub struct Call {
    flavour: Flavour,
    timeout: Option<Duration>,
    bridge: Option<Bridge>,
    /// Whether the client has been sent the head of a response of gRPC, so that only trailers can follow.
    is_answered: bool,
    status: Option<Status>,
    /// The HTTP status that a reply of the gateway's own would have had.
    replied: Option<u16>,
}

impl Call {
    /// The call that a request makes, if it makes one.
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

    /// Whether its client speaks gRPC itself, which nobody can over HTTP/1.
    pub fn needs_http2(&self) -> bool {
        self.flavour == Flavour::Native
    }

    /// How long it may still take, `elapsed` after it began.
    pub fn time_left(&self, elapsed: Duration) -> Duration {
        self.timeout.map_or(FOREVER, |timeout| (timeout + GRACE).saturating_sub(elapsed))
    }

    /// Whether it has been under way for longer than its client wants to wait.
    pub fn is_overdue(&self, elapsed: Duration) -> bool {
        self.timeout.is_some_and(|timeout| elapsed >= timeout)
    }

    /// The type of the body that its client expects.
    pub fn content_type(&self) -> &'static str {
        match self.flavour {
            Flavour::Native => "application/grpc",
            Flavour::Web => "application/grpc-web+proto",
            Flavour::WebText => "application/grpc-web-text+proto",
        }
    }

    /// An attempt on a backend begins: makes the request what a backend of HTTP/2 expects.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for these.
    pub fn on_request(&mut self, elapsed: Duration, request: &mut RequestHeader) -> Result<()> {
        self.bridge = None;
        if let Some(timeout) = self.timeout {
            // Some of it has been spent here, and with backends that were tried before.
            request.insert_header(TIMEOUT, timeout::format(timeout.saturating_sub(elapsed)))?;
        }
        if request.version != Version::HTTP_2 {
            // The backend may speak gRPC-Web itself, over HTTP/1 too.
            return Ok(());
        }
        if self.flavour != Flavour::Native {
            self.bridge = Some(Bridge::new(self.flavour == Flavour::WebText, request)?);
        }
        // By this field a backend knows that nobody in between swallows trailers.
        request.insert_header(header::TE, "trailers")
    }

    /// A part of the request's body passes by.
    ///
    /// # Errors
    /// Where it should be base64 and is not.
    pub fn on_request_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        self.bridge.as_mut().map_or(Ok(()), |bridge| bridge.on_request_body(body, end))
    }

    /// The head of the response is there.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for these.
    pub fn on_response(&mut self, response: &mut ResponseHeader) -> Result<()> {
        let content_type = response.headers.get(header::CONTENT_TYPE);
        self.is_answered = content_type.and_then(Flavour::of).is_some();
        // What fails at once is all in the head ("Trailers-Only").
        self.status = Status::of(&response.headers);
        self.bridge.as_mut().map_or(Ok(()), |bridge| bridge.on_response(response))
    }

    /// A part of the response's body passes by.
    pub fn on_response_body(&mut self, body: &mut Option<Bytes>) {
        if let Some(bridge) = &mut self.bridge {
            bridge.on_response_body(body);
        }
    }

    /// The trailers are there. What is returned goes to the end of the body, in their place.
    ///
    /// # Errors
    /// Where they are longer than a body can say.
    pub fn on_trailers(&mut self, trailers: &mut HeaderMap) -> Result<Option<Bytes>> {
        self.status = Status::of(trailers).or(self.status);
        self.bridge.as_mut().map_or(Ok(None), |bridge| bridge.on_trailers(trailers))
    }

    /// The gateway answers in place of a backend: as what, where otherwise it would be with this HTTP status.
    pub fn on_reply(&mut self, http_status: u16, status: Status) {
        self.replied = Some(http_status);
        self.status = Some(status);
    }

    /// The client has left.
    pub fn on_cancel(&mut self) {
        self.status = Some(Status::CANCELLED);
    }

    /// Whether the client has the head of a response and waits for its trailers.
    pub fn awaits_trailers(&self) -> bool {
        self.is_answered
    }

    /// How it has ended, as far as that was seen.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The HTTP status that says what its outcome is, where the client has been `sent` this one.
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
    fn a_call_is_known_by_its_content_type() {
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
    fn a_call_may_take_as_long_as_its_client_says() {
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
    fn a_backend_is_told_what_is_left_of_the_time() {
        let mut call = call(&[(header::CONTENT_TYPE, "application/grpc"), (TIMEOUT, "5S")]).unwrap();
        let mut request = RequestHeader::build("POST", b"/a.B/C", None).unwrap();
        request.set_version(Version::HTTP_2);
        call.on_request(Duration::from_millis(1500), &mut request).unwrap();
        assert_eq!(request.headers[TIMEOUT], "3500000u");
        assert_eq!(request.headers["te"], "trailers");
    }
}
