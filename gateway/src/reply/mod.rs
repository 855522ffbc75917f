//! The only writer of responses that the gateway makes itself: what went wrong, as
//! `application/problem+json` (RFC 9457) or as a page for a person, and where to go instead; all with the id under
//! which the request is in the log. To a call of gRPC the same is told as `grpc-status`.

mod page;
mod problem;
mod written;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::grpc::Call;

pub use page::{PROBLEMS, problems};
pub use problem::Problem;

/// The field in which a request's id travels.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The policy that a page of the gateway's own brings, in place of the operator's.
const CSP: HeaderName = header::CONTENT_SECURITY_POLICY;

/// The most bytes of a detail: where it repeats what the client has sent, it is not for the client to say how long the
/// answer is.
const MAX_DETAIL: usize = 400;

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
    about: About,
    status: StatusCode,
    detail: Cow<'static, str>,
    fields: HeaderMap,
    proxy_error: Option<&'static str>,
    /// What only few say besides: apart, so that the others stay small.
    more: Option<Box<More>>,
    closes: bool,
}

/// What it says.
#[derive(Debug)]
enum About {
    /// This is wrong.
    Problem(Problem),
    /// Here is what was asked for: its media type, and itself. Apart, so that the others stay small.
    Content(Box<(&'static str, Bytes)>),
    /// All is in the head.
    Nothing,
}

/// To whom a reply goes.
pub struct Recipient<'r> {
    /// The request's id.
    pub id: &'r HeaderValue,
    /// Where problems are explained: the address of a page with an anchor for each.
    pub help: &'r str,
    /// The call that the request is, where it is one of gRPC.
    pub call: Option<&'r mut Call>,
}

/// Members of a problem that only some kinds have (RFC 9457 3.2).
#[derive(Debug, Serialize)]
struct More {
    /// The windows that had no room, as draft-ietf-httpapi-ratelimit-headers-10 names them.
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<String>,
}

impl Reply {
    /// A reply about `problem`; `detail` says what happened to this request.
    pub fn new(problem: Problem, detail: impl Into<Cow<'static, str>>) -> Self {
        let about = About::Problem(problem);
        Reply { about, detail: bounded(detail.into()), ..Reply::blank(problem.status()) }
    }

    /// Sends the client to `location`, with the method and the body that it has: 308 (RFC 9110 15.4.9).
    pub fn redirect(location: HeaderValue) -> Self {
        let fields = HeaderMap::from_iter([(header::LOCATION, location)]);
        Reply { fields, ..Reply::blank(StatusCode::PERMANENT_REDIRECT) }
    }

    /// Sends the client to `location` with a status of somebody else's choice.
    pub fn redirect_with(status: StatusCode, location: HeaderValue) -> Self {
        Reply { status, ..Reply::redirect(location) }
    }

    /// What the client has asked for, where it is the gateway that has it.
    pub fn content(media_type: &'static str, content: impl Into<Bytes>) -> Self {
        let about = About::Content(Box::new((media_type, content.into())));
        Reply { about, ..Reply::blank(StatusCode::OK) }
    }

    /// All is well, and there is nothing more to say than header fields do.
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

    /// With this status in place of the problem's own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
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

    /// With the names of the windows that had no room for the request.
    #[must_use]
    pub fn violated_policies(mut self, names: Vec<String>) -> Self {
        self.more = Some(Box::new(More { violated_policies: names }));
        self
    }

    /// Its status code.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The fields that it bears besides those that every reply does.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The same, for whoever adds to them.
    pub fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// What is wrong; `None` where nothing is.
    pub fn problem(&self) -> Option<Problem> {
        match self.about {
            About::Problem(problem) => Some(problem),
            About::Content(..) | About::Nothing => None,
        }
    }

    /// What happened to this request.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// One word for the log: the error of the `Proxy-Status`, or the problem's name, if there is one.
    pub fn reason(&self) -> Option<&'static str> {
        self.proxy_error.or(self.problem().map(Problem::name))
    }
}

/// `detail`, or its beginning.
fn bounded(detail: Cow<'static, str>) -> Cow<'static, str> {
    if detail.len() <= MAX_DETAIL {
        return detail;
    }
    let end = (0..=MAX_DETAIL).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or_default();
    Cow::from(format!("{}…", &detail[..end]))
}
