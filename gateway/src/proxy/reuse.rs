//! Facts about a request from which two decisions follow: the connection for an attempt, and whether another attempt
//! may send the request again.

use pingora::proxy::Session;

use crate::downstream::{session, stream};
use crate::policy::connection_login;
use crate::upstream::retry::Sent;
use crate::upstream::{BackendState, Pooling};

/// Returns the kind of connection to `backend` that the request may use; `fresh` demands a new one. If a login
/// authenticates a connection, other clients must not share that connection.
pub(super) fn pooling(session: &Session, backend: &BackendState, fresh: bool) -> Pooling {
    let logs_in = connection_login::is_in(session.req_header());
    if logs_in {
        backend.warn_of_connection_login();
    }
    match stream::own_connections(session, logs_in) {
        Some(client) if !fresh => Pooling::Pinned(client),
        // A client over HTTP/2 cannot keep a backend connection for itself, so each request with a login gets a new
        // one.
        _ if fresh || logs_in => Pooling::Fresh,
        _ => Pooling::Shared,
    }
}

/// Returns the facts that decide whether a request that has been sent may be sent again.
pub(super) fn sent(session: &Session) -> Sent<'_> {
    Sent {
        method: &session.req_header().method,
        body_at_hand: !session.as_ref().retry_buffer_truncated(),
        answered: session::final_response(session).is_some(),
    }
}
