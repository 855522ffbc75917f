//! What goes wrong with an order, in the server's words where it has some (RFC 8555 6.7).

use std::time::Duration;

use instant_acme::{Error, Problem};

use super::client::Client;

/// A step that the server answered with a bad nonce has not happened, and is taken again with a new one (RFC 8555
/// 6.5). instant-acme does so twice for each request; a server under load, or a test, may refuse more.
macro_rules! persist {
    ($step:expr) => {{
        let mut left = 10_u8;
        loop {
            match $step.await {
                Err(error) if left > 0 && $crate::tls::acme::problem::is_bad_nonce(&error) => left -= 1,
                outcome => break outcome,
            }
        }
    }};
}
pub(super) use persist;

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {reason}")]
pub(super) struct OrderError {
    tried: String,
    reason: String,
    /// How long the server wants to be left alone.
    pub(super) asked_to_wait: Option<Duration>,
    /// Whether the server has forgotten the account.
    pub(super) account_unknown: bool,
}

impl OrderError {
    /// Something of our own went wrong.
    pub(super) fn new(tried: impl Into<String>, reason: impl ToString) -> Self {
        OrderError {
            tried: tried.into(),
            reason: reason.to_string(),
            asked_to_wait: None,
            account_unknown: false,
        }
    }

    /// The same, where the server asked `client` to wait and nobody has heard it yet.
    #[must_use]
    pub(super) fn heeding(mut self, client: &Client) -> Self {
        self.asked_to_wait = self.asked_to_wait.or_else(|| client.asked_to_wait());
        self
    }

    /// The server, or the way to it, did not do what it was asked for by `client`.
    pub(super) fn from_server(tried: impl Into<String>, error: &Error, client: &Client) -> Self {
        let reason = match error {
            Error::Api(problem) => problem_text(problem),
            other => other.to_string(),
        };
        let account_unknown = is(error, "accountDoesNotExist");
        OrderError { account_unknown, ..OrderError::new(tried, reason) }.heeding(client)
    }
}

/// Whether the server refused a nonce.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    is(error, "badNonce")
}

/// Whether the server told of a problem of this type.
fn is(error: &Error, kind: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    let of = problem.r#type.as_deref().and_then(|of| of.strip_prefix("urn:ietf:params:acme:error:"));
    of == Some(kind)
}

/// A problem document as one line: what it says, its type, and what it says of single names.
pub(super) fn problem_text(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a type");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => format!("{detail} ({kind})"),
        None => kind.to_owned(),
    };
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    text
}
