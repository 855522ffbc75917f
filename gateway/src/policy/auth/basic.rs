//! A name and a password with each request (RFC 7617).

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

/// Nobody's name and password are longer, together and in base64.
const MAX_LENGTH: usize = 4096;

/// The compiled table, of this kind.
pub(super) struct Basic {
    users: Arc<Users>,
    challenge: Challenge,
}

impl Basic {
    pub(super) fn new(users: Arc<Users>, realm: &str) -> Self {
        Basic { users, challenge: Challenge::new("Basic", realm, "charset=\"UTF-8\"") }
    }

    /// Who asks from this address.
    pub(super) fn check(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Checked<'_> {
        let encoded = match authorization(headers, "Basic") {
            Credentials::One(encoded) => encoded,
            Credentials::None => {
                return Checked::refused(self.challenge.missing("there is no name and password"));
            }
            Credentials::Several => {
                return Checked::refused(self.challenge.several("there are several Authorization fields"));
            }
        };
        let Some(pair) = decode(encoded) else {
            return Checked::refused(self.challenge.invalid("what should be a name and a password is none"));
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
        // A browser opens several connections at once: another one may have proved the same in the meantime.
        if let Some(identity) = self.users.known(&digest) {
            return Verdict::Continue(identity);
        }
        let users = self.users.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // Held to the end, also where the client has left.
            let _turn = turn;
            users.verify(&pair, digest)
        });
        match verified.await {
            Ok(Some(identity)) => Verdict::Continue(identity),
            // Not which of the two: that would tell who is known here.
            Ok(None) => Verdict::Reply(self.challenge.invalid("the name or the password is wrong")),
            Err(_) => Verdict::Reply(unavailable("passwords cannot be checked")),
        }
    }
}

/// `name:password`; `None` where it is not that (RFC 7617 2).
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
    async fn who_is_let_in_and_who_is_not() {
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
    async fn what_was_proved_is_not_computed_again_and_failures_are() {
        let basic = basic(&format!("alice:{}\n", bcrypt("a")));
        let is_known = |pair: &str| basic.users.known(&basic.users.digest(pair).unwrap()).is_some();
        let field = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(outcome(&basic, &[&field("alice:a")]).await.is_ok());
        assert!(outcome(&basic, &[&field("alice:b")]).await.is_err());
        assert!(is_known("alice:a") && !is_known("alice:b"));
    }

    #[test]
    fn a_password_that_waits_takes_little_room() {
        // As many as MAX_PLACES may wait.
        let basic = basic(&format!("alice:{}\n", bcrypt("a")));
        let waits = basic.prove("alice:a".to_owned(), Digest::default(), None);
        assert!(size_of_val(&waits) <= 1024, "{}", size_of_val(&waits));
    }
}
