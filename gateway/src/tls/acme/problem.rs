//! Errors of an order, in the server's words if it sends a problem document (RFC 8555 6.7).

use std::time::Duration;

use instant_acme::Error;

use super::client::{AcmeClient, problem_text};

/// Runs a step, and repeats it up to ten times if the server refuses the nonce (RFC 8555 6.5). Such a step
/// had no effect. instant-acme itself repeats a request twice; a server under load, or a test, may refuse
/// more nonces.
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

/// Error of an order.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {reason}")]
pub(super) struct OrderError {
    tried: String,
    reason: String,
    /// Time that the server asks the gateway to wait before the next request.
    pub(super) asked_to_wait: Option<Duration>,
    /// True if the server does not know the account any more.
    pub(super) account_unknown: bool,
}

impl OrderError {
    /// Creates an error that the server did not report.
    pub(super) fn new(tried: impl Into<String>, reason: impl ToString) -> Self {
        OrderError {
            tried: tried.into(),
            reason: reason.to_string(),
            asked_to_wait: None,
            account_unknown: false,
        }
    }

    /// Adds the wait that the server asked `client` for, if the error has none yet.
    #[must_use]
    pub(super) fn heeding(mut self, client: &AcmeClient) -> Self {
        self.asked_to_wait = self.asked_to_wait.or_else(|| client.asked_to_wait());
        self
    }

    /// Creates an error for a request of `client` that failed, at the server or on the way to it.
    pub(super) fn from_server(tried: impl Into<String>, error: &Error, client: &AcmeClient) -> Self {
        let reason = match error {
            Error::Api(problem) => problem_text(problem),
            other => other.to_string(),
        };
        let account_unknown = is(error, "accountDoesNotExist");
        OrderError { account_unknown, ..OrderError::new(tried, reason) }.heeding(client)
    }
}

/// Returns true if the server refused a nonce.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    is(error, "badNonce")
}

/// Returns true if the server reported a problem of this type.
fn is(error: &Error, kind: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    let of = problem.r#type.as_deref().and_then(|of| of.strip_prefix("urn:ietf:params:acme:error:"));
    of == Some(kind)
}
