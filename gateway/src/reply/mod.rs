//! Local replies: the only place where the gateway writes responses of its own. A reply reports a problem, as
//! `application/problem+json` (RFC 9457) or as a page for a person, or redirects the client, or carries content. Each
//! reply carries the id under which the request is in the log. A gRPC call receives a reply as `grpc-status`.

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
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Header field for the policy of the gateway's own pages, which replaces the operator's policy.
const CSP: HeaderName = header::CONTENT_SECURITY_POLICY;

/// Maximum length of a detail in bytes. A detail may repeat text of the client, and the client must not determine the
/// length of the reply.
const MAX_DETAIL: usize = 400;

/// Result of a check on a request.
#[derive(Debug)]
pub enum Verdict<T = ()> {
    /// The request continues, with the value that the check has found.
    Continue(T),
    /// The gateway sends a local reply.
    Reply(Reply),
}

impl<T> Verdict<T> {
    /// Returns the value if the request continues. The operator `?` then chains several checks.
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
    /// Members that only few replies have, in a box so that the other replies stay small.
    more: Option<Box<More>>,
    closes: bool,
}

/// Content of a reply.
#[derive(Debug)]
enum About {
    /// Description of a problem.
    Problem(Problem),
    /// Content that the client asked for: its media type and its bytes. The box keeps the other replies small.
    Content(Box<(&'static str, Bytes)>),
    /// No content: the head of the reply is enough.
    Nothing,
}

/// Recipient of a reply.
pub struct Recipient<'r> {
    /// Id of the request.
    pub id: &'r HeaderValue,
    /// Address of a page that explains problems, with an anchor for each problem.
    pub help: &'r str,
    /// State of the gRPC call, if the request is one.
    pub call: Option<&'r mut Call>,
}

/// Members of a problem that only some problem types have (RFC 9457 3.2).
#[derive(Debug, Serialize)]
struct More {
    /// Names of the windows that had no room, as in draft-ietf-httpapi-ratelimit-headers-10.
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<String>,
}

impl Reply {
    /// Creates a reply about `problem`; `detail` says what happened to this request.
    pub fn new(problem: Problem, detail: impl Into<Cow<'static, str>>) -> Self {
        let about = About::Problem(problem);
        Reply { about, detail: bounded(detail.into()), ..Reply::blank(problem.status()) }
    }

    /// Creates a redirect to `location` that keeps the method and the body: 308 (RFC 9110 15.4.9).
    pub fn redirect(location: HeaderValue) -> Self {
        let fields = HeaderMap::from_iter([(header::LOCATION, location)]);
        Reply { fields, ..Reply::blank(StatusCode::PERMANENT_REDIRECT) }
    }

    /// Creates a redirect to `location` with the status that the caller chooses.
    pub fn redirect_with(status: StatusCode, location: HeaderValue) -> Self {
        Reply { status, ..Reply::redirect(location) }
    }

    /// Creates a reply with content that the client asked the gateway itself for.
    pub fn content(media_type: &'static str, content: impl Into<Bytes>) -> Self {
        let about = About::Content(Box::new((media_type, content.into())));
        Reply { about, ..Reply::blank(StatusCode::OK) }
    }

    /// Creates a successful reply without content, for which header fields are enough.
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

    /// Replaces the status of the problem by `status`.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Makes the connection end after the reply, because the gateway cannot tell where the next request begins.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Sets a header field.
    #[must_use]
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.insert(name, value);
        self
    }

    /// Adds a `Proxy-Status` that says why a backend could not answer. `error` is an error type of RFC 9209 2.3.
    #[must_use]
    pub fn proxy_error(mut self, error: &'static str) -> Self {
        self.proxy_error = Some(error);
        self
    }

    /// Adds the names of the windows that had no room for the request.
    #[must_use]
    pub fn violated_policies(mut self, names: Vec<String>) -> Self {
        self.more = Some(Box::new(More { violated_policies: names }));
        self
    }

    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Returns the header fields besides those that every reply has.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// Returns the header fields besides those that every reply has, so that the caller can add to them.
    pub fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// Returns the problem; `None` if the reply is about no problem.
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

    /// Returns one word for the log: the error of the `Proxy-Status`, or the problem's name, if there is one.
    pub fn reason(&self) -> Option<&'static str> {
        self.proxy_error.or(self.problem().map(Problem::name))
    }
}

/// Returns `detail`, or its beginning if `detail` is too long.
fn bounded(detail: Cow<'static, str>) -> Cow<'static, str> {
    if detail.len() <= MAX_DETAIL {
        return detail;
    }
    let end = (0..=MAX_DETAIL).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or_default();
    Cow::from(format!("{}…", &detail[..end]))
}
