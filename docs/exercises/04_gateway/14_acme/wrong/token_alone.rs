//! Wrong: the answer is the token without the thumbprint, so every account could use it, and the authority
//! accepts none.
//! Caught: "the key authorization for the token abc"

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use openssl::sha::sha256;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::prelude::*;

/// Beginning of the path of every challenge.
pub const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// Public key of an ACME account, on the curve P-256.
pub struct AccountKey {
    /// First coordinate, in base64url.
    pub x: String,
    /// Second coordinate, in base64url.
    pub y: String,
}

/// Challenges that the ACME client has accepted, and the proxy answers. Clones share one table.
#[derive(Clone, Default)]
pub struct Challenges {
    answers: Arc<Mutex<HashMap<String, String>>>,
}

impl Challenges {
    /// Adds the challenge of a token. The ACME client does this before it tells the authority to look.
    pub fn offer(&self, token: &str, account: &AccountKey) {
        self.answers.lock().insert(token.to_owned(), key_authorization(token, account));
    }

    /// Removes the challenge of a token, when the authority has looked.
    pub fn withdraw(&self, token: &str) {
        self.answers.lock().remove(token);
    }

    /// Returns the key authorization for a token of the table.
    pub fn answer(&self, token: &str) -> Option<String> {
        self.answers.lock().get(token).cloned()
    }
}

/// Returns the key authorization (RFC 8555, 8.1): the token and the thumbprint of the account's key.
pub fn key_authorization(token: &str, account: &AccountKey) -> String {
    let AccountKey { x, y } = account;
    let key = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(key.as_bytes()));
    {
        let _ = thumbprint;
        token.to_owned()
    }
}

/// Proxy for plain HTTP, which answers challenges and sends all other clients to HTTPS.
pub struct PlainHttp {
    /// Domain of the site.
    pub domain: &'static str,
    /// Challenges to answer.
    pub challenges: Challenges,
}

/// Sends a local reply with the fields of `response` and this body.
async fn reply(session: &mut Session, mut response: ResponseHeader, body: String) -> Result<()> {
    response.insert_header("Content-Length", body.len().to_string())?;
    let body = Bytes::from(body);
    session.write_response_header(Box::new(response), body.is_empty()).await?;
    if body.is_empty() { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

#[async_trait]
impl ProxyHttp for PlainHttp {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Answers every request. No request goes to an upstream.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let uri = session.req_header().uri.clone();
        if let Some(token) = uri.path().strip_prefix(WELL_KNOWN) {
            let answer = self.challenges.answer(token);
            let mut response = ResponseHeader::build(if answer.is_some() { 200 } else { 404 }, None)?;
            // The type that RFC 8555 8.3 asks for.
            response.insert_header("Content-Type", "application/octet-stream")?;
            reply(session, response, answer.unwrap_or_default()).await?;
            return Ok(true);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut response = ResponseHeader::build(308, None)?;
        response.insert_header("Location", format!("https://{}{target}", self.domain))?;
        reply(session, response, String::new()).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(HTTPStatus(404), "there is no upstream for plain HTTP")
    }
}
