//! # ACME
//!
//! A certificate authority such as Let's Encrypt gives a certificate to a client that answers for the domain. With the
//! challenge HTTP-01 (RFC 8555, 8.3), the authority sends a random *token*, and then requests
//! `http://DOMAIN/.well-known/acme-challenge/TOKEN`. The body of the response must be the *key authorization*: the
//! token, a dot, and the *thumbprint* of the account's key. So another account cannot use the answer.
//!
//! The thumbprint (RFC 7638) is the SHA-256 hash, in base64url without padding, of a JSON object. For a key on P-256 it
//! has the members `crv` ("P-256"), `kty` ("EC"), `x` and `y`, in this order, without a space. One byte more is another
//! hash.
//!
//! The request comes over plain HTTP, perhaps before there is any certificate. The proxy must answer it before it
//! redirects to HTTPS. A token that is not in the table gets 404: an answer to every token would answer for
//! challenges that other people have ordered.
//!
//! **Your task**: write `key_authorization`, and answer challenges in `request_filter`. `reply` sends a response.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
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
    // TODO: the token, a dot, and the thumbprint (`openssl::sha::sha256`, and
    // `URL_SAFE_NO_PAD` of `base64::engine::general_purpose`, which needs `base64::Engine`).
    let _ = account;
    token.to_owned()
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
        // TODO: answer challenges.
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
