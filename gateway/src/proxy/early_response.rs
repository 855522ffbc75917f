//! Early responses: a backend responds before the request is complete.
//!
//! An early response ends the request and both connections. The gateway cannot know if the backend still reads the rest
//! of the body. A backend that has stopped reading it would take the rest for the next request on the connection, which
//! may be another client's. Over HTTP/2 to the backend, only the request's stream ends.

use std::time::{Duration, Instant};

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

/// Handles the head of a backend's response. The request is incomplete if `ctx.sent_at` is not set.
pub fn on_head(session: &mut Session, ctx: &mut RequestCtx, answer: &ResponseHeader) {
    let is_http2 = answer.version == Version::HTTP_2;
    // A gRPC call over HTTP/2 streams in both directions, and Pingora handles the end of each direction.
    let is_early = ctx.sent_at.is_none() && ctx.upgrade.is_none() && !(is_http2 && ctx.grpc.is_some());
    if is_early {
        ctx.early = Some(EarlyResponse { is_refusal: session::awaits_continue(session), is_over: false });
        session.set_keepalive(None);
    }
    if is_http2 || !is_early {
        // An HTTP/2 connection must stay open for other requests. After a response that is not early, Pingora itself
        // closes the connection if necessary.
        ctx.backend_socket = None;
    }
    if ctx.has_no_content || answer.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
        on_end(session, ctx);
    } else if is_http2 && !answer.headers.contains_key(header::CONTENT_LENGTH) {
        // The response may end with its head, which Pingora does not report. If the response has a body, `on_data` is
        // called before the time limit ends, and removes it.
        ctx.left_open = ctx.route.as_ref().and_then(|route| {
            open_for(session, ctx, route.peers.longest_silence() + route.body_limit.timeout())
        });
    }
}

/// Handles a part of a backend's response; `end` is true for the last part.
pub fn on_data(session: &Session, ctx: &mut RequestCtx, end: bool) {
    ctx.left_open = None;
    if end {
        on_end(session, ctx);
    }
}

/// Handles the end of a backend's response. After an early response, the gateway stops reading and sending the request.
fn on_end(session: &Session, ctx: &mut RequestCtx) {
    if let Some(socket) = ctx.backend_socket.take() {
        // Pingora would keep the connection for reuse if the request has become complete meanwhile. The socket is still
        // open, because Pingora is reading the response from it. If the backend has closed the connection, the shutdown
        // has no effect.
        let _closed_by_then = shutdown(socket, Shutdown::Both);
    }
    // An HTTP/2 client may leave the rest of its request open.
    ctx.left_open = ctx.route.as_ref().and_then(|route| open_for(session, ctx, route.body_limit.timeout()));
    let Some(early) = &mut ctx.early else { return };
    early.is_over = true;
    ctx.attempt.iter_mut().for_each(Attempt::over);
    if ctx.sent_at.is_none() {
        // Pingora waits for the client's next bytes. The expired deadline ends that wait.
        read_deadline::arm(session, Instant::now(), Duration::ZERO);
    }
}

/// Starts the time limit for the rest of an answered request. Returns `None` if the request is complete.
fn open_for(session: &Session, ctx: &RequestCtx, timeout: Duration) -> Option<UnfinishedRequest> {
    if ctx.sent_at.is_some() { None } else { request_limit::leave_open(session, timeout) }
}

/// Withholds a part of the body that the backend does not want.
///
/// # Errors
/// Returns an error if the response is complete, because then the request is over.
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

/// Ends an answered request whose client still sends. Over HTTP/1, the gateway first reads and discards the rest for at
/// most five seconds. A close with unread bytes is a reset, which may destroy the response on its way (RFC 9112 9.6).
/// HTTP/2 can end a stream without a reset of the connection.
pub async fn leave(session: &mut Session, ctx: &RequestCtx, has_failed: bool) {
    if ctx.is_answered_early() && session.req_header().version != Version::HTTP_2 {
        read_deadline::disarm(session);
        // An error means that the client keeps sending or has left. The client can be told nothing more in either case.
        let _unread = session.drain_request_body().await;
    }
    if has_failed {
        // Pingora would close at once, but the shutdown of the client's stream first reads and drops unwanted bytes.
        session.as_downstream_mut().shutdown().await;
    }
}

/// Reads and discards the rest of an answered HTTP/2 request for at most two seconds. After that the stream is reset
/// (RFC 9113 8.1). Some clients (curl 7) that are writing at the time of the reset never look at the response. A client
/// that has seen the response stops by itself.
pub async fn linger(session: &mut Session, ctx: &mut RequestCtx) {
    const LINGER: Duration = Duration::from_secs(2);
    let is_http2 = session.req_header().version == Version::HTTP_2;
    if !is_http2 || ctx.grpc.is_some() || session.is_body_done() || session::final_response(session).is_none()
    {
        return;
    }
    // The attempt is over: the backend gets nothing of the rest.
    ctx.attempt = None;
    session.set_total_drain_timeout(Some(LINGER));
    // Either the client has stopped, or it sends until the reset.
    let _unread = session.drain_request_body().await;
}
