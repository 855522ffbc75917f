//! Facts about a request that decide on which connection an attempt runs, and whether another attempt may send the
//! request again.

use pingora::proxy::Session;

use crate::downstream::{session, stream};
use crate::policy::connection_login;
use crate::upstream::retry::Sent;
use crate::upstream::{BackendState, Pooling};

/// Returns the connections to `backend` that the request of `session` may use; `fresh` demands a new one. A connection
/// that a login authenticates is not shared with other clients.
pub(super) fn pooling(session: &Session, backend: &BackendState, fresh: bool) -> Pooling {
    let logs_in = connection_login::is_in(session.req_header());
    if logs_in {
        backend.warn_of_connection_login();
    }
    match stream::own_connections(session, logs_in) {
        Some(client) if !fresh => Pooling::Pinned(client),
        // An HTTP/2 stream has no connection for itself alone.
        _ if fresh || logs_in => Pooling::Fresh,
        _ => Pooling::Shared,
    }
}

/// Returns the facts about a sent request that decide whether it may be sent again.
pub(super) fn sent(session: &Session) -> Sent<'_> {
    Sent {
        method: &session.req_header().method,
        body_at_hand: !session.as_ref().retry_buffer_truncated(),
        answered: session::final_response(session).is_some(),
    }
}
