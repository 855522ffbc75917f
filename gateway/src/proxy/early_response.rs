//! What becomes of a request whose backend answers before it has come whole.
//!
//! Such an answer ends the request and both connections. Whether the backend still reads the rest nobody can know; one
//! that does not would take it for the next request on the connection, which would be somebody else's. Over HTTP/2 the
//! backend has a stream for each request, and it is that which ends.

use std::time::Duration;

use bytes::Bytes;
use http::{Version, header};
use nix::sys::socket::{Shutdown, shutdown};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::downstream::request_limit::UnfinishedRequest;
use crate::downstream::{read_deadline, request_limit, session};
use crate::proxy::ctx::{EarlyAnswer, RequestCtx};
use crate::proxy::errors;
use crate::upstream::Attempt;

/// The head of a backend's answer is here, and `ctx.sent` says whether the request was whole by then.
pub fn begins(session: &mut Session, ctx: &mut RequestCtx, answer: &ResponseHeader) {
    let is_http2 = answer.version == Version::HTTP_2;
    // A call of gRPC over HTTP/2 is a stream both ways, and Pingora ends both.
    let is_early = ctx.sent.is_none() && ctx.upgrade.is_none() && !(is_http2 && ctx.grpc.is_some());
    if is_early {
        ctx.early = Some(EarlyAnswer { is_refusal: session::awaits_continue(session), is_over: false });
        session.set_keepalive(None);
    }
    if is_http2 || !is_early {
        // It is others' as well, or is closed where it must be.
        ctx.backend_socket = None;
    }
    if ctx.has_no_content || answer.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
        over(session, ctx);
    } else if is_http2 && !answer.headers.contains_key(header::CONTENT_LENGTH) {
        // It may end with its head, which nobody says. If it does not, more comes before this has passed.
        ctx.left_open = ctx.route.as_ref().and_then(|route| {
            open_for(session, ctx, route.peers.longest_silence() + route.body_limit.patience())
        });
    }
}

/// A part of a backend's answer is here; `end`: the last one.
pub fn came(session: &Session, ctx: &mut RequestCtx, end: bool) {
    ctx.left_open = None;
    if end {
        over(session, ctx);
    }
}

/// All of a backend's answer is here. Where it came early, nothing is read or sent of the request any more.
fn over(session: &Session, ctx: &mut RequestCtx) {
    if let Some(socket) = ctx.backend_socket.take() {
        // Pingora would keep the connection where the request is whole. It is open as long as Pingora has the answer
        // read from it; and where the backend has closed it, there is nothing to be ended.
        let _closed_by_then = shutdown(socket, Shutdown::Both);
    }
    // A client of HTTP/2 may leave the rest of its request open.
    ctx.left_open = ctx.route.as_ref().and_then(|route| open_for(session, ctx, route.body_limit.patience()));
    let Some(early) = &mut ctx.early else { return };
    early.is_over = true;
    ctx.attempt.iter_mut().for_each(Attempt::over);
    if ctx.sent.is_none() {
        // Pingora waits for the client's next bytes: not any more.
        read_deadline::arm(session, Duration::ZERO);
    }
}

/// The client has so long for the rest of a request that has been answered, where that is not whole.
fn open_for(session: &Session, ctx: &RequestCtx, patience: Duration) -> Option<UnfinishedRequest> {
    if ctx.sent.is_some() { None } else { request_limit::leave_open(session, patience) }
}

/// Keeps back a part of a body that is for nobody.
///
/// # Errors
/// Where nothing is left to be done for the request.
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

/// Leaves a client that still sends of a request which is over: what comes is read for a while, because a close with
/// bytes unread is a reset, which may take the answer away with it (RFC 9112 9.6). HTTP/2 can end a stream without.
pub async fn leave(session: &mut Session, ctx: &RequestCtx, has_failed: bool) {
    if ctx.is_answered_early() && session.req_header().version != Version::HTTP_2 {
        read_deadline::disarm(session);
        // It goes on sending, or has left: nobody is there to be told.
        let _unread = session.drain_request_body().await;
    }
    if has_failed {
        // Pingora would close at once; the client's stream lingers.
        session.as_downstream_mut().shutdown().await;
    }
}

/// Reads for a while what a client of HTTP/2 still sends of a request that has been answered. The stream is reset once
/// it is let go (RFC 9113 8.1), and some clients (curl 7) that are just writing then never look at the answer. One that
/// has seen it stops by itself.
pub async fn linger(session: &mut Session, ctx: &mut RequestCtx) {
    const LINGER: Duration = Duration::from_secs(2);
    let is_http2 = session.req_header().version == Version::HTTP_2;
    if !is_http2 || ctx.grpc.is_some() || session.is_body_done() || session::final_response(session).is_none()
    {
        return;
    }
    // The backend has nothing to do any more with what comes.
    ctx.attempt = None;
    session.set_total_drain_timeout(Some(LINGER));
    // It has stopped, or goes on until the reset.
    let _unread = session.drain_request_body().await;
}
