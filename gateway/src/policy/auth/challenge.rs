//! What a client is told that is not let through: 401 with the challenge that HTTP asks for (RFC 9110 11.6.1), 403,
//! or 503. How wrong something was is told in words that no client has chosen.

use http::{HeaderValue, header};

use crate::reply::{Problem, Reply};

/// How soon a client may ask again whose credentials could not be checked.
const RETRY_AFTER_SECS: u32 = 2;

/// Asks for credentials of one scheme.
pub(super) struct Challenge {
    /// The scheme and the realm: `Bearer realm="gateway"`.
    begin: String,
    plain: HeaderValue,
    /// Whether it says what was wrong (RFC 6750 3).
    is_bearer: bool,
}

impl Challenge {
    /// For a scheme, with further parameters such as `charset="UTF-8"`.
    pub(super) fn new(scheme: &str, realm: &str, further: &str) -> Self {
        let begin = format!("{scheme} realm={}", quoted(realm));
        let plain = if further.is_empty() { begin.clone() } else { format!("{begin}, {further}") };
        Challenge { plain: value(&plain), begin, is_bearer: scheme == "Bearer" }
    }

    /// The answer where there are no credentials, or of another scheme.
    pub(super) fn missing(&self, detail: &'static str) -> Reply {
        self.reply(Problem::CredentialsMissing, detail, self.plain.clone())
    }

    /// The answer where there are some that do not count.
    pub(super) fn invalid(&self, detail: &'static str) -> Reply {
        self.reply(Problem::CredentialsInvalid, detail, self.saying("invalid_token", detail, ""))
    }

    /// The answer where nobody can tell which of several are meant.
    pub(super) fn several(&self, detail: &'static str) -> Reply {
        self.reply(Problem::BadRequest, detail, self.saying("invalid_request", detail, ""))
    }

    /// The answer to somebody who is known, and may not; `further` says what would be needed.
    pub(super) fn not_allowed(&self, detail: &'static str, further: &str) -> Reply {
        self.reply(Problem::NotAllowed, detail, self.saying("insufficient_scope", detail, further))
    }

    fn saying(&self, error: &str, detail: &str, further: &str) -> HeaderValue {
        if !self.is_bearer {
            return self.plain.clone();
        }
        let description = quoted(detail);
        value(&format!("{}, error=\"{error}\", error_description={description}{further}", self.begin))
    }

    fn reply(&self, problem: Problem, detail: &'static str, challenge: HeaderValue) -> Reply {
        Reply::new(problem, detail).field(header::WWW_AUTHENTICATE, challenge)
    }
}

/// The answer where nobody can be asked who is who.
pub(super) fn unavailable(detail: &'static str) -> Reply {
    let after = HeaderValue::from(RETRY_AFTER_SECS);
    Reply::new(Problem::AuthUnavailable, detail).field(header::RETRY_AFTER, after)
}

/// The answer to a client that asks for more to be checked at once than one may.
pub(super) fn too_many(detail: &'static str) -> Reply {
    Reply::new(Problem::RateLimited, detail).field(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS))
}

/// A quoted-string (RFC 9110 5.6.4) of what is printable ASCII.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

/// Validation has seen to it that this is one.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reply: &Reply) -> (u16, &str) {
        (reply.status(), reply.fields()[header::WWW_AUTHENTICATE].to_str().unwrap())
    }

    #[test]
    fn realms_are_quoted() {
        let challenge = Challenge::new("Basic", "the \"inner\" \\ door", "charset=\"UTF-8\"");
        let expected = "Basic realm=\"the \\\"inner\\\" \\\\ door\", charset=\"UTF-8\"";
        assert_eq!(said(&challenge.missing("")), (401, expected));
        assert_eq!(said(&challenge.invalid("wrong")), (401, expected));
    }

    #[test]
    fn bearers_of_a_token_are_told_what_is_wrong_with_it_and_others_are_not() {
        let challenge = Challenge::new("Bearer", "r", "");
        assert_eq!(said(&challenge.missing("there is no token")), (401, "Bearer realm=\"r\""));
        let expected = "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"it has expired\"";
        assert_eq!(said(&challenge.invalid("it has expired")), (401, expected));
        let expected =
            "Bearer realm=\"r\", error=\"insufficient_scope\", error_description=\"d\", scope=\"a\"";
        assert_eq!(said(&challenge.not_allowed("d", ", scope=\"a\"")), (403, expected));
    }
}
