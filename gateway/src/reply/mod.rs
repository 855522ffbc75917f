//! Local replies: responses that the gateway itself makes. This module is the only place that writes them. A reply
//! reports a problem, redirects the client, or has content. A problem is reported as `application/problem+json` (RFC
//! 9457), or as a page for a person. Each reply has the request id that is in the log. A gRPC call receives the reply
//! as `grpc-status`.

mod page;
mod problem;
mod written;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
pub use page::{PROBLEMS, problems};
pub use problem::Problem;
use serde::Serialize;

use crate::grpc::Call;

/// Header field that carries the request id.
pub const X_REQUEST_ID: &str = "x-request-id";

/// Header field for the content security policy. In the gateway's own pages, its value replaces the operator's.
const CSP: HeaderName = header::CONTENT_SECURITY_POLICY;

/// Maximum length of a detail in bytes. A detail may contain text of the client, and the client must not determine the
/// length of the reply.
const MAX_DETAIL: usize = 400;

/// Result of a check on a request.
#[derive(Debug)]
pub enum Verdict<T = ()> {
    /// The request continues, with the value that the check has found.
    Continue(T),
    /// The gateway must send this local reply.
    Reply(Reply),
}

impl<T> Verdict<T> {
    /// Returns the value if the request continues. So the operator `?` can chain several checks.
    ///
    /// # Errors
    /// Returns the reply if the request does not continue.
    pub fn passed(self) -> std::result::Result<T, Box<Reply>> {
        match self {
            Verdict::Continue(found) => Ok(found),
            Verdict::Reply(reply) => Err(Box::new(reply)),
        }
    }
}

/// Local reply: a response that the gateway makes itself.
#[derive(Debug)]
pub struct Reply {
    about: About,
    status: StatusCode,
    detail: Cow<'static, str>,
    fields: HeaderMap,
    proxy_error: Option<&'static str>,
    /// Members that only a few replies have. The box keeps the other replies small.
    more: Option<Box<More>>,
    closes: bool,
}

/// Content of a reply.
#[derive(Debug)]
enum About {
    /// Description of a problem.
    Problem(Problem),
    /// Content that the client asked for, with its media type. The box keeps the other replies small.
    Content(Box<(&'static str, Bytes)>),
    /// No content: the reply has only a head.
    Nothing,
}

/// Facts about the request that a reply answers.
pub struct Recipient<'r> {
    /// Id of the request.
    pub id: &'r HeaderValue,
    /// Address of a page that explains problems. It has an anchor for each problem.
    pub help: &'r str,
    /// State of the gRPC call; `None` for any other request.
    pub call: Option<&'r mut Call>,
}

/// Members of a problem report that only some problem types have (RFC 9457 3.2).
#[derive(Debug, Serialize)]
struct More {
    /// Names of the rate-limit windows that were full, as in draft-ietf-httpapi-ratelimit-headers-10.
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<String>,
}

impl Reply {
    /// Creates a reply about `problem`; `detail` says what happened to this request.
    pub fn new(problem: Problem, detail: impl Into<Cow<'static, str>>) -> Self {
        let about = About::Problem(problem);
        Reply { about, detail: bounded(detail.into()), ..Reply::blank(problem.status()) }
    }

    /// Creates a redirect to `location` with status 308, which keeps the method and the body (RFC 9110 15.4.9).
    pub fn redirect(location: HeaderValue) -> Self {
        let fields = HeaderMap::from_iter([(header::LOCATION, location)]);
        Reply { fields, ..Reply::blank(StatusCode::PERMANENT_REDIRECT) }
    }

    /// Creates a redirect to `location` with the given status.
    pub fn redirect_with(status: StatusCode, location: HeaderValue) -> Self {
        Reply { status, ..Reply::redirect(location) }
    }

    /// Creates a reply with content that the gateway itself serves.
    pub fn content(media_type: &'static str, content: impl Into<Bytes>) -> Self {
        let about = About::Content(Box::new((media_type, content.into())));
        Reply { about, ..Reply::blank(StatusCode::OK) }
    }

    /// Creates a reply with status 204, for which header fields are enough.
    pub fn no_content() -> Self {
        Reply::blank(StatusCode::NO_CONTENT)
    }

    fn blank(status: StatusCode) -> Self {
        Reply {
            about: About::Nothing,
            status,
            detail: Cow::default(),
            fields: HeaderMap::new(),
            proxy_error: None,
            more: None,
            closes: false,
        }
    }

    /// Replaces the status of the reply, which is the status of its problem by default.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Makes the connection close after the reply, because the gateway cannot tell where the next request begins.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Sets a header field, and replaces its previous value.
    #[must_use]
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.insert(name, value);
        self
    }

    /// Adds a `Proxy-Status` that says why no backend answered. `error` is an error type of RFC 9209 2.3.
    #[must_use]
    pub fn proxy_error(mut self, error: &'static str) -> Self {
        self.proxy_error = Some(error);
        self
    }

    /// Adds the names of the rate-limit windows that were full.
    #[must_use]
    pub fn violated_policies(mut self, names: Vec<String>) -> Self {
        self.more = Some(Box::new(More { violated_policies: names }));
        self
    }

    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Returns the additional header fields, without those that every reply has.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// Returns the additional header fields, so that the caller can change them.
    pub fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// Returns the problem; `None` if the reply reports no problem.
    pub fn problem(&self) -> Option<Problem> {
        match self.about {
            About::Problem(problem) => Some(problem),
            About::Content(..) | About::Nothing => None,
        }
    }

    /// Returns the description of what happened to this request.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns one word for the log: the error type of the `Proxy-Status`, or else the problem's name, if there is one.
    pub fn reason(&self) -> Option<&'static str> {
        self.proxy_error.or(self.problem().map(Problem::name))
    }
}

/// Returns `detail`; if it is too long, returns its beginning.
fn bounded(detail: Cow<'static, str>) -> Cow<'static, str> {
    if detail.len() <= MAX_DETAIL {
        return detail;
    }
    let end = (0..=MAX_DETAIL).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or_default();
    Cow::from(format!("{}…", &detail[..end]))
}
