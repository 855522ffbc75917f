//! # JWT
//!
//! A JSON Web Token (RFC 7519) is a signed statement. It says who the user is (`sub`), who issued the token
//! (`iss`), until when it is valid (`exp`), and sometimes from when on (`nbf`, "not before"). Anyone can
//! *decode* a token, and anyone can write one. Only the signature makes a token worth something. The token
//! itself says how it is signed (`alg`). If a proxy believes that, an attacker can write `none` there. So the
//! proxy must choose the algorithm, and not the token.
//!
//! **Your task**: write `user`, which verifies a token with the library `jsonwebtoken` (algorithm HS256, issuer
//! `ISSUER`, not expired, valid already) and returns its `sub`. The library checks a claim that is absent only if
//! you require it, and allows clocks to differ by 60 seconds (`leeway`). Then tell the upstream the user in the
//! field `X-User`. A client can send a field with this name too. Do not believe it: replace it.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use jsonwebtoken::DecodingKey;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use serde::Deserialize;

use crate::peer::peer;

/// Issuer whose tokens are accepted.
pub const ISSUER: &str = "https://login.test";

/// Claims of a token.
#[derive(Deserialize)]
pub struct Claims {
    /// User who bears the token.
    pub sub: String,
}

/// Proxy that forwards requests to one upstream, for clients with a valid token.
pub struct JwtAuth {
    upstream: SocketAddr,
    key: DecodingKey,
}

/// State of one request, which its phases share.
#[derive(Default)]
pub struct RequestCtx {
    /// User who sends the request. It is set when the token has been verified.
    user: String,
}

impl JwtAuth {
    /// Returns a proxy that accepts tokens signed with `secret`.
    pub fn new(upstream: SocketAddr, secret: &[u8]) -> JwtAuth {
        JwtAuth { upstream, key: DecodingKey::from_secret(secret) }
    }

    /// Returns the user who bears `token`, if the token is valid.
    fn user(&self, token: &str) -> Option<String> {
        // TODO: verify the token. For now, every token is refused.
        let _ = (token, &self.key);
        let claims: Option<Claims> = None;
        claims.map(|claims| claims.sub)
    }
}

#[async_trait]
impl ProxyHttp for JwtAuth {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::default()
    }

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
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
        Ok(peer(self.upstream))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        request.remove_header(&AUTHORIZATION);
        // For CGI and its descendants, `X_User` is another way to write `X-User`.
        request.remove_header("X_User");
        // TODO: tell the upstream the user, `ctx.user`.
        let _ = &ctx.user;
        Ok(())
    }
}
