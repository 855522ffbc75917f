//! Basic authentication: a name and a password in each request (RFC 7617).

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::cache::Digest;
use super::challenge::{Challenge, too_many, unavailable};
use super::hashing::{HASHING, Overloaded};
use super::users::Users;
use super::{Checked, Credentials, Identity, authorization};
use crate::reply::Verdict;

/// Maximum length of name and password together, in base64.
const MAX_LENGTH: usize = 4096;

/// Compiled `[auth]` table of the kind `basic`.
pub(super) struct Basic {
    users: Arc<Users>,
    challenge: Challenge,
}

impl Basic {
    pub(super) fn new(users: Arc<Users>, realm: &str) -> Self {
        Basic { users, challenge: Challenge::new("Basic", realm, "charset=\"UTF-8\"") }
    }

    /// Checks the credentials of a client at the address `client`. A password that is in the cache of proved
    /// passwords is accepted at once; any other password must be hashed.
    pub(super) fn check(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Checked<'_> {
        let encoded = match authorization(headers, "Basic") {
            Credentials::One(encoded) => encoded,
            Credentials::None => {
                return Checked::refused(self.challenge.missing("the request has no name and password"));
            }
            Credentials::Several => {
                return Checked::refused(self.challenge.several("there are several Authorization fields"));
            }
        };
        let Some(pair) = decode(encoded) else {
            return Checked::refused(self.challenge.invalid("the credentials are not a name and a password"));
        };
        let Some(digest) = self.users.digest(&pair) else {
            return Checked::refused(unavailable("passwords cannot be checked"));
        };
        match self.users.known(&digest) {
            Some(identity) => Checked::AtOnce(Verdict::Continue(identity)),
            None => Checked::Later(Box::pin(self.prove(pair, digest, client))),
        }
    }

    async fn prove(&self, pair: String, digest: Digest, client: Option<IpAddr>) -> Verdict<Arc<Identity>> {
        let turn = match HASHING.turn(client).await {
            Ok(turn) => turn,
            Err(Overloaded::TooManyOfOne) => {
                return Verdict::Reply(too_many("too many passwords from this address wait to be checked"));
            }
            Err(Overloaded::TooMany) => {
                return Verdict::Reply(unavailable("too many passwords are being checked"));
            }
        };
        // A browser opens several connections at once, so another request may have proved the same password
        // meanwhile.
        if let Some(identity) = self.users.known(&digest) {
            return Verdict::Continue(identity);
        }
        let users = self.users.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // The permit is held until the hash is computed, even if the client has closed its connection.
            let _turn = turn;
            users.verify(&pair, digest)
        });
        match verified.await {
            Ok(Some(identity)) => Verdict::Continue(identity),
            // The reply does not say which part is wrong, because that would reveal which names exist.
            Ok(None) => Verdict::Reply(self.challenge.invalid("the name or the password is wrong")),
            Err(_) => Verdict::Reply(unavailable("passwords cannot be checked")),
        }
    }
}

/// Decodes `name:password`. Returns `None` if the credentials are malformed (RFC 7617 2).
fn decode(encoded: &[u8]) -> Option<String> {
    if encoded.len() > MAX_LENGTH {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    (pair.contains(':') && !pair.chars().any(char::is_control)).then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(toml_users: &str) -> Basic {
        Basic::new(Arc::new(Users::read("users", toml_users, None).unwrap()), "r")
    }

    fn bcrypt(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY)
    }

    async fn outcome(basic: &Basic, fields: &[&str]) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("authorization", http::HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        match basic.check(&headers, None).verdict().await {
            Verdict::Continue(identity) => Ok(identity.name.clone()),
            Verdict::Reply(reply) => Err(reply.status()),
        }
    }

    #[tokio::test]
    async fn right_credentials_pass_and_others_get_401() {
        let basic = basic(&format!("alice:{}\nJürgen:{}\n", bcrypt("a:b"), bcrypt("ä")));
        let field = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let good = field("alice:a:b");
        for _ in 0..2 {
            assert_eq!(outcome(&basic, &[&good]).await, Ok("alice".to_owned()));
        }
        assert_eq!(outcome(&basic, &[&good.replace("Basic ", "bASIC   ")]).await, Ok("alice".to_owned()));
        assert_eq!(outcome(&basic, &[&field("Jürgen:ä")]).await, Ok("Jürgen".to_owned()));
        for wrong in [
            field("alice:a"),
            field("alice:"),
            field(":a:b"),
            field("alice"),
            field("nobody:a:b"),
            field("alice:a:b\n"),
            format!("Basic {}", STANDARD.encode(b"alice:\xff")),
            "Basic !!!".to_owned(),
            "Basic YWxpY2U6YTpi=".to_owned(),
            "Basic".to_owned(),
            "Basic ".to_owned(),
            format!("Basic {}", "A".repeat(MAX_LENGTH + 1)),
            good.replace("Basic", "Bearer"),
            good.replace(' ', ""),
            good.replace(' ', ", "),
        ] {
            assert_eq!(outcome(&basic, &[&wrong]).await, Err(401), "{wrong}");
        }
        assert_eq!(outcome(&basic, &[]).await, Err(401));
        assert_eq!(outcome(&basic, &[&good, &good]).await, Err(400));
    }

    #[tokio::test]
    async fn proved_password_is_cached_and_wrong_one_is_not() {
        let basic = basic(&format!("alice:{}\n", bcrypt("a")));
        let is_known = |pair: &str| basic.users.known(&basic.users.digest(pair).unwrap()).is_some();
        let field = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(outcome(&basic, &[&field("alice:a")]).await.is_ok());
        assert!(outcome(&basic, &[&field("alice:b")]).await.is_err());
        assert!(is_known("alice:a") && !is_known("alice:b"));
    }

    #[test]
    fn waiting_password_check_takes_at_most_1024_bytes() {
        // Up to MAX_PLACES such futures may wait at the same time.
        let basic = basic(&format!("alice:{}\n", bcrypt("a")));
        let waits = basic.prove("alice:a".to_owned(), Digest::default(), None);
        assert!(size_of_val(&waits) <= 1024, "{}", size_of_val(&waits));
    }
}
