//! Whether a request that failed may be tried again (RFC 9110 9.2.2: only idempotent requests may be
//! repeated once they may have been acted upon).

use http::Method;

/// What is known about a request that failed on a connection that was there.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether its body, as far as it was sent, can be sent again from the buffer.
    pub body_at_hand: bool,
    /// Whether the client has been sent anything of an answer.
    pub answered: bool,
}

/// Whether a request that may have reached a backend may be sent again.
pub fn may_resend(sent: Sent<'_>) -> bool {
    sent.method.is_idempotent() && sent.body_at_hand && !sent.answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idempotent_requests_at_hand_and_unanswered() {
        for (method, body_at_hand, answered, may) in [
            (Method::GET, true, false, true),
            (Method::PUT, true, false, true),
            (Method::DELETE, true, false, true),
            (Method::POST, true, false, false),
            (Method::PATCH, true, false, false),
            (Method::GET, false, false, false),
            (Method::GET, true, true, false),
        ] {
            let sent = Sent { method: &method, body_at_hand, answered };
            assert_eq!(may_resend(sent), may, "{sent:?}");
        }
    }
}
