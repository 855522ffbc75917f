//! JWT: the upstream learns who asks from a signed token, and from nothing else.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use serde::Deserialize;

/// Whose tokens count.
pub const ISSUER: &str = "https://login.test";

/// What a token says.
#[derive(Deserialize)]
pub struct Claims {
    /// Who the bearer is.
    pub sub: String,
}

/// Forwards requests to one upstream, for those who bear a valid token.
pub struct JwtAuth {
    upstream: SocketAddr,
    key: DecodingKey,
}

/// What is remembered about one request.
#[derive(Default)]
pub struct RequestCtx {
    /// Who asks, once that has been verified.
    user: String,
}

impl JwtAuth {
    /// Believes tokens that are signed with `secret`.
    pub fn new(upstream: SocketAddr, secret: &[u8]) -> JwtAuth {
        JwtAuth { upstream, key: DecodingKey::from_secret(secret) }
    }

    /// Whose token this is, if it is valid.
    fn user(&self, token: &str) -> Option<String> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let token = jsonwebtoken::decode::<Claims>(token, &self.key, &validation).ok()?;
        Some(token.claims.sub)
    }
}

#[async_trait]
impl ProxyHttp for JwtAuth {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::default()
    }

    /// Returns whether the request has been answered here.
    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        let value = session.req_header().headers.get(AUTHORIZATION);
        let (scheme, token) =
            value.and_then(|value| value.to_str().ok()?.split_once(' ')).unwrap_or_default();
        let user = if scheme.eq_ignore_ascii_case("Bearer") { self.user(token) } else { None };
        if let Some(user) = user {
            ctx.user = user;
            return Ok(false);
        }
        let mut response = ResponseHeader::build(401, None)?;
        response.insert_header("WWW-Authenticate", "Bearer error=\"invalid_token\"")?;
        response.insert_header("Content-Length", "0")?;
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        request.remove_header(&AUTHORIZATION);
        request.insert_header("X-User", &ctx.user)
    }
}
