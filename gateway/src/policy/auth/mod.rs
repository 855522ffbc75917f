//! `[auth]`: checks the credentials of a request. Each kind of authentication has a file. All kinds share the
//! form of a refusal (`challenge`) and the result of a successful check ([`Identity`]). By default the backend
//! does not get the credentials, because it could use passwords or tokens elsewhere.
//!
//! A refused request gets a local reply before any part of the request is sent to a backend.

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

pub use compile::{AuthCaches, BadAuth, Compiler};
pub use forward::AuthRequest;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, header};
pub use identity::{Identity, IdentityFields};
pub use jwks::{KeySet, KeySetService};
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::AuthKind;
use crate::reply::Reply;

/// Compiled `[auth]` table.
pub struct Auth {
    means: AuthMethod,
    /// Header field with the credentials, which the gateway removes; `None` if the gateway removes no field.
    removed: Option<HeaderName>,
    /// Kind of authentication.
    pub kind: AuthKind,
}

enum AuthMethod {
    Basic(basic::Basic),
    Jwt(jwt::Jwt),
    ApiKey(api_key::ApiKey),
    Forward(Box<forward::Forward>),
}

/// Result of a check, available at once or later: the identity of the client, or the refusal.
pub enum Checked<'a> {
    /// The verdict is known at once, as for most requests.
    AtOnce(Verdict<Arc<Identity>>),
    /// The verdict takes time. The future does not borrow the request, and the caller may drop the future.
    Later(BoxFuture<'a, Verdict<Arc<Identity>>>),
}

impl Checked<'_> {
    fn refused(reply: Reply) -> Self {
        Checked::AtOnce(Verdict::Reply(reply))
    }

    /// Returns the verdict, and waits for it if necessary.
    pub async fn verdict(self) -> Verdict<Arc<Identity>> {
        match self {
            Checked::AtOnce(verdict) => verdict,
            Checked::Later(verdict) => verdict.await,
        }
    }
}

impl Auth {
    /// Checks the credentials of a request. Returns the identity of the client, or the refusal.
    pub fn check(&self, asked: &AuthRequest<'_>) -> Checked<'_> {
        let headers = &asked.request.headers;
        match &self.means {
            AuthMethod::Basic(basic) => basic.check(headers, asked.client),
            AuthMethod::Jwt(jwt) => jwt.check(headers),
            AuthMethod::ApiKey(api_key) => Checked::AtOnce(api_key.check(headers)),
            AuthMethod::Forward(forward) => forward.check(asked),
        }
    }

    /// Tells the backend who the client is, and removes the credentials. The identity fields that the client
    /// sent have been removed before.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which it does not do for these.
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

/// Credentials in a header field that must occur only once.
enum Credentials<'h> {
    /// The field is absent, or has credentials of another scheme.
    None,
    One(&'h [u8]),
    /// The field occurs several times, and a backend might take any of its values.
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

/// Returns the credentials in `Authorization` (RFC 9110 11.6.2) if they belong to `scheme`.
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
