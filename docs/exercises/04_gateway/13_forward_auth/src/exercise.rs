//! # Forward auth
//!
//! With *forward auth*, the proxy does not know passwords. It asks another server, the auth server, with a request
//! of its own: a *subrequest*. The question has the client's credentials (Cookie and Authorization) and says what
//! the client wants. A response with a 2xx status lets the request pass, and its field `x-auth-user` tells who
//! the client is. 401 and 403 refuse. If a response passes or refuses, it may set cookies, and the client must get
//! them, together with those of the upstream.
//!
//! Three things go wrong in practice. The auth server is slow or broken, and the proxy lets everyone in: it must
//! *fail closed*, with 503. The client sends `x-auth-user: admin` itself (or `x_auth_user`, which CGI programs take
//! for the same), and the upstream believes it. And the
//! question announces the body of the client's request, which it does not have, so the auth server waits for it.
//!
//! **Your task**: complete `question`, and write the three filters. `ask`, `refuse` and `cookies` are there.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, HOST, SET_COOKIE, WWW_AUTHENTICATE};
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
    // TODO: add all values of AUTHORIZATION and COOKIE (import the two names from http::header).
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
    async fn request_filter(&self, session: &mut Session, _ctx: &mut RequestCtx) -> Result<bool> {
        let _question = question(session.req_header())?;
        // TODO: `ask` the auth server, and wait at most `self.patience` (with `timeout`, which `pingora::prelude`
        // has). A 2xx passes: what the later filters need goes into `ctx`. 401 and 403 refuse. All else is 503. For
        // now, every answer is 501.
        Error::e_explain(HTTPStatus(501), "nothing decides yet")
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
        // TODO: the upstream gets the user that the auth server has named, and never one that the client names.
        let _ = (request, ctx);
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: add the cookies of the auth server, and keep those of the upstream.
        let _ = (response, ctx);
        Ok(())
    }
}
