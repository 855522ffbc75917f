//! `[auth]`: what a request must bear to be let through. One kind a table, a file a kind; they have in common how a
//! client is refused (`challenge`), who it is then known to be ([`Identity`]), and that what proved it stays here:
//! a backend that got passwords or tokens could use them elsewhere.
//!
//! A request that is not let through is answered before anything of it goes to a backend.

mod api_key;
mod basic;
mod cache;
mod challenge;
mod compile;
mod forward;
mod hashing;
mod identity;
mod jwk_set;
mod jwks;
mod jwt;
mod keys;
mod users;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, header};
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::AuthKind;
use crate::reply::Reply;

pub use compile::{AuthCaches, BadAuth, Compiler};
pub use forward::AuthRequest;
pub use identity::{Identity, IdentityFields};
pub use jwks::{KeySet, KeySetService};

/// The compiled `[auth]` table.
pub struct Auth {
    means: AuthMethod,
    /// The field that proves it, which ends here; `None` where it goes on.
    removed: Option<HeaderName>,
    /// Which kind it is.
    pub kind: AuthKind,
}

enum AuthMethod {
    Basic(basic::Basic),
    Jwt(jwt::Jwt),
    ApiKey(api_key::ApiKey),
    Forward(Box<forward::Forward>),
}

/// Who asks, or the answer to somebody who is not let through.
pub enum Checked<'a> {
    /// It can be told at once, as with most requests.
    AtOnce(Verdict<Arc<Identity>>),
    /// It has to be waited for. That does not need the request any more, and may be given up.
    Later(BoxFuture<'a, Verdict<Arc<Identity>>>),
}

impl Checked<'_> {
    fn refused(reply: Reply) -> Self {
        Checked::AtOnce(Verdict::Reply(reply))
    }

    /// The verdict, however long it takes.
    pub async fn verdict(self) -> Verdict<Arc<Identity>> {
        match self {
            Checked::AtOnce(verdict) => verdict,
            Checked::Later(verdict) => verdict.await,
        }
    }
}

impl Auth {
    /// Who asks, or the answer to somebody who is not let through.
    pub fn check(&self, asked: &AuthRequest<'_>) -> Checked<'_> {
        let headers = &asked.request.headers;
        match &self.means {
            AuthMethod::Basic(basic) => basic.check(headers, asked.client),
            AuthMethod::Jwt(jwt) => jwt.check(headers),
            AuthMethod::ApiKey(api_key) => Checked::AtOnce(api_key.check(headers)),
            AuthMethod::Forward(forward) => forward.check(asked),
        }
    }

    /// Tells the backend who asks, in place of what proves it. What the client says itself in these fields has been
    /// taken out.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for these.
    pub fn on_request(&self, identity: &Identity, request: &mut RequestHeader) -> Result<()> {
        if let Some(name) = &self.removed {
            request.remove_header(name);
        }
        identity.on_request(request)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What there is in a field that must be there once.
enum Credentials<'h> {
    /// Nothing, or something of another scheme.
    None,
    One(&'h [u8]),
    /// Nobody could tell which of them a backend would take.
    Several,
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Credentials<'h> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Credentials::None,
        (Some(value), None) => Credentials::One(value.as_bytes()),
        (Some(_), Some(_)) => Credentials::Several,
    }
}

/// The credentials in `Authorization` (RFC 9110 11.6.2), where they are of this scheme.
fn authorization<'h>(headers: &'h HeaderMap, scheme: &str) -> Credentials<'h> {
    let Credentials::One(value) = one(headers, &header::AUTHORIZATION) else {
        return one(headers, &header::AUTHORIZATION);
    };
    let (given, credentials) = value.split_at_checked(scheme.len()).unwrap_or((value, b""));
    match credentials.split_first() {
        Some((b' ', credentials)) if given.eq_ignore_ascii_case(scheme.as_bytes()) => {
            Credentials::One(credentials.trim_ascii())
        }
        None if given.eq_ignore_ascii_case(scheme.as_bytes()) => Credentials::One(b""),
        _ => Credentials::None,
    }
}
