//! Wrong: without a user of the auth server, the field that the client sends stays, so a guest can be root.
//! Caught: "the user at the upstream, for the session guest"

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, WWW_AUTHENTICATE};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

use crate::peer::peer;

/// Field in which the auth server names the user, and in which the upstream gets the name.
pub const USER: &str = "x-auth-user";

/// Maximum time for the rest of a request's body to arrive after a refusal.
const DRAIN: Duration = Duration::from_secs(1);

/// Proxy that forwards requests to one upstream, if the auth server lets them pass.
pub struct ForwardAuth {
    /// Address of the upstream.
    pub upstream: SocketAddr,
    /// Address of the auth server.
    pub auth: SocketAddr,
    /// Maximum time for a decision of the auth server.
    pub patience: Duration,
    connector: Connector,
}

/// State of one request, which its phases share.
#[derive(Default)]
pub struct RequestCtx {
    /// Name of the user, if the auth server has given one.
    pub user: Option<HeaderValue>,
    /// Cookies that the auth server sets.
    pub cookies: Vec<HeaderValue>,
}

impl ForwardAuth {
    /// Returns a proxy that waits at most `patience` for each decision of the auth server.
    pub fn new(upstream: SocketAddr, auth: SocketAddr, patience: Duration) -> ForwardAuth {
        ForwardAuth { upstream, auth, patience, connector: Connector::new(None) }
    }

    /// Sends a request without a body to the auth server. Returns the head of the response.
    ///
    /// # Errors
    /// Returns an error if the connection fails, or the response is not HTTP.
    pub async fn ask(&self, question: RequestHeader) -> Result<ResponseHeader> {
        let peer = HttpPeer::new(self.auth, false, String::new());
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        session.write_request_header(Box::new(question)).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let answer = session.response_header().cloned();
            let answer = answer.ok_or_else(|| Error::explain(InternalError, "a response without a head"))?;
            // The session is dropped here, with the response's body unread. This closes the connection.
            if !answer.status.is_informational() {
                return Ok(answer);
            }
        }
    }
}

/// Returns the request for the auth server that asks if `request` may pass.
fn question(request: &RequestHeader) -> Result<RequestHeader> {
    let mut question = RequestHeader::build("GET", b"/check", None)?;
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    question.insert_header(HOST, "auth")?;
    question.insert_header("X-Forwarded-Method", request.method.as_str())?;
    question.insert_header("X-Forwarded-Uri", target)?;
    for name in [AUTHORIZATION, COOKIE] {
        for value in request.headers.get_all(&name) {
            question.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(question)
}

/// Returns the cookies that a response sets.
pub fn cookies(answer: &ResponseHeader) -> Vec<HeaderValue> {
    answer.headers.get_all(SET_COOKIE).iter().cloned().collect()
}

/// Sends the refusal of the auth server to the client.
///
/// # Errors
/// Returns an error if the client has left.
pub async fn refuse(session: &mut Session, answer: &ResponseHeader) -> Result<()> {
    let mut response = ResponseHeader::build(answer.status, None)?;
    response.insert_header(CONTENT_LENGTH, "0")?;
    for name in [WWW_AUTHENTICATE, SET_COOKIE] {
        for value in answer.headers.get_all(&name) {
            response.append_header(name.clone(), value.clone())?;
        }
    }
    session.set_total_drain_timeout(Some(DRAIN));
    session.write_response_header(Box::new(response), true).await
}

#[async_trait]
impl ProxyHttp for ForwardAuth {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::default()
    }

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        let question = question(session.req_header())?;
        let Ok(Ok(answer)) = timeout(self.patience, self.ask(question)).await else {
            return Error::e_explain(HTTPStatus(503), "the auth server gives no answer");
        };
        match answer.status.as_u16() {
            200..=299 => {
                ctx.user = answer.headers.get(USER).cloned();
                ctx.cookies = cookies(&answer);
                Ok(false)
            }
            401 | 403 => refuse(session, &answer).await.map(|()| true),
            _ => Error::e_explain(HTTPStatus(503), "the auth server does not decide"),
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        // For CGI and its descendants, this is another way to write the same field.
        request.remove_header("x_auth_user");
        match &ctx.user {
            Some(user) => request.insert_header(USER, user.clone()),
            None => Ok(()),
        }
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        for cookie in &ctx.cookies {
            response.append_header(SET_COOKIE, cookie.clone())?;
        }
        Ok(())
    }
}
