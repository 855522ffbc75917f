//! Local replies to clients that are refused: 401 with the challenge that HTTP requires (RFC 9110 11.6.1), 403,
//! or 503. The texts are fixed, so no text of a client appears in them.

use http::{HeaderValue, header};

use crate::reply::{Problem, Reply};

/// Retry-After in seconds, for a client whose credentials could not be checked.
const RETRY_AFTER_SECS: u32 = 2;

/// Challenge (`WWW-Authenticate`) for credentials of one scheme.
pub(super) struct Challenge {
    /// Scheme and realm, such as `Bearer realm="gateway"`.
    begin: String,
    plain: HeaderValue,
    /// True for a bearer challenge, the only one that names the error (RFC 6750 3).
    is_bearer: bool,
}

impl Challenge {
    /// Creates the challenge of a scheme. `further` adds parameters such as `charset="UTF-8"`.
    pub(super) fn new(scheme: &str, realm: &str, further: &str) -> Self {
        let begin = format!("{scheme} realm={}", quoted(realm));
        let plain = if further.is_empty() { begin.clone() } else { format!("{begin}, {further}") };
        Challenge { plain: value(&plain), begin, is_bearer: scheme == "Bearer" }
    }

    /// Returns the reply to a request without credentials of this scheme.
    pub(super) fn missing(&self, detail: &'static str) -> Reply {
        self.reply(Problem::CredentialsMissing, detail, self.plain.clone())
    }

    /// Returns the reply to invalid credentials.
    pub(super) fn invalid(&self, detail: &'static str) -> Reply {
        self.reply(Problem::CredentialsInvalid, detail, self.saying("invalid_token", detail, ""))
    }

    /// Returns the reply to a request with several credentials, because the gateway cannot know which are
    /// right.
    pub(super) fn several(&self, detail: &'static str) -> Reply {
        self.reply(Problem::BadRequest, detail, self.saying("invalid_request", detail, ""))
    }

    /// Returns the reply to a client that is identified but lacks permission. `further` adds parameters that
    /// name the missing permission.
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

/// Returns the reply to a request whose credentials cannot be checked at the moment.
pub(super) fn unavailable(detail: &'static str) -> Reply {
    let after = HeaderValue::from(RETRY_AFTER_SECS);
    Reply::new(Problem::AuthUnavailable, detail).field(header::RETRY_AFTER, after)
}

/// Returns the reply to a client that causes too many checks at the same time.
pub(super) fn too_many(detail: &'static str) -> Reply {
    Reply::new(Problem::RateLimited, detail).field(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS))
}

/// Returns printable ASCII text as a quoted-string (RFC 9110 5.6.4).
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

/// Converts a text to a field value. The validation of the configuration has already refused invalid text.
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
    fn bearer_challenge_names_the_error() {
        let challenge = Challenge::new("Bearer", "r", "");
        assert_eq!(said(&challenge.missing("there is no token")), (401, "Bearer realm=\"r\""));
        let expected = "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"it has expired\"";
        assert_eq!(said(&challenge.invalid("it has expired")), (401, expected));
        let expected =
            "Bearer realm=\"r\", error=\"insufficient_scope\", error_description=\"d\", scope=\"a\"";
        assert_eq!(said(&challenge.not_allowed("d", ", scope=\"a\"")), (403, expected));
    }
}
