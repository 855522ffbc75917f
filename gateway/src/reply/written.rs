//! Writes a reply in one of three forms: JSON for a program, a page for a person, or the status of a gRPC call.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use serde::Serialize;

use super::{About, CSP, More, Problem, Recipient, Reply, X_REQUEST_ID, page};
use crate::grpc::{self, Call, Status};
use crate::util::accept::prefers_html;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(flatten)]
    more: Option<&'a More>,
}

impl Reply {
    /// Sends the reply; to a gRPC call, as a gRPC status. The connection stays open if both the session and the
    /// reply allow this.
    ///
    /// # Errors
    /// Returns an error if the client has left.
    pub async fn send(self, session: &mut Session, to: Recipient<'_>) -> Result<()> {
        if self.closes {
            session.set_keepalive(None);
        }
        if let Some(call) = to.call {
            return self.end(call, session, to.id).await;
        }
        let as_page = self.problem().is_some() && prefers_html(&session.req_header().headers);
        let (media_type, body) = self.body(&to, as_page);
        let response = self.header(&to, media_type, body.len())?;
        if body.is_empty() || session.req_header().method == Method::HEAD {
            return head_alone(session, response).await;
        }
        session.write_response_header(Box::new(response), false).await?;
        session.write_response_body(Some(body), true).await
    }

    /// Sends the status of a gRPC call, in a single head ("Trailers-Only") or in the trailers of a begun response.
    async fn end(self, call: &mut Call, session: &mut Session, id: &HeaderValue) -> Result<()> {
        let status = self.grpc_status();
        call.on_reply(self.status(), status);
        let mut fields = HeaderMap::from_iter([(grpc::STATUS, status.value())]);
        fields.insert(X_REQUEST_ID, id.clone());
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
        match self.problem() {
            Some(Problem::DeadlineExceeded) => Status::DEADLINE_EXCEEDED,
            _ => Status::of_http(self.status),
        }
    }

    /// Returns the media type and the body: the page for a person if `as_page` is true, and JSON otherwise.
    fn body(&self, to: &Recipient<'_>, as_page: bool) -> (Option<&'static str>, Bytes) {
        let problem = match &self.about {
            // An injected fault may have any status, and these statuses have no body (RFC 9110 15.3.5, 15.4.5).
            _ if matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
                return (None, Bytes::new());
            }
            About::Nothing => return (None, Bytes::new()),
            About::Content(content) => return (Some(content.0), content.1.clone()),
            About::Problem(problem) => *problem,
        };
        let request_id = to.id.to_str().unwrap_or_default();
        if as_page {
            let help = format!("{}#{}", to.help, problem.name());
            return (Some(page::HTML), page::of(problem, self.status(), &self.detail, request_id, &help));
        }
        let body = Body {
            kind: format!("urn:problem-type:gateway:{}", problem.name()),
            title: problem.row().title,
            status: self.status(),
            detail: &self.detail,
            request_id,
            more: self.more.as_deref(),
        };
        // Strings and a number can always be written as JSON.
        let json = serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default();
        (Some("application/problem+json"), json)
    }

    fn header(
        self,
        to: &Recipient<'_>,
        media_type: Option<&'static str>,
        length: usize,
    ) -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(self.status, Some(12 + self.fields.len()))?;
        response.insert_header(header::DATE, httpdate::fmt_http_date(SystemTime::now()))?;
        if let Some(media_type) = media_type {
            response.insert_header(header::CONTENT_TYPE, media_type)?;
        }
        if !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            response.insert_header(header::CONTENT_LENGTH, length)?;
        }
        // An operator may remove a redirect later, so no client may store it permanently.
        response.insert_header(header::CACHE_CONTROL, "no-store")?;
        response.insert_header(X_REQUEST_ID, to.id)?;
        if let Some(problem) = self.problem() {
            response.insert_header(header::VARY, "Accept")?;
            let link = format!("<{}#{}>; rel=\"help\"", to.help, problem.name());
            response.insert_header(header::LINK, link)?;
        }
        self.common_fields(&mut response)?;
        if media_type == Some(page::HTML) {
            // This policy replaces the operator's, because the page needs the style that it contains, and nothing else.
            response.insert_header(CSP, page::POLICY.clone())?;
        }
        Ok(response)
    }

    fn common_fields(&self, response: &mut ResponseHeader) -> Result<()> {
        if let Some(status) = self.proxy_status() {
            response.insert_header("Proxy-Status", status)?;
        }
        let mut before = None;
        for (name, value) in &self.fields {
            // Values of one name are next to each other, and a name such as Set-Cookie may have several. A `Vary` or
            // `Link` value of the gateway must be kept.
            let is_another = before.replace(name) == Some(name);
            if is_another || matches!(*name, header::VARY | header::LINK) {
                response.append_header(name, value)?;
            } else {
                response.insert_header(name, value)?;
            }
        }
        Ok(())
    }

    /// Returns the value of `Proxy-Status` (RFC 9209), which says why the gateway replies itself: a backend has failed,
    /// or the gateway has refused the request. Returns `None` if the reply reports no problem.
    fn proxy_status(&self) -> Option<String> {
        let problem = self.problem()?;
        Some(match self.proxy_error {
            Some(error) => format!("gateway; error={error}"),
            None => format!("gateway; error={}; details=\"{}\"", problem.row().proxy_error, problem.name()),
        })
    }
}

/// Sends a response that consists of its head only. Over HTTP/2, Pingora ends the stream with the head only if it
/// receives the head as this task. Otherwise, Pingora later resets the stream of a failed request.
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
    use crate::reply::PROBLEMS;

    fn sent(reply: Reply, as_page: bool) -> (ResponseHeader, Bytes) {
        let id = HeaderValue::from_static("id-1");
        let to = Recipient { id: &id, help: PROBLEMS, call: None };
        let (media_type, body) = reply.body(&to, as_page);
        (reply.header(&to, media_type, body.len()).unwrap(), body)
    }

    #[test]
    fn a_reply_is_a_problem_with_the_requests_id() {
        let reply = Reply::new(Problem::BadGateway, "it said \"no\"").proxy_error("connection_refused");
        let (header, body) = sent(reply, false);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["type"], "urn:problem-type:gateway:bad_gateway");
        assert_eq!(value["status"], 502);
        assert_eq!(value["title"], "The backend failed");
        assert_eq!(value["detail"], "it said \"no\"");
        assert_eq!(value["request_id"], "id-1");

        assert_eq!(header.status, 502);
        assert_eq!(header.headers["content-type"], "application/problem+json");
        assert_eq!(header.headers["content-length"], body.len().to_string());
        assert_eq!(header.headers["proxy-status"], "gateway; error=connection_refused");
        assert_eq!(header.headers["x-request-id"], "id-1");
        assert_eq!(header.headers["vary"], "Accept");
        let help = "</.well-known/gateway/problems#bad_gateway>; rel=\"help\"";
        assert_eq!(header.headers["link"], help);
    }

    #[test]
    fn long_detail_is_shortened() {
        for long in ["x".repeat(20_000), "ä".repeat(20_000)] {
            let (_, body) = sent(Reply::new(Problem::OriginNotAllowed, format!("no {long}")), false);
            assert!(body.len() < 700, "{}", body.len());
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(value["detail"].as_str().unwrap().ends_with('…'), "{value}");
        }
    }

    #[test]
    fn refusal_sets_proxy_status() {
        let (header, _) = sent(Reply::new(Problem::RateLimited, ""), false);
        let status = "gateway; error=http_request_denied; details=\"rate_limited\"";
        assert_eq!(header.headers["proxy-status"], status);
    }

    #[test]
    fn a_person_gets_a_page_that_brings_its_own_policy() {
        let mut reply = Reply::new(Problem::UnknownHost, "no such host");
        // The operator's security headers set a policy like this one.
        reply.fields_mut().insert(CSP, HeaderValue::from_static("default-src 'self'"));
        let (header, body) = sent(reply, true);
        assert_eq!(header.headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(header.headers["content-length"], body.len().to_string());
        let policies: Vec<_> = header.headers.get_all(CSP).iter().collect();
        assert!(policies.len() == 1 && policies[0].to_str().unwrap().starts_with("default-src 'none'"));
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("no such host") && body.contains("id-1"), "{body}");
        assert!(body.contains("href=\"/.well-known/gateway/problems#unknown_host\""), "{body}");
    }

    #[test]
    fn repeated_fields_are_all_sent() {
        let status = StatusCode::SEE_OTHER;
        let mut reply = Reply::redirect_with(status, HeaderValue::from_static("/login"));
        for cookie in ["a=1", "b=2"] {
            reply.fields_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let (header, _) = sent(reply, false);
        let cookies = header.headers.get_all(header::SET_COOKIE).iter();
        assert_eq!(header.status, status);
        assert!(cookies.eq(["a=1", "b=2"]));
    }

    #[test]
    fn a_redirect_is_no_problem() {
        let reply = Reply::redirect(HeaderValue::from_static("https://new.example.com/"));
        assert_eq!((reply.status(), reply.reason()), (308, None));
        let (header, body) = sent(reply, false);
        assert_eq!(body, Bytes::new());
        assert_eq!(header.headers["location"], "https://new.example.com/");
        assert_eq!(header.headers["content-length"], "0");
        for absent in ["content-type", "proxy-status", "link", "vary"] {
            assert!(!header.headers.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn no_content_has_no_content_length() {
        // RFC 9110 8.6.
        let (header, body) = sent(Reply::no_content(), false);
        assert_eq!((header.status.as_u16(), body), (204, Bytes::new()));
        assert!(!header.headers.contains_key("content-length"));
    }
}
