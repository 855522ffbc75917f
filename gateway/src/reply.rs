//! The only writer of responses that the gateway makes itself: what went wrong, as
//! `application/problem+json` (RFC 9457), and where to go instead; both with the id under which the request is
//! in the log. To a call of gRPC the same is told as `grpc-status`.

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use serde::Serialize;

use crate::grpc::{self, Call, Status};

/// The field in which a request's id travels.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What can be wrong, from the client's point of view. The name is the last part of the problem's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The request is not one that HTTP allows.
    BadRequest,
    /// No virtual host serves the host that was asked for.
    UnknownHost,
    /// The host is served here, but not over this connection.
    Misdirected,
    /// The client must show a certificate that is believed.
    ClientCertificate,
    /// The client's address may not come here.
    AddressDenied,
    /// Nothing says who asks.
    CredentialsMissing,
    /// What says who asks does not count.
    CredentialsInvalid,
    /// It is known who asks, and that they may not.
    NotAllowed,
    /// Who could say who asks does not answer now.
    AuthUnavailable,
    /// The client stopped sending its request.
    RequestTimeout,
    /// The client has used up its requests.
    RateLimited,
    /// No backend is usable.
    NoBackend,
    /// Each usable backend has as many requests in flight as it may.
    LimitReached,
    /// A backend could not be reached, or did not answer as HTTP asks.
    BadGateway,
    /// A backend did not answer in time.
    GatewayTimeout,
    /// A call of gRPC took longer than its client waits.
    DeadlineExceeded,
    /// What the client speaks leads nowhere here.
    UnsupportedMediaType,
    /// The gateway itself failed.
    Internal,
    /// It was told to fail, with this status.
    FaultInjected(StatusCode),
}

impl Problem {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Problem::BadRequest => (StatusCode::BAD_REQUEST, "bad_request", "The request is malformed"),
            Problem::UnknownHost => (StatusCode::NOT_FOUND, "unknown_host", "This host is not served here"),
            Problem::Misdirected => {
                (StatusCode::MISDIRECTED_REQUEST, "misdirected", "This connection is for another host")
            }
            Problem::ClientCertificate => {
                (StatusCode::FORBIDDEN, "client_certificate", "A client certificate is needed")
            }
            Problem::AddressDenied => {
                (StatusCode::FORBIDDEN, "address_denied", "This address may not come here")
            }
            Problem::CredentialsMissing => {
                (StatusCode::UNAUTHORIZED, "credentials_missing", "Credentials are needed")
            }
            Problem::CredentialsInvalid => {
                (StatusCode::UNAUTHORIZED, "credentials_invalid", "The credentials are not valid")
            }
            Problem::NotAllowed => (StatusCode::FORBIDDEN, "not_allowed", "This is not allowed"),
            Problem::AuthUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "auth_unavailable", "Credentials cannot be checked now")
            }
            Problem::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request took too long to arrive")
            }
            Problem::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Problem::NoBackend => (StatusCode::SERVICE_UNAVAILABLE, "no_backend", "No backend is available"),
            Problem::LimitReached => {
                (StatusCode::SERVICE_UNAVAILABLE, "limit_reached", "The backends are busy")
            }
            Problem::BadGateway => (StatusCode::BAD_GATEWAY, "bad_gateway", "The backend failed"),
            Problem::GatewayTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout", "The backend took too long")
            }
            Problem::DeadlineExceeded => {
                (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", "The call took too long")
            }
            Problem::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "This is not spoken here")
            }
            Problem::FaultInjected(status) => (status, "fault_injected", "A fault was injected"),
            Problem::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The gateway failed"),
        }
    }

    /// The status that says so.
    pub fn status(self) -> StatusCode {
        self.describe().0
    }

    /// Its name, as in the problem's `type`.
    pub fn name(self) -> &'static str {
        self.describe().1
    }
}

/// What becomes of a request, after somebody has looked at it.
#[derive(Debug)]
pub enum Verdict<T = ()> {
    /// It goes on, with what was found out.
    Continue(T),
    /// It is answered here.
    Reply(Reply),
}

impl<T> Verdict<T> {
    /// What was found out, where the request goes on; for `?`, where several are asked in turn.
    ///
    /// # Errors
    /// The answer, where it does not.
    pub fn passed(self) -> std::result::Result<T, Box<Reply>> {
        match self {
            Verdict::Continue(found) => Ok(found),
            Verdict::Reply(reply) => Err(Box::new(reply)),
        }
    }
}

/// A response of the gateway's own.
#[derive(Debug)]
pub struct Reply {
    /// `None`: nothing is wrong, the client is sent elsewhere, or gets what it asked for.
    problem: Option<Problem>,
    /// How it is sent elsewhere.
    redirect: StatusCode,
    /// What it asked for: its media type, and itself.
    content: Option<(&'static str, Bytes)>,
    detail: Cow<'static, str>,
    fields: HeaderMap,
    proxy_error: Option<&'static str>,
    closes: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

impl Reply {
    /// A reply about `problem`; `detail` says what happened to this request.
    pub fn new(problem: Problem, detail: impl Into<Cow<'static, str>>) -> Self {
        Reply { problem: Some(problem), detail: detail.into(), ..Reply::blank() }
    }

    /// Sends the client to `location`, with the method and the body that it has: 308 (RFC 9110 15.4.9).
    pub fn redirect(location: HeaderValue) -> Self {
        let fields = HeaderMap::from_iter([(header::LOCATION, location)]);
        Reply { fields, ..Reply::blank() }
    }

    /// Sends the client to `location` with a status of somebody else's choice.
    pub fn redirect_with(status: StatusCode, location: HeaderValue) -> Self {
        Reply { redirect: status, ..Reply::redirect(location) }
    }

    /// What the client has asked for, where it is the gateway that has it.
    pub fn content(media_type: &'static str, content: impl Into<Bytes>) -> Self {
        Reply { content: Some((media_type, content.into())), ..Reply::blank() }
    }

    fn blank() -> Self {
        Reply {
            problem: None,
            redirect: StatusCode::PERMANENT_REDIRECT,
            content: None,
            detail: Cow::default(),
            fields: HeaderMap::new(),
            proxy_error: None,
            closes: false,
        }
    }

    /// The connection ends with it: what follows this request on it cannot be told for certain.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// With one more header field.
    #[must_use]
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.insert(name, value);
        self
    }

    /// With a `Proxy-Status` that says why a backend could not answer: an error type of RFC 9209 2.3.
    #[must_use]
    pub fn proxy_error(mut self, error: &'static str) -> Self {
        self.proxy_error = Some(error);
        self
    }

    /// Its status code.
    pub fn status(&self) -> u16 {
        self.status_code().as_u16()
    }

    fn status_code(&self) -> StatusCode {
        let without_problem = if self.content.is_some() { StatusCode::OK } else { self.redirect };
        self.problem.map_or(without_problem, Problem::status)
    }

    /// The fields that it bears besides those that every reply does.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The same, for whoever adds to them.
    pub fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// One word for the log: the error of the `Proxy-Status`, or the problem's name, if there is one.
    pub fn reason(&self) -> Option<&'static str> {
        self.proxy_error.or(self.problem.map(Problem::name))
    }

    /// Writes it; as the outcome of `call`, where the request is one of gRPC. The connection stays open where the
    /// session allows it and the reply does.
    ///
    /// # Errors
    /// Where the client is gone.
    pub async fn send(self, session: &mut Session, id: &HeaderValue, call: Option<&mut Call>) -> Result<()> {
        if self.closes {
            session.set_keepalive(None);
        }
        if let Some(call) = call {
            return self.end(call, session, id).await;
        }
        let body = self.body(id.to_str().unwrap_or_default());
        let response = self.header(id, body.len())?;
        if body.is_empty() || session.req_header().method == Method::HEAD {
            return head_alone(session, response).await;
        }
        session.write_response_header(Box::new(response), false).await?;
        session.write_response_body(Some(body), true).await
    }

    /// The outcome of a call: all in one head ("Trailers-Only"), or in the trailers that its client waits for.
    async fn end(self, call: &mut Call, session: &mut Session, id: &HeaderValue) -> Result<()> {
        let status = self.grpc_status();
        call.on_reply(self.status(), status);
        let mut fields = HeaderMap::from_iter([(grpc::STATUS, status.value()), (X_REQUEST_ID, id.clone())]);
        if !self.detail.is_empty() {
            fields.insert(grpc::MESSAGE, grpc::message(&self.detail));
        }
        if call.awaits_trailers() {
            let task = match call.on_trailers(&mut fields)? {
                Some(end) => HttpTask::Body(Some(end), true),
                None => HttpTask::Trailer(Some(Box::new(fields))),
            };
            return session.write_response_tasks(vec![task, HttpTask::Done]).await.map(|_| ());
        }
        let mut response = ResponseHeader::build(StatusCode::OK, Some(6 + self.fields.len()))?;
        response.insert_header(header::DATE, httpdate::fmt_http_date(SystemTime::now()))?;
        response.insert_header(header::CONTENT_TYPE, call.content_type())?;
        if session.req_header().version != Version::HTTP_2 {
            response.insert_header(header::CONTENT_LENGTH, 0)?;
        }
        self.common_fields(&mut response)?;
        for (name, value) in &fields {
            response.insert_header(name, value)?;
        }
        head_alone(session, response).await
    }

    fn grpc_status(&self) -> Status {
        match self.problem {
            Some(Problem::DeadlineExceeded) => Status::DEADLINE_EXCEEDED,
            _ => Status::of_http(self.status_code()),
        }
    }

    fn body(&self, request_id: &str) -> Bytes {
        let Some(problem) = self.problem else {
            return self.content.as_ref().map(|(_, content)| content.clone()).unwrap_or_default();
        };
        let (status, name, title) = problem.describe();
        let body = Body {
            kind: format!("urn:problem-type:gateway:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            request_id,
        };
        // Strings and a number always make JSON.
        serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
    }

    fn header(self, id: &HeaderValue, length: usize) -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(self.status_code(), Some(8 + self.fields.len()))?;
        response.insert_header(header::DATE, httpdate::fmt_http_date(SystemTime::now()))?;
        if self.problem.is_some() {
            response.insert_header(header::CONTENT_TYPE, "application/problem+json")?;
        } else if let Some((media_type, _)) = self.content {
            response.insert_header(header::CONTENT_TYPE, media_type)?;
        }
        response.insert_header(header::CONTENT_LENGTH, length)?;
        // A redirect may be taken back like any other change: no client shall remember it for ever.
        response.insert_header(header::CACHE_CONTROL, "no-store")?;
        response.insert_header(X_REQUEST_ID, id)?;
        self.common_fields(&mut response)?;
        Ok(response)
    }

    fn common_fields(&self, response: &mut ResponseHeader) -> Result<()> {
        if let Some(error) = self.proxy_error {
            response.insert_header("Proxy-Status", format!("gateway; error={error}"))?;
        }
        let mut before = None;
        for (name, value) in &self.fields {
            // Those of one name stand together, and may be several: Set-Cookie.
            if before.replace(name) == Some(name) {
                response.append_header(name, value)?;
            } else {
                response.insert_header(name, value)?;
            }
        }
        Ok(())
    }
}

/// Sends a response that is nothing but its head. Over HTTP/2 Pingora ends the stream with it only where it is told in
/// this way, and resets the stream later where it is not and the request has failed.
async fn head_alone(session: &mut Session, response: ResponseHeader) -> Result<()> {
    let response = Box::new(response);
    if session.req_header().version == Version::HTTP_2 {
        return session.write_response_tasks(vec![HttpTask::Header(response, true)]).await.map(|_| ());
    }
    session.write_response_header(response, true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_problem_with_the_requests_id() {
        let reply = Reply::new(Problem::BadGateway, "it said \"no\"").proxy_error("connection_refused");
        let id = HeaderValue::from_static("id-1");
        let body = reply.body("id-1");
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["type"], "urn:problem-type:gateway:bad_gateway");
        assert_eq!(value["status"], 502);
        assert_eq!(value["title"], "The backend failed");
        assert_eq!(value["detail"], "it said \"no\"");
        assert_eq!(value["request_id"], "id-1");

        let header = reply.header(&id, body.len()).unwrap();
        assert_eq!(header.status, 502);
        assert_eq!(header.headers["content-type"], "application/problem+json");
        assert_eq!(header.headers["content-length"], body.len().to_string());
        assert_eq!(header.headers["proxy-status"], "gateway; error=connection_refused");
        assert_eq!(header.headers["x-request-id"], "id-1");
    }

    #[test]
    fn several_fields_of_one_name_are_several() {
        let status = StatusCode::SEE_OTHER;
        let mut reply = Reply::redirect_with(status, HeaderValue::from_static("/login"));
        for cookie in ["a=1", "b=2"] {
            reply.fields_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let header = reply.header(&HeaderValue::from_static("id-1"), 0).unwrap();
        let cookies: Vec<&[u8]> =
            header.headers.get_all(header::SET_COOKIE).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!((header.status, cookies), (status, vec![&b"a=1"[..], b"b=2"]));
    }

    #[test]
    fn a_redirect_is_no_problem() {
        let reply = Reply::redirect(HeaderValue::from_static("https://new.example.com/"));
        assert_eq!((reply.status(), reply.reason(), reply.body("id")), (308, None, Bytes::new()));
        let header = reply.header(&HeaderValue::from_static("id-1"), 0).unwrap();
        assert_eq!(header.headers["location"], "https://new.example.com/");
        assert_eq!(header.headers["content-length"], "0");
        assert!(!header.headers.contains_key("content-type"));
    }
}
