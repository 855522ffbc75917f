//! Early responses: a backend responds before the request is complete.
//!
//! Such a response ends the request and both connections. The gateway cannot know whether the backend still reads the
//! rest of the body. A backend that has stopped reading it would take the rest for the next request on the connection,
//! which may belong to another client. On HTTP/2, each request has a stream to the backend, and only this stream ends.

use std::time::Duration;

use bytes::Bytes;
use http::{Version, header};
use nix::sys::socket::{Shutdown, shutdown};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::downstream::request_limit::UnfinishedRequest;
use crate::downstream::{read_deadline, request_limit, session};
use crate::proxy::ctx::{EarlyResponse, RequestCtx};
use crate::proxy::errors;
use crate::upstream::Attempt;

/// Handles the head of a backend's response. `ctx.sent_at` tells whether the request was complete by then.
pub fn on_head(session: &mut Session, ctx: &mut RequestCtx, answer: &ResponseHeader) {
    let is_http2 = answer.version == Version::HTTP_2;
    // A gRPC call over HTTP/2 streams in both directions, and Pingora ends both of them.
    let is_early = ctx.sent_at.is_none() && ctx.upgrade.is_none() && !(is_http2 && ctx.grpc.is_some());
    if is_early {
        ctx.early = Some(EarlyResponse { is_refusal: session::awaits_continue(session), is_over: false });
        session.set_keepalive(None);
    }
    if is_http2 || !is_early {
        // An HTTP/2 connection is shared with other requests. After a response that is not early, Pingora closes the
        // connection if necessary.
        ctx.backend_socket = None;
    }
    if ctx.has_no_content || answer.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
        on_end(session, ctx);
    } else if is_http2 && !answer.headers.contains_key(header::CONTENT_LENGTH) {
        // The response may end with its head, and Pingora does not report that. If the response goes on, `on_data` is
        // called before this time has passed.
        ctx.left_open = ctx.route.as_ref().and_then(|route| {
            open_for(session, ctx, route.peers.longest_silence() + route.body_limit.timeout())
        });
    }
}

/// Handles a part of a backend's response; `end` marks the last part.
pub fn on_data(session: &Session, ctx: &mut RequestCtx, end: bool) {
    ctx.left_open = None;
    if end {
        on_end(session, ctx);
    }
}

/// Handles the end of a backend's response. If the response was early, the gateway stops reading and sending the
/// request.
fn on_end(session: &Session, ctx: &mut RequestCtx) {
    if let Some(socket) = ctx.backend_socket.take() {
        // Pingora would keep the connection for reuse if the request is complete. The socket is open as long as Pingora
        // reads the response from it. If the backend has closed the connection, there is nothing to shut down.
        let _closed_by_then = shutdown(socket, Shutdown::Both);
    }
    // An HTTP/2 client may leave the rest of its request open.
    ctx.left_open = ctx.route.as_ref().and_then(|route| open_for(session, ctx, route.body_limit.timeout()));
    let Some(early) = &mut ctx.early else { return };
    early.is_over = true;
    ctx.attempt.iter_mut().for_each(Attempt::over);
    if ctx.sent_at.is_none() {
        // Pingora waits for the client's next bytes. The expired deadline ends that wait.
        read_deadline::arm(session, Duration::ZERO);
    }
}

/// Starts the time limit for the rest of an answered request; `None` if the request is complete.
fn open_for(session: &Session, ctx: &RequestCtx, timeout: Duration) -> Option<UnfinishedRequest> {
    if ctx.sent_at.is_some() { None } else { request_limit::leave_open(session, timeout) }
}

/// Holds back a part of the body that the backend does not want.
///
/// # Errors
/// Returns an error if the response is complete, so that nothing is left to do for the request.
pub fn hold_back(ctx: &mut RequestCtx, body: &mut Option<Bytes>) -> Result<()> {
    let Some(early) = ctx.early else { return Ok(()) };
    if early.is_over {
        return Err(errors::answered_early());
    }
    if early.is_refusal {
        *body = body.is_some().then(Bytes::new);
        ctx.copy = None;
    }
    Ok(())
}

/// Ends an answered request whose client still sends. The gateway reads and discards the rest for a while: a close with
/// unread bytes is a reset, which may destroy the response on its way (RFC 9112 9.6). HTTP/2 can end a stream without a
/// reset of the connection.
pub async fn leave(session: &mut Session, ctx: &RequestCtx, has_failed: bool) {
    if ctx.is_answered_early() && session.req_header().version != Version::HTTP_2 {
        read_deadline::disarm(session);
        // An error means that the client keeps sending or has left. Neither client can be told.
        let _unread = session.drain_request_body().await;
    }
    if has_failed {
        // Pingora would close at once; the shutdown of the client's stream lingers.
        session.as_downstream_mut().shutdown().await;
    }
}

/// Reads and discards for a while the rest of an answered HTTP/2 request. The stream is reset when it is dropped (RFC
/// 9113 8.1), and some clients (curl 7) that are writing at that moment never look at the response. A client that has
/// seen the response stops by itself.
pub async fn linger(session: &mut Session, ctx: &mut RequestCtx) {
    const LINGER: Duration = Duration::from_secs(2);
    let is_http2 = session.req_header().version == Version::HTTP_2;
    if !is_http2 || ctx.grpc.is_some() || session.is_body_done() || session::final_response(session).is_none()
    {
        return;
    }
    // The backend takes no part in the rest of the request.
    ctx.attempt = None;
    session.set_total_drain_timeout(Some(LINGER));
    // Either the client has stopped, or it sends until the reset.
    let _unread = session.drain_request_body().await;
}
